"""Clips: what they show, say and sound like afterwards; trouble on the way."""

import dataclasses
import os
import shutil
import struct
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from absl.flags import FLAGS
from absl.testing import flagsaver
from PIL import Image

from data_pipelines import cli
from data_pipelines.io import errors
from rmbg_jax import predict
from rmbg_jax.batch import clip_names, listing, pipeline, session
from rmbg_jax.inference import rendering
from rmbg_jax.video import appearance, containers, cut_out, temporal
from rmbg_jax.video import sound as sound_lib
from rmbg_jax.weights import release
from tests.support import clip_files, colour_network

SECONDS = [start / 600 for start in clip_files.STARTS]


def _run(
  source,
  output,
  *,
  kinds=('mask',),
  remover=None,
  stop=None,
  options=None,
  clip_format='prores',
  overwrite=False,
  **style,
):
  task = pipeline.Task(
    output=output,
    kinds=kinds,
    style=rendering.Style(**style),
    clip_format=clip_format,
    overwrite=overwrite,
  )
  jobs = [
    dataclasses.replace(job, is_clip=True)
    for job in listing.list_jobs(str(source))
  ]
  entries = []
  cut_out.run(
    remover or clip_files.Remover(),
    jobs,
    task,
    options or cut_out.Options(),
    add_entry=entries.append,
    stop=stop or threading.Event(),
  )
  return entries


def _assert_boxes(masks, *, tolerance=1):
  for index, mask in enumerate(masks):
    left = 8 + 3 * index
    found = np.array(clip_files.find_box(mask))
    expected = np.array([left, 16, left + 24, 48])
    assert np.abs(found - expected).max() <= tolerance, (index, found)


@pytest.mark.parametrize('offset', [0, 77])
def test_a_clip_keeps_its_times_sound_and_colours(tmp_path, offset):
  source = tmp_path / 'clip.mp4'
  clip_files.save_clip(source, sound='aac', offset=offset)
  kinds = ('cutout', 'composite', 'mask')
  (entry,) = _run(source, tmp_path / 'out', kinds=kinds, background='#00ff00')
  assert (entry.status, entry.frames) == ('done', 12), entry.error
  assert (entry.width, entry.height) == clip_files.SIZE
  start, _, _ = clip_files.read_clip(source)
  for kind, ending in zip(kinds, ('mov', 'mp4', 'mp4'), strict=True):
    path = tmp_path / 'out' / kind / f'clip.{ending}'
    times, pictures, said = clip_files.read_clip(path)
    np.testing.assert_allclose(times, start, atol=2e-4)
    assert (said['aspect'], said['sounds']) == (Fraction(2), ['aac'])
    assert (said['range'], said['matrix']) == (1, 1)
    if kind == 'cutout':
      assert said['pixels'].startswith('yuva444')
      _assert_boxes(pictures[..., 3])
      inside = pictures[0, 32, 20]
      np.testing.assert_allclose(inside, [220, 20, 30, 255], atol=6)
    elif kind == 'composite':
      np.testing.assert_allclose(pictures[0, 2, 2, :3], [0, 255, 0], atol=6)
      np.testing.assert_allclose(pictures[0, 32, 20, :3], [220, 20, 30], atol=6)
    else:
      _assert_boxes(pictures[..., 0])
      assert pictures[0, 2, 2, 0] < 4 and pictures[0, 32, 20, 0] > 251
  assert not (tmp_path / 'out/.parts').exists()


def test_transparent_webm_with_sound_encoded_anew(tmp_path):
  source = tmp_path / 'clip.mov'
  clip_files.save_clip(source, sound='aac')
  (entry,) = _run(
    source, tmp_path / 'out', kinds=('cutout',), clip_format='vp9'
  )
  assert entry.status == 'done', entry.error
  times, pictures, said = clip_files.read_clip(
    tmp_path / 'out/cutout/clip.webm', decoder='libvpx-vp9'
  )
  np.testing.assert_allclose(times, SECONDS, atol=1e-3)
  assert said['sounds'] == ['opus']
  _assert_boxes(pictures[..., 3])
  np.testing.assert_allclose(pictures[0, 32, 20, :3], [220, 20, 30], atol=8)
  # What is transparent already stays so.
  (entry,) = _run(
    tmp_path / 'out/cutout/clip.webm', tmp_path / 'again', kinds=('cutout',)
  )
  assert entry.status == 'done', entry.error
  _, pictures, _ = clip_files.read_clip(tmp_path / 'again/cutout/clip.mov')
  _assert_boxes(pictures[..., 3])


