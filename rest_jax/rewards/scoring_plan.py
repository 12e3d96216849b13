"""Distinct texts, and the fixed-shape calls that score them.

A block is many sources of one length bucket, which are encoded once and held.
Calls score its candidates: each has C hypotheses for each of G held sources,
all of one length bucket. A call may combine any sources of the block, so only
the last call of each shape needs padding rows.
"""

import collections
from collections.abc import Hashable, Iterable, Iterator, Sequence
import dataclasses
from typing import Any, NamedTuple, TypeVar

from absl import logging
from jaxtyping import Bool, Float32, Int, Int64
import numpy as np

from rest_jax import settings
from rest_jax.data import ragged, special_ids, vocabularies
from rest_jax.runtime import progress as progress_lib

# A text, or several texts that are scored together.
_Text = TypeVar('_Text', bound=Hashable)
# A padding source or candidate of a block.
NONE = -1
_MAX_CUT = 0.1  # Share of truncated texts above which there is a warning.


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoringConfig:
  """The compiled shapes of scoring.

  Attributes:
    max_source_length: maximum tokens with EOS; longer sources are truncated and
      counted.
    max_target_length: the same for hypotheses.
    length_buckets: ascending lengths that both sides are padded to. The number
      of shapes to compile grows with the pairs of lengths that occur.
    candidate_buckets: ascending values of C, the first of them 1.
    tokens_per_call: approximate number of tokens per call and device; rounding
      on a device does not depend on the number of devices. The last call of
      each shape is padded, so few texts need small calls. A CPU reaches full
      speed at some hundred tokens, accelerators at thousands.
    held_tokens: approximate number of encoded tokens held at a time.
    calls_in_flight: calls submitted to the device ahead of the awaited one.
  """

  max_source_length: int = 128
  max_target_length: int = 128
  length_buckets: tuple[int, ...] = (16, 32, 64, 128)
  candidate_buckets: tuple[int, ...] = (1, 4)
  tokens_per_call: int = 512
  held_tokens: int = 32768
  calls_in_flight: int = settings.recorded(default=2)

  def __post_init__(self):
    settings.make_tuples(self, 'length_buckets', 'candidate_buckets')
    settings.rising(self, 'length_buckets', 'candidate_buckets')
    settings.at_least(
      self, 1, 'tokens_per_call', 'held_tokens', 'calls_in_flight'
    )
    if self.candidate_buckets[0] != 1:
      raise ValueError(
        'candidate_buckets must begin with 1, for the last candidates of a '
        f'source; got {self.candidate_buckets}.'
      )
    for name in ('max_source_length', 'max_target_length'):
      if not 2 <= getattr(self, name) <= self.length_buckets[-1]:
        raise ValueError(
          f'{name} must be at least 2 and at most the largest of '
          f'length_buckets {self.length_buckets}; got {getattr(self, name)}.'
        )


class Call(NamedTuple):
  """C candidates for each of G held sources.

  Attributes:
    slots: [G], positions in the block's `sources`.
    candidates: [G, C], positions among the candidates, or NONE.
    length: T, padded length.
  """

  slots: Int64[np.ndarray, ' G']
  candidates: Int64[np.ndarray, 'G C']
  length: int


