"""The command line of prediction: files in, files out, nothing lost."""

import io
import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest
from absl.flags import FLAGS
from absl.testing import flagsaver
from PIL import Image

from data_pipelines import cli
from rmbg_jax import BackgroundRemover, predict
from rmbg_jax.batch import remote, report
from tests.support import foreign_networks, helpers


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
  path = tmp_path_factory.mktemp('release') / 'random.safetensors'
  helpers.save_random_release(path)
  return path


def _run(source, output, weights, **flags):
  flags = {'input': str(source), 'output': str(output), **flags}
  flags.setdefault('checkpoint', str(weights))
  with flagsaver.flagsaver(**flags), cli.reporting():
    for name in ('input', 'output', 'checkpoint'):
      FLAGS[name].parse(flags[name])
    predict.main(['predict'])


def _run_line(*arguments, weights, **flags):
  """Runs what a command line gives without --input and --output."""
  with flagsaver.flagsaver(checkpoint=str(weights), **flags), cli.reporting():
    predict.main(['predict', *map(str, arguments)])


def _read_report(output):
  return (output / 'report.jsonl').read_text(encoding='utf-8').splitlines()


def test_a_folder_is_done_and_a_broken_one_named(checkpoint, tmp_path, capsys):
  source, output = tmp_path / 'photos', tmp_path / 'out'
  (source / 'sub dir').mkdir(parents=True)
  helpers.make_photo((40, 24)).save(source / 'a.jpg')
  helpers.make_photo((30, 50)).save(source / 'a.png')
  helpers.make_photo((20, 20)).save(source / 'sub dir' / 'ü.webp')
  (source / 'broken.jpg').write_bytes(b'\xff\xd8\xff')
  (source / 'notes.txt').touch()
  with pytest.raises(SystemExit) as exit_info:
    _run(source, output, checkpoint, save=['mask', 'cutout', 'side_by_side'])
  assert exit_info.value.code == 1
  text = capsys.readouterr().out
  assert '3 of 4 photos done' in text
  assert 'Failed: ' in text and 'broken.jpg: cannot be read' in text
  for kind, mode in (
    ('mask', 'L'),
    ('cutout', 'RGBA'),
    ('side_by_side', 'RGB'),
  ):
    found = sorted(
      path.relative_to(output / kind).as_posix()
      for path in (output / kind).rglob('*')
      if path.is_file()
    )
    assert found == ['a.jpg.png', 'a.png.png', 'sub dir/ü.png']
    with Image.open(output / kind / 'a.jpg.png') as image:
      width = 40 * 2 + 10 if kind == 'side_by_side' else 40
      assert (image.mode, image.size) == (mode, (width, 24))


def test_a_folder_that_cannot_be_read_is_a_failure(
  checkpoint, tmp_path, monkeypatch, capsys
):
  source, output = tmp_path / 'photos', tmp_path / 'out'
  (source / 'closed').mkdir(parents=True)
  helpers.make_photo((40, 24)).save(source / 'a.jpg')
  scan = os.scandir

  def refuse(path):
    if str(path) == str(source / 'closed'):
      raise PermissionError(13, 'Permission denied', str(path))
    return scan(path)

  monkeypatch.setattr(os, 'scandir', refuse)
  with pytest.raises(SystemExit) as exit_info:
    _run(source, output, checkpoint, save=['mask'])
  assert exit_info.value.code == 1
  text = capsys.readouterr().out
  assert '1 of 2 photos done' in text
  assert f'Failed: {source / "closed"}: the folder cannot be read' in text
  lines = {
    line['photo']: line for line in map(json.loads, _read_report(output))
  }
  assert lines[str(source / 'closed')]['status'] == 'failed'
  assert lines[str(source / 'a.jpg')]['status'] == 'done'


def test_failures_name_the_photo_once_and_the_remedy(
  checkpoint, tmp_path, monkeypatch, capsys
):
  source = tmp_path / 'photos'
  source.mkdir()
  helpers.make_photo((40, 24)).save(source / 'large.png')
  (source / 'fake.jpg').write_text('no picture')
  helpers.make_photo((4, 4)).save(source / 'closed.png')
  open_image = Image.open

  def refuse(path, *args, **options):
    # Permissions do not hold for root.
    if str(path).endswith('closed.png'):
      raise PermissionError(13, 'Permission denied', str(path))
    return open_image(path, *args, **options)

  monkeypatch.setattr(Image, 'open', refuse)
  with pytest.raises(SystemExit):
    _run(source, tmp_path / 'out', checkpoint, max_pixels=100)
  text = capsys.readouterr().out
  assert f'{source}/closed.png: no permission to read it. Allow it' in text
  assert (
    f'Failed: {source}/fake.jpg: cannot be read as an image (not in a known '
    'format). Replace or remove it.\n'
  ) in text
  assert (
    f'{source}/large.png: 40x24 are more pixels than the limit of 100.'
    in (text)
  )