def test_sounds_that_a_format_does_not_take(tmp_path):
  source = tmp_path / 'clip.mov'
  clip_files.save_clip(source, sound='pcm_s16le')
  _run(source, tmp_path / 'out', kinds=('mask', 'cutout'))
  for path, sound in (
    ('cutout/clip.mov', 'pcm_s16le'),
    ('mask/clip.mp4', 'aac'),
  ):
    _, _, said = clip_files.read_clip(tmp_path / 'out' / path)
    assert said['sounds'] == [sound]


def test_png_frames_from_other_colours(tmp_path):
  """Full range and the matrix of standard definition are read as such."""
  source = tmp_path / 'clip.mkv'
  clip_files.save_clip(
    source,
    full_range=True,
    matrix=6,
    pixels='yuv444p',
    size=(95, 63),
  )
  kinds = ('cutout', 'mask')
  (entry,) = _run(source, tmp_path / 'out', kinds=kinds, clip_format='png')
  assert entry.status == 'done', entry.error
  for kind in kinds:
    frames = sorted((tmp_path / 'out' / kind / 'clip.frames').iterdir())
    assert [path.name for path in frames] == [
      f'{number:06}.png' for number in range(1, 13)
    ]
  with Image.open(tmp_path / 'out/cutout/clip.frames/000001.png') as frame:
    assert (frame.mode, frame.size) == ('RGBA', (95, 63))
    np.testing.assert_allclose(
      frame.getpixel((20, 32)), [220, 20, 30, 255], atol=6
    )


@pytest.mark.parametrize('clip_format', ['prores', 'vp9'])
@pytest.mark.parametrize('size', [(95, 63), (95, 64), (96, 63)])
def test_odd_sizes(size, clip_format, tmp_path):
  source, output = tmp_path / 'clip.mkv', tmp_path / 'out'
  clip_files.save_clip(source, size=size, pixels='yuv444p')
  kinds = ('cutout', 'mask')
  (entry,) = _run(source, output, kinds=kinds, clip_format=clip_format)
  assert entry.status == 'done', entry.error
  for path in (*output.glob('cutout/*'), output / 'mask/clip.mp4'):
    _, pictures, said = clip_files.read_clip(path)
    assert pictures.shape[1:3] == size[::-1]
    if path.suffix == '.mov':
      assert said['pixels'].startswith('yuva444')
      _assert_boxes(pictures[..., 3])


_ONE = 1 << 16


@pytest.mark.parametrize(
  ('a', 'b', 'c', 'd'),
  [
    (0, 1, -1, 0),  # A quarter, clockwise, as telephones write it.
    (0, -1, 1, 0),
    (-1, 0, 0, -1),
    (-1, 0, 0, 1),  # Mirrored.
    (1, 0, 0, -1),
    (0, 1, 1, 0),
    (0, -1, -1, 0),
  ],
)
def test_turned_and_mirrored_clips_come_out_upright(a, b, c, d, tmp_path):
  source = tmp_path / 'clip.mov'
  clip_files.save_clip(source)
  content = bytearray(source.read_bytes())
  matrix = content.index(b'tkhd') + 4 + 40
  values = (a * _ONE, b * _ONE, 0, c * _ONE, d * _ONE, 0, 0, 0, 1 << 30)
  content[matrix : matrix + 36] = struct.pack('>9i', *values)
  source.write_bytes(content)
  (entry,) = _run(source, tmp_path / 'out')
  size = (64, 96) if b else (96, 64)
  assert (entry.width, entry.height) == size, entry.error
  _, pictures, said = clip_files.read_clip(tmp_path / 'out/mask/clip.mp4')
  assert said['aspect'] == (Fraction(1, 2) if b else Fraction(2))
  # The matrix moves each corner of the drawn box.
  for index, picture in enumerate(pictures):
    left = 8 + 3 * index
    corners = np.array([[left, 16], [left + 24, 48]]) @ [[a, b], [c, d]]
    corners += [[size[0] if a + c < 0 else 0, size[1] if b + d < 0 else 0]]
    expected = [*corners.min(axis=0), *corners.max(axis=0)]
    found = np.array(clip_files.find_box(picture[..., 0]))
    assert np.abs(found - expected).max() <= 1, (index, found, expected)


