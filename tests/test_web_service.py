"""What the page does with uploaded files."""

from pathlib import Path

from rmbg_jax.web import service as service_lib


def test_names_of_uploads_are_safe():
  names = [
    'a.jpg',
    'A.JPG',
    'a.jpg',
    '../../etc/passwd',
    '..',
    '.hidden.png',
    'x' * 300 + '.jpeg',
    'ü (1).webp',
    'a\0b/c\\d\n.png',
    '',
  ]
  safe = service_lib.name_uploads(names)
  assert safe[:3] == ['a.jpg', 'A (2).JPG', 'a (3).jpg']
  assert safe[7] == 'ü (1).webp'
  assert len({name.casefold() for name in safe}) == len(names)
  for name in safe:
    assert Path(name).name == name and not name.startswith('.')
    assert len(name) <= 100 and name.isprintable()
