"""Tests of all filters: hand-computed values, identities, random inputs."""

import numpy as np
import pytest

from rest_jax.filters import base, for_all_sources, per_source


def make_samples(rewards, sources, **columns):
  """D_g from lists; by default every row is a distinct eligible sample."""
  rewards = np.asarray(rewards, np.float32)
  n = len(rewards)
  return base.Samples(
    source_ids=np.asarray(sources, np.int64),
    rewards=rewards,
    is_reference=np.asarray(columns.get('is_reference', np.zeros(n)), bool),
    is_eligible=np.asarray(columns.get('is_eligible', np.ones(n)), bool),
    text_hashes=np.asarray(columns.get('text_hashes', np.arange(n)), np.uint64),
    lengths=np.asarray(columns.get('lengths', np.full(n, 5)), np.int32),
  )


def random_samples(seed, num_rows=400, num_sources=30):
  random = np.random.default_rng(seed)
  return make_samples(
    random.normal(size=num_rows),
    np.sort(random.integers(0, num_sources, num_rows)),
    text_hashes=random.integers(0, 40, num_rows),
    is_reference=random.random(num_rows) < 0.1,
    is_eligible=random.random(num_rows) < 0.9,
    lengths=random.integers(2, 20, num_rows),
  )


ALL = (
  for_all_sources.Fixed(values=(-0.5, 0.0, 0.5)),
  for_all_sources.Fixed(values=(-0.5, 0.0, 0.5), deduplicate=True),
  for_all_sources.Quantile(values=(0.1, 0.5, 0.9)),
  per_source.Percentile(values=(10.0, 50.0, 90.0)),
  per_source.Interpolation(values=(0.0, 0.5, 1.0)),
)


def naive_threshold(row_filter, value, rewards):
  """The threshold of one group of rewards, by its definition."""
  ranked = sorted(np.float32(reward) for reward in rewards)
  if row_filter.kind == 'percentile':
    rank = (len(ranked) - 1) * (value / 100)
    low = int(rank)
    high = min(low + 1, len(ranked) - 1)
    share = np.float32(rank - low)
    tau = ranked[low] + share * (ranked[high] - ranked[low])
    return min(tau, ranked[high])
  if row_filter.kind == 'interpolation':
    mean = sum(map(float, ranked)) / len(ranked)
    return np.float32(value * float(ranked[-1]) + (1 - value) * mean)
  if row_filter.kind == 'quantile':
    return np.float32(np.quantile(np.array(ranked, np.float64), value))
  return np.float32(value)


def naive_select(row_filter, value, samples):
  """The rows kept and their thresholds, one source and row after the other."""
  kept_texts, counted_texts, counted, candidates = set(), set(), {}, []
  for row, source in enumerate(samples.source_ids.tolist()):
    if not samples.is_eligible[row]:
      continue
    text = (source, int(samples.text_hashes[row]))
    if not row_filter.deduplicate or text not in kept_texts:
      candidates.append((row, source))
    kept_texts.add(text)
    if samples.is_reference[row] and not row_filter.count_references:
      continue
    if not row_filter.deduplicate or text not in counted_texts:
      counted.setdefault(source, []).append(samples.rewards[row])
    counted_texts.add(text)
  if row_filter.kind in ('fixed', 'quantile'):
    everything = [reward for group in counted.values() for reward in group]
    tau = naive_threshold(row_filter, value, everything)
    taus = dict.fromkeys(samples.source_ids.tolist(), tau)
  else:
    taus = {
      source: naive_threshold(row_filter, value, group)
      for source, group in counted.items()
    }
  kept = [
    (row, taus[source])
    for row, source in candidates
    if source in taus
    and base.is_kept(
      samples.rewards[row], taus[source], row_filter.is_inclusive
    )
  ]
  return [row for row, _ in kept], [tau for _, tau in kept]


@pytest.mark.parametrize('row_filter', ALL, ids=lambda f: f.kind)
@pytest.mark.parametrize('seed', range(6))
def test_select_equals_a_naive_implementation(monkeypatch, row_filter, seed):
  # Pieces of a few rows, cut among sources of one row and of many.
  monkeypatch.setattr(base, '_PIECE_ROWS', (7, 64, 65_536)[seed % 3])
  random = np.random.default_rng(seed)
  # Few values, exact in binary: ties everywhere, zeros of both signs.
  rewards = random.integers(-8, 9, 400) * random.choice([-0.125, 0.125], 400)
  samples = random_samples(seed)._replace(
    rewards=rewards.astype(np.float32),
    source_ids=np.sort(random.geometric(0.05, 400).astype(np.int64) * 3),
    text_hashes=random.integers(0, 6, 400).astype(np.uint64),
    is_reference=random.random(400) < 0.4,
  )
  for step, value in enumerate(row_filter.values, 1):
    kept = row_filter.select(step, samples)
    rows, thresholds = naive_select(row_filter, value, samples)
    np.testing.assert_array_equal(kept.rows, rows)
    np.testing.assert_allclose(kept.thresholds, thresholds, rtol=1e-6, atol=0)


