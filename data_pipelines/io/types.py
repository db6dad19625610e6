"""Names for types that both packages share."""

from collections.abc import Mapping
from typing import Any

# An object of a JSON file, or a group of a configuration. Any: whoever reads a
# value knows what it should be, and checks it where it is a user's.
JsonObject = Mapping[str, Any]
