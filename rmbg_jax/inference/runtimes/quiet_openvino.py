"""Imports OpenVINO without its converter.

`import openvino` imports `openvino.tools.ovc` as well, which takes longer than
all the rest and tells the makers of OpenVINO of each import, by a process and a
request of its own. Where it cannot be imported, OpenVINO does without it.
"""

import sys

_CONVERTER = 'openvino.tools.ovc'

if 'openvino' in sys.modules:  # It is imported already: too late.
  import openvino
else:
  sys.modules[_CONVERTER] = None  # ty: ignore[invalid-assignment] Forbids it.
  try:
    import openvino
  finally:
    del sys.modules[_CONVERTER]

ov = openvino
