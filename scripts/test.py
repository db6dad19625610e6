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
  # Much of the time is compilation on a single core. On two cores a third
  # process does something while others wait, for a cluster or a disk. A file
  # stays in one of them, with what its tests share; tests/conftest.py has the
  # longest first, so that none waits for the others at the end.
  parallel = ['-n', '3', '--dist', 'loadfile', '--no-loadscope-reorder']
  bootstrap.run([python, '-m', 'pytest', *parallel, *sys.argv[1:]])


if __name__ == '__main__':
  bootstrap.start(main)
