"""Names for types that both packages share."""

from collections.abc import Mapping
from typing import Any

# An object of a JSON file, or a group of a configuration. Any: each value has a
# type of its own. Code that reads a user's value checks it.
JsonObject = Mapping[str, Any]
