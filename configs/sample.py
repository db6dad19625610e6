"""The Keras project's sample settings: 1000 images at 16x16, to see it run.

```bash
python -m rmbg_jax.main --config=configs/sample.py --config.data.dir=FOLDER
```

The original reports loss .3761 and validation loss 1.5220 after 10 epochs. Two
CPU cores took 99 s for 60 of its 3,000 steps, compilation included. At 16x16
pixels nothing useful is learnt; use `demo.py` to see the network work.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
  """Returns the configuration."""
  config = default.get_config()
  config.name = 'sample'
  config.model.encoder.weights = 'imagenet'
  config.data.size = (16, 16)
  config.data.batch_size = 2
  config.data.validation_share = 0.4
  config.data.limit = 1000
  config.data.augment.flip = 0.0
  config.data.augment.min_scale = 1.0
  for effect in ('rotate', 'color', 'blur', 'noise', 'jpeg'):
    config.data.augment[effect] = 0.0
  config.optimizer.learning_rate = 1e-2
  config.train.epochs = 10
  return config
