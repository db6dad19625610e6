"""A network for laptops: 14.4 M parameters, 26 GFLOP per 320x320 image.

ResNet50's encoder with a narrow bridge and decoder, from scratch.

```bash
python -m rmbg_jax.main --config=configs/lite.py --config.data.dir=FOLDER
```
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
  """Returns the configuration."""
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
  return config