@pytest.mark.parametrize('name', ['a.gif', 'a.png'])
def test_animations_are_clips_and_stills_are_photos(name, tmp_path):
  frames = [clip_files.draw(index).convert('RGBA') for index in range(4)]
  for frame in frames:
    frame.paste((0, 0, 0, 0), (0, 0, 96, 8))
  folder = tmp_path / 'in'
  folder.mkdir()
  frames[0].save(folder / f'still{name}')
  frames[0].save(
    folder / name,
    save_all=True,
    append_images=frames[1:],
    duration=[100, 200, 300, 400],
    disposal=2,
  )
  jobs = {job.photo.name: job for job in listing.list_jobs(str(folder))}
  assert jobs[name].is_clip and not jobs[f'still{name}'].is_clip
  (entry,) = _run(folder / name, tmp_path / 'out', kinds=('cutout',))
  assert (entry.status, entry.frames) == ('done', 4), entry.error
  times, pictures, _ = clip_files.read_clip(tmp_path / 'out/cutout/a.mov')
  np.testing.assert_allclose(times, [0, 0.1, 0.3, 0.6], atol=1e-3)
  _assert_boxes(pictures[..., 3])


def test_numbered_frames_are_a_clip(tmp_path):
  folder = tmp_path / 'frames'
  folder.mkdir()
  for index in range(12):
    clip_files.draw(index).save(folder / f'frame{index}.png')
  (folder / 'notes.txt').touch()
  assert [path.stem for path in clip_names.find_frames(folder)][:3] == [
    *('frame0', 'frame1', 'frame2')
  ]
  job = listing.Job(photo=folder, result=Path('frames'), is_clip=True)
  task = pipeline.Task(
    output=tmp_path / 'out', kinds=('mask',), style=rendering.Style()
  )
  entries = []

  def run(**options):
    cut_out.run(
      clip_files.Remover(),
      [job],
      task,
      cut_out.Options(**options),
      add_entry=entries.append,
      stop=threading.Event(),
    )
    return entries.pop()

  entry = run(frame_rate=Fraction(10))
  assert (entry.status, entry.frames) == ('done', 12), entry.error
  times, pictures, _ = clip_files.read_clip(tmp_path / 'out/mask/frames.mp4')
  np.testing.assert_allclose(times, np.arange(12) / 10, atol=1e-3)
  _assert_boxes(pictures[..., 0])
  shutil.rmtree(tmp_path / 'out')
  clip_files.draw(3, (90, 64)).save(folder / 'frame3.png')
  assert 'frame3.png: 90x64 pixels, unlike the 96x64' in run().error
  (folder / 'frame3.png').write_bytes(b'nothing')
  assert 'frame3.png: cannot be read as an image' in run().error
  (folder / 'other03.png').touch()
  with pytest.raises(errors.UserError, match='have the same number'):
    clip_names.find_frames(folder)


class _Interrupting(clip_files.Remover):
  """Asks to stop once it has seen so many frames."""

  def __init__(self, limit, stop):
    super().__init__()
    self._limit, self._stop = limit, stop

  def predict(self, batch):
    probs = super().predict(batch)
    if self.count >= self._limit:
      self._stop.set()
    return probs


