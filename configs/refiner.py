r"""The refiner of `--refine=learned`, on photos with true alpha.

```bash
python -m rmbg_jax.train_refiner --config=configs/refiner.py \
  --config.data.dir=ALPHAS --config.data.backgrounds=PHOTOS
```

Composing takes two minutes for 32 photos, training 12 minutes of one core.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  """Returns the configuration."""
  config = ConfigDict()
  config.name = 'refiner'  # Names the default working directory.
  config.seed = 42

  config.model = ConfigDict()
  config.model.name = 'refiner'
  config.model.filters = (24, 32, 32, 40)

  config.data = ConfigDict()
  config.data.dir = ''  # Folder of photos and true alphas (docs/datasets.md).
  config.data.backgrounds = ''  # Folder of photos to put them before.
  # Folder of photos with masks by people, '' for none; that many are used, at
  # half of their size, where drawn outlines are sharp and exact.
  config.data.sharp_dir = ''
  config.data.sharp_limit = 100
  config.data.count = 20  # Compositions of a photo, itself among them.
  config.data.coarse = ('released', 'small')  # Networks to see them with.
  # Every such photo is held out, beginning with number `fold`; -1 for none.
  config.data.folds = 4
  config.data.fold = -1
  config.data.limit = 0  # Most photos to train on; 0 for all.
  config.data.side = 96  # Of a window, in pixels; a multiple of 32.
  config.data.batch_size = 16
  # Windows in which coarse and true alpha differ more on average are left out.
  config.data.most_wrong = 0.12

  config.optimizer = ConfigDict()
  config.optimizer.learning_rate = 2e-3
  config.optimizer.warmup_steps = 100
  config.optimizer.steps = 2000

  config.train = ConfigDict()
  config.train.save_every = 500  # Steps between checkpoints.
  return config
