"""The filter F(x, y; tau) of Eq. 2: base class and common functions.

A filter turns the rewards of D_g into a threshold per row. The jitted train
step receives rewards and thresholds and applies F itself (`mask_rows`). Rows
that cannot pass are found beforehand by the same comparison (`select`) and are
not loaded.
"""

import abc
import dataclasses
import itertools
from typing import Any, ClassVar, NamedTuple

import numpy as np

from rest_jax import settings, types

# Rows sorted at a time, so that the data stay in the CPU cache.
_PIECE_ROWS = 65_536


class Samples(NamedTuple):
  """The columns of D_g that filters read; rows sorted by source.

  Attributes:
    source_ids: int64 [n], in ascending order.
    rewards: float32 [n], normalised, not clamped.
    is_reference: bool [n], whether the row is D's reference, not a sample.
    is_eligible: bool [n], whether the row may be trained on (by default
      unfinished samples may not; references only if they are included).
    text_hashes: uint64 [n], equal for equal tokens; None if no filter compares
      tokens.
    lengths: int32 [n], number of tokens with EOS.
  """

  source_ids: np.ndarray
  rewards: np.ndarray
  is_reference: np.ndarray
  is_eligible: np.ndarray
  text_hashes: np.ndarray | None
  lengths: np.ndarray

  @property
  def required_hashes(self) -> np.ndarray:
    """The hashes; raises ValueError if they were not computed."""
    if self.text_hashes is None:
      raise ValueError(
        'samples must have text_hashes for deduplication; got None. Read them '
        'with hashes.'
      )
    return self.text_hashes

  def only(self, chosen: np.ndarray) -> 'Samples':
    """Returns the rows of a mask, bool [n], without hashes."""
    return Samples(
      source_ids=self.source_ids[chosen],
      rewards=self.rewards[chosen],
      is_reference=self.is_reference[chosen],
      is_eligible=self.is_eligible[chosen],
      text_hashes=None,
      lengths=self.lengths[chosen],
    )


class Kept(NamedTuple):
  """The rows that a filter keeps, and statistics for the report.

  Attributes:
    rows: int64 [m], indices of rows with F = 1, ascending.
    thresholds: float32 [m], threshold of each of these rows.
    statistics: JSON values: threshold (None if it differs by source),
      samples, fraction (of eligible rows), sources_without_samples,
      mean_length_before, mean_length_after, mean_reward_before,
      mean_reward_after.
  """

  rows: np.ndarray
  thresholds: np.ndarray
  statistics: dict[str, float | int | None]


