"""Tokenised pairs of a split, stored once and read by memory map.

One Arrow file per split, one row per pair: `source_tokens` and
`reference_tokens` (list<uint16|uint32>, with EOS) and the stripped texts
`source` and `reference`. A split without references has no reference columns.
The id of a source is its row in its split.

In a task with several language pairs also `source_language` and
`target_language`, the codes of the tokeniser, and `first_token`, with which the
hypotheses of a source begin, if the vocabulary forces it.
"""

from collections.abc import Iterable, Iterator, Sequence
import functools
import itertools
import os
import pathlib
import re
from typing import Any

import numpy as np
import pyarrow as pa

from rest_jax.data import (
  alignment,
  line_numbers,
  pair_languages,
  ragged,
  sources,
  vocabularies,
)
from rest_jax.runtime import progress as progress_lib
from rest_jax.storage import arrow_files, paths

_KINDS = {
  'source_tokens': arrow_files.TOKENS,
  'reference_tokens': arrow_files.TOKENS,
  'source': (pa.string(),),
  'reference': (pa.string(),),
  **{name: (pa.string(),) for name in pair_languages.COLUMNS},
  pair_languages.FIRST_TOKEN: (pa.uint16(), pa.uint32()),
}
# Number of examples per reason for dropping pairs.
_NUM_EXAMPLES = 3
_EXAMPLE_CHARACTERS = 100
# The quantile of lengths that is recorded, and the largest recorded length.
_SHARE = 0.95
_LONGEST = 65_535


def pair_path(directory: str | os.PathLike[str], split: str) -> pathlib.Path:
  """Returns the path of a split's file."""
  if not re.fullmatch(r'\w+', split):
    raise ValueError(
      f'split must be a name of letters, digits and _; got {split!r}.'
    )
  return paths.of(directory) / f'pairs-{split}-00000-of-00001.arrow'


def build(
  directory: str | os.PathLike[str],
  split: str,
  source: sources.PairSource,
  vocabulary: vocabularies.Encoder,
  *,
  max_source_length: int,
  max_target_length: int,
  max_length_ratio: float | None = None,
) -> dict[str, Any]:
  """Tokenises a split and writes its file; unsuitable pairs are dropped.

  A pair is dropped for the first reason that applies: a side is empty, after
  stripping whitespace or after tokenising; a side is longer than its maximum;
  the longer side has more than `max_length_ratio` times the tokens of the
  shorter.

  Args:
    source: the pairs; all with references or all without.
    max_source_length: maximum tokens with EOS.
    max_target_length: maximum tokens with EOS.
    max_length_ratio: longer side over shorter, in tokens without EOS; at least
      1, or None for no limit.

  Returns:
    Counts for a manifest: `read`, `kept`, `dropped_empty`, `dropped_long`,
    `dropped_ratio`; `source_tokens` and `reference_tokens` of kept pairs, with
    EOS; `lengths_of_95_percent`, the 95 % quantile of tokens per source and per
    reference, with EOS; `examples`, the first dropped pairs per reason with
    their number (from 1) in the order read; `misaligned`, see
    `alignment.Stretch`, with `place`, if any; `languages`, kept pairs by name.

  Raises:
    ValueError: if no pair is left, only some have references, or languages are
      unknown; also any error of reading the source. Then no file is written.
  """
  path = pair_path(directory, split)
  for name, value, least in (
    ('max_source_length', max_source_length, 2),
    ('max_target_length', max_target_length, 2),
    ('max_length_ratio', max_length_ratio, 1),
  ):
    if value is not None and value < least:
      raise ValueError(f'{name} must be at least {least}; got {value}.')
  pairs = iter(source.read())
  first = next(pairs, None)
  if first is None:
    raise ValueError(
      f'split {split!r} must hold at least one pair; its source has none. '
      f'Check what it names: {source}.'
    )
  builder = _Builder(
    vocabulary,
    pair_languages.PairLanguages(split, vocabulary, first),
    with_references=first.reference is not None,
    max_lengths=(max_source_length, max_target_length),
    max_length_ratio=max_length_ratio,
  )
  batches = builder.batches(itertools.chain([first], pairs))
  try:
    arrow_files.write(path, builder.schema, batches)
  except _NothingLeft:
    raise ValueError(
      f'split {split!r} must keep at least one pair; all were dropped: '
      f'{builder.counts}. Raise max_source_length, max_target_length or '
      'max_length_ratio, or check that the files are the right way round.'
    ) from None
  stretches = [
    {
      **found.to_json(),
      'place': line_numbers.place(source, found.first, found.last),
    }
    for found in builder.lengths.stretches()
  ]
  if stretches:
    builder.counts['misaligned'] = stretches
  return {**builder.counts, 'lengths_of_95_percent': builder.common_lengths()}


