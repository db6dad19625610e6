"""Sets up the environment and runs all tests; arguments go to pytest.

```bash
python3 scripts/test.py
```
"""

import sys

import bootstrap


def main() -> None:
  """Runs pytest."""
  if '--help' in sys.argv:  # Without setting anything up.
    print(__doc__)
    return
  python = bootstrap.prepare('requirements-dev.txt')
  # Two processes: much of the time is compilation on a single core. A file
  # stays in one of them, with what its tests share; tests/conftest.py has the
  # longest first, so that neither process waits for the other at the end.
  parallel = ['-n', '2', '--dist', 'loadfile', '--no-loadscope-reorder']
  bootstrap.run([python, '-m', 'pytest', *parallel, *sys.argv[1:]])


if __name__ == '__main__':
  bootstrap.start(main)
