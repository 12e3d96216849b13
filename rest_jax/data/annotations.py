"""Tables of samples for raters, and their scores.

A table is tab-separated, UTF-8, without quoting, with the columns `id`,
`split`, `source`, `hypothesis`, `score`, `annotators`. Raters fill in `score`
(higher is better) and, if there are several, their number. Rewards are not
included, so that raters do not know them.
"""

from collections.abc import Sequence
import os
import pathlib
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from rest_jax.data import ratings, text_files
from rest_jax.storage import files

COLUMNS = ('id', 'split', 'source', 'hypothesis', 'score', 'annotators')
TO_RATE, RATED = 'to_rate.tsv', 'rated.tsv'
_PathLike = str | os.PathLike[str]


class Item(NamedTuple):
  """One hypothesis to be rated.

  Attributes:
    split: 'train', 'dev' or 'test', the split of its rating.
    hypothesis: text, not empty.
  """

  id: str
  split: str
  source: str
  hypothesis: str

  @classmethod
  def read_all(cls, path: pathlib.Path) -> 'list[Item]':
    """Reads the items of a JSON list; ignores other fields of its objects."""
    return [
      cls(*(row[name] for name in cls._fields)) for row in files.read_json(path)
    ]


@runtime_checkable
class Raters(Protocol):
  """Raters that score hypotheses on request, such as simulated ones."""

  def rate(
    self, sources: Sequence[str], hypotheses: Sequence[str]
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns scores (float [n], higher is better) and numbers of annotators."""
    ...


def collect(
  raters: Raters | None, items: Sequence[Item], directory: pathlib.Path
) -> ratings.Ratings:
  """Collects ratings of items, unless they exist already.

  Args:
    raters: the raters; None for people, who fill in a table.
    directory: folder of the table to fill in and of the filled-in table.

  Raises:
    FileNotFoundError: if people have not rated yet; the message says what to
      do.
    ValueError: see `read`.
  """
  path = directory / RATED
  if not (directory / TO_RATE).exists():
    write(directory / TO_RATE, items)
  if not path.exists():
    if raters is None:
      raise FileNotFoundError(
        f'{path} must hold what people say of the {len(items)} rows of '
        f'{directory / TO_RATE}; there is no such file. Copy the table, have '
        'its column score filled in on the scale of the old ratings, put it '
        'there and run the same command again.'
      )
    scores, annotators = raters.rate(
      [item.source for item in items], [item.hypothesis for item in items]
    )
    write(path, items, scores, annotators)
  return read(path, items)


def write(
  path: _PathLike,
  items: Sequence[Item],
  scores: np.ndarray | None = None,
  annotators: np.ndarray | None = None,
) -> None:
  """Writes the table atomically.

  Tabs and line breaks inside a text become spaces.

  Args:
    scores: float [n]; None leaves the column empty.
    annotators: int [n]; None for one each.
  """
  lines = ['\t'.join(COLUMNS)]
  for row, item in enumerate(items):
    score = '' if scores is None else f'{scores[row]:.6g}'
    number = '1' if annotators is None else str(int(annotators[row]))
    fields = *map(text_files.one_line, item), score, number
    lines.append('\t'.join(fields))
  with files.atomic_write(path) as temporary:
    temporary.write_text('\n'.join(lines) + '\n', encoding='utf-8')


def read(path: _PathLike, items: Sequence[Item]) -> ratings.Ratings:
  """Reads a filled-in table; ratings are in the order of the items.

  Only `id`, `score` and, if present, `annotators` are read; texts are taken
  from the items, since a spreadsheet may have changed them. Rows may be
  missing.

  Raises:
    ValueError: for an unknown or repeated id, an invalid score or number of
      annotators, a table without rows, or scores that are all equal; the
      message names the row.
  """
  wanted = {item.id: item for item in items}
  found: dict[str, tuple[int, float, float]] = {}
  for line, fields in text_files.read_table(
    path, ('id', 'score'), ('annotators',)
  ):
    where = f'{path}, line {line}'
    name = fields['id']
    if name not in wanted:
      raise ValueError(
        f'{where}: id must be one that was given out; got {name!r}. Leave the '
        'column as it is in the table that was sent.'
      )
    if name in found:
      raise ValueError(
        f'{where}: each id must stand in one row; {name!r} is in line '
        f'{found[name][0]} too. Keep one of the two, or put their mean and '
        'number of annotators into one row.'
      )
    row = f'{where}, {name!r}'
    score = ratings.parse_number(row, 'score', fields['score'])
    weight = ratings.num_annotators(row, fields.get('annotators', '1'))
    found[name] = line, score, weight
  rated = [item for item in items if item.id in found]
  scores = np.array([found[item.id][1] for item in rated], np.float32)
  if len(scores) < 2 or np.ptp(scores) == 0:
    shown = f'{scores[0]:g} of {rated[0].id!r}' if rated else 'no row'
    raise ValueError(
      f'{path} must have scores that differ; all of its {len(scores)} row(s) '
      f'have that of the first, {shown}. Check that the column holds what the '
      'raters said.'
    )
  return ratings.Ratings(
    source=[item.source for item in rated],
    hypothesis=[item.hypothesis for item in rated],
    score=scores,
    weight=np.array([found[item.id][2] for item in rated], np.float32),
    split=[item.split for item in rated],
  )
