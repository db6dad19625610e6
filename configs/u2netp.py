"""Fine-tunes U2-Net-p (1.1 M parameters) from its authors' weights.

```bash
pip install onnx
python -m rmbg_jax.main --config=configs/u2netp.py --config.data.dir=FOLDER
```

The weights (4.6 MB) are downloaded; `--config.init_from=u2netp.onnx` takes a
local file. For the large network (44 M) see `docs/u2net.md`.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
  """Returns the configuration."""
  config = default.get_config()
  config.name = 'u2netp'
  config.init_from = 'u2netp'
  remat = config.model.get_ref('remat')
  config.model = ConfigDict()
  config.model.name = 'u2net'
  config.model.encoder = ConfigDict()  # Fine to coarse.
  config.model.encoder.mid = (16, 16, 16, 16, 16, 16)
  config.model.encoder.filters = (64, 64, 64, 64, 64, 64)
  config.model.encoder.frozen_stages = 0
  config.model.decoder = ConfigDict()  # Coarse to fine.
  config.model.decoder.mid = (16, 16, 16, 16, 16)
  config.model.decoder.filters = (64, 64, 64, 64, 64)
  # The published weights have their normalisations folded; False to train
  # from random ones (config.init_from='').
  config.model.freeze_norm = True
  config.model.bn_momentum = 0.9
  config.model.dtype = 'float32'
  config.model.remat = remat
  config.data.size = (320, 320)
  config.data.batch_size = 8
  config.loss.outputs = (1.0,) * 7
  config.optimizer.learning_rate = 1e-5
  config.optimizer.schedule = 'cosine'
  config.optimizer.warmup_steps = 100
  config.optimizer.clip_norm = 1.0
  config.optimizer.ema_decay = 0.99
  config.train.epochs = 10
  config.train.early_stopping = 0
  config.train.grid_every = 1
  return config