class Block(NamedTuple):
  """Held sources with all their candidates.

  Attributes:
    sources: [chunks, B], positions among the sources, or NONE; a row is encoded
      in one call. The number of chunks does not depend on how many are real.
    length: S, padded length.
    calls: calls that score their candidates.
  """

  sources: Int64[np.ndarray, 'chunks B']
  length: int
  calls: tuple[Call, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
  """Distinct (source, hypothesis) texts as tokens, and how to score them.

  Attributes:
    source_tokens: one row per distinct source, with EOS.
    candidate_tokens: one row per distinct candidate, with EOS, grouped by
      source, shorter ones first.
    candidate_of: int [n], candidate of each of the n inputs.
    starts: int [sources + 1], first candidate of each source.
    truncated_sources: number of distinct sources that were truncated.
    truncated_candidates: number of distinct candidates that were truncated.
    config: the shapes.
  """

  source_tokens: ragged.Ragged
  candidate_tokens: ragged.Ragged
  candidate_of: Int64[np.ndarray, ' n']
  starts: Int64[np.ndarray, ' sources_and_one']
  truncated_sources: int
  truncated_candidates: int
  config: ScoringConfig

  def blocks(self, num_devices: int = 1) -> Iterator[Block]:
    """Yields blocks; each source is in one block, each candidate in one call.

    Args:
      num_devices: number of devices that B and G are divided over.
    """
    config = self.config
    lengths = bucket(config.length_buckets, self.source_tokens.lengths)
    for length in np.unique(lengths):
      members = np.flatnonzero(lengths == length)
      size = call_rows(config.tokens_per_call // length, num_devices)
      chunks = max(1, config.held_tokens // int(length) // size)
      for start in range(0, len(members), chunks * size):
        chosen = members[start : start + chunks * size]
        sources = np.full(chunks * size, NONE, np.int64)
        sources[: len(chosen)] = chosen
        calls = tuple(self._calls(chosen, num_devices))
        yield Block(sources.reshape(chunks, size), int(length), calls)

  def _calls(self, sources: np.ndarray, num_devices: int) -> Iterator[Call]:
    """Assigns the candidates of a block's sources to calls."""
    counts = self.starts[sources + 1] - self.starts[sources]
    slots = np.repeat(np.arange(len(sources)), counts)
    candidates = _ranges(self.starts[sources], counts)
    lengths = bucket(
      self.config.length_buckets, self.candidate_tokens.lengths[candidates]
    )
    for length in np.unique(lengths):
      left = lengths == length
      for width in reversed(self.config.candidate_buckets):
        # As many times `width` candidates of each source as there are.
        rows = np.flatnonzero(left)
        _, begins, sizes = np.unique(
          slots[rows], return_index=True, return_counts=True
        )
        taken = rows[_ranges(begins, sizes // width * width)]
        left[taken] = False
        size = call_rows(
          self.config.tokens_per_call // length // width, num_devices
        )
        # [groups * C] -> [groups, C]
        groups = candidates[taken].reshape(-1, width)
        group_slots = slots[taken].reshape(-1, width)[:, 0]
        for start in range(0, len(groups), size):
          chosen = np.full((size, width), NONE, np.int64)
          part = groups[start : start + size]
          chosen[: len(part)] = part
          chosen_slots = np.zeros(size, np.int64)
          chosen_slots[: len(part)] = group_slots[start : start + size]
          yield Call(chosen_slots, chosen, int(length))


def plan(
  config: ScoringConfig,
  vocabulary: vocabularies.Encoder,
  sources: Sequence[str],
  hypotheses: Sequence[str],
) -> Plan:
  """Finds the distinct pairs of texts and encodes them.

  Args:
    config: shapes and lengths.
    vocabulary: vocabulary of the reward model.
    sources: n texts, n at least 1.
    hypotheses: n texts; an empty text becomes special ids alone.

  Returns:
    The plan.
  """
  source_texts, source_of = distinct(sources)
  texts, text_of = distinct(hypotheses)
  source_tokens, cut_sources = encode(
    vocabulary.source, source_texts, config.max_source_length
  )
  tokens, cut_texts = encode(vocabulary.target, texts, config.max_target_length)
  # One number identifies a pair and sorts by source, then by the rank of the
  # text's length.
  by_length = np.argsort([len(row) for row in tokens], kind='stable')
  rank = np.empty(len(texts), np.int64)
  rank[by_length] = np.arange(len(texts))
  pairs, candidate_of = np.unique(
    source_of * len(texts) + rank[text_of], return_inverse=True
  )
  pair_source, pair_rank = np.divmod(pairs, len(texts))
  pair_text = by_length[pair_rank]
  starts = np.searchsorted(pair_source, np.arange(len(source_texts) + 1))
  return Plan(
    source_tokens=ragged.Ragged.from_lists(source_tokens),
    candidate_tokens=ragged.Ragged.from_lists([tokens[i] for i in pair_text]),
    candidate_of=candidate_of.astype(np.int64),
    starts=starts.astype(np.int64),
    truncated_sources=int(cut_sources.sum()),
    truncated_candidates=int(cut_texts[pair_text].sum()),
    config=config,
  )


def encode(
  side: vocabularies.Side, texts: Sequence[str], max_length: int
) -> tuple[list[np.ndarray], Bool[np.ndarray, ' n']]:
  """Encodes texts as a reward model reads them.

  Args:
    side: sources or targets of the model's vocabulary.
    texts: n texts.
    max_length: maximum tokens with special ids.

  Returns:
    Tokens of each text with special ids, at most `max_length`; and which texts
    were truncated.
  """
  rows, room = side.encode_batch(texts), max_length - side.num_special
  cut = np.asarray([len(row) > room for row in rows], bool)
  return [side.complete(row[:room]) for row in rows], cut


def pad(
  tokens: ragged.Ragged,
  rows: Int[np.ndarray, ' R'],
  length: int,
  ids: special_ids.SpecialIds = special_ids.T5,
) -> Int[np.ndarray, 'R T']:
  """Pads rows; NONE becomes a row with EOS only."""
  padded = np.full((len(rows), length), ids.pad, np.int32)
  padded[:, 0] = ids.eos
  real = np.flatnonzero(rows != NONE)
  padded[real] = tokens.pad(rows[real], length, ids.pad)
  return padded


def collect(
  calls: Iterable[tuple[Int[np.ndarray, ' R'], Any, int]],
  num_rows: int,
  *,
  calls_in_flight: int,
  description: str,
  unit: str,
) -> tuple[Float32[np.ndarray, ' n'], int]:
  """Fetches the results of calls, some of which are always in flight.

  Args:
    calls: rows of each call, padded with NONE, their results [R] on a device,
      and the number of computed tokens.
    num_rows: n, number of all rows.
    calls_in_flight: calls submitted to the device ahead of the awaited one.
    description: label of the progress bar.
    unit: unit of the progress bar.

  Returns:
    The result of each row, NaN without one; and the number of computed tokens.
  """
  results = np.full(num_rows, np.nan, np.float32)
  waiting = collections.deque()
  computed = 0

  def fetch():
    rows, result = waiting.popleft()
    real = rows != NONE
    results[rows[real]] = np.asarray(result)[real]
    progress.advance(int(real.sum()))

  with progress_lib.Progress(description, num_rows, unit) as progress:
    for rows, result, tokens in calls:
      waiting.append((rows, result))
      computed += tokens
      if len(waiting) > calls_in_flight:
        fetch()
    while waiting:
      fetch()
  return results, computed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statistics:
  """Statistics of a scoring.

  Attributes:
    hypotheses: number of requested rewards.
    distinct: number of distinct inputs, each scored once.
    truncated: number of truncated texts and of all texts, by kind of text.
    real_token_share: real tokens / computed tokens, in (0, 1].
    seconds: wall time, including compilation.
  """

  hypotheses: int
  distinct: int
  truncated: dict[str, tuple[int, int]]
  real_token_share: float
  seconds: float

  def log(self, name: str, level: int) -> None:
    """Logs the statistics of a reward; warns if many texts were truncated."""
    logging.log(
      level,
      'reward %s: %d hypotheses, %d distinct in %.1f s (%.0f per second, %.0f '
      '%% real tokens); truncated at the maximum length: %s',
      name,
      self.hypotheses,
      self.distinct,
      self.seconds,
      self.distinct / max(self.seconds, 1e-9),
      100 * self.real_token_share,
      ', '.join(
        f'{n} of {m} {kind}' for kind, (n, m) in self.truncated.items()
      ),
    )
    for cut, total in self.truncated.values():
      warn_of_cut(name, cut, total)


def warn_of_cut(name: str, cut: int, total: int) -> None:
  """Warns once per process if many texts were truncated before scoring.

  Args:
    name: name of the reward.
    cut: number of truncated texts.
    total: number of all texts.
  """
  if cut > _MAX_CUT * total:
    logging.log_first_n(
      logging.WARNING,
      'reward %s: %d of %d texts (%.0f %%) exceed its maximum length and were '
      'truncated, so their ends do not count. Raise its maximum lengths.',
      1,
      name,
      cut,
      total,
      100 * cut / total,
    )


def distinct(texts: Sequence[_Text]) -> tuple[list[_Text], np.ndarray]:
  """Returns the distinct texts, and the index of each of `texts` in them."""
  numbers: dict[_Text, int] = {}
  of = [numbers.setdefault(text, len(numbers)) for text in texts]
  return list(numbers), np.asarray(of, np.int64)


def bucket(buckets: Sequence[int], lengths: np.ndarray) -> np.ndarray:
  """Returns the smallest bucket that holds each length."""
  bounds = np.asarray(buckets)
  return bounds[np.searchsorted(bounds, lengths)]


def call_rows(wanted: int, num_devices: int) -> int:
  """Returns the rows of a call: `wanted` per device, at least one."""
  return max(1, int(wanted)) * num_devices


def _ranges(begins: np.ndarray, counts: np.ndarray) -> np.ndarray:
  """Concatenates the ranges begin, begin + 1, ... of `counts` numbers each."""
  ends = np.cumsum(counts)
  return np.repeat(begins - (ends - counts), counts) + np.arange(counts.sum())
