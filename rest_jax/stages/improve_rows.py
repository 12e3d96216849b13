"""D_g as training batches: the rows that a filter keeps, laid out for a loss."""

from collections.abc import Sequence
import dataclasses

import numpy as np

from rest_jax.data import pair_store, sample_store, special_ids
from rest_jax.filters import base as filters_base
from rest_jax.losses import base as losses_base
from rest_jax.training import loader

# Columns of a batch beside the tokens, of one number a hypothesis.
COLUMNS = ('rewards', 'thresholds', 'row_weights')


@dataclasses.dataclass(frozen=True)
class ImproveRows:
  """Arguments of `TrainerConfig.batches`, and what was kept.

  Attributes:
    source_lengths: int32 [m].
    target_lengths: int32 [m].
    load: see `loader.BucketedBatches`.
    normalizers: float [m], what each row adds to the loss's normaliser.
    statistics: the filter's report.
  """

  source_lengths: np.ndarray
  target_lengths: np.ndarray
  load: loader.Load
  normalizers: np.ndarray
  statistics: dict


def samples_of(
  store: sample_store.SampleStore,
  rewards: np.ndarray,
  *,
  include_references: bool,
  include_unfinished: bool,
  with_hashes: bool = True,
) -> filters_base.Samples:
  """Gathers the columns that filters read.

  Args:
    store: D_g.
    rewards: float32 [n], normalised, a row each.
    include_references: whether D's own references may be trained on.
    include_unfinished: whether samples without EOS may be.
    with_hashes: whether rows will be compared by their tokens (see
      `compares_tokens`); without, no token is read.

  Returns:
    The columns.
  """
  is_reference = store.sample_id == sample_store.REFERENCE_SAMPLE_ID
  eligible = np.ones(len(store), bool)
  if not include_references:
    eligible &= ~is_reference
  if not include_unfinished:
    eligible &= np.asarray(store.finished)
  return filters_base.Samples(
    source_ids=np.asarray(store.source_id),
    rewards=np.asarray(rewards, np.float32),
    is_reference=is_reference,
    is_eligible=eligible,
    text_hashes=store.tokens.hashes if with_hashes else None,
    lengths=store.tokens.lengths,
  )


def compares_tokens(
  row_filter: filters_base.Filter, loss: losses_base.Loss
) -> bool:
  """Whether F or the layout of the loss asks which rows have equal tokens."""
  return row_filter.deduplicate or loss.layout is losses_base.Layout.BEST_WORST


def select(
  *,
  store: sample_store.SampleStore,
  sources: pair_store.PairStore,
  samples: filters_base.Samples,
  row_filter: filters_base.Filter,
  improve_step: int,
  loss: losses_base.Loss,
  reference_weight: float,
  balance_sources: bool = False,
  grow_step: int = 1,
  ids: special_ids.SpecialIds = special_ids.T5,
) -> ImproveRows:
  """Finds the rows with F = 1 and lays them out as the loss declares.

  Args:
    store: D_g.
    sources: the pairs that `source_id` refers to.
    samples: its columns.
    row_filter: F.
    improve_step: i, from 1.
    loss: says columns and layout.
    reference_weight: weight of a reference's loss against a sample's.
    balance_sources: whether the kept samples of each source have one weight
      together.
    grow_step: g, from 1.
    ids: of the vocabulary.

  Returns:
    The rows.

  Raises:
    EmptySelectionError: if nothing is kept.
    ValueError: if the loss declares an unknown column.
  """
  kept = row_filter.select(improve_step, samples, grow_step)
  unknown = set(loss.columns) - set(losses_base.COLUMNS)
  if unknown:
    raise ValueError(
      f'{type(loss).__name__} declares columns {sorted(unknown)} that D_g does '
      f'not have; it has {sorted(losses_base.COLUMNS)}'
    )
  if loss.layout is losses_base.Layout.BEST_WORST:
    groups, thresholds = _best_worst(samples, kept, row_filter)
    kept.statistics['pairs'] = len(groups)
  else:
    groups, thresholds = kept.rows[:, None], kept.thresholds[:, None]
  extra = {}
  if 'sample_log_probs' in loss.columns:
    extra['sample_log_probs'] = store.log_prob
  if 'source_ids' in loss.columns:
    extra['source_ids'] = samples.source_ids

  weights = np.where(samples.is_reference, reference_weight, 1.0)
  weights = weights.astype(np.float32)
  if balance_sources and loss.layout is not losses_base.Layout.BEST_WORST:
    drawn = kept.rows[~samples.is_reference[kept.rows]]
    weights[drawn] = _balanced(samples.source_ids[drawn])

  def load(rows: np.ndarray, source_length: int, target_length: int) -> dict:
    members = groups[rows].reshape(-1)  # [B * N]
    # The source of a group is encoded once.
    of_group = samples.source_ids[groups[rows, 0]]
    batch = loader.decoder_batch(
      sources.source_tokens.pad(of_group, source_length, ids.pad),
      store.tokens.pad(members, target_length, ids.pad),
      ids,
    )
    batch['rewards'] = samples.rewards[members]
    batch['thresholds'] = thresholds[rows].reshape(-1)
    batch['row_weights'] = weights[members]
    for name, column in extra.items():
      batch[name] = _on_device_type(column[members])
    return batch

  return ImproveRows(
    source_lengths=sources.source_tokens.lengths[
      samples.source_ids[groups[:, 0]]
    ],
    target_lengths=samples.lengths[groups].max(axis=1),
    load=load,
    normalizers=loss.row_normalizers(
      lengths=samples.lengths[groups],
      weights=weights[groups],
      rewards=samples.rewards[groups],
    ),
    statistics=kept.statistics,
  )


