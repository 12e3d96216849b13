"""Tests of D_g as training batches, on a small store made by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rest_jax.data import ragged, sample_store
from rest_jax.filters import base as filters_base
from rest_jax.filters import for_all_sources, per_source
from rest_jax.losses import bc, dpo, reward_weighted_bc
from rest_jax.stages import improve_rows
from rest_jax.training import step as step_lib
from tests.losses import table
from tests.models import tiny
from tests.training import toy


class Pairs:
  """Stands for a `PairStore`: three sources."""

  source_tokens = ragged.Ragged.from_lists(
    [np.array(tokens) for tokens in ([5, 1], [6, 7, 1], [8, 9, 10, 1])]
  )


# source, sample, tokens, log-probability, finished, reward
ROWS = (
  (0, -1, [11, 1], -2.0, True, 0.9),
  (0, 0, [12, 1], -1.0, True, 0.2),
  (0, 1, [12, 1], -1.0, True, 0.2),
  (0, 2, [13, 14, 15], -3.0, False, 0.8),
  (1, -1, [16, 1], -4.0, True, 0.1),
  (1, 0, [17, 1], -1.5, True, 0.6),
  (1, 1, [18, 19, 1], -2.5, True, 0.7),
  (2, 0, [20, 1], -0.5, True, 0.4),
)
REWARDS = np.array([row[5] for row in ROWS], np.float32)


@pytest.fixture
def store(tmp_path):
  rows = sample_store.SampleRows(
    source_id=np.array([row[0] for row in ROWS], np.int64),
    sample_id=np.array([row[1] for row in ROWS], np.int32),
    tokens=[np.array(row[2], np.int32) for row in ROWS],
    log_prob=np.array([row[3] for row in ROWS], np.float32),
    finished=np.array([row[4] for row in ROWS]),
  )
  info = sample_store.write_shard(tmp_path, 0, 1, rows, toy.VOCAB)
  sample_store.write_manifest(
    tmp_path, {'num_sources': 3, 'num_rows': len(ROWS), 'shards': [info]}
  )
  return sample_store.SampleStore.open(tmp_path)


def samples(store, *, references=True, unfinished=False):
  return improve_rows.samples_of(
    store,
    REWARDS,
    include_references=references,
    include_unfinished=unfinished,
  )


def select(
  store,
  row_filter,
  *,
  loss=None,
  weight=1.0,
  balanced=False,
  given=None,
  **included,
):
  rules = improve_rows.Rules(
    row_filter=row_filter,
    loss=loss or bc.BC(),
    reference_weight=weight,
    balance_sources=balanced,
  )
  return improve_rows.select(
    rules,
    store=store,
    sources=Pairs,
    samples=given or samples(store, **included),
  )


def all_rows(rows):
  return rows.load(np.arange(len(rows.source_lengths)), 4, 4)


EVERYTHING = for_all_sources.Fixed(values=(float('-inf'),))


def test_eligibility(store):
  np.testing.assert_array_equal(
    samples(store).is_eligible, [1, 1, 1, 0, 1, 1, 1, 1]
  )
  np.testing.assert_array_equal(
    samples(store, references=False, unfinished=True).is_eligible,
    [0, 1, 1, 1, 0, 1, 1, 1],
  )


def test_equal_tokens_and_only_those_have_equal_hashes(store):
  hashes = samples(store).text_hashes
  assert hashes[1] == hashes[2]
  assert len(set(hashes.tolist())) == len(ROWS) - 1


@pytest.mark.parametrize(
  'row_filter, loss, expected',
  [
    (EVERYTHING, bc.BC(), False),
    (for_all_sources.Fixed(values=(0.5,), deduplicate=True), bc.BC(), True),
    (per_source.Percentile(values=(50.0,)), bc.BC(), True),
    (EVERYTHING, toy.EverythingLoss(), True),
  ],
)
def test_tokens_are_hashed_only_where_compared(
  store, row_filter, loss, expected
):
  assert improve_rows.compares_tokens(row_filter, loss) is expected
  without = improve_rows.samples_of(
    store,
    REWARDS,
    include_references=True,
    include_unfinished=False,
    with_hashes=False,
  )
  assert without.text_hashes is None and 'hashes' not in vars(store.tokens)
  if row_filter.deduplicate:
    with pytest.raises(ValueError, match='samples must have text_hashes'):
      row_filter.select(1, without)
  else:
    np.testing.assert_array_equal(
      row_filter.select(1, without).rows,
      row_filter.select(1, samples(store)).rows,
    )


@pytest.mark.parametrize('seed', range(3))
def test_batches_are_gathered_row_by_row(tmp_path, seed):
  random = np.random.default_rng(seed)
  num_rows, ranges = 600, sample_store.shard_ranges(60, 25)
  tokens = [
    np.append(random.integers(2, toy.VOCAB, random.integers(0, 9)), 1)
    for _ in range(num_rows)
  ]
  log_prob, rewards = random.normal(size=(2, num_rows)).astype(np.float32)
  infos = []
  for shard, (start, stop) in enumerate(ranges):
    here = slice(10 * start, 10 * stop)
    rows = sample_store.SampleRows(
      source_id=np.repeat(np.arange(start, stop), 10),
      sample_id=np.tile(np.arange(10) - 1, stop - start),
      tokens=tokens[here],
      log_prob=log_prob[here],
      finished=np.ones(10 * (stop - start), bool),
    )
    infos.append(
      sample_store.write_shard(tmp_path, shard, len(ranges), rows, toy.VOCAB)
    )
  sample_store.write_manifest(
    tmp_path, {'num_sources': 60, 'num_rows': num_rows, 'shards': infos}
  )
  store = sample_store.SampleStore.open(tmp_path)

  class Sources:
    source_tokens = ragged.Ragged.from_lists(
      [random.integers(1, 50, random.integers(1, 7)) for _ in range(60)]
    )

  class Wants(bc.BC):
    columns = ('rewards', 'sample_log_probs', 'source_ids')

  gathered = improve_rows.samples_of(
    store, rewards, include_references=True, include_unfinished=False
  )
  row_filter = per_source.Percentile(values=(40.0,))
  made = improve_rows.select(
    improve_rows.Rules(
      row_filter=row_filter, loss=Wants(), reference_weight=0.5
    ),
    store=store,
    sources=Sources,
    samples=gathered,
  )
  kept = row_filter.select(1, gathered)
  chosen = random.integers(0, len(kept.rows), 100)
  batch = made.load(chosen, 7, 9)
  for line, at in enumerate(chosen):
    row = int(kept.rows[at])
    target = batch['decoder_target_tokens'][line]
    np.testing.assert_array_equal(target[: len(tokens[row])], tokens[row])
    assert not target[len(tokens[row]) :].any()
    source = Sources.source_tokens[row // 10]
    encoder = batch['encoder_input_tokens'][line]
    np.testing.assert_array_equal(encoder[: len(source)], source)
    assert not encoder[len(source) :].any()
    assert batch['rewards'][line] == rewards[row]
    assert batch['thresholds'][line] == kept.thresholds[at]
    assert batch['sample_log_probs'][line] == log_prob[row]
    assert batch['source_ids'][line] == row // 10
    assert batch['row_weights'][line] == (0.5 if row % 10 == 0 else 1.0)


def test_a_batch_by_hand(store):
  rows = select(store, for_all_sources.Fixed(values=(0.5,)), weight=0.25)
  batch = all_rows(rows)
  # Rewards above 0.5 and finished: the reference of 0, samples 0 and 1 of 1.
  np.testing.assert_array_equal(
    batch['encoder_input_tokens'], [[5, 1, 0, 0], [6, 7, 1, 0], [6, 7, 1, 0]]
  )
  np.testing.assert_array_equal(
    batch['decoder_target_tokens'],
    [[11, 1, 0, 0], [17, 1, 0, 0], [18, 19, 1, 0]],
  )
  np.testing.assert_allclose(batch['rewards'], [0.9, 0.6, 0.7])
  np.testing.assert_allclose(batch['thresholds'], [0.5] * 3)
  np.testing.assert_array_equal(batch['row_weights'], [0.25, 1, 1])
  assert 'sample_log_probs' not in batch
  np.testing.assert_array_equal(rows.source_lengths, [2, 3, 3])
  np.testing.assert_array_equal(rows.target_lengths, [2, 2, 3])
  assert rows.statistics['references'] == 1
  assert rows.statistics['sources_without_samples'] == 1


def test_balanced_sources_have_one_weight_together(store):
  rows = select(store, EVERYTHING, weight=0.25, balanced=True)
  # References keep theirs; five samples of three sources weigh five.
  expected = [0.25, 5 / 6, 5 / 6, 0.25, 5 / 6, 5 / 6, 5 / 3]
  np.testing.assert_allclose(all_rows(rows)['row_weights'], expected, rtol=1e-6)
  lengths = [2, 2, 2, 2, 2, 3, 2]
  np.testing.assert_allclose(
    rows.normalizers, np.multiply(expected, lengths), rtol=1e-6
  )


def test_declared_columns_come_with_the_batch(store):
  class Wants(bc.BC):
    columns = ('rewards', 'sample_log_probs', 'source_ids')

  batch = all_rows(select(store, EVERYTHING, loss=Wants()))
  np.testing.assert_array_equal(batch['source_ids'], [0, 0, 0, 1, 1, 1, 2])
  assert batch['source_ids'].dtype == np.int32
  np.testing.assert_allclose(
    batch['sample_log_probs'], [-2, -1, -1, -4, -1.5, -2.5, -0.5]
  )


def test_an_unknown_column_is_an_error(store):
  class Wants(bc.BC):
    columns = ('advantages',)

  with pytest.raises(ValueError, match='advantages'):
    select(store, EVERYTHING, loss=Wants())


def test_best_and_worst_of_each_source(store):
  rows = select(
    store, for_all_sources.Fixed(values=(0.5,)), loss=toy.EverythingLoss()
  )
  batch = all_rows(rows)
  # Source 0: reference against sample 0; 1: sample 1 against the reference.
  # Source 2 has one sample: no pair.
  np.testing.assert_array_equal(
    batch['decoder_target_tokens'],
    [[11, 1, 0, 0], [12, 1, 0, 0], [18, 19, 1, 0], [16, 1, 0, 0]],
  )
  np.testing.assert_array_equal(
    batch['encoder_input_tokens'], [[5, 1, 0, 0], [6, 7, 1, 0]]
  )
  np.testing.assert_allclose(batch['thresholds'], [0.5, -np.inf, 0.5, -np.inf])
  # F passes the pair whole.
  masked = filters_base.mask_rows(batch, False)
  assert np.asarray(masked['decoder_loss_weights']).any(axis=1).all()
  assert rows.statistics['pairs'] == 2


@pytest.mark.parametrize(
  'row_filter, expected',
  [
    # The best text of source 0 was drawn twice; filters keep the first of equals.
    (per_source.Percentile(values=(50.0,)), [(1, 0), (6, 4)]),
    (per_source.Interpolation(values=(1.0,)), [(1, 0), (6, 4)]),
    (for_all_sources.Fixed(values=(0.5,), deduplicate=True), [(1, 0), (6, 4)]),
    (for_all_sources.Fixed(values=(0.5,)), [(1, 0), (6, 4)]),
    # The best of source 1 is not kept: its place is that of the best kept one.
    (for_all_sources.Fixed(values=(0.5,), max_per_source=1), [(1, 0), (5, 4)]),
    (per_source.Percentile(values=(0.0,), max_per_source=1), [(1, 0), (5, 4)]),
  ],
)
def test_the_best_is_one_that_the_filter_kept(store, row_filter, expected):
  rewards = np.array([0.1, 0.8, 0.8, 0.9, 0.1, 0.6, 0.7, 0.4], np.float32)
  given = samples(store)._replace(rewards=rewards)
  rows = select(store, row_filter, loss=toy.EverythingLoss(), given=given)
  pairs = all_rows(rows)['rewards'].reshape(-1, 2)
  np.testing.assert_array_equal(pairs, [rewards[list(p)] for p in expected])
  assert rows.statistics['pairs'] == len(expected)
  # F passes every pair in the train step as well.
  batch = all_rows(rows)
  masked = filters_base.mask_rows(batch, row_filter.is_inclusive)
  assert np.asarray(masked['decoder_loss_weights']).any(axis=1).all()


def test_no_pair_at_all_is_an_error(store):
  equal = samples(store)._replace(rewards=np.full(len(ROWS), 0.5, np.float32))
  with pytest.raises(
    filters_base.EmptySelectionError, match=r' fixed .*differ'
  ):
    select(
      store,
      for_all_sources.Fixed(values=(0.3,)),
      loss=toy.EverythingLoss(),
      given=equal,
    )


def train(batch):
  policy, optimizer = toy.make_policy(), optax.sgd(0.1)
  state = step_lib.init_state(tiny.init(policy), bc.BC(), optimizer, {})
  step = step_lib.make_train_step(
    model=policy, loss=bc.BC(), optimizer=optimizer
  )
  state, metrics = jax.jit(step)(state, batch, np.float32(1.0), None)
  return state.params, float(metrics['nll'])


def test_no_filter_equals_bc_on_all_of_d_g(store):
  batch = all_rows(select(store, EVERYTHING, unfinished=True))
  assert len(batch['rewards']) == len(ROWS)
  filtered, nll = train(filters_base.mask_rows(batch, False))
  plain, plain_nll = train(
    {k: v for k, v in batch.items() if k.startswith(('enc', 'dec'))}
  )
  assert nll == plain_nll
  jax.tree.map(np.testing.assert_array_equal, filtered, plain)


@pytest.mark.parametrize(
  'row_filter',
  [for_all_sources.Fixed(values=(0.5,)), per_source.Percentile(values=(50.0,))],
  ids=lambda f: f.kind,
)
def test_loading_what_passes_equals_masking_the_rest(store, row_filter):
  kept = select(store, row_filter)
  dropped, _ = train(
    filters_base.mask_rows(all_rows(kept), row_filter.is_inclusive)
  )
  everything = all_rows(select(store, EVERYTHING))
  chosen = row_filter.select(1, samples(store)).rows
  eligible = np.flatnonzero(samples(store).is_eligible)
  # Every row is loaded; those that fail have a threshold above their reward.
  everything['thresholds'] = np.where(
    np.isin(eligible, chosen), -np.inf, np.inf
  ).astype(np.float32)
  masked, _ = train(filters_base.mask_rows(everything, False))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), dropped, masked
  )


@pytest.mark.parametrize(
  'loss', [bc.BC(), reward_weighted_bc.RewardWeightedBC()], ids=repr
)
def test_a_masked_batch_has_what_the_loss_reads(store, loss):
  rows = select(store, EVERYTHING, loss=loss, weight=0.25)
  load = improve_rows.masked(rows.load, False, loss.columns)
  every, batch = all_rows(rows), load(np.arange(7), 4, 4)
  expected = filters_base.mask_rows(every, False)['decoder_loss_weights']
  np.testing.assert_array_equal(batch['decoder_loss_weights'], expected)
  assert {0.25, 1.0} < {*expected.ravel().tolist()}
  columns = {name for name in batch if not name.startswith(('enc', 'dec'))}
  assert columns == set(loss.columns)
  # A batch of BC with the loss BC: both share a compiled step.
  assert {array.dtype for array in batch.values()} == {
    np.dtype(np.int32),
    np.dtype(np.float32),
  }


@pytest.mark.parametrize(
  'loss', [bc.BC(), reward_weighted_bc.RewardWeightedBC(), dpo.DPO()], ids=repr
)
def test_normalisers_are_those_of_the_batches(store, loss):
  rows = select(
    store, for_all_sources.Fixed(values=(0.3,)), loss=loss, weight=0.25
  )
  batch = jax.tree.map(jnp.asarray, all_rows(rows))
  batch = filters_base.mask_rows(batch, False)
  logits = jnp.zeros((*batch['decoder_target_tokens'].shape, toy.VOCAB))
  output = table.call(loss, {'x': logits}, batch, given={'bc': {'x': logits}})
  assert rows.normalizers.sum() == pytest.approx(float(output.normalizer))
