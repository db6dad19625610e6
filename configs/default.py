"""Every setting there is, at the values the other configurations start from.

The network and the sizes are the original project's. To train on a folder of
your own photos (`Images/`, `Masks/`, optional `Dataset.csv`):

```bash
python -m rmbg_jax.main --config=configs/default.py --config.data.dir=FOLDER
```
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  """Returns the default configuration."""
  config = ConfigDict()
  config.name = 'default'  # Names the default working directory.
  config.seed = 42

  config.model = ConfigDict()
  config.model.name = 'unet'
  config.model.encoder = ConfigDict()
  config.model.encoder.dialect = 'keras'  # Or 'torchvision'.
  config.model.encoder.stage_sizes = (3, 4, 6)
  config.model.encoder.width = 64
  # '' for random ones, 'imagenet' to download them from their publisher, or
  # the path of a Keras .h5 or a torchvision .safetensors or .pth file.
  config.model.encoder.weights = ''
  config.model.bridge = ConfigDict()
  config.model.bridge.filters = 1024
  config.model.bridge.rates = (3, 6, 9)
  config.model.decoder = ConfigDict()
  config.model.decoder.filters = (512, 256, 128, 64)
  config.model.bn_momentum = 0.99
  config.model.dtype = 'float32'  # Of the computation; or 'bfloat16'.

  config.data = ConfigDict()
  config.data.name = 'folder'  # Or 'demo'.
  config.data.dir = ''
  config.data.size = (512, 512)  # (height, width), multiples of 16.
  # '' for the encoder's dialect; 'original' is BGR / 255.
  config.data.normalization = ''
  config.data.batch_size = 16  # Over all devices and hosts together.
  config.data.validation_share = 0.2  # Where the data set has no Split column.
  config.data.limit = 0  # Use only so many pairs; 0 for all.
  config.data.allow_empty_masks = False
  config.data.augment = ConfigDict()
  config.data.augment.flip = 0.5  # Probability.
  config.data.augment.min_scale = 0.7  # Smallest crop, as a share of the side.
  config.data.loader = ConfigDict()
  config.data.loader.threads = 4
  config.data.loader.buffer = 4  # Batches decoded ahead.
  config.data.demo = ConfigDict()  # What the demo set is drawn with.
  config.data.demo.count = 600
  config.data.demo.size = 128  # Pixels.

  config.loss = ConfigDict()  # Weight of each loss in `rmbg_jax/losses.py`.
  config.loss.bce = 1.0
  config.loss.iou = 0.0

  config.optimizer = ConfigDict()
  config.optimizer.learning_rate = 1e-4
  config.optimizer.schedule = 'constant'  # Or 'cosine'.
  config.optimizer.warmup_steps = 0
  config.optimizer.weight_decay = 0.0
  config.optimizer.clip_norm = 0.0  # 0 for none.

  config.train = ConfigDict()
  config.train.epochs = 100
  config.train.grid_every = 5  # Epochs between validation pictures; 0: never.
  config.train.grid_images = 6
  return config
