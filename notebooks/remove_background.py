# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Cut out your photos
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/rmbg-u2net/rmbg-u2net-jax/blob/main/notebooks/remove_background.ipynb)
#
# See a photo cut out, then upload your own, look at the results, download them.

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

# %%
from rmbg_jax import BackgroundRemover

remover = BackgroundRemover.from_checkpoint()
remover.remove('docs/images/photos/astronaut.jpg')

# %% [markdown]
# Your own photos, with any network: `python -m rmbg_jax.predict
# --list_checkpoints` says what there is, and under which terms.

# %% tags=["parameters"]
# What cuts out: 'small' and 'lite' come with the project; 'u2netp' and 'u2net'
# are downloaded (their authors' weights); or 'hf://OWNER/NAME' on the Hugging
# Face hub, a training's folder, such as '/content/drive/MyDrive/rmbg/full', or
# the model.h5 of the original Keras project.
CHECKPOINT = 'small'
PHOTOS = 'runs/photos'
RESULTS = 'runs/cutouts'

# %%
# On Colab, choose photos; elsewhere, put them into the folder PHOTOS. Without
# any, those of the project show how it goes.
import contextlib

if CHECKPOINT.startswith('/content/drive'):
  from google.colab import drive

  drive.mount('/content/drive')
Path(PHOTOS).mkdir(parents=True, exist_ok=True)
with contextlib.suppress(ImportError):
  from google.colab import files

  with contextlib.chdir(PHOTOS):
    files.upload()
if not any(Path(PHOTOS).iterdir()):
  PHOTOS = 'docs/images/photos'

# %% [markdown]
# All of them: photo, mask and cut-out. What cannot be read is named below and
# costs no other. `--refine`, `--background` and more are in
# [docs/predicting.md](../docs/predicting.md).

# %%
# !{sys.executable} -m rmbg_jax.predict --checkpoint={CHECKPOINT} --input={PHOTOS} --output={RESULTS}
# !{sys.executable} scripts/contact_sheet.py --input={PHOTOS} --results={RESULTS} --output={RESULTS}/sheet.png --limit=24

from IPython import display

display.Image(f'{RESULTS}/sheet.png')

# %%
archive = shutil.make_archive(RESULTS, 'zip', RESULTS)
with contextlib.suppress(ImportError):
  from google.colab import files

  files.download(archive)
archive
