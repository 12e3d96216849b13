"""Human ratings of hypotheses, from which a reward model learns."""

import collections
from collections.abc import Iterator, Sequence
import dataclasses
import math
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from rest_jax import settings
from rest_jax.data import text_files

# The splits: to learn from, to choose by, and for reports alone.
TRAIN, DEV, TEST = 'train', 'dev', 'test'
_REQUIRED = ('split', 'source', 'hypothesis', 'score')
_OPTIONAL = ('annotators', 'lang_pair', 'score_type', 'reference')
_LARGEST = 1e30
# Other names of the splits in files.
_OTHER_NAMES = {
  'train': ('Train', 'TRAIN', 'training'),
  'dev': ('valid', 'validation', 'val', 'devel', 'development', 'Dev', 'DEV'),
}


@dataclasses.dataclass(frozen=True)
class Ratings:
  """Rated hypotheses, one per row.

  Attributes:
    score: ratings, higher is better; float32 [n].
    weight: number of annotators whose ratings a score averages; float32 [n].
    split: 'train', 'dev' or 'test' of each row.
    reference: human translation of each row, '' if missing; None if no row has
      one.
  """

  source: list[str]
  hypothesis: list[str]
  score: np.ndarray
  weight: np.ndarray
  split: list[str]
  reference: list[str] | None = None

  def __post_init__(self):
    columns = {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(self)
    }
    sizes = {
      name: len(column)
      for name, column in columns.items()
      if column is not None
    }
    if len(set(sizes.values())) > 1:
      raise ValueError(f'all columns must have as many rows; got {sizes}.')

  def __len__(self) -> int:
    return len(self.source)

  def select(self, split: str) -> 'Ratings':
    """Returns the rows of one split; raises ValueError if there are none."""
    rows = [row for row, name in enumerate(self.split) if name == split]
    if not rows:
      raise ValueError(
        f'split must be one of {sorted(set(self.split))}; got {split!r}.'
      )
    return Ratings(
      source=[self.source[row] for row in rows],
      hypothesis=[self.hypothesis[row] for row in rows],
      score=self.score[rows],
      weight=self.weight[rows],
      split=[split] * len(rows),
      reference=self.reference and [self.reference[row] for row in rows],
    )


def join(parts: Sequence[Ratings]) -> Ratings:
  """Returns the ratings of all parts, in order."""
  reference = None
  if any(part.reference for part in parts):
    reference = [
      text for part in parts for text in part.reference or [''] * len(part)
    ]
  return Ratings(
    source=[text for part in parts for text in part.source],
    hypothesis=[text for part in parts for text in part.hypothesis],
    score=np.concatenate([part.score for part in parts]),
    weight=np.concatenate([part.weight for part in parts]),
    split=[split for part in parts for split in part.split],
    reference=reference,
  )


@runtime_checkable
class RatingsSource(Protocol):
  """A source of ratings."""

  def read(self) -> Ratings:
    """Returns all ratings; raises for invalid input."""
    ...


def place(source: RatingsSource) -> str:
  """Returns the origin of ratings, for messages."""
  return str(getattr(source, 'path', type(source).__name__))


def parse_number(where: str, column: str, text: str) -> float:
  """Returns a finite number of a table's row; raises for other text."""
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  # NaN fails this, too; larger values are infinite in float32.
  if not abs(value) < _LARGEST:
    raise ValueError(
      f'{where}: {column} must be a finite number; got {text!r}. Correct the '
      'row or remove it.'
    )
  return value


def num_annotators(where: str, text: str) -> float:
  """Returns the number of annotators of a table's row; '15+' counts as 15."""
  count = parse_number(where, 'annotators', text.removesuffix('+'))
  if count <= 0:
    raise ValueError(f'{where}: annotators must be above 0; got {text!r}.')
  return count


