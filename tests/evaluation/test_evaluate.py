"""`python -m rmbg_jax.evaluate` in processes of its own, as a user runs it."""

import csv
import json
import os

import numpy as np
import pytest
from PIL import Image

from data_pipelines.datasets import demo, folder, splitting
from rmbg_jax.training import loop
from tests.support import commands, foreign_networks, helpers, published_sets


def _evaluate(*arguments, code=0):
  environment = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  result = commands.run('-m', 'rmbg_jax.evaluate', *arguments, env=environment)
  assert result.returncode == code, result.stdout + result.stderr
  assert 'Traceback' not in result.stderr
  return result


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """Photos of the network's size, with the split written down."""
  directory = tmp_path_factory.mktemp('data') / 'demo'
  demo.make_demo(directory, count=24, size=(32, 32), seed=42)
  csv_path = directory / 'Dataset.csv'
  training, validation = splitting.split_pairs(
    folder.read_folder(directory), validation_share=0.25
  )
  rows = {pair.name: 'train' for pair in training}
  rows |= {pair.name: 'val' for pair in validation}
  text = csv_path.read_text().splitlines()
  with csv_path.open('w') as file:
    print(text[0], file=file)
    for line in text[1:]:
      cells = next(csv.reader([line]))
      print(','.join([*cells[:-1], rows[cells[0]]]), file=file)
  return directory


@pytest.fixture(scope='module')
def workdir(tmp_path_factory, data_dir):
  workdir = tmp_path_factory.mktemp('run') / 'tiny'
  config = helpers.make_config(data_dir, **{'data.name': 'folder'})
  loop.train_and_evaluate(config, workdir)
  return workdir


def test_raw_figures_are_those_of_training(data_dir, workdir, tmp_path):
  """MAE and IoU of the best epoch, through files, processes and tables."""
  _evaluate(
    f'--checkpoint={workdir}',
    '--precision=float32',  # A training's own.
    f'--data={data_dir}',
    f'--output={tmp_path}',
    '--metrics=saliency,matting',
    '--processes=2',
  )
  log = [
    json.loads(x) for x in (workdir / 'log.jsonl').read_text().splitlines()
  ]
  best = min(log, key=lambda row: row['val_loss'])
  content = json.loads((tmp_path / 'results.json').read_text())
  row = content['rows'][0]
  assert (row['group'], row['images']) == ('all', 6)
  assert row['values']['mae_raw'] == pytest.approx(best['val_mae'], abs=1e-6)
  assert row['values']['mad_whole'] == pytest.approx(best['val_mae'], abs=1e-6)
  assert row['values']['iou_raw'] == pytest.approx(best['val_iou'], abs=1e-6)
  details = content['systems']['tiny']
  assert len(details['sha256_of_weights']) == 64
  assert details['config']['data']['batch_size'] == 8
  masks = tmp_path / 'tiny' / 'demo' / 'masks'
  assert len(list(masks.iterdir())) == 6


def test_training_data_is_refused_unless_asked_for(data_dir, workdir, tmp_path):
  from rmbg_jax import load_model
  from rmbg_jax.weights import release

  loaded = load_model(workdir)
  path = tmp_path / 'net.safetensors'
  description = {
    **loaded.description,
    'preprocessing': loaded.preprocessing.to_dict(),
    'training_data': ['demo', 'sod'],
  }
  release.save_release(path, loaded.variables, description)
  sod = tmp_path / 'SOD'
  (sod / 'GT').mkdir(parents=True)
  (sod / 'Image').symlink_to(data_dir / 'Images')
  for mask in (data_dir / 'Masks').iterdir():
    (sod / 'GT' / mask.name).symlink_to(mask)
  arguments = (
    f'--checkpoint={path}',
    f'--data={data_dir},{sod}',
    f'--output={tmp_path / "out"}',
    '--processes=1',
  )
  refused = _evaluate(*arguments, code=1)
  assert 'was trained on sod, which SOD' in refused.stderr
  assert '--allow_training_data' in refused.stderr
  assert not (tmp_path / 'out').exists()
  allowed = _evaluate(*arguments, '--allow_training_data')
  for text in (allowed.stdout, (tmp_path / 'out' / 'table.md').read_text()):
    assert 'Trained on sod of SOD' in text
    assert '300 images were published' in text
    # Held out of the training set with rows of its own.
    assert 'of demo:' not in text