class _NothingLeft(Exception):
  """No pair of a split was kept."""


class _Builder:
  """Turns pairs into record batches and counts what it drops."""

  def __init__(
    self,
    vocabulary: vocabularies.Encoder,
    languages: pair_languages.PairLanguages,
    *,
    with_references: bool,
    max_lengths: tuple[int, int],
    max_length_ratio: float | None,
  ):
    self._languages = languages
    self._encoders = languages.sides
    self._sides = ('source', 'reference') if with_references else ('source',)
    self._max_lengths = max_lengths
    self._max_length_ratio = max_length_ratio
    self._dtype = ragged.token_dtype(vocabulary.size)
    self.lengths = alignment.Lengths()
    # Number of pairs by tokens of each side, without EOS.
    self._histograms = np.zeros((len(self._sides), _LONGEST + 1), np.int64)
    tokens = pa.list_(pa.from_numpy_dtype(self._dtype))
    self.schema = pa.schema(
      [
        *((f'{side}_tokens', tokens) for side in self._sides),
        *((side, pa.string()) for side in self._sides),
        *languages.fields,
      ]
    )
    self.counts: dict[str, Any] = {
      'read': 0,
      'kept': 0,
      'dropped_empty': 0,
      'dropped_long': 0,
      'dropped_ratio': 0,
      **{f'{side}_tokens': 0 for side in self._sides},
      'examples': {},
      **({} if languages.counts is None else {'languages': languages.counts}),
    }

  def batches(self, pairs: Iterable[sources.Pair]) -> Iterator[pa.RecordBatch]:
    """Yields a record batch per block with pairs left."""
    pairs = iter(pairs)
    with progress_lib.Progress('tokenise', None, 'pair') as progress:
      while block := list(itertools.islice(pairs, arrow_files.BATCH_ROWS)):
        batch = self._batch(block)
        progress.advance(len(block))
        if batch.num_rows:
          yield batch
    if not self.counts['kept']:
      raise _NothingLeft

  def _batch(self, block: list[sources.Pair]) -> pa.RecordBatch:
    numbers = np.arange(len(block)) + self.counts['read'] + 1
    self.counts['read'] += len(block)
    self._check_references(block, numbers)
    self._languages.learn(block, numbers[0])
    texts = [[pair.source.strip() for pair in block]]
    if len(self._sides) == 2:
      texts.append([(pair.reference or '').strip() for pair in block])
    flat = [
      ragged.flatten(side.encode_batch(each))
      for side, each in zip(self._encoders, texts, strict=False)
    ]
    # [sides, pairs], tokens without EOS
    lengths = np.stack([np.diff(offsets) for _, offsets in flat])
    for histogram, side in zip(self._histograms, lengths, strict=True):
      histogram += np.bincount(
        np.minimum(side, _LONGEST), minlength=_LONGEST + 1
      )
    if len(texts) == 2:
      self.lengths.add(*texts)
    keep = np.ones(len(block), bool)
    for reason, unfit in self._unfit(lengths).items():
      dropped = np.flatnonzero(keep & unfit)
      self._count(reason, dropped, numbers, texts, lengths)
      keep &= ~unfit
    rows = np.flatnonzero(keep)
    self.counts['kept'] += len(rows)
    languages = [block[row].languages for row in rows]
    columns = []
    for index, (side, (values, offsets)) in enumerate(
      zip(self._sides, flat, strict=True)
    ):
      special = self._languages.special(languages, index)
      special = np.split(special, [len(self._encoders[index].before)], axis=1)
      column = _completed(values, offsets, keep, special, self._dtype)
      self.counts[f'{side}_tokens'] += len(column.values)
      columns.append(column)
    for side in texts:
      columns.append(pa.array([side[row] for row in rows], pa.string()))
    columns += self._languages.columns(languages)
    return pa.RecordBatch.from_arrays(columns, schema=self.schema)

  def common_lengths(self) -> list[int]:
    """Returns the 95 % quantile of tokens with EOS, per side."""
    return [
      int(np.searchsorted(np.cumsum(counts), _SHARE * counts.sum()))
      + side.num_special
      for counts, side in zip(self._histograms, self._encoders, strict=False)
    ]

  def _check_references(
    self, block: list[sources.Pair], numbers: np.ndarray
  ) -> None:
    expected = len(self._sides) == 2
    for number, pair in zip(numbers, block, strict=True):
      if (pair.reference is not None) != expected:
        raise ValueError(
          'source must give a reference for every pair or for none; pair 1 '
          f'has {"one" if expected else "none"}, but pair {number} has '
          f'{"none" if expected else "one"}. Make two splits of it.'
        )

  def _unfit(self, lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the affected pairs per reason for dropping."""
    room = [
      most - side.num_special
      for most, side in zip(self._max_lengths, self._encoders, strict=True)
    ]
    maxima = np.array(room[: len(lengths)])[:, None]
    ratio = self._max_length_ratio or np.inf
    shortest, longest = lengths.min(axis=0), lengths.max(axis=0)
    return {
      'dropped_empty': np.equal(shortest, 0),
      'dropped_long': np.any(lengths > maxima, axis=0),
      'dropped_ratio': np.greater(longest, ratio * np.maximum(shortest, 1)),
    }

  def _count(
    self,
    reason: str,
    dropped: np.ndarray,
    numbers: np.ndarray,
    texts: list[list[str]],
    lengths: np.ndarray,
  ) -> None:
    """Adds dropped pairs to the counts and to the examples."""
    self.counts[reason] += len(dropped)
    if not len(dropped):
      return
    examples = self.counts['examples'].setdefault(reason, [])
    for row in dropped[: _NUM_EXAMPLES - len(examples)]:
      example: dict[str, Any] = {'pair': int(numbers[row])}
      for index, side in enumerate(self._sides):
        example[side] = texts[index][row][:_EXAMPLE_CHARACTERS]
        example[f'{side}_tokens'] = int(lengths[index, row])
      examples.append(example)


class PairStore:
  """The pairs of a split; see the module's docstring."""

  def __init__(self, path: str | os.PathLike[str], sha256: str | None = None):
    """Maps the file of a split; use `open`."""
    schema, self._batches = arrow_files.read(path, sha256)
    sides = ['source', 'reference'][: 2 if 'reference' in schema.names else 1]
    columns = [*(f'{side}_tokens' for side in sides), *sides]
    self.has_languages = pair_languages.COLUMNS[0] in schema.names
    self._has_first = pair_languages.FIRST_TOKEN in schema.names
    if self.has_languages:
      columns += pair_languages.COLUMNS
    if self._has_first:
      columns.append(pair_languages.FIRST_TOKEN)
    arrow_files.check_columns(path, schema, columns, _KINDS)
    self._path = paths.of(path)
    self.has_references = len(sides) == 2
    rows = [batch.num_rows for batch in self._batches]
    self._starts = np.cumsum([0, *rows])

  @classmethod
  def open(cls, directory: str | os.PathLike[str], split: str) -> 'PairStore':
    """Opens a split's file.

    Raises:
      FileNotFoundError: if the split was not built.
      ValueError: if its file is damaged.
    """
    return cls(pair_path(directory, split))

  def __len__(self) -> int:
    return int(self._starts[-1])

  @functools.cached_property
  def source_tokens(self) -> ragged.Ragged:
    """Token ids of each source, with EOS, and `first_tokens` if it has any."""
    rows = ragged.Ragged.from_arrays(self._column('source_tokens'))
    if not self._has_first:
      return rows
    columns = self._column(pair_languages.FIRST_TOKEN)
    first = [column.to_numpy() for column in columns]
    return rows.with_first_tokens(np.concatenate(first))

  @functools.cached_property
  def reference_tokens(self) -> ragged.Ragged | None:
    """Token ids of each reference, with EOS; None without references."""
    if not self.has_references:
      return None
    return ragged.Ragged.from_arrays(self._column('reference_tokens'))

  def languages_of(
    self, rows: Iterable[int] | np.ndarray
  ) -> list[vocabularies.Languages]:
    """Returns the languages of rows; none if pairs name no languages."""
    if not self.has_languages:
      return []
    return [
      vocabularies.Languages(
        *(self._text(name, int(row)) for name in pair_languages.COLUMNS)
      )
      for row in rows
    ]

  def source_text(self, row: int) -> str:
    """Returns the text of one source."""
    return self._text('source', row)

  def reference_text(self, row: int) -> str:
    """Returns the text of one reference."""
    self._need_references()
    return self._text('reference', row)

  def source_texts(self) -> list[str]:
    """Returns the text of every source."""
    return self._texts('source')

  def reference_texts(self) -> list[str]:
    """Returns the text of every reference."""
    self._need_references()
    return self._texts('reference')

  def _column(self, name: str) -> list[pa.Array]:
    return [batch.column(name) for batch in self._batches]

  def _need_references(self) -> None:
    if not self.has_references:
      raise ValueError(
        'this split was built of sources alone; it has no references. '
        'Build it from pairs if they are needed.'
      )

  def _text(self, name: str, row: int) -> str:
    if not 0 <= row < len(self):
      raise IndexError(f'row must be in [0, {len(self)}); got {row}.')
    index = int(np.searchsorted(self._starts, row, side='right')) - 1
    local = int(row - self._starts[index])
    return self._text_arrays[name][index][local].as_py()

  def _texts(self, name: str) -> list[str]:
    arrays = self._text_arrays[name]
    return [text for array in arrays for text in array.to_pylist()]

  @functools.cached_property
  def _text_arrays(self) -> dict[str, list[pa.Array]]:
    """Returns the checked text columns: pyarrow reads past damaged offsets."""
    names = ['source', 'reference'][: 1 + self.has_references]
    if self.has_languages:
      names += pair_languages.COLUMNS
    found = {name: self._column(name) for name in names}
    try:
      for arrays in found.values():
        for array in arrays:
          array.validate(full=True)
    except pa.ArrowException as error:
      raise ValueError(
        f'{self._path} is damaged ({error}). Remove its folder and run its stage '
        'again.'
      ) from error
    return found


def _completed(
  values: np.ndarray,
  offsets: np.ndarray,
  keep: np.ndarray,
  special: Sequence[np.ndarray],
  dtype: np.dtype,
) -> pa.Array:
  """Returns a list array of the kept rows, with special ids before and after."""
  lengths = np.diff(offsets)
  values = values[np.repeat(keep, lengths)].astype(dtype)
  lengths = lengths[keep]
  ends = np.cumsum(lengths)
  bounds = np.stack([ends - lengths, ends], axis=1).reshape(-1)
  counts = np.tile([each.shape[1] for each in special], len(ends))
  ids = np.concatenate(special, axis=1).reshape(-1)
  values = np.insert(values, np.repeat(bounds, counts), ids)
  offsets = np.concatenate([[0], ends + np.cumsum(counts)[1::2]])
  return ragged.to_arrow(values, offsets, dtype)


def spread_rows(num_rows: int, limit: int | None) -> np.ndarray:
  """Returns at most `limit` row numbers, evenly spread over all."""
  if limit is None or limit >= num_rows:
    return np.arange(num_rows)
  return np.linspace(0, num_rows - 1, limit).round().astype(np.int64)


def texts_of(
  pairs: PairStore, rows: Sequence[int] | np.ndarray
) -> tuple[list[str], list[str]]:
  """Returns source and reference texts of rows."""
  return (
    [pairs.source_text(int(row)) for row in rows],
    [pairs.reference_text(int(row)) for row in rows],
  )
