# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Bring your `model.h5`
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/rmbg-u2net/rmbg-u2net-jax/blob/main/notebooks/from_keras.ipynb)
#
# A network that the original Keras project trained, used here without
# TensorFlow ([docs/from_keras.md](../docs/from_keras.md)).

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
# The file, such as '/content/drive/MyDrive/model.h5'. Without one, a file of the
# same kind is made of a network that comes with the project.
MODEL = ''
PHOTOS = 'docs/images/photos'
RESULTS = 'runs/from_keras'

# %%
if MODEL.startswith('/content/drive'):
  from google.colab import drive

  drive.mount('/content/drive')
if not MODEL:
  MODEL = 'runs/model.h5'
  export = ['scripts/export.py', '--checkpoint=lite', f'--output={MODEL}']
  subprocess.run([sys.executable, *export], check=True)

# %% [markdown]
# What the file holds: the network is rebuilt from it, with the input size and the
# preprocessing that it was trained with.

# %%
from rmbg_jax import load_model

loaded = load_model(MODEL)
loaded.preprocessing, loaded.description['architecture']

# %% [markdown]
# The notebook's loop over test photos. `side_by_side` in `--save` is its picture.

# %%
# !{sys.executable} -m rmbg_jax.predict --checkpoint={MODEL} --input={PHOTOS} --output={RESULTS}
# !{sys.executable} scripts/contact_sheet.py --input={PHOTOS} --results={RESULTS} --output={RESULTS}/sheet.png --limit=24

from IPython import display

display.Image(f'{RESULTS}/sheet.png')

# %% [markdown]
# One small file that loads faster and anywhere, and the way back: a `model.h5`
# for Keras 2 and 3. To go on training it, see
# [docs/from_keras.md](../docs/from_keras.md).

# %%
# !{sys.executable} scripts/export.py --checkpoint={MODEL} --output={RESULTS}/model.safetensors
# !{sys.executable} scripts/export.py --checkpoint={RESULTS}/model.safetensors --output={RESULTS}/back.h5

sorted(path.name for path in Path(RESULTS).glob('*.*'))
