"""The linear reward: against a dense solution, and what it learns from."""

import dataclasses

import numpy as np
import pytest

from rest_jax.data import ratings as ratings_lib
from rest_jax.rewards import base, feature_reward, text_features
from tests.rewards import fakes

PAIRS = [(f'wort{i} ding{i}', f'word{i} thing{i}') for i in range(8)]
KNOWN = text_features.TextFeatures(*zip(*PAIRS, strict=True))
KINDS = ('good', 'fair', 'poor', 'bad')


@dataclasses.dataclass(frozen=True)
class Rated:
  """Ratings of hypotheses of which one word says how good they are."""

  shift: float = 0.0
  first: int = 0

  def read(self):
    rows = [
      (i, kind, 'dev' if i % 4 == 0 else 'train')
      for i in range(8)
      for kind in range(len(KINDS))
    ]
    random = np.random.default_rng(0)
    scores = [-kind + 0.1 * random.normal() + 10 * i for i, kind, _ in rows]
    scores[self.first] += self.shift
    return ratings_lib.Ratings(
      source=[PAIRS[i][0] for i, _, _ in rows],
      hypothesis=[f'{PAIRS[i][1]} {KINDS[kind]}' for i, kind, _ in rows],
      score=np.array(scores, np.float32),
      weight=1.0 + np.arange(len(rows)) % 3,
      split=[split for _, _, split in rows],
    )


@dataclasses.dataclass(frozen=True)
class Many(Rated):
  """Ratings of 48 sources, by their words or by chance."""

  by_chance: bool = False

  def read(self):
    few = super().read()
    rated = ratings_lib.join(
      [
        dataclasses.replace(few, source=[f'{x} {copy}' for x in few.source])
        for copy in range(6)
      ]
    )
    if not self.by_chance:
      return rated
    scores = np.random.default_rng(0).normal(size=len(rated))
    return dataclasses.replace(rated, score=scores.astype(np.float32))


def linear(train, penalty=1.0):
  return feature_reward.LinearReward('features', KNOWN, train, penalty=penalty)


def loaded(ratings=Rated(), **settings):
  config = feature_reward.FeatureReward(ratings=ratings, **settings)
  return config.load(fakes.resources(*PAIRS))


def test_order_of_held_out_hypotheses_is_learned():
  dev = Rated().read().select('dev')
  rewards = loaded().score(dev.source, dev.hypothesis).reshape(-1, len(KINDS))
  assert np.all(np.diff(rewards) < 0)


def test_weights_are_those_of_a_dense_ridge_regression():
  train, penalty = Rated().read().select('train'), 0.7
  reward = linear(train, penalty)
  matrix = reward._matrix(
    KNOWN(train.source, train.hypothesis), train.hypothesis
  )
  x, y, w = matrix.toarray(), np.float64(train.score), train.weight
  w = w / w.mean()
  for source in set(train.source):
    rows = [row for row, text in enumerate(train.source) if text == source]
    x[rows] -= np.average(x[rows], axis=0, weights=w[rows])
    y[rows] -= np.average(y[rows], weights=w[rows])
  x, y = x * np.sqrt(w)[:, None], y * np.sqrt(w)
  expected = np.linalg.solve(
    x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y / y.std()
  )
  np.testing.assert_allclose(reward._weights, expected, atol=1e-10)


def test_a_solution_that_does_not_converge_is_refused(monkeypatch):
  monkeypatch.setattr(feature_reward, '_MAX_ITERATIONS', 2)
  with pytest.raises(FloatingPointError, match='in 2 iterations'):
    linear(Rated().read().select('train'))


def test_ratings_count_relative_to_their_source():
  train = Rated().read().select('train')
  level = np.array([len(text) + ord(text[4]) for text in train.source])
  moved = dataclasses.replace(train, score=train.score + np.float32(level))
  texts = train.source[:6], train.hypothesis[:6]
  np.testing.assert_allclose(
    linear(moved).score(*texts), linear(train).score(*texts), atol=1e-4
  )


def test_scores_do_not_depend_on_other_rows_or_references():
  reward = loaded()
  dev = Rated().read().select('dev')
  together = reward.score(dev.source, dev.hypothesis, ['x'] * len(dev))
  alone = [
    reward.score([x], [y])[0]
    for x, y in zip(dev.source, dev.hypothesis, strict=True)
  ]
  np.testing.assert_allclose(together, alone, rtol=1e-6)
  assert reward.score([], []).shape == (0,)
  assert isinstance(
    feature_reward.FeatureReward(ratings=Rated()), base.RewardConfig
  )


def test_a_reward_at_chance_on_dev_ratings_must_not_be_followed():
  chance = loaded(Many(by_chance=True))
  whole = base.Composed('whole', [chance], scales={}, digest='')
  with pytest.raises(ValueError, match=r"'features' must agree .* split dev"):
    base.check_agreement(whole)
  base.check_agreement(loaded(Many(by_chance=True), must_agree=False))
  base.check_agreement(loaded(Many()))


def test_digest_depends_on_ratings_of_train_pairs_and_settings():
  def digest(rated, *pairs, **settings):
    config = feature_reward.FeatureReward(ratings=rated, **settings)
    return config.load(fakes.resources(*pairs)).digest

  digests = [
    digest(Rated(), *PAIRS),
    digest(Rated(shift=1.0, first=4), *PAIRS),
    digest(Rated(), *PAIRS[1:]),
    digest(Rated(), *PAIRS, penalty=2.0),
    digest(Rated(), *PAIRS, max_pairs=4),
  ]
  assert len(set(digests)) == len(digests)
  assert digest(Rated(), *PAIRS, *PAIRS) == digests[0]  # Repeated pairs.


def test_ratings_of_one_hypothesis_a_source_are_refused():
  train = Rated().read().select('train')
  alone = dataclasses.replace(
    train, source=[f'{row} {x}' for row, x in enumerate(train.source)]
  )
  with pytest.raises(ValueError, match='no source with different ratings'):
    linear(alone)

  class Alone(Rated):
    def read(self):
      dev = super().read().select('dev')
      return ratings_lib.join([alone, dev])

  config = feature_reward.FeatureReward(ratings=Alone())
  with pytest.raises(ValueError, match='no source with different ratings'):
    config.check()  # Before anything is trained.


def test_check_refuses_ratings_without_dev():
  class NoDev(Rated):
    def read(self):
      return super().read().select('train')

  config = feature_reward.FeatureReward(ratings=NoDev())
  with pytest.raises(ValueError, match="must have ratings of split 'dev'"):
    config.check()
  assert '24 ratings' in feature_reward.FeatureReward(ratings=Rated()).check()


@pytest.mark.parametrize(
  ('settings', 'message'),
  [({'penalty': 0.0}, 'penalty'), ({'max_pairs': 0}, 'max_pairs')],
)
def test_settings_are_checked(settings, message):
  with pytest.raises(ValueError, match=message):
    feature_reward.FeatureReward(ratings=Rated(), **settings)
