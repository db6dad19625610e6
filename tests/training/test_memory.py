"""What fits a device's memory, and what is said where nothing does."""

import jax
import numpy as np
import pytest

from configs import full
from data_pipelines.io import errors
from rmbg_jax import runtime
from rmbg_jax.training import loop, memory, settings, setup, state
from rmbg_jax.weights import checkpoints
from tests.support import helpers


def _make_config(data_dir, **changes):
  return helpers.make_config(
    data_dir,
    **{
      'model.remat': 'auto',
      'optimizer.accumulation': 'auto',
      'train.epochs': 1,
      **changes,
    },
  )


def _choose(needs, config, monkeypatch, *, available):
  """Chooses by what `needs(remat, accumulation)` says; also what was tried."""
  components, mesh, tried = setup.make_components(config), state.make_mesh(), []

  def measure(config, *_):
    tried.append((config.model.remat, config.optimizer.accumulation))
    return needs(*tried[-1])

  monkeypatch.setattr(memory, 'measure_step', measure)
  monkeypatch.setattr(memory, 'find_available', lambda: available)
  with monkeypatch.context() as patched:
    patched.setattr(jax, 'default_backend', lambda: 'gpu')
    chosen, *_ = memory.choose(config, components, mesh)
  return (chosen.model.remat, chosen.optimizer.accumulation), tried


@pytest.mark.parametrize(
  ('gigabytes', 'changes', 'found', 'tried'),
  [
    (2000, {}, (False, 1), 1),
    (101, {}, (True, 1), 2),
    # Two parts cannot be enough, so they are not compiled.
    (35, {}, (True, 4), 3),
    (60, {}, (True, 2), 3),
    (101, {'optimizer.accumulation': 2}, (True, 2), 2),
    (300, {'model.remat': False}, (False, 4), 2),
  ],
)
def test_takes_the_first_that_fits(
  gigabytes, changes, found, tried, data_dir, monkeypatch
):
  def needs(remat, accumulation):
    return (10 + (90 if remat else 900) // accumulation) * 10**9

  changes = {**changes, 'data.batch_size': 16}  # Four images on each device.
  chosen, all_tried = _choose(
    needs,
    _make_config(data_dir, **changes),
    monkeypatch,
    available=int(gigabytes / 0.9 * 1e9),
  )
  assert (chosen, len(all_tried)) == (found, tried)


def test_a_compiler_may_run_out_of_memory_itself(data_dir, monkeypatch):
  found, tried = _choose(
    lambda remat, accumulation: 5 if accumulation > 2 else None,
    _make_config(data_dir, **{'data.batch_size': 16}),
    monkeypatch,
    available=10,
  )
  assert found == (True, 4)
  assert len(tried) == 4


def test_the_choice_is_printed_saved_and_kept(
  tmp_path, data_dir, monkeypatch, capsys
):
  config = _make_config(data_dir)
  components, mesh = setup.make_components(config), state.make_mesh()

  def measure(accumulation):
    tried = _make_config(data_dir, **{'optimizer.accumulation': accumulation})
    step = setup.make_train_step(tried, components)
    return memory.measure_step(tried, components, step, mesh)

  whole, half = sizes = measure(1), measure(2)
  assert half < whole
  # They are not compiled once more.
  monkeypatch.setattr(
    memory,
    'measure_step',
    lambda config, *_: sizes[config.optimizer.accumulation - 1],
  )
  pretended = int((whole + half) / 2 / 0.9)
  monkeypatch.setattr(memory, 'find_available', lambda: pretended)
  workdir = tmp_path / 'run'
  loop.train_and_evaluate(config, workdir)
  said = 'config.model.remat=False, config.optimizer.accumulation=2'
  assert said in capsys.readouterr().out
  with checkpoints.CheckpointStore(workdir, writable=False) as store:
    saved = store.read_description(store.latest_step)['config']
  assert saved['optimizer']['accumulation'] == 2
  assert saved['model']['remat'] is False
  # Where there is more memory, a training goes on as it began.
  monkeypatch.setattr(memory, 'find_available', lambda: 10 * whole)
  loop.train_and_evaluate(config, workdir)
  assert said in capsys.readouterr().out
  fixed = _make_config(data_dir, **{'optimizer.accumulation': 1})
  with pytest.raises(errors.UserError, match='accumulation: 2 in the checkp'):
    loop.train_and_evaluate(fixed, workdir)


def test_what_cannot_fit_names_the_keys(data_dir, monkeypatch):
  config = _make_config(data_dir)
  components = setup.make_components(config)
  monkeypatch.setattr(memory, 'find_available', lambda: 1000)
  monkeypatch.setattr(memory, 'measure_step', lambda *_: 5_000_000_000)
  with pytest.raises(
    errors.UserError, match=r'batch_size=8 at 32x32 takes 5\.0 GB'
  ) as raised:
    memory.choose(config, components, state.make_mesh())
  for key in ('model.dtype', 'data.batch_size', 'data.size'):
    assert f'config.{key}' in str(raised.value)


def test_nothing_is_measured_where_the_memory_is_not_known(
  data_dir, monkeypatch
):
  monkeypatch.setattr(memory, 'find_available', lambda: 0)
  monkeypatch.delattr(memory, 'measure_step')
  config = _make_config(data_dir)
  components, mesh = setup.make_components(config), state.make_mesh()
  chosen, *_ = memory.choose(config, components, mesh)
  assert (chosen.model.remat, chosen.optimizer.accumulation) == (False, 1)
  assert config.model.remat == 'auto'
  fixed = _make_config(
    data_dir, **{'model.remat': True, 'optimizer.accumulation': 2}
  )
  chosen, *_ = memory.choose(fixed, components, mesh)
  assert chosen.optimizer.accumulation == 2


def test_the_step_that_was_measured_is_not_compiled_again(
  data_dir, monkeypatch
):
  monkeypatch.setattr(memory, 'find_available', lambda: 10**12)
  config, mesh = _make_config(data_dir), state.make_mesh()
  found = setup.make_components(config)
  config, found, step = memory.choose(config, found, mesh)
  before = setup.create_train_state(config, found, mesh, resumed=False)
  batch = state.put_batch(next(found.data.train_batches), mesh)
  rate = state.put_scalar(0.1, mesh)
  with monkeypatch.context() as patch:
    patch.setattr(
      jax._src.compiler, 'compile_or_get_cached', lambda *_, **__: 1 / 0
    )
    after, _ = step(before, batch, rate)
  assert after.step == 1


def test_full_leaves_it_to_the_device():
  config = full.get_config()
  settings.check_config(config)
  assert config.model.remat == config.optimizer.accumulation == 'auto'


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('model.remat', 'yes'),
    ('model.remat', 1),
    ('optimizer.accumulation', 'most'),
    ('optimizer.accumulation', True),
    ('optimizer.accumulation', 1.5),
  ],
)
def test_other_values_are_refused(key, value):
  config = helpers.make_config('', **{key: value})
  with pytest.raises(errors.UserError, match=f"{key} must be .* or 'auto'"):
    settings.check_config(config)