def _make_two_photos(tmp_path):
  source = tmp_path / 'photos'
  source.mkdir()
  for name in ('a', 'b'):
    helpers.make_photo((40, 24)).save(source / f'{name}.jpg')
  return source


def test_an_output_that_is_not_a_number_is_a_failure(
  checkpoint, tmp_path, monkeypatch, capsys
):
  source, output = _make_two_photos(tmp_path), tmp_path / 'out'
  predict_batch = BackgroundRemover.predict

  def break_first(self, batch):
    probs = predict_batch(self, batch).copy()
    probs[0, 0, 0] = np.nan
    return probs

  monkeypatch.setattr(BackgroundRemover, 'predict', break_first)
  with pytest.raises(SystemExit) as exit_info:
    _run(source, output, checkpoint, save=['mask'])
  assert exit_info.value.code == 1
  text = capsys.readouterr().out
  assert f"{source}/a.jpg: the network's output is not a number" in text
  assert [path.name for path in (output / 'mask').iterdir()] == ['b.png']
  assert '": NaN' not in ''.join(_read_report(output))


def test_a_single_photo_and_the_default_kinds(checkpoint, tmp_path):
  path = tmp_path / 'photo.jpg'
  helpers.make_photo((40, 24)).save(path)
  _run(path, tmp_path / 'out', checkpoint)
  assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == [
    'cutout',
    'mask',
    'report.jsonl',
  ]
  expected = BackgroundRemover.from_checkpoint(checkpoint).alpha(path)
  with Image.open(tmp_path / 'out/mask/photo.png') as mask:
    np.testing.assert_array_equal(np.asarray(mask), np.round(expected * 255))


def test_a_full_disk_is_an_error_of_that_photo(
  checkpoint, tmp_path, monkeypatch, capsys
):
  source, output = _make_two_photos(tmp_path), tmp_path / 'out'
  write = pathlib.Path.write_bytes

  def fail(self, content):
    write(self, content)
    if 'b.png' in self.name:
      raise OSError(28, 'No space left on device')

  monkeypatch.setattr(pathlib.Path, 'write_bytes', fail)
  with pytest.raises(SystemExit):
    _run(source, output, checkpoint, save=['mask'])
  assert 'b.jpg: [Errno 28]' in capsys.readouterr().out
  # Nothing half-written is left.
  assert [p.name for p in (output / 'mask').iterdir()] == ['a.png']


def test_a_full_disk_ends_the_run_and_says_how_much_is_done(
  checkpoint, tmp_path, monkeypatch, capsys
):
  source, output = tmp_path / 'photos', tmp_path / 'out'
  source.mkdir()
  for index in range(30):
    helpers.make_photo((4, 4)).save(source / f'{index:02}.png')
  add = report.Report.add

  def fail(self, entry):
    if '03' in entry.photo:
      raise OSError(28, 'No space left on device', str(output))
    add(self, entry)

  monkeypatch.setattr(report.Report, 'add', fail)
  with pytest.raises(SystemExit) as exit_info:
    _run(source, output, checkpoint, save=['mask'])
  assert exit_info.value.code == 1
  text = capsys.readouterr().out
  done = len(list((output / 'mask').iterdir()))
  assert 0 < done < 30 and f'{done} of 30 photos done' in text
  assert f'Stopped with {30 - done} photos left: [Errno 28]' in text
  assert str(output) in text.partition('Stopped')[2]


