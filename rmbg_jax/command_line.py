"""What the command lines share, run by `-m` or by an installed command."""

import sys
from collections.abc import Callable, Sequence

from absl import app, flags


def run(
  main: Callable[[list[str]], None],
  module: str,
  *,
  required: Sequence[str] = (),
  argv: Sequence[str] | None = None,
) -> None:
  """Parses the flags and calls `main`; Ctrl-C ends it with code 130.

  Args:
    main: gets the arguments that are not flags, after the program's name.
    module: `__name__` of the module that `main` is in.
    required: names of the flags that must be passed.
    argv: the command line; default `sys.argv`.
  """
  if module != '__main__':
    # To --help, absl answers with what it knows of the file that was started:
    # for an installed command, not the module, but a few lines that import it.
    started = sys.modules['__main__']
    started.__doc__ = sys.modules[module].__doc__
    for flag in flags.FLAGS.get_key_flags_for_module(module):
      flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
  flags.mark_flags_as_required(required)
  try:
    app.run(main, argv)
  except KeyboardInterrupt:
    print('Interrupted.', file=sys.stderr)
    raise SystemExit(130) from None