def test_rewards_are_sorted_within_each_source():
  random = np.random.default_rng(0)
  extremes = [np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 3e38, -3e38]
  rewards = np.concatenate([extremes, random.normal(size=500)])
  rewards = random.permutation(rewards).astype(np.float32)
  counts = np.array([1, 200, 7, 300])
  expected = np.concatenate(
    [np.sort(part) for part in np.split(rewards, np.cumsum(counts)[:-1])]
  )
  before = rewards.copy()
  np.testing.assert_array_equal(base.sorted_within(rewards, counts), expected)
  np.testing.assert_array_equal(rewards, before)


def test_a_filter_that_drops_repeated_samples_needs_their_hashes():
  samples = random_samples(0)._replace(text_hashes=None)
  with pytest.raises(ValueError, match='samples must have text_hashes'):
    per_source.Percentile(values=(50.0,)).select(1, samples)
  everything = for_all_sources.Fixed(values=(float('-inf'),)).select(1, samples)
  assert len(everything.rows) == samples.is_eligible.sum()


def test_fixed_is_strict():
  samples = make_samples([0.1, 0.7, 0.8, 0.7], [0, 0, 1, 1])
  kept = for_all_sources.Fixed(values=(0.7,)).select(1, samples)
  np.testing.assert_array_equal(kept.rows, [2])
  assert kept.statistics['samples'] == 1
  assert kept.statistics['fraction'] == 0.25
  assert kept.statistics['sources_without_samples'] == 1


def test_minus_infinity_keeps_all():
  samples = random_samples(0)._replace(is_eligible=np.ones(400, bool))
  kept = for_all_sources.Fixed(values=(float('-inf'),)).select(1, samples)
  assert len(kept.rows) == 400
  assert kept.statistics['threshold'] is None


def test_quantile_by_hand():
  # The median of 1..4 is 2.5.
  samples = make_samples([1, 2, 3, 4], [0, 0, 1, 1])
  kept = for_all_sources.Quantile(values=(0.5,)).select(1, samples)
  np.testing.assert_array_equal(kept.rows, [2, 3])
  assert kept.statistics['threshold'] == 2.5


def test_percentile_by_hand():
  # Source 0: 50th percentile of 1, 2, 4 is 2; source 1: that of 3, 5 is 4.
  samples = make_samples([4, 1, 2, 3, 5], [0, 0, 0, 1, 1])
  kept = per_source.Percentile(values=(50.0,)).select(1, samples)
  np.testing.assert_array_equal(kept.rows, [0, 2, 4])
  np.testing.assert_array_equal(kept.thresholds, [2, 2, 4])


def test_interpolation_by_hand():
  # Source 0: max 4, mean 2: gamma 0.5 -> 3. Source 1: max 5, mean 4 -> 4.5.
  samples = make_samples([4, 0, 2, 3, 5], [0, 0, 0, 1, 1])
  kept = per_source.Interpolation(values=(0.5,)).select(1, samples)
  np.testing.assert_array_equal(kept.rows, [0, 4])
  np.testing.assert_allclose(kept.thresholds, [3, 4.5])


@pytest.mark.parametrize('seed', range(5))
def test_interpolation_of_equal_rewards_keeps_every_source(seed):
  # 0.1 + 0.2 style rounding must not lift the mean over the maximum.
  random = np.random.default_rng(seed)
  counts = random.integers(1, 9, 50)
  samples = make_samples(
    np.repeat(random.random(50), counts), np.repeat(np.arange(50), counts)
  )
  for gamma in (0.0, 0.3, 1.0):
    kept = per_source.Interpolation(values=(gamma,)).select(1, samples)
    assert kept.statistics['sources_without_samples'] == 0


def test_references_count_only_if_asked_but_may_pass():
  columns = {'is_reference': [1, 0, 0]}
  samples = make_samples([9, 1, 3], [0, 0, 0], **columns)
  without = per_source.Interpolation(values=(0.5,))
  # Samples alone: max 3, mean 2 -> 2.5; the reference passes it.
  np.testing.assert_array_equal(without.select(1, samples).rows, [0, 2])
  counting = per_source.Interpolation(values=(0.5,), count_references=True)
  # With it: max 9, mean 13/3 -> 6.67.
  np.testing.assert_array_equal(counting.select(1, samples).rows, [0])