def test_names_that_are_not_utf_8(checkpoint, tmp_path, monkeypatch):
  source = tmp_path / 'photos'
  source.mkdir()
  good, bad = (
    source / os.fsdecode(name) for name in (b'caf\xe9.png', b'\xff.png')
  )
  helpers.make_photo((4, 4)).save(good)
  bad.write_bytes(b'no picture')
  (source / 'raw.nef').touch()
  monkeypatch.setenv('HOME', str(tmp_path))
  console = io.TextIOWrapper(io.BytesIO(), encoding='cp1252')
  monkeypatch.setattr(sys, 'stdout', console)
  cli.print_any_name()
  for _ in range(2):
    with pytest.raises(SystemExit) as exit_info:
      _run(source, '~/out', checkpoint, save=['mask'])
    assert exit_info.value.code == 1
  console.seek(0)
  text = console.buffer.getvalue().decode('cp1252')
  assert 'photos/\\udcff.png: cannot be read' in text
  assert 'not photos by their names: 1 file (.nef: 1)' in text
  output = tmp_path / 'out'
  assert (output / 'mask' / good.name).exists()
  lines = {
    line['photo']: line for line in map(json.loads, _read_report(output))
  }
  assert lines[str(good)]['width'] == 4 and lines[str(bad)]['error']


def test_a_second_run_does_what_is_missing(checkpoint, tmp_path, capsys):
  source, output = tmp_path / 'photos', tmp_path / 'out'
  source.mkdir()
  for name in 'abc':
    helpers.make_photo((40, 24)).save(source / f'{name}.jpg')
  _run(source, output, checkpoint, save=['mask'])
  first = [json.loads(line) for line in _read_report(output)]
  assert [line['status'] for line in first] == ['done'] * 3
  assert {line['width'] for line in first} == {40}
  assert all(0 <= line['foreground'] <= 1 for line in first)
  (output / 'mask/b.png').unlink()
  kept = (output / 'mask/a.png').stat().st_mtime_ns
  capsys.readouterr()
  _run(source, output, checkpoint, save=['mask'])
  text = capsys.readouterr().out
  assert '3 of 3 photos done (2 of them before)' in text
  assert 'left as it is' in text and '--overwrite' in text
  assert (output / 'mask/a.png').stat().st_mtime_ns == kept
  assert (output / 'mask/b.png').exists()
  second = {
    pathlib.Path(line['photo']).name: line
    for line in map(json.loads, _read_report(output))
  }
  assert {name: line['status'] for name, line in second.items()} == {
    'a.jpg': 'skipped',
    'b.jpg': 'done',
    'c.jpg': 'skipped',
  }
  # What the first run found out is still there.
  assert second['a.jpg']['foreground'] == first[0]['foreground']
  _run(source, output, checkpoint, save=['mask'], overwrite=True)
  assert (output / 'mask/a.png').stat().st_mtime_ns > kept


def test_a_foreign_network_goes_on_and_is_not_mixed_with_another(
  tmp_path, capsys
):
  source, output = tmp_path / 'photos', tmp_path / 'out'
  source.mkdir()
  for name in 'ab':
    helpers.make_photo((40, 24)).save(source / f'{name}.png')
  weights = [tmp_path / 'one.onnx', tmp_path / 'other.onnx']
  for seed, path in enumerate(weights):
    foreign_networks.save(path, seed=seed)
    foreign_networks.save_settings(path)
  urls = source.as_uri(), output.as_uri()
  _run(*urls, weights[0], save=['mask'])
  (output / 'mask/b.png').unlink()
  _run(*urls, weights[0], save=['mask'])
  assert '(1 of them before)' in capsys.readouterr().out
  assert (output / 'mask/b.png').exists()
  with pytest.raises(SystemExit, match='made otherwise .network was'):
    _run(*urls, weights[1], save=['mask'])


def test_shards_share_a_folder(checkpoint, tmp_path):
  source, output = tmp_path / 'photos', tmp_path / 'out'
  source.mkdir()
  for index in range(5):
    helpers.make_photo((20, 20)).save(source / f'{index}.png')
  helpers.make_photo((20, 20)).save(source / '0.jpg')
  for shard, expected in (('0/2', 3), ('1/2', 6)):
    _run(source, output, checkpoint, save=['mask'], shard=shard)
    assert len(list((output / 'mask').iterdir())) == expected
  assert (output / 'mask/0.jpg.png').exists()
  assert (output / 'report-1-of-2.jsonl').exists()


