"""The weights that come with the project, and what is said of them."""

from pathlib import Path

import numpy as np
from PIL import Image

from configs import preview
from rmbg_jax import BackgroundRemover, build, load_model
from rmbg_jax.pretrained import load, release

ROOT = Path(__file__).resolve().parent.parent


def test_the_file_says_what_the_model_card_says():
  path = release.find_released()
  assert path.stat().st_size < 10e6
  description = load_model('released').description
  card = (ROOT / 'docs' / 'model_card.md').read_text()
  for source, score in description['scores'].items():
    mae, iou = (f'{score[key]:.3f}'.lstrip('0') for key in ('mae', 'iou'))
    assert f'| {source} | {score["images"]} | {mae} | {iou} |' in card
  for source in description['training_data']:
    assert f'\n| {source} ' in card
  assert f'{description["image_passes"]:,} image passes' in card
  assert 'for research' in description['terms']
  assert f'--config=configs/{path.stem}.py' in description['training_command']


def test_they_fit_their_configuration_and_cut_out(rng):
  config = preview.get_config('sharp')
  _, model = build.create_model(config.model)
  assert load_model('released').preprocessing.size == tuple(config.data.size)
  load.load_variables('released', model)
  photo = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
  alpha = BackgroundRemover.from_checkpoint('released').alpha(photo)
  assert alpha.shape == (40, 60)
  assert 0 <= alpha.min() < alpha.max() <= 1
