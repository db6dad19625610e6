"""A tiny network on the embedded demo set: the quickstart's training.

```bash
python -m rmbg_jax.main --config=configs/demo.py
```

A minute on two cores, validation IoU .86 (docs/results.md).
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
  """Returns the configuration."""
  config = default.get_config()
  config.name = 'demo'
  config.model.encoder.stage_sizes = (1, 1, 1)
  config.model.encoder.width = 16
  config.model.bridge.filters = 32
  config.model.decoder.filters = (32, 24, 16, 8)
  config.model.bn_momentum = 0.9
  config.data.name = 'demo'
  config.data.dir = 'runs/demo_data'
  config.data.size = (96, 96)
  config.data.batch_size = 16
  # Colour and texture tell the demo's figures from its background.
  for effect in ('rotate', 'color', 'blur', 'noise', 'jpeg'):
    config.data.augment[effect] = 0.0
  config.loss.weights.iou = 0.5
  config.optimizer.learning_rate = 3e-3
  config.optimizer.schedule = 'cosine'
  config.optimizer.warmup_steps = 20
  config.optimizer.clip_norm = 1.0
  config.train.epochs = 5
  config.train.early_stopping = 0
  config.train.grid_every = 5
  return config