def test_one_file_in_and_one_file_out(checkpoint, tmp_path, capsys):
  photo = tmp_path / 'photo.jpg'
  helpers.make_photo((40, 24)).save(photo)
  _run_line(photo, weights=checkpoint)
  _run_line(photo, tmp_path / 'new/out.webp', weights=checkpoint)
  _run(photo, tmp_path / 'out.jpg', checkpoint, background='#ff0000')
  _run(photo, (tmp_path / 'mask.png').as_uri(), checkpoint, save=['mask'])
  assert str(tmp_path / 'mask.png') in capsys.readouterr().out
  made = {
    'photo-cutout.png': ('PNG', 'RGBA'),
    'new/out.webp': ('WEBP', 'RGBA'),
    'out.jpg': ('JPEG', 'RGB'),
    'mask.png': ('PNG', 'L'),
  }
  for name, form in made.items():
    with Image.open(tmp_path / name) as image:
      assert (image.format, image.mode) == form
      assert image.size == (40, 24)
  files = {path.name for path in tmp_path.rglob('*') if path.is_file()}
  assert files == {photo.name, 'out.webp', *made} - {'new/out.webp'}
  # Nothing is replaced unasked, and never the photo.
  content = photo.read_bytes()
  for arguments, message in (
    ((photo,), 'photo-cutout.png is there already. Pass --overwrite'),
    ((photo, photo), 'is the photo itself'),
    ((photo, tmp_path / 'mask.gif'), 'the name of one file'),
    ((tmp_path, tmp_path / 'all.png'), 'the name of one file'),
    ((tmp_path,), '--output is missing'),
    ((photo, tmp_path / 'mask.png', photo), '--output is missing'),
    ((), '--input is missing'),
    (('https://a.org/b.jpg', tmp_path / 'b.png'), 'a URL of this kind is not'),
    ((photo.as_uri(), tmp_path / 'b.png'), 'Pass the path of one photo'),
    ((tmp_path / '*.gif', tmp_path), r'\*.gif: no file matches it'),
    (('absent.jpg',), '--input=absent.jpg: no such file'),
    (('absent.jpg', tmp_path / 'b.png'), '--input=absent.jpg: no such file'),
    (('-',), 'pass --input=- and --output=- together'),
    (('-', tmp_path / 'b.png'), 'pass --input=- and --output=- together'),
  ):
    with pytest.raises(SystemExit, match=message):
      _run_line(*arguments, weights=checkpoint)
  with pytest.raises(SystemExit, match='one file is of one kind'):
    _run(photo, tmp_path / 'a.png', checkpoint, save=['mask', 'cutout'])
  for form in ({}, {'format': 'jpeg'}):
    with pytest.raises(SystemExit, match='mask is lossless'):
      _run(photo, tmp_path / 'a.jpg', checkpoint, save=['mask'], **form)
  assert photo.read_bytes() == content
  with pytest.raises(
    SystemExit, match='a.png: --format=webp is another .*.webp'
  ):
    _run(photo, tmp_path / 'a.png', checkpoint, format='webp')
  with pytest.raises(SystemExit, match='photo.jpg: 40x24 are more pixels'):
    _run(photo, tmp_path / 'a.png', checkpoint, max_pixels=100)
  _run_line(photo, weights=checkpoint, overwrite=True)
  _run_line(photo, weights=checkpoint, save=['mask'], format='jpeg')
  assert (tmp_path / 'photo-mask.png').exists()
  # A folder of such a name stays one.
  (tmp_path / 'folder.png').mkdir()
  _run(photo, tmp_path / 'folder.png', checkpoint, save=['mask'])
  assert (tmp_path / 'folder.png/mask/photo.png').exists()


def test_several_inputs_as_a_shell_makes_them_of_a_pattern(
  checkpoint, tmp_path, capsys
):
  for name in ('a/one.jpg', 'b/two.jpg'):
    path = tmp_path / 'photos' / name
    path.parent.mkdir(parents=True)
    helpers.make_photo((40, 24)).save(path)
  names = [tmp_path / 'photos' / name for name in ('a/one.jpg', 'b/two.jpg')]
  output = tmp_path / 'out'
  _run_line(
    names[1],
    weights=checkpoint,
    input=str(names[0]),
    output=str(output),
    save=['mask'],
  )
  assert '2 of 2 photos done' in capsys.readouterr().out
  made = {path.relative_to(output).as_posix() for path in output.rglob('*.png')}
  assert made == {'mask/a/one.png', 'mask/b/two.png'}
  with pytest.raises(SystemExit, match='Several inputs .* a pattern in quotes'):
    _run_line(*names, weights=checkpoint, output=str(output), watch=True)
  # No system has such a name: it costs no other.
  with pytest.raises(SystemExit):
    _run_line(
      *names, 'x' * 300 + '.jpg', weights=checkpoint, output=str(output)
    )
  said = capsys.readouterr().out
  assert '2 of 3 photos done' in said
  assert 'File name too long' in said


