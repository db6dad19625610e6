"""Reads ONNX files with the onnx package, an extra."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipelines.io import errors

if TYPE_CHECKING:
  import onnx


def check_installed(what: str) -> None:
  """Raises a `UserError` if there is no working package; says what needs it."""
  try:
    import onnx  # noqa: F401 (A package may be there and broken.)
  except ImportError as error:
    raise errors.UserError(
      f'{what} ONNX files needs the onnx package: '
      f'{errors.install_command("onnx")}.'
    ) from error


def read(path: Path) -> 'onnx.ModelProto':
  """Returns the content of a file, which must hold all of its weights.

  Raises:
    UserError: if it is not ONNX, its weights are in other files, or the package
      is not installed.
  """
  check_installed(f'{path}: reading')
  import onnx
  from google.protobuf.message import DecodeError

  try:
    model = onnx.load(path, load_external_data=False)
  except DecodeError as error:
    raise errors.UserError(
      f'{path}: cannot be read as ONNX ({error}). Download or save it again.'
    ) from error
  # It names paths that would be opened, anywhere on the disk.
  if any(_list_external(model)):
    raise errors.UserError(
      f'{path}: its weights are in other files. Save it as one file '
      '(onnx.save_model with save_as_external_data=False).'
    )
  return model


# Any: messages of protobuf.
def _list_external(message: Any) -> Iterator[Any]:
  """Yields the tensors of a message, however deep, that are in other files."""
  if message.DESCRIPTOR.name == 'TensorProto':
    if message.data_location or message.external_data:
      yield message
    return
  for field in message.DESCRIPTOR.fields:
    if field.message_type is None:
      continue
    value = getattr(message, field.name)
    if field.is_repeated:
      for one in value:
        yield from _list_external(one)
    elif message.HasField(field.name):
      yield from _list_external(value)
