"""A training small enough for tests."""

from configs import demo

TINY_OVERRIDES = {
  'data.size': (32, 32),
  'data.batch_size': 8,
  'data.demo.count': 24,
  'data.demo.size': 48,
  'model.encoder.width': 4,
  'model.bridge.filters': 8,
  'model.decoder.filters': (8, 8, 8, 8),
  'optimizer.warmup_steps': 2,
  'train.epochs': 2,
  'train.grid_every': 1,
  'train.grid_images': 3,
  'train.tensorboard': False,
}


def make_config(data_dir, **overrides):
  """The demo's configuration, shrunk, on a data set at `data_dir`."""
  config = demo.get_config()
  config.update_from_flattened_dict(
    {**TINY_OVERRIDES, 'data.dir': str(data_dir), **overrides}
  )
  return config
