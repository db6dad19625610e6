"""The picture of what a training sees."""

import numpy as np
from PIL import Image

from tests.support import commands


def _run(tmp_path, *flags):
  return commands.run(
    *('scripts/show_batch.py', '--config=configs/demo.py'),
    *(f'--config.data.dir={tmp_path / "data"}', '--config.data.demo.count=12'),
    *flags,
  )


def test_show_batch(tmp_path):
  out = tmp_path / 'batch.png'
  result = _run(
    tmp_path,
    '--config.data.batch_size=4',
    '--config.data.augment.color=0.5',
    '--count=6',
    '--cell=96',
    f'--output={out}',
  )
  assert result.returncode == 0, result.stderr
  picture = np.asarray(Image.open(out))
  # Two lines of three pairs, each a photo, alpha and cut-out.
  assert picture.shape[0] == 2 * 100 - 4
  assert picture.shape[1] > 9 * 96
  photo, alpha, cut = (picture[:96, 100 * k : 100 * k + 96] for k in range(3))
  assert (alpha[..., 0] == alpha[..., 1]).all()
  solid = alpha[..., 0] == 255
  assert solid.any()
  np.testing.assert_array_equal(cut[solid], photo[solid])
  assert not cut[alpha[..., 0] == 0].any()
  wrong = _run(tmp_path, '--config.data.augment.jpeg=2.0')
  assert wrong.returncode == 1
  assert 'Error: config.data.augment.jpeg=2.0' in wrong.stderr
  assert 'Traceback' not in wrong.stderr


def test_wrong_settings_are_one_line(tmp_path):
  for setting, message in (
    ('--config.data.size=96', 'config.data.size must be 2 numbers'),
    ('--config.data.batch_size=0', 'config.data.batch_size must be at least 1'),
  ):
    result = _run(tmp_path, setting, f'--output={tmp_path / "batch.png"}')
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f'Error: {message}')
