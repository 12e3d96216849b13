"""Training batches of D_g: the rows that a filter keeps, laid out for a loss."""

from collections.abc import Sequence
import dataclasses

import numpy as np

from rest_jax.data import pair_store, sample_store, special_ids
from rest_jax.filters import base as filters_base
from rest_jax.losses import base as losses_base
from rest_jax.training import loader

# Columns of a batch with one number per hypothesis.
COLUMNS = ('rewards', 'thresholds', 'row_weights')


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImproveRows(loader.Rows):
  """Rows to train on, and statistics of the kept samples, for the manifest."""

  statistics: dict


def samples_of(
  store: sample_store.SampleStore,
  rewards: np.ndarray,
  *,
  include_references: bool,
  include_unfinished: bool,
  with_hashes: bool = True,
) -> filters_base.Samples:
  """Returns the columns of D_g that filters read.

  Args:
    rewards: float32 [n], normalised rewards of the rows.
    include_references: whether D's own references may be trained on.
    include_unfinished: whether samples without EOS may be trained on.
    with_hashes: whether to hash tokens, see `compares_tokens`; if not, no token
      is read.
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
  """Whether F or the layout of the loss compares the tokens of rows."""
  return row_filter.deduplicate or loss.layout is losses_base.Layout.BEST_WORST


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
  """How rows are selected, weighted and laid out.

  Attributes:
    loss: declares columns and layout.
    reference_weight: weight of a reference relative to a sample.
    balance_sources: whether the kept samples of each source have the same total
      weight.
  """

  row_filter: filters_base.Filter
  loss: losses_base.Loss
  reference_weight: float = 1.0
  balance_sources: bool = False

  def weights(
    self, samples: filters_base.Samples, kept: filters_base.Kept
  ) -> np.ndarray:
    """Returns the weight of each row, float32 [n]."""
    weights = np.where(samples.is_reference, self.reference_weight, 1.0)
    weights = weights.astype(np.float32)
    is_paired = self.loss.layout is losses_base.Layout.BEST_WORST
    if self.balance_sources and not is_paired:
      drawn = kept.rows[~samples.is_reference[kept.rows]]
      weights[drawn] = _balanced(samples.source_ids[drawn])
    return weights


def select(
  rules: Rules,
  *,
  store: sample_store.SampleStore,
  sources: pair_store.PairStore,
  samples: filters_base.Samples,
  improve_step: int = 1,
  grow_step: int = 1,
  ids: special_ids.SpecialIds = special_ids.T5,
) -> ImproveRows:
  """Selects the rows with F = 1, and lays them out for the loss.

  Args:
    sources: the pairs that `source_id` refers to.

  Raises:
    EmptySelectionError: no row is kept.
    ValueError: the loss declares an unknown column.
  """
  loss = rules.loss
  kept = rules.row_filter.select(improve_step, samples, grow_step)
  unknown = set(loss.columns) - set(losses_base.COLUMNS)
  if unknown:
    raise ValueError(
      f'{type(loss).__name__} declares columns {sorted(unknown)} that D_g does '
      f'not have; it has {sorted(losses_base.COLUMNS)}'
    )
  if loss.layout is losses_base.Layout.BEST_WORST:
    groups, thresholds = _best_worst(samples, kept, rules.row_filter)
    kept.statistics['pairs'] = len(groups)
  else:
    groups, thresholds = kept.rows[:, None], kept.thresholds[:, None]
  extra = {}
  if 'sample_log_probs' in loss.columns:
    extra['sample_log_probs'] = store.log_prob
  if 'source_ids' in loss.columns:
    extra['source_ids'] = samples.source_ids

  weights = rules.weights(samples, kept)

  def load(rows: np.ndarray, source_length: int, target_length: int) -> dict:
    members = groups[rows].reshape(-1)  # [B * N]
    # The source of a group is encoded once.
    source_rows = samples.source_ids[groups[rows, 0]]
    batch = loader.decoder_batch(
      sources.source_tokens.pad(source_rows, source_length, ids.pad),
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
    pad=ids.pad,
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
  """Returns weights with mean 1 and equal sums over each source."""
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
  Among equal rewards, the first row is taken. Sources whose best and worst row
  have equal tokens or rewards have no pair.
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
      f'none of the {len(best)} sources of which the {row_filter.kind} filter '
      'keeps a sample has a best and a worst sample that differ; draw more '
      'samples per source, or at a higher temperature'
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
  """Returns the row with the lowest key of each source, the first of equals."""
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
