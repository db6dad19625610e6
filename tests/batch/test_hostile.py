"""300 inputs as the world has them: all good ones done, all bad ones named."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from tests.support import commands, helpers

_MODES = {
  'L': 'png',
  'LA': 'png',
  'P': 'png',
  '1': 'png',
  'RGBA': 'png',
  'CMYK': 'jpeg',
  'YCbCr': 'jpeg',
  'I;16': 'png',
  'F': 'tiff',
}


def _encode(image, form, **options):
  file = io.BytesIO()
  image.save(file, form, **options)
  return file.getvalue()


def _bomb():
  """A PNG whose header promises 40,000 x 40,000 pixels."""
  import zlib

  content = bytearray(_encode(Image.new('L', (8, 8)), 'png'))
  content[16:24] = (40_000).to_bytes(4, 'big') * 2
  content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, 'big')
  return bytes(content)


def _make_inputs():
  """Returns contents by name: (good ones, bad ones)."""
  rng = np.random.default_rng(0)

  def photo(width=48, height=36):
    pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)

  good, bad = {}, {}
  forms = {'jpg': 'jpeg', 'png': 'png', 'webp': 'webp', 'tif': 'tiff'}
  forms |= {'bmp': 'bmp', 'gif': 'gif'}
  for suffix, form in forms.items():
    for index in range(3):
      content = _encode(photo(), form)
      good[f'{form} {index}.{suffix}'] = content
      for tenth in range(10):
        cut = content[: len(content) * tenth // 10]
        bad[f'{form} {index} cut at {tenth}.{suffix}'] = cut
  for index in range(6):
    bad[f'text {index}.jpg'] = b'This is not a picture.\n' * index
    bad[f'bomb {index}.png'] = _bomb()
    bad[f'zeros {index}.webp'] = bytes(1000)
    bad[f'ü page {index}.png'] = b'<html><body>404</body></html>'
  for index, form in enumerate([*forms.values()] * 3):
    other = [*forms][(index + 1) % len(forms)]
    good[f'{form} {index} named wrongly.{other}'] = _encode(photo(), form)
  for mode, form in _MODES.items():
    image = photo().convert('L' if mode in ('I;16', 'F') else mode)
    if mode == 'I;16':
      image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    image = image.convert('F') if mode == 'F' else image
    good[f'mode {mode.replace(";", "_")}.{form}'] = _encode(image, form)
  for size in ((1, 1), (1, 5000), (5000, 1), (2, 3)):
    good[f'{size[0]} by {size[1]}.png'] = _encode(photo(*size), 'png')
  for form in ('gif', 'webp', 'tiff', 'png'):
    frames = [photo() for _ in range(3)]
    good[f'animated.{form}'] = _encode(
      frames[0], form, save_all=True, append_images=frames[1:]
    )
  for orientation in range(1, 9):
    exif = Image.Exif()
    exif[0x0112] = orientation
    good[f'turned {orientation}.jpeg'] = _encode(photo(), 'jpeg', exif=exif)
  while len(good) + len(bad) < 300:
    good[f'plain {len(good)}.jpg'] = _encode(photo(), 'jpeg')
  return good, bad


@pytest.mark.filterwarnings('ignore')  # Pillow warns of what it is given.
def test_hostile_inputs(tmp_path):
  helpers.save_random_release(tmp_path / 'random.safetensors')
  good, bad = _make_inputs()
  assert len(good) + len(bad) == 300
  source, output = tmp_path / 'photos', tmp_path / 'out'
  source.mkdir()
  for name, content in {**good, **bad}.items():
    (source / name).write_bytes(content)
  done = commands.run(
    *('-m', 'rmbg_jax.predict', f'--input={source}', f'--output={output}'),
    f'--checkpoint={tmp_path / "random.safetensors"}',
  )
  assert done.returncode == 1
  assert 'Traceback' not in done.stdout + done.stderr
  lines = (output / 'report.jsonl').read_text(encoding='utf-8').splitlines()
  status = {
    line['photo'].rpartition('/')[2]: line['status']
    for line in map(json.loads, lines)
  }
  assert {name for name in status if status[name] == 'done'} == set(good)
  assert {name for name in status if status[name] == 'failed'} == set(bad)
  for name in bad:
    assert f'{source / name}: ' in done.stdout
  for kind in ('mask', 'cutout'):
    assert len(list((output / kind).iterdir())) == len(good)
