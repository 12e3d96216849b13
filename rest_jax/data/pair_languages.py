"""Languages of the pairs of a split that is being stored; see `pair_store`."""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from rest_jax.data import ragged, sources, vocabularies

COLUMNS = ('source_language', 'target_language')
FIRST_TOKEN = 'first_token'

_Codes = vocabularies.Languages | None


class PairLanguages:
  """What the languages of pairs add to their rows.

  Attributes:
    sides: how sources and targets become token ids; those of other languages
      differ in special ids alone.
    counts: number of rows by the name of their languages; None if pairs name no
      languages.
  """

  def __init__(
    self, split: str, vocabulary: vocabularies.Encoder, first: sources.Pair
  ):
    """Reads the languages of the first pair, which decides for all.

    Raises:
      ValueError: as `learn`.
    """
    self._split, self._vocabulary = split, vocabulary
    self._token = pa.from_numpy_dtype(ragged.token_dtype(vocabulary.size))
    self._sides: dict[_Codes, tuple[vocabularies.Side, vocabularies.Side]] = {}
    self.learn([first], 1)
    self.sides = self._sides[first.languages]
    self.counts: dict[str, int] | None = None if first.languages is None else {}
    self._has_first = (
      self.counts is not None and vocabulary.special_ids.is_first_given
    )

  def learn(self, pairs: Iterable[sources.Pair], number: int) -> None:
    """Reads the special ids of the languages of pairs.

    Args:
      number: number of the first one in the split, from 1, for errors.

    Raises:
      ValueError: the tokeniser has no such language, or a pair must name
        languages, or may not.
    """
    for position, pair in enumerate(pairs):
      if pair.languages in self._sides:
        continue
      try:
        self._sides[pair.languages] = self._vocabulary.sides(pair.languages)
      except ValueError as error:
        raise ValueError(
          f'pair {number + position} of split {self._split!r}: {error}'
        ) from error

  def special(self, languages: Sequence[_Codes], side: int) -> np.ndarray:
    """Returns the special ids around the texts of a side, [rows, ids]."""
    ids = [[*s[side].before, *s[side].after] for s in self._sides.values()]
    if len(ids) == 1:
      return np.tile(np.asarray(ids, np.int64), (len(languages), 1))
    numbers = {codes: number for number, codes in enumerate(self._sides)}
    which = np.array([numbers[codes] for codes in languages], np.int64)
    return np.asarray(ids, np.int64)[which]

  @property
  def fields(self) -> list[tuple[str, pa.DataType]]:
    """Names and types of the columns; none without languages."""
    if self.counts is None:
      return []
    first = [(FIRST_TOKEN, self._token)] if self._has_first else []
    return [*((name, pa.string()) for name in COLUMNS), *first]

  def columns(self, languages: Sequence[_Codes]) -> list[pa.Array]:
    """Returns the columns of rows, and counts the rows."""
    if self.counts is None:
      return []
    named = [codes for codes in languages if codes is not None]
    for codes in named:
      self.counts[codes.name] = self.counts.get(codes.name, 0) + 1
    columns = [
      pa.array([codes.source for codes in named], pa.string()),
      pa.array([codes.target for codes in named], pa.string()),
    ]
    if self._has_first:  # It stands before the text of a target.
      columns.append(pa.array(self.special(languages, 1)[:, 0], self._token))
    return columns
