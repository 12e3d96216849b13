"""The program `rest-jax`, which imports the module of a command to call it."""

from collections.abc import Sequence
import difflib
import importlib
import sys
from typing import NamedTuple

import rest_jax
from rest_jax.cli import run_modes


class Command(NamedTuple):
  """A command of `rest-jax`.

  Attributes:
    module: module with the function `entry_point`.
    arguments: arguments inserted before those of the user.
  """

  help: str
  module: str
  arguments: tuple[str, ...] = ()


def commands() -> dict[str, Command]:
  """Returns all commands by name."""
  by_name = {
    'run': Command(
      'Trains and evaluates by ReST, or runs one stage: --run_mode.',
      'rest_jax.cli.main',
    ),
    'new': Command(
      'Writes a gin file for your own text.', 'rest_jax.cli.new_run'
    ),
  }
  for mode in run_modes.COMMANDS[1:]:
    # For example `rest-jax rate` is `rest-jax run --run_mode=rate`.
    by_name[mode.name] = Command(
      mode.help, 'rest_jax.cli.main', (f'--run_mode={mode.name}',)
    )
  by_name['convert'] = Command(
    'Converts policies to and from Hugging Face and T5X.',
    'rest_jax.cli.convert',
  )
  by_name['launch'] = Command(
    'Starts a run in local processes, on Cloud TPU VMs or on GKE.',
    'rest_jax.launch.command_line',
  )
  return by_name


def main(argv: Sequence[str] | None = None) -> None:
  """Calls the command that the command line names."""
  arguments = list((sys.argv if argv is None else argv)[1:])
  known = commands()
  name = arguments[0] if arguments else ''
  if name in ('', '--help', '-h', '-help', 'help'):
    print(_help(known))
  elif name == '--version':
    print(f'rest_jax {rest_jax.__version__}')
  elif name not in known:
    near = difflib.get_close_matches(name, known, 1)
    hint = f' Did you mean {near[0]}?' if near else ''
    sys.exit(
      f'error: rest-jax has no command {name!r}.{hint} Commands: '
      f'{", ".join(known)}. For example: rest-jax run --help'
    )
  else:
    command = known[name]
    sys.argv = [f'rest-jax {name}', *command.arguments, *arguments[1:]]
    importlib.import_module(command.module).entry_point()


def _help(known: dict[str, Command]) -> str:
  width = max(map(len, known))
  return '\n'.join(
    [
      f'rest_jax {rest_jax.__version__}: Reinforced Self-Training in JAX.',
      '',
      'usage: rest-jax COMMAND [FLAGS]',
      '',
      *(f'  {name:{width}}  {known[name].help}' for name in known),
      '',
      'rest-jax COMMAND --help lists the flags of a command.',
    ]
  )