class EmptySelectionError(ValueError):
  """A threshold keeps nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Filter(abc.ABC):
  """Base of all filters.

  Attributes:
    values: one number per Improve step, strictly increasing: tau, a quantile, a
      percentile or gamma, depending on the kind. Or a tuple of such numbers per
      Grow step.
    deduplicate: drop repeated (source, tokens) before thresholds are computed,
      and train on one of each only.
    count_references: whether references take part in computing thresholds.
    max_per_source: maximum number of rows kept per source, in the order in
      which they were sampled, which does not depend on their reward; None for
      all. It keeps easy sources from dominating (ReST-EM, arXiv 2312.06585,
      section 3).
    min_advantage: keep only rows with R(x, y) - V(x) of at least this, where
      V(x) is the mean reward of the source's samples, including repeated ones.
      It excludes sources on which the policy is already good. None to keep all
      sources.

  Class attributes:
    kind: name of the filter in results.
    is_inclusive: whether F is R >= tau instead of the paper's R > tau.
  """

  kind: ClassVar[str] = ''
  is_inclusive: ClassVar[bool] = False

  values: tuple[float, ...] | tuple[tuple[float, ...], ...]
  deduplicate: bool = False
  count_references: bool = True
  max_per_source: int | None = None
  min_advantage: float | None = None

  def __post_init__(self):
    settings.make_tuples(self, 'values')
    settings.at_least(self, 1, 'max_per_source', none='all')
    settings.inside(self, '(-inf, inf)', 'min_advantage', none='any advantage')
    lists = [v for v in self.values if isinstance(v, list | tuple)]
    if lists and len(lists) < len(self.values):
      raise ValueError(
        'values must be numbers, or a tuple of numbers per Grow step; got '
        f'both: {self.values}.'
      )
    if lists:
      object.__setattr__(self, 'values', tuple(map(tuple, lists)))
    for values in self.lists:
      if not values:
        raise ValueError(
          'values must have one threshold per Improve step; got none.'
        )
      numbers = np.asarray(values, np.float64)
      if np.isnan(numbers).any() or np.any(np.diff(numbers) <= 0):
        raise ValueError(
          f'values of the {self.kind} filter must be strictly increasing in '
          f'each Grow step; got {values}. See '
          f'gin_configs/filters/{self.kind}.gin.'
        )
      self._check_values(values)

  def _check_values(self, values: tuple[float, ...]) -> None:
    """Raises ValueError for values outside the range of the kind."""
    del values

  @property
  def lists(self) -> tuple[tuple[float, ...], ...]:
    """The values of each Grow step, or a single list for all Grow steps."""
    lists: Any = self.values if self._is_nested else (self.values,)
    return lists

  @property
  def _is_nested(self) -> bool:
    return any(isinstance(value, tuple) for value in self.values)

  def values_at(self, grow_step: int) -> tuple[float, ...]:
    """Returns the values of a Grow step, counted from 1."""
    lists = self.lists
    if not self._is_nested:
      return lists[0]
    if not 1 <= grow_step <= len(lists):
      raise ValueError(
        f'the {self.kind} filter has values for {len(lists)} Grow steps, '
        f'{self.values}, but Grow step {grow_step} needs one; give a tuple per '
        'Grow step, or one list for all.'
      )
    return lists[grow_step - 1]

  def at(self, improve_step: int, grow_step: int = 1) -> float:
    """Returns the value of an Improve step of a Grow step, from 1 each."""
    values = self.values_at(grow_step)
    if not 1 <= improve_step <= len(values):
      raise ValueError(
        f'the {self.kind} filter has {len(values)} values {values}, but '
        f'Improve step {improve_step} of Grow step {grow_step} needs one; give '
        'one value per Improve step.'
      )
    return values[improve_step - 1]

  def asks_for_all(self, value: float, samples: Samples) -> bool:
    """Returns whether a value is intended to keep every eligible row of D_g."""
    del value, samples
    return False

  @abc.abstractmethod
  def thresholds(self, value: float, samples: Samples) -> np.ndarray:
    """Computes the threshold of each source.

    Args:
      value: this step's entry of `values`.
      samples: rows to compute it from (eligible, deduplicated, and references
        only if `count_references`), without hashes.

    Returns:
      float32, [] for one threshold for all sources, or [number of sources] in
      the order of the rows.
    """

  def select(
    self, improve_step: int, samples: Samples, grow_step: int = 1
  ) -> Kept:
    """Applies F to all of D_g.

    Raises:
      EmptySelectionError: if no row is kept.
    """
    value = self.at(improve_step, grow_step)
    _check(samples)
    candidates = samples.is_eligible
    if self.deduplicate:
      candidates = candidates & ~_is_repeated(samples, candidates)
    counted = candidates
    if not self.count_references:
      # Includes a sample equal to the reference, which `candidates` lacks.
      counted = samples.is_eligible & ~samples.is_reference
      if self.deduplicate:
        counted = counted & ~_is_repeated(samples, counted)
    if not counted.any():
      raise EmptySelectionError(self._nothing_counted(samples, candidates))
    counting = samples.only(counted)
    tau = self.thresholds(value, counting)
    row_tau = _of_rows(tau, counting.source_ids, samples.source_ids)
    if self.min_advantage is not None:
      row_tau = np.maximum(row_tau, _values(samples) + self.min_advantage)
    passes = is_kept(samples.rewards, row_tau, self.is_inclusive)
    kept = np.flatnonzero(passes & candidates)
    if not kept.size:
      raise EmptySelectionError(
        self._nothing_kept(value, samples.rewards[candidates], counting.rewards)
      )
    if self.max_per_source is not None:
      kept = _first_of_each(kept, samples.source_ids[kept], self.max_per_source)
    statistics = _statistics(samples, candidates, kept)
    statistics['value'] = value if np.isfinite(value) else None
    statistics['threshold'] = (
      float(tau) if not tau.ndim and np.isfinite(tau) else None
    )
    return Kept(kept, row_tau[kept], statistics)

  def _nothing_counted(self, samples: Samples, candidates: np.ndarray) -> str:
    count = int(samples.is_reference.sum())
    rows = f'{len(samples.rewards)} rows, {count} of them references'
    if candidates.any():
      return (
        f'the {self.kind} filter takes its thresholds from samples alone, and '
        f'no sample of D_g may be trained on (of {rows}): all are unfinished '
        '(raise MAX_TARGET_LENGTH, or train the policy longer) or vetoed. Or '
        'set count_references of the filter to True.'
      )
    return (
      f'no row of D_g may be trained on (of {rows}): all samples are '
      'unfinished (raise MAX_TARGET_LENGTH, or train the policy longer) or '
      'vetoed, and references are excluded (ImproveConfig.include_references)'
    )

  def _nothing_kept(
    self, value: float, rewards: np.ndarray, counted: np.ndarray
  ) -> str:
    points = (0, 5, 25, 50, 75, 95, 99, 100)
    spread = ', '.join(
      f'{p} %: {q:.3f}'
      for p, q in zip(points, np.percentile(rewards, points), strict=True)
    )
    advantage = (
      f' Or lower min_advantage, {self.min_advantage:g}.'
      if self.min_advantage is not None
      else ''
    )
    return (
      f'the {self.kind} filter at {value} keeps none of {rewards.size} rows. '
      f'Percentiles of their rewards: {spread}. '
      f'{self._advice(rewards, counted)}{advantage}'
    )

  def _advice(self, rewards: np.ndarray, counted: np.ndarray) -> str:
    """Returns advice for an error: no row is kept.

    Args:
      rewards: rewards of the rows that may be kept.
      counted: rewards of the rows that the threshold was computed from.
    """
    del rewards, counted
    return 'Lower its value, or draw more samples for each source.'


def is_kept(rewards, thresholds, is_inclusive: bool):
  """F: R > tau, or R >= tau for an inclusive filter; numpy or jax arrays."""
  return rewards >= thresholds if is_inclusive else rewards > thresholds


def mask_rows(batch: types.Batch, is_inclusive: bool) -> types.Batch:
  """Applies F to a batch: rows that fail get weight 0.

  Source: ReST (arXiv 2308.08998), Eq. 2.

  Args:
    batch: with `rewards` and `thresholds` [B], and optionally `row_weights`
      [B] (lambda of Eq. 3: the weight of references); [B, T] each, a value at
      every target token, where rows are packed.
    is_inclusive: the filter's comparison.

  Returns:
    The batch with `decoder_loss_weights` [B, T] multiplied by F and the row
    weights.
  """
  passes = is_kept(batch['rewards'], batch['thresholds'], is_inclusive)
  weights = passes.astype(np.float32)
  if 'row_weights' in batch:
    weights = weights * batch['row_weights']
  token_weights = batch['decoder_loss_weights']
  weights = weights.reshape(len(token_weights), -1)  # [B, 1] or [B, T]
  return {**batch, 'decoder_loss_weights': token_weights * weights}


def _check(samples: Samples) -> None:
  if np.isnan(samples.rewards).any():
    row = int(np.flatnonzero(np.isnan(samples.rewards))[0])
    raise ValueError(
      f'rewards must not be NaN; got NaN in row {row} (source '
      f'{int(samples.source_ids[row])}). Score D_g again.'
    )
  if np.any(samples.source_ids[1:] < samples.source_ids[:-1]):
    raise ValueError('rows of D_g must be sorted by source')


def _of_rows(
  tau: np.ndarray, counted_sources: np.ndarray, source_ids: np.ndarray
) -> np.ndarray:
  """Returns the threshold of each row, float32 [n].

  Args:
    tau: result of `Filter.thresholds`.
    counted_sources: source of each row that it was computed from.
    source_ids: source of each row.
  """
  if not tau.ndim:
    return np.broadcast_to(tau, source_ids.shape)
  starts = group_starts(source_ids)
  counted = counted_sources[group_starts(counted_sources)]
  # A source without counted rows keeps none: its threshold is infinite.
  tau_of = np.full(starts.shape, np.inf, np.float32)
  tau_of[np.searchsorted(source_ids[starts], counted)] = tau
  return np.repeat(tau_of, np.diff(starts, append=len(source_ids)))


def _values(samples: Samples) -> np.ndarray:
  """Returns V(x) per row, float32 [n]; -inf for a source without samples."""
  drawn = samples.is_eligible & ~samples.is_reference
  starts = group_starts(samples.source_ids)
  counts = np.add.reduceat(drawn, starts, dtype=np.int64)
  rewards = np.where(drawn, samples.rewards, 0.0)
  totals = np.add.reduceat(rewards, starts, dtype=np.float64)
  values = np.full(starts.shape, -np.inf, np.float32)
  np.divide(totals, counts, out=values, where=counts > 0, casting='same_kind')
  return np.repeat(values, np.diff(starts, append=len(samples.source_ids)))


def _is_repeated(samples: Samples, among: np.ndarray) -> np.ndarray:
  """Marks rows whose (source, tokens) occurred in an earlier row of `among`."""
  source_ids, text_hashes = samples.source_ids, samples.required_hashes
  repeated = np.zeros(source_ids.shape, bool)
  for begin, end in itertools.pairwise(_cuts(source_ids)):
    rows = begin + np.flatnonzero(among[begin:end])
    # Stable: equal hashes of one source are adjacent.
    rows = rows[np.argsort(text_hashes[rows], kind='stable')]
    same = (text_hashes[rows[1:]] == text_hashes[rows[:-1]]) & (
      source_ids[rows[1:]] == source_ids[rows[:-1]]
    )
    repeated[rows[1:][same]] = True
  return repeated


def _first_of_each(
  rows: np.ndarray, source_ids: np.ndarray, count: int
) -> np.ndarray:
  """Returns the first `count` rows of each source."""
  starts = group_starts(source_ids)
  sizes = np.diff(starts, append=len(rows))
  place = np.arange(len(rows)) - np.repeat(starts, sizes)
  return rows[place < count]


def _cuts(source_ids: np.ndarray) -> list[int]:
  """Returns bounds of pieces of about `_PIECE_ROWS` rows with whole sources."""
  starts = np.append(group_starts(source_ids), len(source_ids))
  wanted = np.arange(0, len(source_ids), _PIECE_ROWS)
  cuts = starts[np.searchsorted(starts, wanted)]
  return np.unique(np.append(cuts, len(source_ids))).tolist()


def _statistics(samples, candidates, kept):
  before = group_starts(samples.source_ids).size
  after = group_starts(samples.source_ids[kept]).size
  return {
    'samples': int(kept.size),
    'fraction': float(kept.size / samples.is_eligible.sum()),
    'sources_without_samples': int(before - after),
    'references': int(samples.is_reference[kept].sum()),
    'mean_length_before': float(samples.lengths[candidates].mean()),
    'mean_length_after': float(samples.lengths[kept].mean()),
    'mean_reward_before': float(
      samples.rewards[candidates].mean(dtype=np.float64)
    ),
    'mean_reward_after': float(samples.rewards[kept].mean(dtype=np.float64)),
  }


def group_starts(source_ids: np.ndarray) -> np.ndarray:
  """Returns the first row of each source, for at least one sorted id."""
  changes = np.flatnonzero(source_ids[1:] != source_ids[:-1]) + 1
  return np.concatenate([np.zeros(1, changes.dtype), changes])


def sorted_within(rewards: np.ndarray, counts: np.ndarray) -> np.ndarray:
  """Returns the rewards, sorted in ascending order within each source.

  Args:
    rewards: float32 [n], without NaN; rows of a source are adjacent.
    counts: int [sources], number of rows per source.
  """
  # One sort of 64-bit integers, which is many times faster than sorting rows by
  # two columns. The upper half is the source's index, the lower half the bits
  # of the reward, transformed so that they increase with the reward.
  sign = np.uint32(1 << 31)
  bits = np.ascontiguousarray(rewards, np.float32).view(np.uint32)
  keys = np.repeat(
    np.arange(len(counts), dtype=np.uint64) << np.uint64(32), counts
  )
  keys |= np.where(bits & sign, ~bits, bits | sign)
  keys.sort()
  bits = keys.astype(np.uint32)
  return np.where(bits & sign, bits ^ sign, ~bits).view(np.float32)
