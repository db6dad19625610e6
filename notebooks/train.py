# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Train, and go on after a disconnect
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/rmbg-u2net/rmbg-u2net-jax/blob/main/notebooks/train.ipynb)
#
# From the weights that come with the project, to your own photos. As it stands it
# trains on a few small drawn pictures, to see everything run in two minutes on
# two cores; with `DATA` and without `QUICK` it is for real.

# %%
# On Colab this fetches and installs the project, for a GPU if there is one. In
# a checkout it only goes to the checkout's folder.
import os
import shutil
import subprocess
import sys
from pathlib import Path

if Path('../requirements.txt').exists():
  os.chdir('..')
elif not Path('requirements.txt').exists():
  url = 'https://github.com/rmbg-u2net/rmbg-u2net-jax'
  subprocess.run(['git', 'clone', '--depth=1', url], check=True)
  os.chdir('rmbg-u2net-jax')
  gpu = '-cuda12' if shutil.which('nvidia-smi') else ''
  install = f'-m pip install -q -r requirements{gpu}.txt -e .[eval,onnx]'
  subprocess.run([sys.executable, *install.split()], check=True)
# This notebook and the commands that it runs share the GPU.
os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'

# %% tags=["parameters"]
# A file of configs/: small.py and lite.py are light networks, full.py is the
# original's with its settings.
CONFIG = 'configs/small.py'
# A folder with Images/ and Masks/ of equal names (docs/datasets.md). Without
# one, pictures are drawn.
DATA = ''
# Checkpoints and logs. On Colab they go to your Drive, which outlives it.
COLAB = Path('/content').exists()
WORKDIR = '/content/drive/MyDrive/rmbg/small' if COLAB else 'runs/notebook'
# Any setting of configs/default.py. OPTIONS starts from the weights that come with
# the project; from ImageNet's: '--config.model.encoder.weights=imagenet'.
# QUICK is for seeing everything run: empty it for your own photos.
OPTIONS = '--config.init_from=small'
QUICK = '--config.data.size=96,96 --config.data.batch_size=8 --config.data.demo.count=40 --config.model.encoder.frozen_stages=4 --config.train.epochs=2'

# %%
if WORKDIR.startswith('/content/drive'):
  from google.colab import drive

  drive.mount('/content/drive')
data = f'--config.data.dir={DATA}'
if not DATA:
  data = '--config.data.name=demo --config.data.dir=runs/demo_data'

# %% [markdown]
# After a disconnect, run all cells again: the training goes on from its last
# checkpoint, to the same result.

# %%
# !{sys.executable} -m rmbg_jax.main --config={CONFIG} --workdir={WORKDIR} {data} {QUICK} {OPTIONS}

# %%
# !{sys.executable} scripts/plot_history.py {WORKDIR} --output={WORKDIR}/history.png

from IPython import display

display.Image(f'{WORKDIR}/history.png')

# %% [markdown]
# What it makes of a photo. `scripts/export.py` turns the training into one
# small file for others, or into ONNX, StableHLO or a Keras `.h5`
# ([docs/export.md](../docs/export.md)).

# %%
from rmbg_jax import BackgroundRemover

photos = Path(DATA or 'runs/demo_data') / 'Images'
remover = BackgroundRemover.from_checkpoint(WORKDIR)
remover.remove(min(photos.iterdir()))