@pytest.mark.parametrize('clip_format', ['prores', 'vp9', 'png'])
def test_an_interrupted_clip_equals_an_undisturbed_one(
  clip_format, tmp_path, monkeypatch
):
  monkeypatch.setattr(cut_out, '_PART', 8)
  source = tmp_path / 'clip.mp4'
  clip_files.save_clip(source, count=30)
  same = {
    'kinds': ('cutout', 'mask'),
    'clip_format': clip_format,
    'options': cut_out.Options(steadiness=0.8),
  }
  _run(source, tmp_path / 'whole', **same)
  stop = threading.Event()
  remover = _Interrupting(20, stop)
  output = tmp_path / 'parts'
  assert _run(source, output, remover=remover, stop=stop, **same) == []
  assert remover.count == 20
  assert not list(output.glob('cutout/*'))
  remover = clip_files.Remover()
  (entry,) = _run(source, output, remover=remover, **same)
  assert (entry.status, entry.frames) == ('done', 30), entry.error
  assert remover.count == 30 - 16  # Two parts were done.
  files = [path for path in output.rglob('*') if path.is_file()]
  assert len(files) == (60 if clip_format == 'png' else 2)
  for path in files:
    whole = tmp_path / 'whole' / path.relative_to(output)
    if clip_format == 'vp9' and path.suffix == '.webm':
      # The container has an identity of its own, drawn at random.
      left, right = (
        clip_files.read_clip(one, decoder='libvpx-vp9') for one in (path, whole)
      )
      np.testing.assert_array_equal(left[1], right[1])
      assert left[0] == right[0]
    else:
      assert path.read_bytes() == whole.read_bytes()


def test_a_clip_leaves_the_parts_of_others(tmp_path, monkeypatch):
  monkeypatch.setattr(cut_out, '_PART', 4)
  source, output = tmp_path / 'in', tmp_path / 'out'
  (source / 'a').mkdir(parents=True)
  clip_files.save_clip(source / 'a.mp4')
  clip_files.save_clip(source / 'a/b.mp4')
  stop = threading.Event()
  # That of a/b.mp4, which comes first.
  assert not _run(source, output, remover=_Interrupting(8, stop), stop=stop)
  synced = []
  sync = cut_out.files.sync
  monkeypatch.setattr(
    cut_out.files, 'sync', lambda path: [synced.append(path), sync(path)]
  )
  steady = cut_out.Options(steadiness=0.5)
  (entry,) = _run(source / 'a.mp4', output, options=steady)
  assert (entry.status, entry.frames) == ('done', 12), entry.error
  # What the next part needs is on the disk before one counts as done.
  assert '.npz' in {path.suffix for path in synced}
  (source / 'a.mp4').unlink()  # `_run` would do it again.
  remover = clip_files.Remover()
  (entry,) = _run(source, output, remover=remover)
  assert (entry.status, entry.frames) == ('done', 12), entry.error
  assert remover.count == 12 - 8
  assert not (output / '.parts').exists()


