"""Best-of-N against an enumeration of all subsets."""

import fractions
import itertools
import math

import numpy as np
import pytest

from rest_jax.evaluation import best_of_n, metrics


def enumerate_best(rewards, n):
  """Mean over all subsets of the maximum."""
  subsets = itertools.combinations(rewards, n)
  return np.mean([max(subset) for subset in subsets])


def enumerate_judgement(rewards, judgements, n):
  """Mean over all subsets, and over the tied best of each, of the judgement."""
  values = []
  for subset in itertools.combinations(range(len(rewards)), n):
    best = max(rewards[i] for i in subset)
    tied = [judgements[i] for i in subset if rewards[i] == best]
    values.append(np.mean(tied))
  return np.mean(values)


def enumerate_finished_first(rewards, finished, judgements, n):
  """Mean over all subsets of the judgement of the best of what is finished."""
  values = []
  for subset in itertools.combinations(range(len(rewards)), n):
    left = [i for i in subset if finished[i]] or subset
    best = max(rewards[i] for i in left)
    values.append(np.mean([judgements[i] for i in left if rewards[i] == best]))
  return np.mean(values)


class TestFinishedFirst:
  def test_by_hand(self):
    # The unfinished sample is the best of 3; of pairs it is never chosen.
    rewards = np.array([[0.2, 0.9, 0.4], [0.2, 0.9, 0.4]])
    finished = np.array([[True, False, True], [False, False, False]])
    curve = best_of_n.curve(rewards, (1, 2, 3), finished=finished)
    means = [curve[n].mean for n in (1, 2, 3)]
    # Source 0: (0.2 + 0.4 + 0.4) / 3 of pairs; source 1: (0.9 + 0.9 + 0.4) / 3.
    expected = [0.5, (1.0 / 3 + 2.2 / 3) / 2, (0.4 + 0.9) / 2]
    assert means == pytest.approx(expected)

  @pytest.mark.parametrize('judged', [False, True])
  def test_enumeration(self, judged):
    random = np.random.default_rng(3)
    rewards = random.integers(0, 4, (4, 6)) / 4  # With ties.
    finished = random.random((4, 6)) < 0.5
    judgements = random.normal(size=(4, 6)) if judged else rewards
    curve = best_of_n.curve(
      rewards, range(1, 7), judgements if judged else None, finished
    )
    for n, estimate in curve.items():
      rows = zip(rewards, finished, judgements, strict=True)
      expected = np.mean([enumerate_finished_first(*row, n) for row in rows])
      assert estimate.mean == pytest.approx(expected)

  def test_all_finished_is_the_usual_curve(self):
    rewards = np.random.default_rng(4).normal(size=(3, 5))
    given = best_of_n.curve(rewards, (1, 2, 5), finished=np.ones((3, 5), bool))
    assert given == best_of_n.curve(rewards, (1, 2, 5))


class TestOrderWeights:
  def test_by_hand(self):
    # Pairs of 4: rank 2 is the best of 1 pair, rank 3 of 2, rank 4 of 3.
    np.testing.assert_allclose(
      best_of_n.order_weights(4, 2), np.array([0, 1, 2, 3]) / 6
    )

  @pytest.mark.parametrize('num_samples', [1, 7, 200, 800, 3000])
  def test_exact_for_any_size(self, num_samples):
    for n in {1, 2, num_samples // 3 + 1, num_samples}:
      weights = best_of_n.order_weights(num_samples, min(n, num_samples))
      assert weights.sum() == pytest.approx(1.0, abs=1e-12)
      assert np.all(np.diff(weights) >= -1e-15)
      total = math.comb(num_samples, min(n, num_samples))
      for rank in {1, num_samples // 2 + 1, num_samples}:
        exact = fractions.Fraction(
          math.comb(rank - 1, min(n, num_samples) - 1), total
        )
        assert weights[rank - 1] == pytest.approx(
          float(exact), rel=1e-9, abs=1e-300
        )

  @pytest.mark.parametrize('n', [0, -1, 6])
  def test_refuses(self, n):
    with pytest.raises(ValueError, match=r'n must lie in 1\.\.5'):
      best_of_n.order_weights(5, n)


class TestExpectedBest:
  @pytest.mark.parametrize('ties', [False, True])
  def test_enumeration(self, ties):
    rewards = np.random.default_rng(0).normal(size=(3, 8))
    rewards = rewards.round(0 if ties else 9)
    for n in range(1, 9):
      np.testing.assert_allclose(
        best_of_n.expected_best(rewards, n),
        [enumerate_best(row, n) for row in rewards],
      )

  @pytest.mark.parametrize(
    ('rewards', 'message'),
    [
      (np.zeros(4), r'axes \[sources, N\]'),
      (np.zeros((0, 4)), r'shape \(0, 4\)'),
      (np.array([[0.0, 1.0], [np.nan, 0.0]]), 'sample 0 of source 1'),
    ],
  )
  def test_refuses(self, rewards, message):
    with pytest.raises(ValueError, match=message):
      best_of_n.expected_best(rewards, 1)


class TestExpectedJudgementOfBest:
  @pytest.mark.parametrize('levels', [2, 4, 1000])
  def test_enumeration(self, levels):
    generator = np.random.default_rng(levels)
    rewards = generator.integers(0, levels, size=(4, 7)).astype(float)
    judgements = generator.normal(size=(4, 7))
    for n in range(1, 8):
      np.testing.assert_allclose(
        best_of_n.expected_judgement_of_best(rewards, judgements, n),
        [
          enumerate_judgement(row, judged, n)
          for row, judged in zip(rewards, judgements, strict=True)
        ],
      )

  def test_refuses(self):
    with pytest.raises(ValueError, match='shape of rewards'):
      best_of_n.expected_judgement_of_best(
        np.zeros((2, 3)), np.zeros((2, 4)), 1
      )
    with pytest.raises(ValueError, match='judgements must be finite'):
      best_of_n.expected_judgement_of_best(
        np.zeros((1, 2)), np.array([[0.0, np.inf]]), 1
      )


class TestCurve:
  def test_clustered_by_source(self):
    rewards = np.random.default_rng(0).normal(size=(40, 16))
    curve = best_of_n.curve(rewards, [4, 1])
    assert list(curve) == [4, 1]
    assert curve[1].mean == pytest.approx(rewards.mean())
    assert curve[1].stderr == pytest.approx(
      metrics.clustered_mean(rewards).stderr
    )
    means = [best_of_n.curve(rewards, [n])[n].mean for n in range(1, 17)]
    assert np.all(np.diff(means) > 0)

  def test_judgements(self):
    generator = np.random.default_rng(1)
    rewards, judgements = generator.normal(size=(2, 40, 16))
    curve = best_of_n.curve(rewards, [16], judgements)
    chosen = judgements[np.arange(40), rewards.argmax(axis=1)]
    assert curve[16].mean == pytest.approx(chosen.mean())
    assert curve[16].stderr == pytest.approx(
      metrics.clustered_mean(chosen).stderr
    )


def test_sizes():
  assert best_of_n.sizes(1) == (1,)
  assert best_of_n.sizes(8) == (1, 2, 4, 8)
  assert best_of_n.sizes(10) == (1, 2, 4, 8, 10)
  with pytest.raises(ValueError, match='at least 1'):
    best_of_n.sizes(0)
