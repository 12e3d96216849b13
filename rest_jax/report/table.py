"""Tables of text: cells, formatted numbers, lines for the terminal."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rest_jax.evaluation import metrics

MAX_WIDTH = 80
MISSING = '-'

_GAP = '  '
# Width of names in tables that are wider than the terminal.
_NAME_WIDTH = 20


class Cells(NamedTuple):
  """A table of texts; the first column has the names of the rows.

  A row with only a name is a heading of the rows below it.
  """

  title: str
  header: tuple[str, ...]
  rows: tuple[tuple[str, ...], ...]


# Headers, each with the function that formats its cell of an entry.
Columns = Sequence[tuple[str, Callable[[Any], str]]]


def of(title: str, entries: Iterable[Any], shown: Columns) -> Cells:
  """Returns a table with a row per entry."""
  return Cells(
    title,
    tuple(header for header, _ in shown),
    tuple(tuple(cell(entry) for _, cell in shown) for entry in entries),
  )


def lines(cells: Cells) -> str:
  """Lays out a table: its title, header, a rule and a line for each row."""
  return f'{cells.title}\n{columns([cells.header, *cells.rows])}'


def columns(rows: Sequence[Sequence[str]]) -> str:
  """Aligns cells: the first column to the left, the others to the right.

  Columns that do not fit `MAX_WIDTH` follow below, again with the names of the
  rows. A long name has a line of its own.
  """
  names = [row[0] for row in rows]
  # Headings, and names without enough room, have lines of their own.
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
    '\n'.join(_block(names, [(widths[i], others[i]) for i in block], longest))
    for block in blocks
  )


def _block(
  names: Sequence[str],
  shown: Sequence[tuple[int, Sequence[str]]],
  longest: int,
) -> list[str]:
  """Returns lines of some columns, each with its width, beside the names."""
  written = []
  for index, name in enumerate(names):
    cells = [column[index].rjust(width) for width, column in shown]
    if len(name) > longest:
      is_cut = len(name) > MAX_WIDTH
      written.append(f'{name[: MAX_WIDTH - 1]}…' if is_cut else name)
      if not any(cell.strip() for cell in cells):
        continue
      name = ''
    written.append(_GAP.join([name.ljust(longest), *cells]).rstrip())
  rule = '-' * max(map(len, written))
  return [written[0], rule, *written[1:]]


def shown(value: metrics.Estimate | None) -> str:
  """Formats a mean or a difference with its standard error."""
  return MISSING if value is None else value.shown


def number(value: float | None) -> str:
  """Formats a number with two decimals."""
  return MISSING if value is None else f'{value:.2f}'


def interval(entry: Mapping[str, float] | None, digits: int = 2) -> str:
  """Formats a `value` with its interval from `low` to `high`."""
  if not entry:
    return MISSING
  value, low, high = (
    f'{entry[name]:.{digits}f}' for name in ('value', 'low', 'high')
  )
  return f'{value} [{low}, {high}]'


def percent(share: float) -> str:
  """Formats a share in [0, 1]."""
  return f'{100 * share:.1f} %'
