"""The run modes: commands, and modes that stages declare.

The files of stages are parsed, not imported, so that --help is fast.
"""

import ast
from collections.abc import Iterator, Sequence
import pathlib
from typing import Any, NamedTuple

STAGES = pathlib.Path(__file__).parents[1] / 'stages'


class Mode(NamedTuple):
  """A value of `--run_mode`.

  Attributes:
    is_shared: whether several processes can run it together.
    is_profiled: whether --profile applies to it.
  """

  name: str
  help: str
  is_shared: bool = False
  is_profiled: bool = False


COMMANDS = (
  Mode('rest', 'Runs all of Algorithm 1.', True, True),
  Mode('compare', 'Compares several variants and seeds.', is_profiled=True),
  Mode('sample', 'Generates outputs for text: the best of N samples.'),
  Mode('export', 'Writes D_g as Parquet files.'),
  Mode('rate', 'Serves a page on which people rate outputs.'),
  Mode('report', 'Writes results and figures of finished evaluations.'),
  Mode('plan', 'Compiles the experiment for a TPU slice.'),
)


def all_modes(folders: Sequence[pathlib.Path] = (STAGES,)) -> list[Mode]:
  """Returns the commands, and the modes of the stages in some folders."""
  by_name = {
    mode.name: mode
    for folder in folders
    for path in sorted(folder.glob('*.py'))
    for mode in _declared(path)
  }
  return [*COMMANDS, *by_name.values()]


def _declared(path: pathlib.Path) -> Iterator[Mode]:
  """Yields the modes of the stages in a file that have a `help`."""
  for node in ast.parse(path.read_text(encoding='utf-8')).body:
    if not isinstance(node, ast.ClassDef):
      continue
    values = _literals(node)
    if values.get('run_mode') and values.get('help'):
      yield Mode(
        name=values['run_mode'],
        help=values['help'],
        is_shared=not values.get('alone'),
        is_profiled=values.get('is_profiled', True),
      )


def _literals(node: ast.ClassDef) -> dict[str, Any]:
  """Returns the strings and booleans that a class body assigns."""
  return {
    statement.targets[0].id: statement.value.value
    for statement in node.body
    if isinstance(statement, ast.Assign)
    and isinstance(statement.targets[0], ast.Name)
    and isinstance(statement.value, ast.Constant)
  }


def describe(modes: Sequence[Mode]) -> str:
  """Returns the help of `--run_mode`, one line per mode."""
  return '\n'.join(
    ['Action.', *(f'{mode.name}: {mode.help}' for mode in modes)]
  )
