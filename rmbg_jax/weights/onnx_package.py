"""Reads ONNX files with the onnx package, an extra."""

from pathlib import Path
from typing import TYPE_CHECKING

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
  """Returns the content of a file, without the files that it may name.

  Raises:
    UserError: if it is not ONNX, or the package is not installed.
  """
  check_installed(f'{path}: reading')
  import onnx
  from google.protobuf.message import DecodeError

  try:
    return onnx.load(path, load_external_data=False)
  except DecodeError as error:
    raise errors.UserError(
      f'{path}: cannot be read as ONNX ({error}). Download or save it again.'
    ) from error
