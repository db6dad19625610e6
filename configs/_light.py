"""Sets how the light networks, `lite.py` and `small.py`, are trained."""

from ml_collections import ConfigDict

from data_pipelines.io.errors import UserError


def set_training(config: ConfigDict, variant: str) -> None:
  """Sets size, augmentation, losses and rates.

  Args:
    config: Configuration to set them in.
    variant: '' for any machine, or 'device'.

  Raises:
    UserError: for another variant.
  """
  config.model.bn_momentum = 0.9
  config.data.size = (288, 288)
  config.data.batch_size = 16
  config.data.augment.min_scale = 0.5
  config.loss.weights.iou = 1.0
  config.loss.labels.pseudo = 0.8
  config.optimizer.learning_rate = 3e-4
  config.optimizer.schedule = 'cosine'
  config.optimizer.warmup_steps = 300
  config.optimizer.weight_decay = 1e-4
  config.optimizer.clip_norm = 1.0
  config.optimizer.encoder_rate = 0.2
  config.optimizer.ema_decay = 0.998
  config.train.epochs = 30
  config.train.early_stopping = 0
  config.train.grid_every = 1
  if variant == 'device':
    _set_device_training(config)
  elif variant:
    raise UserError(
      f"{config.name}.py:{variant}: the only variant is 'device'."
    )


def _set_device_training(config: ConfigDict) -> None:
  """Keeps all pairs in a GPU's memory, which is faster than hosts decode."""
  config.model.encoder.weights = 'imagenet'
  config.model.dtype = 'bfloat16'
  config.model.remat = 'auto'
  config.data.batch_size = 128
  config.data.loader = 'device'
  config.data.augment.color = 0.3
  config.data.augment.jpeg = 0.0
  config.data.augment.background = 0.25
  config.data.device.shares = ConfigDict(
    {'human': 1.0, 'animal': 0.8, 'object': 1.6}
  )
  config.optimizer.learning_rate = 1e-3
  config.optimizer.accumulation = 'auto'
  config.data.device.max_scale = 1.4
  config.data.device.max_enlargement = 1.5
  config.train.epochs = 40
  config.train.grid_every = 10
  config.train.tensorboard = False
