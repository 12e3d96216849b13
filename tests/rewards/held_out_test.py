"""Tests of how a reward and its parts agree with held-out ratings."""

import dataclasses

import numpy as np
import pytest

from rest_jax.data import ratings as ratings_lib
from rest_jax.rewards import composed, held_out, lexical


@dataclasses.dataclass(frozen=True)
class _Reward:
  """Says the number after a letter, of a hypothesis such as 'a3 b5'."""

  name: str
  needs_references: bool = False
  parts: tuple = ()
  digest: str = ''

  def check(self):
    return ''

  def load(self, resources):
    return self

  def score(self, sources, hypotheses, references=None):
    return np.array(
      [
        float(word[1:])
        for text in hypotheses
        for word in text.split()
        if word[0] == self.name
      ],
      np.float32,
    )


def _ratings(split, seed, count=40):
  draw = np.random.default_rng(seed)
  numbers = draw.normal(size=(2, count * 4)).round(4)
  return ratings_lib.Ratings(
    source=[f'{seed} {row // 4}' for row in range(count * 4)],
    hypothesis=[f'a{a} b{b}' for a, b in numbers.T],
    score=(numbers[0] + 0.5 * numbers[1]).astype(np.float32),
    weight=np.ones(count * 4, np.float32),
    split=[split] * (count * 4),
  )


_RATINGS = {
  '': ratings_lib.join(
    [_ratings(s, n) for n, s in enumerate(('train', 'dev'))]
  ),
  'sampled ': ratings_lib.join([_ratings('dev', 2), _ratings('test', 3)]),
}


def _ensemble(*parts):
  return composed.Ensemble(
    components=[composed.Component(reward=part) for part in parts]
  )


def test_a_reward_and_its_parts_are_compared_with_ratings():
  config = _ensemble(_Reward('a'), _Reward('b'))
  reward = config.load(None)
  found = held_out.measure(reward, _RATINGS, max_sources=30, num_resamples=20)
  assert list(found) == ['dev', 'sampled dev', 'sampled test']
  for of_split in found.values():
    assert list(of_split) == ['ensemble', 'a', 'b']
    accuracy = [
      of_split[name]['pairwise_accuracy']['value'] for name in ('a', 'b')
    ]
    assert accuracy[0] > 0.75 > accuracy[1] > 0.5
    assert of_split['ensemble']['sources'] == 30


def test_weights_are_fitted_to_the_dev_ratings():
  config = _ensemble(_Reward('a'), _Reward('b'))
  found = held_out.weights(
    config, config.load(None), _RATINGS, max_sources=None
  )
  assert set(found) == {'a', 'b'}
  assert found['a'] / found['b'] == pytest.approx(2.0, rel=0.05)
  alone = _Reward('a')
  assert held_out.weights(alone, alone, _RATINGS, max_sources=None) == {}


def test_a_reward_that_lacks_references_is_not_measured():
  reward = lexical.Chrf().load(None)
  assert held_out.measure(reward, _RATINGS, max_sources=None) == {}