def check_splits(rated: Ratings, where: str) -> None:
  """Raises ValueError unless a reward model can be fitted and selected.

  Args:
    rated: all ratings.
    where: see `place`.
  """
  counts = collections.Counter(rated.split)
  there = ', '.join(f'{name!r} ({count})' for name, count in counts.items())
  for name, use in (
    (TRAIN, 'from which the reward model learns'),
    (DEV, 'by which its checkpoint is chosen'),
  ):
    if not counts[name]:
      other = next(filter(counts.__contains__, _OTHER_NAMES[name]), None)
      remedy = (
        f'Rename {other!r} to {name!r} in the column split.'
        if other
        else f'Give some sources to {name!r} in the column split.'
      )
      raise ValueError(
        f'{where} must have ratings of split {name!r}, {use}; it has '
        f'{there or "no rows"}. {remedy}'
      )
    scores = rated.score[[split == name for split in rated.split]]
    if len(scores) < 2 or scores.min() == scores.max():
      raise ValueError(
        f'{where} must have scores that differ in split {name!r}, {use}; its '
        f'{len(scores)} row(s) all have {scores[0]:g}. Check the column that '
        'the scores come from, or give more sources to the split.'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatingsFile:
  """A tab-separated file of ratings, plain or .gz, UTF-8, without quoting.

  The header line names the columns, in any order. Required: `split`, `source`,
  `hypothesis`, `score` (higher is better). Optional: `annotators` (their
  number; '15+' counts as 15), `lang_pair`, `score_type` and `reference` (may be
  empty). Other columns are ignored.

  Attributes:
    path: the file.
    folder: folder of a relative path; empty for the current folder.
    lang_pair: read only rows of this pair, such as 'de-en'.
    score_type: read only rows with scores of this type, such as 'DA-z'.
  """

  path: text_files.PathLike
  folder: text_files.PathLike = settings.recorded(default='')
  lang_pair: str | None = None
  score_type: str | None = None

  def __post_init__(self):
    (path,) = text_files.as_paths('path', self.path, self.folder)
    object.__setattr__(self, 'path', path)
    object.__setattr__(self, 'folder', '')  # It is part of the path now.

  def read(self) -> Ratings:
    """Reads the ratings.

    Raises:
      FileNotFoundError: if the file does not exist.
      ValueError: for a missing column, an invalid score or number of
        annotators, or an empty text; if no row is selected, language pairs or
        score types are mixed, all training scores are equal, or a source of
        `train` is also in another split.
    """
    rows = list(self._read_rows())
    ratings = Ratings(
      source=[row.source for row in rows],
      hypothesis=[row.hypothesis for row in rows],
      score=np.array([row.score for row in rows], np.float32),
      weight=np.array([row.weight for row in rows], np.float32),
      split=[row.split for row in rows],
      reference=(
        [row.reference for row in rows]
        if any(row.reference for row in rows)
        else None
      ),
    )
    self._check_splits(ratings)
    return ratings

  def _read_rows(self) -> Iterator['_Row']:
    found = set()
    chosen = set()
    table = text_files.read_table(self.path, _REQUIRED, _OPTIONAL)
    wanted = {'lang_pair': self.lang_pair, 'score_type': self.score_type}
    for line, fields in table:
      for name, value in wanted.items():
        if value is not None and name not in fields:
          raise ValueError(
            f'{self.path} must have the column {name!r} to choose rows with '
            f'{name}={value!r}; it has none. Leave {name} out.'
          )
      kind = fields.get('lang_pair'), fields.get('score_type')
      found.add(kind)
      if all(value in (None, fields.get(key)) for key, value in wanted.items()):
        chosen.add(kind)
        yield self._parse(line, fields)
    there = ', '.join(sorted(f'{pair} {score}' for pair, score in found))
    if not chosen:
      raise ValueError(
        f'{self.path} must have rows with lang_pair={self.lang_pair!r} and '
        f'score_type={self.score_type!r} (None: any); it has '
        f'{there or "no rows"}.'
      )
    if len(chosen) > 1:
      kinds = sorted(chosen, key=str)
      remedy = ' and '.join(
        f'{name}={kinds[0][column]}'
        for column, name in enumerate(wanted)
        if len({kind[column] for kind in kinds}) > 1
      )
      raise ValueError(
        f'{self.path} must give ratings of one language pair and one score '
        f'type, since scales differ; it has {there}. Choose one, such as '
        f'{remedy}.'
      )

  def _parse(self, line: int, fields: dict[str, str]) -> '_Row':
    where = f'{self.path}, line {line}'
    for name in ('source', 'hypothesis', 'split'):
      if not fields[name].strip():
        raise ValueError(
          f'{where}: {name} must not be empty. Remove the row, or fill it in.'
        )
    return _Row(
      split=fields['split'],
      source=fields['source'].strip(),
      hypothesis=fields['hypothesis'].strip(),
      score=parse_number(where, 'score', fields['score']),
      weight=num_annotators(where, fields.get('annotators', '1')),
      reference=fields.get('reference', '').strip(),
    )

  def _check_splits(self, ratings: Ratings) -> None:
    """Raises ValueError for scores or splits that do not allow learning."""
    train = np.array([split == 'train' for split in ratings.split])
    scores = ratings.score[train] if train.any() else ratings.score
    if len(scores) > 1 and scores.min() == scores.max():
      raise ValueError(
        f'{self.path} must have scores that differ; all {len(scores)} '
        f'{"of split train " if train.any() else ""}are {scores[0]}. Check '
        'that the column holds the ratings.'
      )
    rows = zip(ratings.source, ratings.split, strict=True)
    learned = {source for source, split in rows if split == 'train'}
    for source, split in zip(ratings.source, ratings.split, strict=True):
      if split != 'train' and source in learned:
        raise ValueError(
          f'{self.path} must keep the sources of split train out of the '
          f'others; split {split} has {source[:80]!r} too, so agreement on it '
          'would be no test. Move all rows of a source into one split.'
        )


class _Row(NamedTuple):
  """One row of a ratings file."""

  split: str
  source: str
  hypothesis: str
  score: float
  weight: float
  reference: str
