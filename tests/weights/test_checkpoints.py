"""What is kept, what is found again, and that readers change nothing."""

import errno

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from data_pipelines.io import errors
from rmbg_jax.training import resume, state
from rmbg_jax.weights import checkpoints, loaded


@pytest.fixture
def make_state():
  mesh = state.make_mesh()
  optimizer = optax.adam(1e-3)

  def make(step):
    variables = {
      'params': {'w': jnp.full((3,), float(step))},
      'batch_stats': {'m': jnp.full((2,), -float(step))},
    }
    created = state.create_train_state(variables, optimizer, mesh)
    return created.replace(step=jnp.asarray(step, jnp.int32))

  return make


def _save(workdir, make_state, losses):
  with checkpoints.CheckpointStore(workdir, writable=True) as store:
    for step, loss in enumerate(losses, start=1):
      resume.save_state(
        store,
        make_state(step),
        metrics={'val_loss': loss},
        description={'note': f'step {step}', 'nested': {'size': [1, 2]}},
      )


def test_keeps_the_latest_and_the_first_of_the_best(tmp_path, make_state):
  assert not checkpoints.has_checkpoints(tmp_path)
  _save(tmp_path, make_state, [0.5, 0.3, 0.3, 0.4])
  assert checkpoints.has_checkpoints(tmp_path)
  with checkpoints.CheckpointStore(tmp_path, writable=True) as store:
    assert (store.latest_step, store.best_step) == (4, 2)
    assert store.read_description(2) == {
      'note': 'step 2',
      'nested': {'size': [1, 2]},
    }
    # Saving goes on from what was found.
    resume.save_state(
      store, make_state(5), metrics={'val_loss': 0.2}, description={}
    )
  kept = {p.name for p in (tmp_path / 'checkpoints').iterdir()}
  assert kept == {'5'}


def test_restores_the_whole_state_or_the_model_alone(tmp_path, make_state):
  _save(tmp_path, make_state, [0.5, 0.3])
  with checkpoints.CheckpointStore(tmp_path, writable=False) as store:
    blank = make_state(0)
    restored = resume.restore_state(store, blank, step=2)
    expected = make_state(2)
    assert jax.tree.structure(restored) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, restored, expected)
    for old, new in zip(
      jax.tree.leaves(blank), jax.tree.leaves(restored), strict=True
    ):
      assert old.sharding == new.sharding
    variables = {'params': blank.params, 'batch_stats': blank.batch_stats}
    shapes = loaded.find_shapes(variables)
    model = store.restore_model(shapes, step=2)
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(model))
    np.testing.assert_array_equal(model['params']['w'], expected.params['w'])


def test_only_the_writer_clears_half_written_checkpoints(tmp_path, make_state):
  _save(tmp_path, make_state, [0.5])
  folder = tmp_path / 'checkpoints'
  half = folder / '7.orbax-checkpoint-tmp'
  (half / 'model').mkdir(parents=True)
  with checkpoints.CheckpointStore(tmp_path, writable=False) as store:
    assert store.latest_step == 1
  assert half.exists()
  with checkpoints.CheckpointStore(tmp_path, writable=True) as store:
    # Clearing runs in the background; a save waits for it.
    resume.save_state(
      store, make_state(7), metrics={'val_loss': 0.4}, description={}
    )
  assert not half.exists()
  assert (folder / '7').exists()


FULL = 'RESOURCE_EXHAUSTED: Failed writing: "a/b" [os_error_code=\'28\']'


@pytest.mark.parametrize(
  'failure',
  [ValueError(FULL), OSError(errno.ENOSPC, 'No space left on device')],
)
def test_a_full_disk_is_named_and_what_is_kept(
  failure, tmp_path, make_state, monkeypatch
):
  _save(tmp_path, make_state, [0.5])

  def fail(*_, **__):
    raise failure

  with checkpoints.CheckpointStore(tmp_path, writable=True) as store:
    monkeypatch.setattr(store._checkpointer, 'save_checkpointables_async', fail)
    with pytest.raises(errors.UserError) as error:
      resume.save_state(store, make_state(2), metrics=None, description={})
    message = f'{tmp_path}/checkpoints: .*No space left.*step 1 is kept'
    assert error.match(message)
    monkeypatch.setattr(failure, 'args', ('another',))
    if isinstance(failure, ValueError):  # A mistake of the program.
      with pytest.raises(ValueError, match='another') as error:
        resume.save_state(store, make_state(2), metrics=None, description={})
      assert error.value is failure


@pytest.mark.parametrize(
  'file', ['_CHECKPOINT_METADATA', 'metrics/metrics', 'model/manifest.ocdbt']
)
def test_a_damaged_checkpoint_is_named(file, tmp_path, make_state):
  _save(tmp_path, make_state, [0.5])
  (tmp_path / 'checkpoints/1' / file).write_bytes(b'cut off')
  with (
    pytest.raises(errors.UserError, match=r'checkpoints.*damaged .* remove'),
    checkpoints.CheckpointStore(tmp_path, writable=False) as store,
  ):
    assert store.best_step == store.latest_step == 1
    store.read_description(1)
    store.restore_model({'params/w': (3,), 'batch_stats/m': (2,)}, step=1)
