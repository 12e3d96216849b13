"""The scores that the trained part of a reward is asked for, by hand."""

import dataclasses

import numpy as np
import pytest

from rest_jax.data import ratings as ratings_lib
from rest_jax.rewards import base, composed, controls, guards, learned_rows
from rest_jax.stages import refresh_targets


@dataclasses.dataclass(frozen=True)
class _Trained:
  """Stands for the trained model: the number at the end of the hypothesis."""

  name: str = 'learned'
  digest: str = ''
  needs_references: bool = False
  parts: tuple = ()

  def check(self):
    return ''

  def load(self, resources):
    return self

  def score(self, sources, hypotheses, references=None):
    return np.array([float(h.split()[-1]) for h in hypotheses], np.float32)


_FLAWED = composed.Ensemble(
  name='flawed',
  components=(
    composed.Component(reward=_Trained(), weight=3.0, low=-2.0, high=2.0),
    composed.Component(reward=controls.Verbosity(), weight=1.0),
  ),
)
_SOURCES = ['a b', 'a b', 'a b c d']
_HYPOTHESES = ['0.5', 'x y 1.5', 'x y -1']


def _load(config):
  return config.load(
    base.Resources(
      mesh=None,
      vocabulary=None,
      pairs=None,
      network=None,
      policy=None,
      trained=None,
    )
  )


def test_a_trained_reward_alone_is_its_own_part():
  whole = refresh_targets.Whole.of(_Trained(), _Trained())
  assert whole == refresh_targets.Whole('learned', 'learned', 1.0)
  trained, others = whole.residuals(_Trained(), _SOURCES, _HYPOTHESES)
  np.testing.assert_array_equal(trained, [0.5, 1.5, -1.0])
  np.testing.assert_array_equal(others, [0.0, 0.0, 0.0])


def test_the_slope_of_an_ensemble_is_the_part_s_weight_over_its_scale():
  whole = refresh_targets.Whole.of(_FLAWED, _Trained())
  # 3 / (3 + 1) / (2 - -2)
  assert whole.slope == pytest.approx(3 / 16)
  trained, others = whole.residuals(_load(_FLAWED), _SOURCES, _HYPOTHESES)
  np.testing.assert_allclose(trained, [0.5, 1.5, -1.0])
  # rest = 3/4 * (0 + 2) / 4 + 1/4 * verbosity, verbosity = 1/2, 3/2, 3/4
  rest = 3 / 8 + np.array([0.5, 1.5, 0.75]) / 4
  np.testing.assert_allclose(others, rest / (3 / 16), rtol=1e-5)


def test_guards_and_nested_ensembles_are_seen_through():
  outer = composed.Ensemble(
    name='outer',
    components=(
      composed.Component(reward=_FLAWED, weight=1.0, high=2.0),
      composed.Component(reward=controls.RandomReward(), weight=1.0),
    ),
  )
  guarded = guards.Guarded(
    reward=outer, guards=(guards.LengthRatio(),), floor=-9.0
  )
  whole = refresh_targets.Whole.of(guarded, _Trained())
  assert (whole.name, whole.part) == ('outer', 'learned')
  assert whole.slope == pytest.approx(3 / 16 / 2 / 2)


def test_a_minimum_is_refused():
  minimum = composed.Minimum(
    components=(
      composed.Component(reward=_Trained()),
      composed.Component(reward=controls.Verbosity()),
    )
  )
  with pytest.raises(ValueError, match="Minimum 'minimum'"):
    refresh_targets.Whole.of(minimum, _Trained())


def _rated(sources, hypotheses, scores, splits):
  return ratings_lib.Ratings(
    source=list(sources),
    hypothesis=list(hypotheses),
    score=np.asarray(scores, np.float32),
    weight=np.full(len(splits), 2, np.float32),
    split=list(splits),
  )


def test_a_part_that_gives_its_targets_makes_the_whole_follow_the_ratings():
  rng = np.random.default_rng(0)
  count = 60
  sources = [' '.join('s' * rng.integers(1, 6)) for _ in range(count)]
  hypotheses = [
    f'{"w " * rng.integers(0, 9)}{rng.normal():.4f}' for _ in range(count)
  ]
  scores = rng.normal(3.0, 2.0, count)
  rated = _rated(sources, hypotheses, scores, ['train'] * count)
  whole = refresh_targets.Whole.of(_FLAWED, _Trained())
  scale = learned_rows.Scale(3.0, 2.0)
  targets = refresh_targets.Targets.of(
    rated,
    _rated(sources[:2], hypotheses[:2], scores[:2], ['train', 'dev']),
    new_weight=4.0,
    reward=_load(_FLAWED),
    whole=whole,
    scale=scale,
  )
  given = [
    f'{text.rsplit(" ", 1)[0] if " " in text else ""} {target:.6f}'.strip()
    for text, target in zip(
      targets.rated.hypothesis, scale(targets.scores), strict=True
    )
  ]
  rewards = _load(_FLAWED).score(targets.rated.source, given)
  z = scale(targets.rated.score)
  slope, constant = np.polyfit(z, rewards, 1)
  np.testing.assert_allclose(rewards, slope * z + constant, atol=1e-5)
  assert slope == pytest.approx(whole.slope, rel=1e-4)
  # Without the correction it does not.
  assert (
    np.corrcoef(_load(_FLAWED).score(sources, hypotheses), scores)[0, 1] < 1
  )


def test_old_and_new_ratings_are_both_there_once_each():
  old = _rated(_SOURCES, _HYPOTHESES, [1, 2, 3], ['train', 'dev', 'test'])
  new = _rated(['e', 'f'], ['g 1', 'h 2'], [4, 5], ['train', 'dev'])
  targets = refresh_targets.Targets.of(
    old,
    new,
    new_weight=2.5,
    reward=_Trained(),
    whole=refresh_targets.Whole.of(_Trained(), _Trained()),
    scale=learned_rows.Scale(0.0, 1.0),
  )
  assert targets.rated.source == [*_SOURCES, 'e', 'f']
  # The reward is the trained model: it is asked for the ratings themselves.
  np.testing.assert_array_equal(targets.scores, np.float32([1, 2, 3, 4, 5]))
  np.testing.assert_array_equal(targets.weights, [2, 2, 2, 5, 5])
  assert targets.counts('train') == {'old': 1, 'new': 1}
  assert targets.counts('test') == {'old': 1, 'new': 0}
  assert targets.texts(targets.rows('train')).hypotheses == ['0.5', 'g 1']
