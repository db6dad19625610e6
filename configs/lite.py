"""A network for laptops: 14.4 M parameters, 26 GFLOP per 320x320 image.

ResNet50's encoder with a narrow bridge and decoder, from scratch.

```bash
python -m rmbg_jax.main --config=configs/lite.py --config.data.dir=FOLDER
```

Two CPU cores take 14.5 s for a step of 16: an hour for 4,000 pairs once. IoU
was .58 after two times 3,264 pairs at 160x160 (docs/results.md); a whole
training has not been run yet.

`configs/lite.py:campaign` is the recipe of the released weights, for a GPU
that holds all pairs (docs/training.md). It has not been run on one yet.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = '') -> ConfigDict:
  """Returns the configuration; `variant` is '' or 'campaign'."""
  if variant not in ('', 'campaign'):
    raise ValueError(f"lite.py:{variant}: the only variant is 'campaign'.")
  config = default.get_config()
  config.name = 'lite'
  config.model.bridge.filters = 160
  config.model.decoder.filters = (128, 64, 32, 16)
  config.model.bn_momentum = 0.9
  config.data.size = (288, 288)
  config.data.batch_size = 16
  config.data.augment.min_scale = 0.5
  config.loss.weights.iou = 0.5
  config.optimizer.learning_rate = 1e-3
  config.optimizer.schedule = 'cosine'
  config.optimizer.warmup_steps = 100
  config.optimizer.weight_decay = 1e-4
  config.optimizer.clip_norm = 1.0
  config.optimizer.ema_decay = 0.999
  config.train.epochs = 60
  config.train.early_stopping = 0
  config.train.grid_every = 1
  if variant == 'campaign':
    _set_campaign(config)
  return config


def _set_campaign(config: ConfigDict) -> None:
  """Changes much, because the pairs are few and the images per second many."""
  config.model.dtype = 'bfloat16'
  config.data.batch_size = 128
  config.data.loader = 'device'
  config.data.augment.min_scale = 0.4
  config.data.augment.color = 0.3
  config.data.augment.jpeg = 0.0
  config.data.augment.background = 0.4
  config.data.device.shares = ConfigDict(
    {'human': 1.0, 'animal': 1.0, 'object': 2.0}
  )
  config.data.device.max_scale = 1.6
  config.data.device.max_enlargement = 1.5
  config.optimizer.learning_rate = 2e-3
  config.optimizer.warmup_steps = 300
  config.train.epochs = 10_000  # As many as there is time for.
  config.train.grid_every = 10
  config.train.tensorboard = False
