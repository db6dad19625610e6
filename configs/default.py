"""Has all settings, with the values that the other configurations start from.

The network and the sizes are the Keras project's. To train on a folder of
your own photos (`Images/`, `Masks/`, optional `Dataset.csv`):

```bash
python -m rmbg_jax.main --config=configs/default.py --config.data.dir=FOLDER
```
"""

from ml_collections import ConfigDict, FieldReference


def get_config() -> ConfigDict:
  """Returns the default configuration."""
  config = ConfigDict()
  config.name = 'default'  # Names the default working directory.
  config.seed = 42
  # Start from the weights (only) of a working directory, a .safetensors file,
  # a model.h5 or a U2-Net .onnx; 'small' or 'lite' for the ones that come
  # with the project ('released' is the default one), 'u2net', 'u2netp' or
  # 'u2net_human_seg' for published ones.
  config.init_from = ''
  # Momentum of the batch statistics with it, at least: those of a few photos
  # would undo what the weights know. 0 for that of config.model.
  config.init_bn_momentum = 0.99
  # Makes a GPU's results equal bit for bit too; slower.
  config.deterministic = False

  config.model = ConfigDict()
  config.model.name = 'unet'
  config.model.encoder = ConfigDict()
  # Or 'efficientnet_lite0', 1 or 2, which lack the next three keys.
  config.model.encoder.name = 'resnet50'
  config.model.encoder.dialect = 'keras'  # Or 'torchvision'.
  config.model.encoder.stage_sizes = (3, 4, 6)
  config.model.encoder.width = 64
  # '' (random), 'imagenet' (published ones), or the path of a Keras .h5 or a
  # PyTorch .safetensors or .pth file.
  config.model.encoder.weights = ''
  # Number of encoder stages, from the first (at half of the resolution), whose
  # weights and batch statistics stay as they are.
  config.model.encoder.frozen_stages = 0
  config.model.bridge = ConfigDict()
  config.model.bridge.filters = 1024
  config.model.bridge.rates = (3, 6, 9)
  config.model.decoder = ConfigDict()
  config.model.decoder.filters = (512, 256, 128, 64)
  config.model.bn_momentum = 0.99
  config.model.dtype = 'float32'  # Type of the computation; or 'bfloat16'.
  # Whether to recompute features for the gradient: less memory, more time.
  # 'auto': only if the device's memory is too small otherwise.
  config.model.remat = FieldReference(False, field_type=object)

  config.data = ConfigDict()
  # Or 'demo', 'p3m', 'cod10k', 'people', 'tfds/combined' and others: see
  # docs/datasets.md.
  config.data.name = 'folder'
  config.data.dir = ''
  config.data.size = (512, 512)  # (height, width), multiples of 16.
  # '' for the encoder's own; 'original' is BGR / 255.
  config.data.normalization = ''
  config.data.batch_size = 16  # Over all devices and hosts together.
  config.data.validation_share = 0.2  # Without a Split column.
  config.data.limit = 0  # Most pairs to use; 0 for all.
  config.data.allow_empty_masks = False
  config.data.augment = ConfigDict()
  config.data.augment.flip = 0.5  # Probability.
  config.data.augment.min_scale = 0.7  # Smallest crop, as a share of the side.
  config.data.augment.rotate = 10.0  # At most, in degrees; 1 photo in 5.
  config.data.augment.color = 0.2  # Strength in [0, 1].
  config.data.augment.blur = 0.05  # Probabilities, down to `jpeg`.
  config.data.augment.noise = 0.05
  config.data.augment.jpeg = 0.1
  # Probability of another background, and the share of these that are plain or
  # graded instead of another photo's. Needs masks with good edges.
  config.data.augment.background = 0.0
  config.data.augment.plain = 0.0
  # 'grain' decodes on the host each epoch; 'device' keeps all pairs in device
  # memory and augments them there (one host; see `config.data.device`).
  config.data.loader = 'grain'
  config.data.threads = 0  # Readers; 0: one per core, at most 16.
  # Batches read ahead, each by one thread; 0: two more than threads.
  config.data.buffer = 0
  config.data.device = ConfigDict()
  # Folder to keep the decoded pairs in for the next time; '' for none.
  config.data.device.cache_dir = ''
  # Share of each category in an epoch; all 0: as in the data. If one is set,
  # other categories are refused.
  config.data.device.shares = ConfigDict()
  config.data.device.shares.human = 0.0
  config.data.device.shares.animal = 0.0
  config.data.device.shares.object = 0.0
  # With another background, a photo's frame may shrink to 1 / max_scale.
  # max_enlargement limits how much a photo is enlarged; 0 for no limit.
  config.data.device.max_scale = 1.0
  config.data.device.max_enlargement = 0.0
  config.data.demo = ConfigDict()  # Settings of the drawn demo set.
  config.data.demo.count = 600
  config.data.demo.size = 128  # Pixels.

  config.loss = ConfigDict()
  # Weight of each loss in `rmbg_jax/training/losses.py`, of each output (coarse
  # to fine), and of a pair by the kind of its label.
  config.loss.weights = ConfigDict()
  config.loss.weights.bce = 1.0
  config.loss.weights.iou = 0.0
  config.loss.weights.structure = 0.0
  config.loss.weights.ssim = 0.0
  config.loss.weights.l1 = 0.0
  config.loss.weights.laplacian = 0.0
  config.loss.outputs = (1.0, 1.0, 1.0, 1.0)
  config.loss.labels = ConfigDict()
  config.loss.labels.gt = 1.0
  config.loss.labels.alpha = 1.0
  config.loss.labels.pseudo = 0.5

  config.optimizer = ConfigDict()
  config.optimizer.learning_rate = 1e-4
  config.optimizer.schedule = 'plateau'  # Or 'constant', or 'cosine'.
  config.optimizer.plateau = ConfigDict()  # Keras' ReduceLROnPlateau.
  config.optimizer.plateau.patience = 5  # Epochs.
  config.optimizer.plateau.factor = 0.1
  config.optimizer.plateau.min_delta = 1e-4
  config.optimizer.plateau.min_learning_rate = 1e-7
  config.optimizer.warmup_steps = 0  # Not with 'plateau'.
  config.optimizer.weight_decay = 0.0  # Decoupled, as in AdamW.
  config.optimizer.clip_norm = 0.0  # Largest gradient norm; 0: any.
  # The encoder's learning rate as a share of the others'; 0 freezes it, its
  # batch statistics too.
  config.optimizer.encoder_rate = 1.0
  # Number of parts that a batch is computed in, each with its own batch
  # statistics. 'auto': as few as fit into the device's memory.
  config.optimizer.accumulation = FieldReference(1, field_type=object)
  # Decay of the weights' moving averages, which are then evaluated and saved as
  # the model; 0 for none.
  config.optimizer.ema_decay = 0.0

  config.train = ConfigDict()
  config.train.epochs = 100
  # Minutes that a run may take, the last evaluation not included; 0 for any
  # number. A cosine falls to 0 by then. One host; see docs/training.md.
  config.train.minutes = 0.0
  # Epochs without a lower validation loss before it stops; 0: never.
  config.train.early_stopping = 20
  # Steps between checkpoints within an epoch; 0: only at its end.
  config.train.save_every = 500
  config.train.grid_every = 5  # Epochs between validation pictures; 0: never.
  config.train.grid_images = 6
  config.train.tensorboard = True
  # Steps (first, last) to record for `tensorboard --logdir` or Perfetto; (0, 0)
  # records nothing.
  config.train.profile_steps = (0, 0)
  return config