def test_the_advantage_is_over_all_samples_of_the_source():
  samples = make_samples(
    [9, 1, 1, 4, 5, 5, 4, 7, 1],
    [0] * 4 + [1] * 3 + [2] * 2,
    is_reference=[1, 0, 0, 0, 1, 0, 0, 1, 0],
    is_eligible=[1] * 8 + [0],
    text_hashes=[8, 7, 7, 6, 5, 4, 3, 2, 1],
  )
  best = per_source.Percentile(
    values=(100.0,), count_references=True, min_advantage=1.0
  )
  # V(x): (1 + 1 + 4) / 3 = 2; (5 + 4) / 2 = 4.5; of no sample.
  kept = best.select(1, samples)
  np.testing.assert_array_equal(kept.rows, [0, 7])
  np.testing.assert_array_equal(kept.thresholds, [9.0, 7.0])
  wide = for_all_sources.Fixed(values=(0.0,), min_advantage=1.5).select(
    1, samples
  )
  np.testing.assert_array_equal(wide.rows, [0, 3, 7])
  np.testing.assert_array_equal(wide.thresholds, [3.5, 3.5, 0.0])


def test_an_advantage_that_no_sample_has_is_named():
  samples = make_samples([0.2, 0.4], [0, 0])
  row_filter = for_all_sources.Fixed(values=(0.0,), min_advantage=0.5)
  with pytest.raises(
    base.EmptySelectionError, match=r'lower min_advantage, 0\.5'
  ):
    row_filter.select(1, samples)


@pytest.mark.parametrize('row_filter', ALL, ids=lambda f: f.kind)
@pytest.mark.parametrize('seed', range(3))
def test_kept_rows_are_eligible_pass_and_shrink(row_filter, seed):
  samples = random_samples(seed)
  fractions = []
  for step in (1, 2, 3):
    kept = row_filter.select(step, samples)
    assert np.all(samples.is_eligible[kept.rows])
    assert np.all(np.diff(kept.rows) > 0)
    assert np.all(
      base.is_kept(
        samples.rewards[kept.rows], kept.thresholds, row_filter.is_inclusive
      )
    )
    fractions.append(kept.statistics['fraction'])
    rewards = samples.rewards[kept.rows]
    assert kept.statistics['mean_reward_after'] == pytest.approx(
      rewards.astype(np.float64).mean()
    )
  assert fractions == sorted(fractions, reverse=True)


def test_mask_rows_by_hand():
  batch = {
    'rewards': np.array([0.1, 0.5, 0.9], np.float32),
    'thresholds': np.array([0.5, 0.5, 0.5], np.float32),
    'row_weights': np.array([1.0, 1.0, 0.25], np.float32),
    'decoder_loss_weights': np.array([[1, 1], [1, 0], [1, 1]], np.float32),
  }
  strict = base.mask_rows(batch, False)['decoder_loss_weights']
  np.testing.assert_array_equal(strict, [[0, 0], [0, 0], [0.25, 0.25]])
  inclusive = base.mask_rows(batch, True)['decoder_loss_weights']
  np.testing.assert_array_equal(inclusive, [[0, 0], [1, 0], [0.25, 0.25]])


def test_a_source_keeps_its_first_rows_that_pass():
  samples = make_samples(
    [0.9, 0.1, 0.6, 0.8, 0.7, 0.2, 0.9], [0, 0, 0, 0, 3, 3, 3]
  )
  capped = for_all_sources.Fixed(values=(0.5,), max_per_source=2).select(
    1, samples
  )
  assert capped.rows.tolist() == [0, 2, 4, 6]
  assert capped.thresholds.tolist() == [0.5] * 4
  assert capped.statistics['samples'] == 4
  one = for_all_sources.Fixed(values=(0.5,), max_per_source=1).select(
    1, samples
  )
  assert one.rows.tolist() == [0, 4]


@pytest.mark.parametrize('seed', range(3))
def test_a_cap_that_no_source_reaches_changes_nothing(seed):
  samples = random_samples(seed)
  free = per_source.Percentile(values=(50.0,))
  capped = per_source.Percentile(values=(50.0,), max_per_source=400)
  np.testing.assert_array_equal(
    capped.select(1, samples).rows, free.select(1, samples).rows
  )


def test_nothing_kept_prints_the_distribution():
  samples = make_samples([0.1, 0.2, 0.6], [0, 1, 2])
  with pytest.raises(base.EmptySelectionError) as error:
    for_all_sources.Fixed(values=(0.99,)).select(1, samples)
  text = str(error.value)
  assert '50 %: 0.200' in text and '100 %: 0.600' in text
  assert 'quantile' in text


