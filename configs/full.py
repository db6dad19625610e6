"""The Keras project's network and settings, on the combined 25K set.

```bash
python -m rmbg_jax.main --config=configs/full.py --config.data.dir=FOLDER
```

The original reports 18 h 35 min for 57 epochs on one RTX 4080, loss .0125 and
validation loss .0839. It has not been repeated with this project yet: two CPU
cores take 8 s per image and step.

For the gradient, an image keeps 2.5 GB of features in float32. What fits the
device's memory is chosen before the first step and printed: to compute features
again, and a batch in parts (docs/scaling.md).
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
  """Returns the configuration."""
  config = default.get_config()
  config.name = 'full'
  config.model.encoder.weights = 'imagenet'
  config.model.remat = 'auto'
  config.data.batch_size = 64
  config.data.augment.flip = 0.0
  config.data.augment.min_scale = 1.0
  for effect in ('rotate', 'color', 'blur', 'noise', 'jpeg'):
    config.data.augment[effect] = 0.0
  config.optimizer.learning_rate = 1e-6
  config.optimizer.accumulation = 'auto'
  return config
