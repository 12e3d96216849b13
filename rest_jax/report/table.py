"""Tables of text: cells, numbers as text, lines for the terminal."""

from collections.abc import Sequence
from typing import NamedTuple

from rest_jax.evaluation import metrics

MAX_WIDTH = 80
MISSING = '-'

_GAP = '  '
# Of names, where the table is wider than the terminal.
_NAME_WIDTH = 20


class Cells(NamedTuple):
  """A table of texts; its first column names what a row is about.

  A row whose other cells are all empty is a heading of the rows below it.
  """

  title: str
  header: tuple[str, ...]
  rows: tuple[tuple[str, ...], ...]


def lines(cells: Cells) -> str:
  """Lays out a table: its title, header, a rule and a line for each row."""
  return f'{cells.title}\n{columns([cells.header, *cells.rows])}'


def columns(rows: Sequence[Sequence[str]]) -> str:
  """Aligns cells: the first column to the left, the others to the right.

  Columns that do not fit `MAX_WIDTH` stand below the others, again with the
  names of the rows. A long name has a line of its own.

  Args:
    rows: cells of the header, then of each line.

  Returns:
    The lines, with a rule under the header.
  """
  names = [row[0] for row in rows]
  # A heading may be longer, and so may names where there is no room for them.
  named = [row[0] for row in rows if any(row[1:])] or names
  others = list(zip(*(row[1:] for row in rows), strict=True))
  widths = [max(map(len, column)) for column in others]
  longest = max(map(len, named))
  widest = sum(len(_GAP) + width for width in widths)
  if longest + widest > MAX_WIDTH:
    longest = min(longest, _NAME_WIDTH)
  blocks: list[list[int]] = [[]]
  room = MAX_WIDTH - longest
  for index, width in enumerate(widths):
    used = sum(len(_GAP) + widths[i] for i in blocks[-1])
    if blocks[-1] and used + len(_GAP) + width > room:
      blocks.append([])
    blocks[-1].append(index)
  return '\n\n'.join(
    '\n'.join(
      _block(names, [(widths[i], others[i]) for i in block], longest, MAX_WIDTH)
    )
    for block in blocks
  )


def _block(
  names: Sequence[str],
  shown: Sequence[tuple[int, Sequence[str]]],
  longest: int,
  width: int,
) -> list[str]:
  """Lines of some columns, each with its width, beside the names."""
  written = []
  for index, name in enumerate(names):
    cells = [column[index].rjust(width) for width, column in shown]
    if len(name) > longest:
      written.append(name if len(name) <= width else f'{name[: width - 1]}…')
      if not any(cell.strip() for cell in cells):
        continue
      name = ''
    written.append(_GAP.join([name.ljust(longest), *cells]).rstrip())
  rule = '-' * max(map(len, written))
  return [written[0], rule, *written[1:]]


def estimate(value: metrics.Estimate | None) -> str:
  """Shows a mean and its standard error."""
  if value is None:
    return MISSING
  return f'{value.mean:.2f} ± {value.stderr:.2f}'


def difference(value: metrics.Difference | None) -> str:
  """Shows a difference with its sign, and its standard error."""
  if value is None:
    return MISSING
  return f'{value.mean:+.2f} ± {value.stderr:.2f}'


def number(value: float | None) -> str:
  """Shows a number with two places."""
  return MISSING if value is None else f'{value:.2f}'


def percent(share: float) -> str:
  """Shows a share in [0, 1]."""
  return f'{100 * share:.1f} %'