def masked(
  load: loader.Load, is_inclusive: bool, columns: Sequence[str]
) -> loader.Load:
  """Returns `load` with F applied to the weights of the tokens.

  The batch has no column that the loss does not read, so that the step of BC is
  that of an Improve step with its loss.

  Args:
    load: see `ImproveRows`.
    is_inclusive: the filter's comparison.
    columns: `Loss.columns`.
  """
  unread = set(COLUMNS) - set(columns)

  def load_masked(rows: np.ndarray, *lengths: int) -> dict[str, np.ndarray]:
    batch = filters_base.mask_rows(load(rows, *lengths), is_inclusive)
    return {name: batch[name] for name in batch if name not in unread}

  return load_masked


def _balanced(source_ids: np.ndarray) -> np.ndarray:
  """Weights of rows, of mean 1, that sum to the same over each source."""
  if not source_ids.size:
    return np.ones(0, np.float32)
  starts = filters_base.group_starts(source_ids)
  counts = np.diff(starts, append=len(source_ids))
  return np.repeat(counts.mean() / counts, counts).astype(np.float32)


def _best_worst(
  samples: filters_base.Samples,
  kept: filters_base.Kept,
  row_filter: filters_base.Filter,
) -> tuple[np.ndarray, np.ndarray]:
  """Pairs the best kept row of each source with its worst eligible one.

  F applies to the best; the worst has threshold -inf, which any reward passes.
  Of equal rewards the first row counts, on both sides. Sources whose best and
  worst have the same tokens or reward have no pair.
  """
  eligible = np.flatnonzero(samples.is_eligible)
  best = _first_lowest(samples, kept.rows, -samples.rewards)
  worst = _first_lowest(samples, eligible, samples.rewards)
  # Every kept row is eligible: each best has a worst of its source.
  sources = samples.source_ids
  worst = worst[np.searchsorted(sources[worst], sources[best])]
  hashes = samples.required_hashes
  valid = (samples.rewards[best] > samples.rewards[worst]) & (
    hashes[best] != hashes[worst]
  )
  if not valid.any():
    raise filters_base.EmptySelectionError(
      f'no source has a best and a worst sample that differ, of {len(best)} of '
      f'which the {row_filter.kind} filter keeps one; draw more samples for each '
      'source, or at a higher temperature'
    )
  best, worst = best[valid], worst[valid]
  of_row = np.full(len(samples.rewards), np.nan, np.float32)
  of_row[kept.rows] = kept.thresholds
  thresholds = np.stack(
    [of_row[best], np.full(best.shape, -np.inf, np.float32)], axis=1
  )
  return np.stack([best, worst], axis=1), thresholds


def _first_lowest(
  samples: filters_base.Samples, rows: np.ndarray, keys: np.ndarray
) -> np.ndarray:
  """Returns of each source the first of `rows` with its lowest key."""
  # Stable: of equal keys the first row comes first.
  order = rows[np.lexsort((keys[rows], samples.source_ids[rows]))]
  return order[filters_base.group_starts(samples.source_ids[order])]


def _on_device_type(column: np.ndarray) -> np.ndarray:
  if column.dtype == np.int64:
    if column.size and column.max() >= 2**31:
      raise ValueError(
        'source ids beyond 2**31 - 1 do not fit the int32 that devices hold'
      )
    return column.astype(np.int32)
  return column