def test_a_pattern_in_quotes_below_the_home_folder(
  checkpoint, tmp_path, monkeypatch, capsys
):
  monkeypatch.setenv('HOME', str(tmp_path))
  helpers.make_photo((40, 24)).save(tmp_path / 'a.jpg')
  monkeypatch.chdir(tmp_path)
  _run_line('~/*.jpg', '~/out', weights=checkpoint, save=['mask'])
  assert '1 of 1 photo done' in capsys.readouterr().out
  assert (tmp_path / 'out/mask/a.png').exists()


def test_standard_input_and_output(checkpoint, tmp_path):
  file = io.BytesIO()
  helpers.make_photo((40, 24)).save(
    file, 'webp', save_all=True, append_images=[Image.new('RGB', (40, 24))]
  )
  command = [
    sys.executable,
    '-m',
    'rmbg_jax.predict',
    '--input=-',
    '--output=-',
  ]
  done = subprocess.run(
    [*command, f'--checkpoint={checkpoint}', '--save=cutout', '--format=webp'],
    input=file.getvalue(),
    capture_output=True,
    check=True,
  )
  with Image.open(io.BytesIO(done.stdout)) as image:
    assert (image.format, image.mode, image.size) == ('WEBP', 'RGBA', (40, 24))
  assert b'--input=-: the first of 2 pictures.' in done.stderr


def test_an_interrupted_run_ends_cleanly_and_goes_on(
  checkpoint, tmp_path, monkeypatch, capsys
):
  source, output = tmp_path / 'photos', tmp_path / 'out'
  source.mkdir()
  for index in range(30):
    helpers.make_photo((20, 20), index).save(source / f'{index:02}.png')
  predict_batch = BackgroundRemover.predict

  def interrupt(self, batch):
    os.kill(os.getpid(), signal.SIGINT)
    return predict_batch(self, batch)

  monkeypatch.setattr(BackgroundRemover, 'predict', interrupt)
  with pytest.raises(SystemExit) as exit_info:
    _run(source, output, checkpoint, save=['mask'])
  assert exit_info.value.code == 130
  assert 'Interrupted.' in capsys.readouterr().out
  done = {path.name for path in (output / 'mask').iterdir()}
  assert 0 < len(done) < 30
  assert len(_read_report(output)) == len(done)
  monkeypatch.undo()
  _run(source, output, checkpoint, save=['mask'])
  assert len(list((output / 'mask').iterdir())) == 30
  assert len(_read_report(output)) == 30


def test_ctrl_c_while_the_network_is_loaded(
  checkpoint, tmp_path, monkeypatch, capsys
):
  def interrupt(*args, **options):
    raise KeyboardInterrupt

  monkeypatch.setattr(BackgroundRemover, 'from_checkpoint', interrupt)
  helpers.make_photo((4, 4)).save(tmp_path / 'photo.png')
  with pytest.raises(SystemExit) as exit_info:
    _run(tmp_path / 'photo.png', tmp_path / 'out', checkpoint)
  assert exit_info.value.code == 130
  assert 'Interrupted. The same command' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    ({'save': ['mask', 'matte']}, '--save=mask,matte: choose from mask'),
    ({'input': 'absent'}, '--input=absent: no such file or folder'),
    ({'checkpoint': 'absent'}, 'absent: no such checkpoint'),
    ({'save': ['composite']}, '--save=composite needs --background'),
    ({'format': 'jpeg'}, 'JPEG has no transparency'),
    ({'background': 'blur'}, 'changes nothing in --save=mask,cutout. Add comp'),
    ({'background': 'nowhere.png'}, '--background=nowhere.png: neither'),
    ({'shard': '2/2'}, '--shard=2/2: pass i/n'),
    ({'scales': ['0', 'big']}, '--scales=0,big: pass numbers above 0'),
    ({'scales': ['99']}, '--scales=99: pass .* at most 4'),
    ({'scales': ['-1']}, '--scales=-1: pass numbers above 0'),
    ({'scales': []}, '--scales=: pass numbers'),
    ({'save': []}, '--save=: choose from'),
    ({'actors': '2'}, '--actors=2 is for --engine=ray. Pass both'),
    ({'refiner': 'own'}, '--refiner=own is for --refine=learned. Pass both'),
    ({'frame_rate': '30'}, '--frame_rate=30 is for --frames. Pass both'),
    ({'quality': 80}, '--quality=80 is for --format=webp or --format=jpeg'),
    ({'trimap_width': 3}, '--trimap_width=3 is for --save=trimap'),
    ({'trim': True, 'save': ['mask']}, '--trim=True is for --save=cutout or'),
    ({'input': '/dev/null'}, '--input=/dev/null: neither a file nor a folder'),
    ({'threshold': 2.0}, 'threshold must be in'),
    ({'input': ''}, '--input= is empty'),
    ({'output': ''}, '--output= is empty'),
    ({'input': '~/absent'}, '--input=/.*[^~]/absent: no such file'),
    ({'checkpoint': '~/absent'}, '/absent: no such checkpoint'),
    ({'output': '-'}, 'pass --input=- and --output=- together'),
    ({'input': '-', 'output': '-'}, 'exactly one kind'),
    (
      {'input': '-', 'output': '-', 'save': ['mask'], 'watch': True},
      '--watch is for folders',
    ),
  ],
)
def test_wrong_flags(flags, message, checkpoint, tmp_path):
  helpers.make_photo((4, 4)).save(tmp_path / 'photo.png')
  with pytest.raises(SystemExit, match=message):
    _run(
      flags.pop('input', tmp_path / 'photo.png'),
      flags.pop('output', tmp_path / 'out'),
      checkpoint,
      **flags,
    )
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    ({'checkpoint': 'absent'}, 'absent: no such checkpoint'),
    ({'scales': ['0']}, '--scales=0: pass'),
    ({'threshold': 7.0}, 'threshold must be in'),
  ],
)
def test_wrong_flags_where_all_is_done_before(flags, message, tmp_path):
  helpers.make_photo((4, 4)).save(tmp_path / 'photo.png')
  (tmp_path / 'out/mask').mkdir(parents=True)
  (tmp_path / 'out/mask/photo.png').touch()
  flags = {'checkpoint': 'released', 'save': ['mask'], **flags}
  with pytest.raises(SystemExit, match=message):
    _run(tmp_path / 'photo.png', tmp_path / 'out', None, **flags)
  assert not (tmp_path / 'out/report.jsonl').exists()


