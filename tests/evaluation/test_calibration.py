"""The temperature that a checkpoint asks for is the best one on photos."""

import shutil

import numpy as np
import pytest
from PIL import Image

from rmbg_jax.evaluation import calibration
from rmbg_jax.weights import load
from tests.support import colour_network, commands


def _make_table(**groups):
  """Figures of groups from (MAE, S) at each temperature."""
  return {
    name: {
      temperature: calibration.Figures(9, mae, s, 0.1)
      for temperature, (mae, s) in zip(
        calibration.TEMPERATURES, figures, strict=True
      )
    }
    for name, figures in groups.items()
  }


def test_the_lowest_error_is_chosen_that_costs_no_group_its_structure():
  falling = [(0.05 - 0.002 * n, 0.9 - 0.0004 * n) for n in range(7)]
  assert calibration.choose(_make_table(people=falling)) == 0.4
  # From .6 on, another group loses more than .003 of S.
  lost = [(0.03, 0.9 - 0.0009 * n) for n in range(7)]
  assert calibration.choose(_make_table(people=falling, mattes=lost)) == 0.7
  rising = [(0.02 + 0.01 * n, 0.9) for n in range(7)]
  assert calibration.choose(_make_table(people=falling, mattes=rising)) == 1.0


@pytest.fixture
def data_dir(tmp_path):
  for folder in ('Images', 'Masks'):
    (tmp_path / 'data' / folder).mkdir(parents=True)
  for number in range(3):
    box = (20 + 10 * number, 30, 90, 70)
    colour_network.draw(box=box).save(tmp_path / f'data/Images/{number}.png')
    mask = Image.new('L', (150, 100))
    mask.paste(255, box)
    mask.save(tmp_path / f'data/Masks/{number}.png')
  return tmp_path / 'data'


def test_a_release_asks_for_what_is_chosen(data_dir, tmp_path):
  checkpoint = tmp_path / 'network.safetensors'
  colour_network.save_release(checkpoint, (2, 1))
  output = tmp_path / 'calibrated.safetensors'
  done = commands.run(
    *('-m', 'rmbg_jax.calibrate', f'--checkpoint={checkpoint}'),
    *(f'--data={data_dir}', f'--output={output}'),
  )
  assert done.returncode == 0, done.stderr
  said = done.stdout
  chosen = float(said.partition('--temperature=')[2].split()[0])
  assert chosen in calibration.TEMPERATURES
  rows = [line for line in said.splitlines() if line.startswith('| all |')]
  assert len(rows) == len(calibration.TEMPERATURES)
  before, after = load.load_model(checkpoint), load.load_model(output)
  assert (before.temperature, after.temperature) == (1.0, chosen)
  np.testing.assert_allclose(
    after.variables['params']['head4']['conv']['kernel'],
    before.variables['params']['head4']['conv']['kernel'],
  )


def test_bad_files_cost_no_others(data_dir, tmp_path):
  """And the truths of PASCAL-S are graded, as in `evaluate`."""
  checkpoint = tmp_path / 'network.safetensors'
  colour_network.save_release(checkpoint, (2, 1), training_data=['pascals'])
  for number in range(3, 6):
    shutil.copy(data_dir / 'Images/0.png', data_dir / f'Images/{number}.png')
    shutil.copy(data_dir / 'Masks/0.png', data_dir / f'Masks/{number}.png')
  (data_dir / 'Masks/3.png').unlink()
  (data_dir / 'Images/4.png').write_bytes(b'no picture')
  Image.new('L', (50, 40), 255).save(data_dir / 'Masks/5.png')
  graded = tmp_path / 'PASCAL-S'
  for folder in ('Images', 'Masks'):
    shutil.copytree(data_dir / folder, graded / folder)
  mask = Image.open(graded / 'Masks/2.png').point(lambda value: value // 3)
  mask.save(graded / 'Masks/2.png')
  for directory, count in ((data_dir, 3), (graded, 2)):
    done = commands.run(
      *('-m', 'rmbg_jax.calibrate', f'--data={directory}'),
      f'--checkpoint={checkpoint}',
    )
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    for problem in (
      '3.png has no mask in Masks/',
      '4.png: cannot be read as an image',
      '5.png is 150x100 pixels, its mask 5.png 50x40. Repair or',
      '3 files left out in all.',
    ):
      assert problem in done.stdout
    assert f'| all | {count} | 1.0' in done.stdout
    assert 'Chosen: --temperature=' in done.stdout
    assert ('Trained on pascals' in done.stdout) == (directory == graded)
