"""The small network: EfficientNet-Lite0's encoder and a light decoder.

```bash
python -m rmbg_jax.main --config=configs/small.py --config.data.dir=FOLDER
```

It is made for prediction on a CPU. Its encoder starts from ImageNet weights;
docs/training.md says where they come from, docs/model_card.md what the network
that comes with the project was trained on and reaches.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
  """Returns the configuration."""
  config = default.get_config()
  config.name = 'small'
  config.model.encoder = ConfigDict()
  config.model.encoder.name = 'efficientnet_lite0'
  config.model.encoder.weights = 'imagenet'
  config.model.bridge.filters = 64
  config.model.bridge.rates = (1, 2, 4)
  config.model.decoder.filters = (64, 48, 32, 16)
  config.model.bn_momentum = 0.9
  config.data.size = (288, 288)
  config.data.batch_size = 16
  config.data.augment.min_scale = 0.5
  config.loss.weights.iou = 1.0
  config.optimizer.learning_rate = 1e-3
  config.optimizer.schedule = 'cosine'
  config.optimizer.warmup_steps = 100
  config.optimizer.weight_decay = 1e-4
  config.optimizer.clip_norm = 1.0
  config.optimizer.encoder_rate = 0.2
  config.optimizer.ema_decay = 0.999
  config.train.epochs = 20
  config.train.early_stopping = 0
  config.train.grid_every = 1
  return config