def test_a_cluster_gets_whole_paths(tmp_path, monkeypatch):
  asked = []

  def run(source, request, **_):
    asked.append((source, request))
    return False

  monkeypatch.setattr(remote, 'run', run)
  monkeypatch.chdir(tmp_path)
  helpers.make_photo((4, 4)).save(tmp_path / 'a.png')
  flags = {'refine': 'learned', 'refiner': 'a.png', 'background': 'a.png'}
  _run('a.png', 'out', 'absent', engine='ray', save=['composite'], **flags)
  ((source, request),) = asked
  assert source == request.task.style.background == str(tmp_path / 'a.png')
  assert request.options['refinement'].refiner == source
  assert request.task.output == tmp_path / 'out'


def test_an_output_that_cannot_be_written(tmp_path, monkeypatch):
  source, output = tmp_path / 'photo.png', tmp_path / 'out'
  helpers.make_photo((4, 4)).save(source)

  def check(folder, message):
    # Said before the checkpoint, which is not there, is loaded.
    with pytest.raises(SystemExit, match=f'--output={folder}: {message}'):
      _run(source, folder, 'absent', save=['mask'])

  output.touch()
  check(output, f'{output} is a file')
  check(output / 'deeper', f'{output} is a file')
  output.unlink()
  output.mkdir()
  (output / 'mask').touch()
  check(output, f'{output}/mask is a file')
  (output / 'mask').unlink()
  # Permissions do not hold for root.
  access = os.access
  monkeypatch.setattr(
    os,
    'access',
    lambda path, mode: not mode & os.W_OK and access(path, mode),
  )
  check(output / 'deeper', f'no permission to write in {output}')


def test_input_that_is_a_folder_of_results(tmp_path):
  photo = tmp_path / 'cutout' / 'a.png'
  photo.parent.mkdir()
  helpers.make_photo((4, 4)).save(photo)
  path = tmp_path / 'list.txt'
  path.write_text('cutout/a.png\n', encoding='utf-8')
  for source in (photo, photo.parent, tmp_path / 'c*' / '*', path):
    # Said before the checkpoint, which is not there, is loaded.
    with pytest.raises(SystemExit, match=f'is in {photo.parent}, where'):
      _run(source, tmp_path, 'absent', overwrite=True)


def test_output_inside_input_and_an_empty_folder(checkpoint, tmp_path):
  with pytest.raises(SystemExit, match='is inside --input'):
    _run(tmp_path, tmp_path / 'out', checkpoint)
  with pytest.raises(SystemExit, match='no photos in it'):
    _run(tmp_path, tmp_path.parent / 'out', checkpoint)
