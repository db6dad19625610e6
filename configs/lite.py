"""The network `lite`: 14.4 M parameters, 26 GFLOP per 320x320 image.

ResNet50's encoder with a narrow bridge and decoder.

```bash
python -m rmbg_jax.main --config=configs/lite.py --config.data.dir=FOLDER
```

`--config.init_from=lite` starts from the weights that come with the project,
`--config.model.encoder.weights=imagenet` from ImageNet's, which are downloaded.

Two CPU cores take some 15 s for a step of 16 (docs/results.md).

`--config=configs/lite.py:device` is the recipe of the released weights, for a
GPU that holds all pairs: about 36 epochs of 13,000 pairs (docs/model_card.md).
"""

from ml_collections import ConfigDict

from configs import _light, default


def get_config(variant: str = '') -> ConfigDict:
  """Returns the configuration; `variant` is '' or 'device'."""
  config = default.get_config()
  config.name = 'lite'
  config.model.bridge.filters = 160
  config.model.decoder.filters = (128, 64, 32, 16)
  _light.set_training(config, variant)
  return config