def test_masks_of_others_side_by_side(data_dir, tmp_path):
  """Perfect and shifted masks, a broken one, a missing one, empty truths."""
  data = tmp_path / 'data'
  for name in ('Images', 'Masks'):
    (data / name).mkdir(parents=True)
  good, bad = tmp_path / 'good', tmp_path / 'bad'
  good.mkdir()
  bad.mkdir()
  for index, photo in enumerate(sorted((data_dir / 'Images').iterdir())[:8]):
    mask_path = data_dir / 'Masks' / f'{photo.stem}.png'
    mask = (np.asarray(Image.open(mask_path)) > 127) * np.uint8(255)
    (data / 'Images' / photo.name).write_bytes(photo.read_bytes())
    mask = mask if index else mask * 0
    Image.fromarray(mask).save(data / 'Masks' / f'{index}.png')
    (data / 'Images' / photo.name).rename(data / f'Images/{index}.jpg')
    Image.fromarray(mask).save(good / f'{index}.png')
    Image.fromarray(np.roll(mask, 4, axis=1)).save(bad / f'{index}.png')
  (bad / '3.png').write_bytes(b'nothing')
  (bad / '4.png').unlink()
  output = tmp_path / 'out'
  arguments = (
    f'--predictions={good},{bad}',
    f'--data={data}',
    f'--output={output}',
    '--processes=1',
  )
  result = _evaluate(*arguments, code=1)
  assert '3.png: cannot be read' in result.stdout
  assert 'no prediction for 4.jpg' in result.stdout
  content = json.loads((output / 'results.json').read_text())
  rows = {row['system']: row for row in content['rows']}
  assert (rows['good']['images'], rows['bad']['images']) == (7, 5)
  assert rows['good']['values']['iou_raw'] == 1
  assert rows['good']['values']['max_f_stretched'] == 1
  assert rows['bad']['values']['iou_raw'] < 0.95
  assert [row['name'] for row in content['empty']['good on data']] == ['0.jpg']
  with (output / 'bad' / 'data' / 'images.csv').open() as file:
    errors = [row['name'] for row in csv.DictReader(file) if row['error']]
  assert errors == ['3.jpg', '4.jpg']
  with (output / 'table.csv').open() as file:
    table = list(csv.DictReader(file))
  assert float(table[0]['iou_raw']) == 1
  assert float(table[1]['iou_raw_low']) < float(table[1]['iou_raw'])

  compared = _evaluate(
    f'--compare={output}/bad,{output}/good', f'--output={tmp_path / "changes"}'
  )
  assert 'data: 5 images' in compared.stdout
  assert 'good' in compared.stdout
  assert (tmp_path / 'changes' / 'data' / 'changed_most.html').exists()
  with Image.open(output / 'most_different_data.jpg') as picture:
    assert picture.width > 5 * 256  # Name, photo, truth and two cut-outs.
  several = _evaluate(f'--compare={output},{output}/good', code=1)
  assert 'several systems' in several.stderr


def test_checkpoints_are_compared_without_masks(tmp_path):
  """A foreign network among them; what cannot be read is named."""
  photos = tmp_path / 'photos'
  photos.mkdir()
  for name, colour in (('red', (220, 20, 30)), ('blue', (10, 20, 200))):
    Image.new('RGB', (90, 60), colour).save(photos / f'{name}.png')
  (photos / 'broken.png').write_bytes(b'nothing')
  first, other = tmp_path / 'first.onnx', tmp_path / 'other.onnx'
  for seed, path in enumerate((first, other)):
    foreign_networks.save(path, seed=seed)
    foreign_networks.save_settings(path)
  result = _evaluate(
    f'--compare={first},{other}',
    f'--input={photos}',
    f'--output={tmp_path / "out"}',
    code=1,
  )
  assert 'broken.png' in result.stdout
  with Image.open(tmp_path / 'out' / 'most_different.jpg') as picture:
    assert picture.size[0] > 4 * 256
    assert picture.size[1] > 2 * 64


def test_mattes_have_their_own_table(tmp_path):
  published_sets.make_p3m(tmp_path / 'P3M-10k', train=1, test=2)
  masks = tmp_path / 'P3M-10k/validation/P3M-500-P/mask'
  result = _evaluate(
    f'--predictions={masks}',
    f'--data={tmp_path}/P3M-10k/validation/P3M-500-P',
    f'--output={tmp_path / "out"}',
    '--processes=1',
  )
  assert 'SAD/1000 whole' in result.stdout
  assert 'max F ' not in result.stdout
  with (tmp_path / 'out' / 'table.csv').open() as file:
    (row,) = csv.DictReader(file)
  assert float(row['sad_whole_thousands']) == 0
  assert float(row['mse_unknown']) == 0


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ((), '--data is missing'),
    (('--data=.',), 'Pass --checkpoint or --predictions'),
    (('--compare=a',), 'two folders'),
    (('--compare=a,b', '--data=c'), '--data is not for --compare'),
    (('--compare=a', '--input=.'), 'two or more checkpoints'),
    (('--data=absent', '--predictions=.'), 'absent: no such folder'),
    (('--data=.', '--predictions=.', '--metrics=f'), 'choose from'),
    (('--gallery=-1',), 'flag --gallery=-1'),
  ],
)
def test_wrong_arguments_are_named(arguments, message):
  result = _evaluate(*arguments, code=1)
  assert message in result.stdout + result.stderr