def _exhaust(*_):
  raise jax.errors.JaxRuntimeError(
    'RESOURCE_EXHAUSTED: Out of memory allocating 17179869184 bytes.\nmore'
  )


def test_a_training_out_of_memory_names_the_keys(
  tmp_path, data_dir, monkeypatch
):
  monkeypatch.setattr(setup, 'make_train_step', lambda *_: _exhaust)
  with pytest.raises(errors.UserError, match='allocating 17179869184') as error:
    loop.train_and_evaluate(helpers.make_config(data_dir), tmp_path)
  assert '--config.optimizer.accumulation=auto' in str(error.value)
  assert '\n' not in str(error.value)


def test_other_errors_of_a_device_stay_what_they_are():
  with (
    pytest.raises(jax.errors.JaxRuntimeError, match='INTERNAL'),
    runtime.naming_remedies('Nothing.'),
  ):
    raise jax.errors.JaxRuntimeError('INTERNAL: a mistake')
  with (
    pytest.raises(errors.UserError, match='used up'),
    runtime.naming_remedies('Nothing.'),
  ):
    raise MemoryError


def test_a_prediction_out_of_memory_names_the_flags(tmp_path, monkeypatch):
  from rmbg_jax.inference import remover as remover_lib
  from tests.support import colour_network

  path = tmp_path / 'network.safetensors'
  colour_network.save_release(path, (2, 1))
  remover = remover_lib.BackgroundRemover.from_checkpoint(path, runtime='jax')
  monkeypatch.setattr(remover._runtime, '_compute_logits', _exhaust)
  with pytest.raises(errors.UserError, match='--batch_size'):
    remover.predict(np.zeros((1, 64, 64, 3), np.uint8))
