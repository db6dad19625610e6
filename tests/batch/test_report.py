"""The report of a prediction survives kills and names of any kind."""

import json
import os

import pytest

from rmbg_jax.batch import report


def _entry(photo, status='done', **values):
  return report.Entry(photo=photo, status=status, **values)


def _read(path):
  lines = path.read_bytes().decode().splitlines()
  return {line['photo']: line for line in map(json.loads, lines)}


@pytest.mark.parametrize(
  'name',
  ['ls\u2028x.jpg', 'nel\u0085x.jpg', os.fsdecode(b'caf\xe9.jpg'), 'a\nb.jpg'],
)
def test_a_second_run_keeps_the_figures_of_any_name(name, tmp_path):
  path = tmp_path / 'report.jsonl'
  for status, values in (('done', {'width': 7}), ('skipped', {})):
    written = report.Report(path)
    written.add(_entry(name, status, **values))
    assert _read(path)[name]['width'] == 7  # As soon as it is known.
    written.close()
  assert _read(path) == {
    name: {**_read(path)[name], 'status': 'skipped', 'width': 7}
  }


def _add_and_be_killed(path, entry):
  """Leaves what a run leaves that never comes to close its report."""
  written = report.Report(path)
  written.add(entry)
  written._file.close()


@pytest.mark.parametrize('cut', [3, -1, -7])
def test_two_kills_lose_no_line_but_the_one_they_cut(cut, tmp_path):
  path = tmp_path / 'report.jsonl'
  _add_and_be_killed(path, _entry('a.jpg', width=1))
  whole = path.read_bytes()
  # Perhaps in the middle of a character.
  path.write_bytes(whole + '{"photo": "ü.jpg", "error": "ü"}'.encode()[:cut])
  _add_and_be_killed(path, _entry('b.jpg', width=2))
  with path.open('ab') as file:
    file.write(b'{"photo": "c')
  report.Report(path).close()
  lines = _read(path)
  assert {name: line['width'] for name, line in lines.items()} == {
    'a.jpg': 1,
    'b.jpg': 2,
  }


def test_lines_of_others_are_kept(tmp_path):
  path = tmp_path / 'report.jsonl'
  path.write_text('{"photo": 3}\n[1, 2]\n"text"\n', encoding='utf-8')
  written = report.Report(path)
  written.add(_entry('a.jpg'))
  written.close()
  lines = path.read_text(encoding='utf-8').splitlines()
  assert lines[:3] == ['{"photo": 3}', '[1, 2]', '"text"']
  assert json.loads(lines[3])['photo'] == 'a.jpg'


def test_two_runs_at_once_lose_no_line(tmp_path):
  path = tmp_path / 'report.jsonl'
  old = {'photo': 'b.jpg', 'width': 0}
  path.write_text(f'[1, 2]\n{json.dumps(old)}\n', encoding='utf-8')
  first, second = report.Report(path), report.Report(path)
  first.add(_entry('a.jpg', width=1))
  second.add(_entry('b.jpg', width=2))
  first.close()
  second.add(_entry('c.jpg', width=3))
  second.close()
  lines = list(map(json.loads, path.read_text(encoding='utf-8').splitlines()))
  assert lines[0] == [1, 2]
  found = {line['photo']: line['width'] for line in lines[1:]}
  assert found == {'a.jpg': 1, 'b.jpg': 2, 'c.jpg': 3}


def test_what_another_run_has_made_meanwhile_stays_known(tmp_path):
  path = tmp_path / 'report.jsonl'
  first, second = report.Report(path), report.Report(path)
  made = {'cutout/a.png': (10, 'stamp')}
  first.add(_entry('a.jpg', width=1, made=made))
  second.add(report.Entry(photo='a.jpg', status='skipped'))
  first.close()
  second.close()
  line = json.loads(path.read_text(encoding='utf-8'))
  assert (line['width'], line['made']) == (1, {'cutout/a.png': [10, 'stamp']})


def test_what_failed_before_is_forgotten_where_it_is_done(tmp_path):
  path = tmp_path / 'report.jsonl'
  written = report.Report(path)
  written.add(_entry('a.jpg', 'failed', error='no space'))
  written.add(_entry('a.jpg', 'skipped'))
  written.close()
  assert _read(path)['a.jpg']['error'] == ''
