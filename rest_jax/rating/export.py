"""Export of ratings as a TSV file for reward models."""

from collections.abc import Sequence
import hashlib
import os

import numpy as np

from rest_jax.data import text_files
from rest_jax.rating import rating_config as config_lib
from rest_jax.rating import store as store_lib
from rest_jax.storage import files

FILE = 'ratings.tsv'

_COLUMNS = (
  'split',
  'source',
  'hypothesis',
  'score',
  'score_type',
  'annotators',
)
_SCORE_TYPES = {
  config_lib.SCORES: f'score-0-{config_lib.HIGHEST_SCORE}',
  config_lib.PREFERENCE: 'share-preferred',
}
# Of ten sources, one is for choosing checkpoints and one for the final test.
_CYCLE = 10
_DEV_PLACE, _TEST_PLACE = 0, 5


def tsv(ratings: Sequence[store_lib.Rating], kind: str) -> str:
  """Returns a file that `data.ratings.RatingsFile` reads.

  Each row has an output, its mean over raters, and their number. All outputs of
  a source are in one split. Tabs and line breaks inside a text become spaces.
  Empty outputs are left out.

  Returns:
    The text, with a header line.
  """
  values: dict[tuple[str, str], list[float]] = {}
  raters: dict[tuple[str, str], set[str]] = {}
  for rating in ratings:
    item = rating.item
    for output, value in (
      (item.first_output, rating.first),
      (item.second_output, rating.second),
    ):
      row = _field(item.source), _field(output)
      if all(row):
        values.setdefault(row, []).append(value)
        raters.setdefault(row, set()).add(rating.rater)
  splits = _splits({source for source, _ in values})
  lines = ['\t'.join(_COLUMNS)]
  for (source, output), scores in sorted(values.items()):
    number = len(raters[source, output])
    score = f'{np.mean(scores):.6g}'
    fields = splits[source], source, output, score, _SCORE_TYPES[kind]
    lines.append('\t'.join([*fields, str(number)]))
  return '\n'.join(lines) + '\n'


def write(
  path: str | os.PathLike[str],
  ratings: Sequence[store_lib.Rating],
  kind: str,
) -> None:
  """Writes the file of `tsv` atomically."""
  with files.atomic_write(path) as temporary:
    temporary.write_text(tsv(ratings, kind), encoding='utf-8')


def _field(text: str) -> str:
  return text_files.one_line(text).strip()


def _splits(sources: set[str]) -> dict[str, str]:
  """Assigns sources to splits, pseudo-randomly and reproducibly."""
  ranked = sorted(sources, key=lambda s: hashlib.sha256(s.encode()).digest())
  places = {_DEV_PLACE: 'dev', _TEST_PLACE: 'test'}
  return {
    source: places.get(number % _CYCLE, 'train')
    for number, source in enumerate(ranked)
  }