def test_parts_of_another_clip_or_of_other_flags_are_not_used(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(cut_out, '_PART', 4)
  source = tmp_path / 'clip.mp4'
  clip_files.save_clip(source)
  for change in (
    lambda: os.utime(source, (1, 1)),
    lambda: None,
  ):
    stop = threading.Event()
    _run(source, tmp_path / 'out', remover=_Interrupting(8, stop), stop=stop)
    change()
    key = 'a' if source.stat().st_mtime != 1 else 'b'
    remover = clip_files.Remover()
    _run(
      source,
      tmp_path / 'out',
      remover=remover,
      options=cut_out.Options(find_key=lambda key=key: key),
    )
    assert remover.count == 12
    shutil.rmtree(tmp_path / 'out')


def _save_sound(path, codec, rate, layout, *, count=6):
  """Writes a clip of some frames and half a second of silence."""
  with av.open(str(path), 'w') as container:
    pictures = container.add_stream('mjpeg', rate=12)
    pictures.width, pictures.height = clip_files.SIZE
    pictures.pix_fmt = 'yuvj420p'
    silence = container.add_stream(codec, rate=rate)
    silence.layout = layout
    for index in range(count):
      frame = av.VideoFrame.from_image(clip_files.draw(index))
      frame = frame.reformat(format='yuvj420p')
      frame.pts, frame.time_base = index, Fraction(1, 12)
      container.mux(pictures.encode(frame))
    container.mux(pictures.encode(None))
    context = silence.codec_context
    resampler = av.AudioResampler(
      format=context.format, layout=layout, rate=rate
    )
    size = rate // 20
    for index in range(10):
      samples = np.zeros((1, size * context.layout.nb_channels), np.int16)
      frame = av.AudioFrame.from_ndarray(samples, format='s16', layout=layout)
      frame.sample_rate, frame.pts = rate, size * index
      frame.time_base = Fraction(1, rate)
      for part in resampler.resample(frame):
        container.mux(silence.encode(part))
    container.mux(silence.encode(None))


@pytest.mark.parametrize(
  ('name', 'codec', 'rate', 'layout'),
  [
    ('a.avi', 'pcm_s16le', 44_100, 'stereo'),
    ('a.mkv', 'pcm_s16le', 22_254, 'mono'),
    ('a.mkv', 'pcm_s24le', 192_000, '5.1(side)'),
    ('a.mkv', 'pcm_s16le', 7_000, 'octagonal'),
    ('a.mkv', 'flac', 96_000, '2.1'),
    ('a.mov', 'pcm_s16le', 44_100, '4.1'),
  ],
)
def test_sound_of_any_layout_and_rate_is_taken_over(
  name, codec, rate, layout, tmp_path
):
  source = tmp_path / name
  _save_sound(source, codec, rate, layout)
  kinds = ('mask', 'cutout')
  (entry,) = _run(source, tmp_path / 'out', kinds=kinds, clip_format='vp9')
  assert (entry.status, entry.frames) == ('done', 6), entry.error
  for path, sound in (('mask/a.mp4', 'aac'), ('cutout/a.webm', 'opus')):
    with av.open(str(tmp_path / 'out' / path)) as result:
      (heard,) = result.streams.audio
      taken = ('flac', sound) if codec == 'flac' else (sound,)
      assert heard.codec_context.codec.canonical_name in taken
      samples = sum(frame.samples for frame in result.decode(heard))
      assert abs(samples / heard.rate - 0.5) < 0.1


def test_sound_that_cannot_be_read_is_left_out(tmp_path, monkeypatch):
  source = tmp_path / 'clip.mov'
  clip_files.save_clip(source, sound='aac')
  unknown = source.read_bytes().replace(b'mp4a', b'apac')
  unknown = unknown.replace(b'esds', b'none')
  source.write_bytes(unknown)
  remover = clip_files.Remover()
  noted = []
  plan = sound_lib.plan

  def look(*args, **options):
    noted.append(remover.count)
    return plan(*args, **options)

  monkeypatch.setattr(sound_lib, 'plan', look)
  (entry,) = _run(source, tmp_path / 'out', remover=remover)
  assert (entry.status, entry.frames) == ('done', 12), entry.error
  assert entry.notes == ('its sound is left out: it cannot be read',)
  assert noted == [0]  # Known before the first frame.


def test_damaged_sound_costs_no_picture(tmp_path):
  source = tmp_path / 'clip.mkv'
  _save_sound(source, 'flac', 48_000, 'mono')
  content = bytearray(source.read_bytes())
  with av.open(str(source)) as container:
    packets = [p for p in container.demux(audio=0) if p.size]
    places = [content.index(bytes(packet)) for packet in packets]
  for place in places[-3:]:
    content[place : place + 4] = b'nope'
  source.write_bytes(content)
  (entry,) = _run(source, tmp_path / 'out')
  assert (entry.status, entry.frames) == ('done', 6), entry.error


@pytest.mark.parametrize(
  ('name', 'form', 'options'),
  [
    ('a.mp4', 'mp4', {'movflags': 'frag_keyframe+empty_moov'}),
    ('a.mkv', 'matroska', {'live': '1'}),
    ('a.webm', 'webm', {'live': '1'}),
    ('a.gif', '', {}),
    ('a.png', '', {}),
  ],
)
def test_clips_that_are_cut_off_are_never_done(name, form, options, tmp_path):
  source = tmp_path / name
  frames = [clip_files.draw(index) for index in range(12)]
  if not form:
    frames[0].save(source, save_all=True, append_images=frames[1:])
  else:
    with av.open(str(source), 'w', format=form, options=options) as container:
      codec = 'libvpx' if form == 'webm' else 'libx264'
      stream = container.add_stream(codec, rate=24, options={'g': '4'})
      stream.width, stream.height = clip_files.SIZE
      stream.pix_fmt = 'yuv420p'
      for index, picture in enumerate(frames):
        frame = av.VideoFrame.from_image(picture)
        frame.pts, frame.time_base = index, Fraction(1, 24)
        container.mux(stream.encode(frame))
      container.mux(stream.encode(None))
  whole = source.read_bytes()
  assert not containers.is_cut_off(source)
  for trail in (b'\0', bytes(20)):
    source.write_bytes(whole + trail)
    assert not containers.is_cut_off(source)
  for share in (0.55, 0.9):
    source.write_bytes(whole[: int(share * len(whole))])
    (entry,) = _run(source, tmp_path / 'out')
    assert entry.status == 'failed' and 'Replace or remove' in entry.error
  source.write_bytes(whole)
  (entry,) = _run(source, tmp_path / 'out')
  assert (entry.status, entry.frames) == ('done', 12), entry.error


def test_names_with_colons(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name in ('12:30.mp4', 'file:x.mp4', 'http:'):
    Path(name).parent.mkdir(exist_ok=True)
    clip_files.save_clip(Path(name).absolute(), sound='aac', form='mp4')
    (entry,) = _run(name, Path('o:1'))
    assert (entry.status, entry.frames) == ('done', 12), entry.error


def test_frames_are_joined_once(tmp_path, monkeypatch):
  """A run that was killed behind the joining has done it."""
  source = tmp_path / 'clip.mp4'
  clip_files.save_clip(source)
  flags = {'clip_format': 'png', 'kinds': ('mask', 'cutout')}
  monkeypatch.setattr(cut_out._Work, 'clear', lambda self: None)
  for _ in range(2):
    (entry,) = _run(source, tmp_path / 'out', overwrite=True, **flags)
    assert (entry.status, entry.frames) == ('done', 12), entry.error
    for kind in flags['kinds']:
      frames = list((tmp_path / 'out' / kind / 'clip.frames').iterdir())
      assert len(frames) == 12


def test_parts_of_other_weights_are_not_used(tmp_path, _predict, monkeypatch):
  """Whatever they are called."""
  keys = []
  monkeypatch.setattr(
    cut_out,
    'run',
    lambda *_, options, **__: keys.append(options.find_key()),
  )
  clip_files.save_clip(tmp_path / 'clip.mp4')
  weights = tmp_path / 'a.safetensors'
  monkeypatch.setattr(release, 'find_released', lambda _: weights)
  for channels in ((2, 1), (0, 2), (2, 1)):
    colour_network.save_release(weights, channels)
    _predict(tmp_path / 'clip.mp4', tmp_path / 'out', checkpoint='small')
  assert keys[0] == keys[2] != keys[1]


def test_broken_clips_are_named_and_cost_no_other(tmp_path):
  folder = tmp_path / 'in'
  folder.mkdir()
  clip_files.save_clip(folder / 'good.mp4')
  clip_files.save_clip(folder / 'long.webm', count=60, codec='libvpx-vp9')
  clip_files.save_clip(folder / 'cut.mkv', count=60)
  clip_files.save_clip(folder / 'headless.mp4', count=60)
  (folder / 'nothing.mov').touch()
  (folder / 'text.mp4').write_text('no clip')
  (folder / 'list.mp4').write_text('ffconcat version 1.0\nfile good.mp4\n')
  for name in ('long.webm', 'cut.mkv', 'headless.mp4'):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
  with av.open(str(folder / 'sound.mp4'), 'w') as container:
    stream = container.add_stream('aac', rate=48_000, layout='mono')
    frame = av.AudioFrame.from_ndarray(
      np.zeros((1, 960), np.int16), format='s16', layout='mono'
    )
    frame.sample_rate = 48_000
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
  entries = {Path(e.photo).name: e for e in _run(folder, tmp_path / 'out')}
  assert len(entries) == 8
  assert entries.pop('good.mp4').status == 'done'
  for name, message in {
    'long.webm': 'truncated',
    'cut.mkv': 'truncated',
    'headless.mp4': 'cannot be read as a clip',
    'nothing.mov': 'cannot be read as a clip',
    'text.mp4': 'cannot be read as a clip',
    'list.mp4': 'a list of files, not a clip',
    'sound.mp4': 'no moving pictures',
  }.items():
    assert entries[name].status == 'failed'
    assert message in entries[name].error, entries[name].error
    assert name not in entries[name].error
  assert [path.name for path in (tmp_path / 'out/mask').iterdir()] == [
    'good.mp4'
  ]
  assert not (tmp_path / 'out/.parts').exists()


def test_a_truncated_clip_whose_header_is_whole(tmp_path):
  source = tmp_path / 'clip.mp4'
  clip_files.save_clip(source, count=60)
  fast = tmp_path / 'fast.mp4'
  with (
    av.open(str(source)) as before,
    av.open(
      str(fast), 'w', format='mp4', options={'movflags': 'faststart'}
    ) as after,
  ):
    stream = after.add_stream_from_template(before.streams.video[0])
    for packet in before.demux(before.streams.video[0]):
      if packet.size:
        packet.stream = stream
        after.mux(packet)
  content = fast.read_bytes()
  fast.write_bytes(content[: len(content) * 2 // 3])
  (entry,) = _run(fast, tmp_path / 'out')
  assert entry.status == 'failed' and entry.error


def test_frames_in_memory_are_few(tmp_path, monkeypatch):
  """However long the clip."""
  source = tmp_path / 'clip.mp4'
  clip_files.save_clip(source, count=100, size=(32, 16))
  held, most, lock = 0, 0, threading.Lock()
  to_photo = appearance.to_photo

  def count_in(*args):
    nonlocal held, most
    with lock:
      held += 1
      most = max(most, held)
    return to_photo(*args)

  add = cut_out.encoding.VideoWriter.add

  def count_out(*args, **options):
    nonlocal held
    add(*args, **options)
    with lock:
      held -= 1

  monkeypatch.setattr(appearance, 'to_photo', count_in)
  monkeypatch.setattr(cut_out.encoding.VideoWriter, 'add', count_out)
  (entry,) = _run(source, tmp_path / 'out')
  assert entry.frames == 100 and held == 0
  assert most <= 5 * clip_files.Remover.batch_size


def _compute_flicker(alphas, still):
  """Mean absolute change of alpha where the picture did not change."""
  return np.abs(np.diff(alphas, axis=0))[still].mean()


def _compute_dtssd(alphas, truth):
  """Root mean square of what changes otherwise than the truth."""
  return np.sqrt(
    ((np.diff(alphas, axis=0) - np.diff(truth, axis=0)) ** 2).mean()
  )


def test_masks_are_steadied_without_smearing_what_moves(rng):
  """A box moves over a textured, noisy background; the network flickers."""
  count, height, width = 40, 64, 96
  texture = rng.uniform(0.2, 0.5, (height, width, 3))
  truth = np.zeros((count, height, width), np.float32)
  seen, probs = [], []
  for index in range(count):
    truth[index, 20:44, 5 + 2 * index : 15 + 2 * index] = 1
    truth[index, 48:60, 8:30] = 1  # Stands still.
    picture = np.where(truth[index, ..., None] > 0, 0.9, texture)
    picture = picture + rng.normal(0, 0.01, picture.shape)
    seen.append((picture.clip(0, 1) * 255).astype(np.uint8))
    noise = rng.normal(0, 0.15, truth[index].shape)
    probs.append((truth[index] + noise).clip(0, 1).astype(np.float32))
  still = np.diff(truth, axis=0) == 0
  measured = {}
  for strength in (0.0, 0.5, 1.0):
    steadier = temporal.Steadier(strength)
    alphas = np.stack(
      [steadier.steady(*pair) for pair in zip(probs, seen, strict=True)]
    )
    moving = ~still
    error = np.abs(alphas - truth)[1:][moving].mean()
    measured[strength] = (
      _compute_flicker(alphas, still),
      _compute_dtssd(alphas, truth),
      error,
    )
  flicker, dtssd, error = zip(*measured.values(), strict=True)
  assert flicker[1] < 0.7 * flicker[0] and flicker[2] < 0.4 * flicker[0]
  assert dtssd[2] < dtssd[1] < dtssd[0]
  assert max(error) < error[0] + 0.01  # Nothing of before where it moves.


@pytest.fixture
def _predict(monkeypatch):
  """Runs the command with flags; the network takes red for foreground."""
  monkeypatch.setattr(
    session.Request, 'load', lambda *_, **__: clip_files.Remover()
  )

  def run(source, output, **flags):
    flags = {'input': str(source), 'output': str(output), **flags}
    with flagsaver.flagsaver(**flags), cli.reporting():
      for name in ('input', 'output'):
        FLAGS[name].parse(flags[name])
      predict.main(['predict'])

  return run


def test_predict_mixes_photos_and_clips(tmp_path, _predict, capsys):
  folder, output = tmp_path / 'in', tmp_path / 'out'
  (folder / 'deep').mkdir(parents=True)
  clip_files.save_clip(folder / 'deep/clip.mp4')
  clip_files.draw(0).save(folder / 'deep/clip.jpg')
  (folder / 'broken.mov').touch()
  with pytest.raises(SystemExit) as exit_info:
    _predict(folder, output, temporal=0.5)
  assert exit_info.value.code == 1
  said = capsys.readouterr().out
  assert '2 of 3 photos and clips done' in said
  assert f'Failed: {folder}/broken.mov: cannot be read as a clip' in said
  assert sorted(
    path.relative_to(output).as_posix() for path in output.rglob('*.*')
  ) == [
    *('cutout/deep/clip.jpg.png', 'cutout/deep/clip.mp4.mov'),
    *('mask/deep/clip.jpg.png', 'mask/deep/clip.mp4.mp4', 'report.jsonl'),
  ]
  (folder / 'broken.mov').unlink()
  _predict(folder, output, temporal=0.5)
  said = capsys.readouterr().out
  assert '2 of 2 photos and clips done (2 of them before)' in said


def test_predict_takes_a_folder_of_frames(tmp_path, _predict):
  folder = tmp_path / 'scene 1'
  folder.mkdir()
  for index in range(3):
    clip_files.draw(index).save(folder / f'{index}.png')
  flags = {'frames': True, 'frame_rate': '24000/1001', 'save': ['mask']}
  _predict(folder, tmp_path / 'out', **flags)
  times, _, _ = clip_files.read_clip(tmp_path / 'out/mask/scene 1.mp4')
  np.testing.assert_allclose(times, np.arange(3) * 1001 / 24000, atol=1e-4)
  for wrong, message in (
    ({'frame_rate': 'fast'}, '--frame_rate=fast: pass'),
    ({'temporal': -1.0}, '--temporal=-1.0: choose'),
  ):
    with pytest.raises(SystemExit, match=message):
      _predict(folder, tmp_path / 'other', **{**flags, **wrong})
  with pytest.raises(SystemExit, match='--frames takes a folder'):
    _predict(folder / '0.png', tmp_path / 'other', **flags)


def test_clips_without_pyav(tmp_path, _predict, monkeypatch, capsys):
  monkeypatch.setattr(clip_names, 'HAS_AV', False)
  clip_files.save_clip(tmp_path / 'clip.mp4')
  with pytest.raises(SystemExit):
    _predict(tmp_path / 'clip.mp4', tmp_path / 'out')
  assert 'clip.mp4: clips need PyAV: pip install' in capsys.readouterr().out
  folder = tmp_path / 'in'
  folder.mkdir()
  clip_files.draw(0).save(folder / 'a.png')
  (tmp_path / 'clip.mp4').rename(folder / 'clip.mp4')
  _predict(folder, tmp_path / 'out')
  said = capsys.readouterr().out
  assert '1 of 1 photo done' in said
  assert 'Left out, not photos by their names: 1 file (.mp4: 1)' in said
  assert 'Clips are done too with PyAV' in said


def test_wrong_options():
  with pytest.raises(errors.UserError, match='--temporal=2.0: choose 0 to 1'):
    cut_out.Options(steadiness=2.0)
  with pytest.raises(errors.UserError, match='--frame_rate=0'):
    cut_out.Options(frame_rate=Fraction(0))
