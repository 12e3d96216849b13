"""Starts a command with absl flags and gin flags `--gin.NAME=VALUE`."""

from collections.abc import Callable, Sequence
import sys
from types import ModuleType

from absl import app, flags

from rest_jax.config import gin_files


def start(
  main: Callable[[list[str], list[str]], None],
  argv: Sequence[str],
  options: ModuleType,
) -> None:
  """Parses the command line and calls `main`; does not return.

  Args:
    main: called with the arguments that are not flags, and the gin overrides.
    argv: command line, including the program name.
    options: module whose flags `--help` lists.
  """
  for flag in flags.FLAGS.get_key_flags_for_module(options):
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
  try:
    rest, overrides = gin_files.split_flags(argv)
  except ValueError as error:
    sys.exit(f'error: {error}')
  app.run(lambda arguments: main(arguments, overrides), argv=rest)