@pytest.mark.parametrize(
  'rewards, expected',
  [
    ([0.3], r'1 of 1 rows have the reward 0\.300'),
    ([0.3, 0.3, 0.3], '3 of 3 rows'),
    # The 0.75-quantile of five lies on the fourth, one of the two best.
    ([0.1, 0.2, 0.3, 0.8, 0.8], r'2 of 5 rows .*below 0\.750'),
  ],
)
def test_the_quantile_filter_says_what_helps_it(rewards, expected):
  samples = make_samples(rewards, range(len(rewards)))
  with pytest.raises(base.EmptySelectionError, match=expected) as error:
    for_all_sources.Quantile(values=(0.75,)).select(1, samples)
  assert 'use the quantile filter' not in str(error.value)
  if len(set(rewards)) > 1:
    assert (
      for_all_sources.Quantile(values=(0.749,)).select(1, samples).rows.size
      == 2
    )


def test_a_filter_by_samples_says_that_only_references_are_left():
  samples = make_samples([0.1, 0.2], [0, 0], is_reference=[1, 0])
  samples = samples._replace(is_eligible=np.array([True, False]))
  with pytest.raises(base.EmptySelectionError, match='count_references'):
    per_source.Percentile(values=(50.0,)).select(1, samples)


def test_values_by_grow_step():
  row_filter = for_all_sources.Fixed(values=((0.1, 0.3), (0.5,)))
  assert row_filter.at(2, 1) == 0.3 and row_filter.at(1, 2) == 0.5
  assert for_all_sources.Fixed(values=(0.1, 0.3)).at(2, 7) == 0.3
  samples = make_samples([0.2, 0.4, 0.6], [0, 1, 2])
  kept = [row_filter.select(1, samples, g).rows.tolist() for g in (1, 2)]
  assert kept == [[0, 1, 2], [2]]


@pytest.mark.parametrize(
  'row_filter, expected',
  [
    (for_all_sources.Fixed(values=(-1e30,)), True),
    (for_all_sources.Fixed(values=(float('-inf'),)), True),
    (for_all_sources.Fixed(values=(-2.0,)), True),
    # Not below all rewards, or on the scale: more likely a mistake.
    (for_all_sources.Fixed(values=(-0.5,)), False),
    (for_all_sources.Fixed(values=(0.0,)), False),
    (for_all_sources.Quantile(values=(0.0,)), True),
    (for_all_sources.Quantile(values=(0.1,)), False),
    (per_source.Percentile(values=(0.0,)), False),
  ],
)
def test_values_that_ask_for_all_of_d_g(row_filter, expected):
  samples = make_samples([-0.7, 0.2, -9.0], [0, 1, 2], is_eligible=[1, 1, 0])
  assert row_filter.asks_for_all(row_filter.at(1), samples) is expected


def test_no_eligible_row_is_an_error():
  samples = make_samples([0.1, 0.2], [0, 1], is_eligible=[0, 0])
  with pytest.raises(base.EmptySelectionError, match='unfinished'):
    for_all_sources.Fixed(values=(0.0,)).select(1, samples)


def test_nan_rewards_are_an_error():
  samples = make_samples([0.1, np.nan], [0, 4])
  with pytest.raises(ValueError, match=r'NaN in row 1 \(source 4\)'):
    for_all_sources.Fixed(values=(0.0,)).select(1, samples)


@pytest.mark.parametrize(
  'make, message',
  [
    (lambda: for_all_sources.Fixed(values=(0.8, 0.7)), 'strictly increasing'),
    (lambda: for_all_sources.Fixed(values=(0.7, 0.7)), 'strictly increasing'),
    (lambda: for_all_sources.Fixed(values=()), 'values'),
    (
      lambda: for_all_sources.Fixed(values=(float('nan'),)),
      'strictly increasing',
    ),
    (lambda: for_all_sources.Quantile(values=(0.5, 1.0)), r'\[0, 1\)'),
    (lambda: per_source.Percentile(values=(101.0,)), r'\[0, 100\]'),
    (lambda: per_source.Interpolation(values=(-0.1,)), r'\[0, 1\]'),
    (lambda: for_all_sources.Fixed(values=(0.7,)).at(2), 'Improve step 2'),
    (
      lambda: for_all_sources.Fixed(values=((0.7, 0.8), (0.9,))).at(2, 2),
      'Grow step 2',
    ),
    (
      lambda: for_all_sources.Fixed(values=((0.7,), (0.9,))).at(1, 3),
      '2 Grow steps',
    ),
    (lambda: for_all_sources.Fixed(values=((0.7,), 0.9)), 'both'),
    (lambda: for_all_sources.Fixed(values=((0.7,), ())), 'values'),
    (
      lambda: for_all_sources.Fixed(values=((0.7,), (0.9, 0.8))),
      'strictly increasing',
    ),
    (lambda: for_all_sources.Quantile(values=((0.5,), (1.0,))), r'\[0, 1\)'),
    (
      lambda: for_all_sources.Fixed(values=(0.7,), min_advantage=float('nan')),
      'min_advantage',
    ),
  ],
)
def test_wrong_settings(make, message):
  with pytest.raises(ValueError, match=message):
    make()
