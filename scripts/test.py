"""Sets up the environment and runs all tests; arguments go to pytest.

```bash
python3 scripts/test.py
```
"""

import sys

import bootstrap


def main() -> None:
  """Runs pytest."""
  python = bootstrap.prepare('requirements-dev.txt')
  bootstrap.run([python, '-m', 'pytest', *sys.argv[1:]])


if __name__ == '__main__':
  main()
