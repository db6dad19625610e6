"""The network of the preview weights: 1.4 M parameters, for a CPU.

```bash
python -m rmbg_jax.main --config=configs/preview.py --config.data.dir=FOLDER
```

Made to learn something in an hour on two cores, at 112x112 pixels;
`configs/preview.py:sharp` goes on at 160x160. docs/model_card.md has what it
reached.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = '') -> ConfigDict:
  """Returns the configuration; `variant` is '' or 'sharp'."""
  if variant not in ('', 'sharp'):
    raise ValueError(f"preview.py:{variant}: the only variant is 'sharp'.")
  config = default.get_config()
  config.name = 'preview'
  config.model.encoder.dialect = 'torchvision'
  config.model.encoder.stage_sizes = (2, 2, 3)
  config.model.encoder.width = 24
  config.model.bridge.filters = 48
  config.model.decoder.filters = (48, 32, 16, 8)
  config.model.bn_momentum = 0.9
  config.data.size = (112, 112)
  config.data.batch_size = 16
  config.data.loader = 'device'
  config.data.augment.min_scale = 0.7
  config.data.augment.color = 0.2
  for effect in ('rotate', 'blur', 'noise', 'jpeg'):
    config.data.augment[effect] = 0.0
  config.loss.weights.iou = 0.5
  config.loss.outputs = (0.25, 0.25, 0.5, 1.0)
  config.optimizer.learning_rate = 2e-3
  config.optimizer.schedule = 'cosine'
  config.optimizer.warmup_steps = 200
  config.optimizer.weight_decay = 1e-4
  config.optimizer.clip_norm = 1.0
  config.optimizer.ema_decay = 0.998
  config.train.epochs = 20
  config.train.early_stopping = 0
  config.train.grid_every = 1
  if variant == 'sharp':
    config.data.size = (160, 160)
    config.optimizer.learning_rate = 1e-3
  return config
