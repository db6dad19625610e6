# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Evaluate
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/rmbg-u2net/rmbg-u2net-jax/blob/main/notebooks/evaluate.ipynb)
#
# Scores checkpoints, or masks made by anything else, with the field's
# metrics ([docs/evaluation.md](../docs/evaluation.md)).

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
# One or several, separated by commas: what the other notebooks take.
CHECKPOINTS = 'small'
# Folders with photos and true masks, or benchmarks as they are published, such
# as '/content/drive/MyDrive/DUTS-TE'. Without any, pictures are drawn.
DATA = ''
OUTPUT = 'runs/evaluation'
OPTIONS = '--metrics=saliency --batch_size=4'

# %%
from data_pipelines.datasets import demo

if '/content/drive' in CHECKPOINTS + DATA:
  from google.colab import drive

  drive.mount('/content/drive')
if not DATA:
  DATA = 'runs/demo_test'
  demo.make_demo(Path(DATA), count=12, size=(160, 160), seed=7)

# %%
# !{sys.executable} -m rmbg_jax.evaluate --checkpoint={CHECKPOINTS} --data={DATA} --output={OUTPUT} {OPTIONS}

# %%
from IPython import display

display.Markdown(f'{OUTPUT}/table.md')

# %% [markdown]
# Curves, and the worst, median and best images. Every image's values are in
# `OUTPUT`; `--compare` says what changed between two results.

# %%
for picture in sorted(Path(OUTPUT).glob('curves_*.png')):
  display.display(display.Image(str(picture)))
for gallery in sorted(Path(OUTPUT).rglob('gallery.html')):
  display.display(display.HTML(str(gallery)))
