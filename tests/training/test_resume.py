"""Which settings may change within a training, and where it stands."""

import json

from rmbg_jax.training import monitor, resume
from tests.support import helpers


def test_length_and_threads_may_change():
  saved = helpers.make_config('here')
  changed = helpers.make_config(
    'elsewhere', **{'train.epochs': 9, 'data.threads': 1}
  )
  descriptions = [
    {'architecture': {}, 'preprocessing': {}, 'config': config.to_dict()}
    for config in (saved, changed)
  ]
  resume.check_compatible(*descriptions)


def test_the_position_survives_json():
  position = resume.Position(
    epoch=3,
    step=1,
    loss=0.1 + 0.2,
    iterator={'next_index': 7},
    monitor=monitor.MonitorState(learning_rate=0.1),
  )
  again = json.loads(json.dumps(position.to_dict(), allow_nan=False))
  assert resume.Position.from_dict(again) == position
