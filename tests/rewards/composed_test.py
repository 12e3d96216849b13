"""Ensembles and minima of rewards with known numbers."""

import numpy as np
import pytest

from rest_jax.rewards import base, composed
from tests.rewards import fakes

X = fakes.Table(rewards=(('a', -25.0), ('b', -5.0), ('c', 0.0)), name='x')
Y = fakes.Table(rewards=(('a', 1.0), ('b', 0.5), ('c', 0.0)), name='y')
COMPONENTS = (
  composed.Component(reward=X, weight=3.0, low=-25.0, high=0.0),
  composed.Component(reward=Y),
)
MINIMUM = (
  composed.Component(reward=X, low=-25.0, high=0.0),
  composed.Component(reward=Y),
)
TEXTS = (['s'] * 4, ['a', 'b', 'c', 'b'])


def test_the_weighted_mean():
  reward = composed.Ensemble(components=COMPONENTS).load(fakes.resources())
  # Scaled, x is 0, 0.8, 1 and y is 1, 0.5, 0.
  expected = [0.25, (3 * 0.8 + 0.5) / 4, 0.75, (3 * 0.8 + 0.5) / 4]
  np.testing.assert_allclose(reward.score(*TEXTS), expected, rtol=1e-6)


def test_the_minimum():
  reward = composed.Minimum(components=MINIMUM).load(fakes.resources())
  np.testing.assert_allclose(reward.score(*TEXTS), [0, 0.5, 0, 0.5], atol=1e-6)


def test_equal_components_change_nothing():
  same = fakes.Table(rewards=Y.rewards, name='z')
  for make in (composed.Ensemble, composed.Minimum):
    reward = make(
      components=[composed.Component(reward=r) for r in (Y, same)]
    ).load(fakes.resources())
    np.testing.assert_allclose(reward.score(*TEXTS), Y.score(*TEXTS))


def test_each_component_has_its_raw_column_and_its_scale():
  reward = composed.Ensemble(components=COMPONENTS).load(fakes.resources())
  columns = base.columns(reward, *TEXTS)
  assert list(columns) == ['ensemble', 'x', 'y']
  np.testing.assert_array_equal(columns['x'], [-25, -5, 0, -5])
  np.testing.assert_array_equal(columns['y'], [1, 0.5, 0, 0.5])
  np.testing.assert_allclose(
    base.scales(reward)['x'](columns['x']), [0, 0.8, 1, 0.8], rtol=1e-6
  )
  assert base.floor(reward) is None
  described = base.describe(reward)
  assert described['ensemble'] == {'digest': reward.digest}
  assert described['x'] == {'scale': {'low': -25.0, 'high': 0.0}}


def test_one_inside_another():
  z = fakes.Table(rewards=Y.rewards, name='z')
  config = composed.Ensemble(
    components=(
      composed.Component(reward=composed.Minimum(components=MINIMUM)),
      composed.Component(reward=z),
    )
  )
  assert [part.name for part in base.all_parts(config)] == [
    'ensemble', 'minimum', 'x', 'y', 'z',
  ]  # fmt: skip
  columns = base.columns(config.load(fakes.resources()), *TEXTS)
  assert list(columns) == ['ensemble', 'minimum', 'x', 'y', 'z']
  np.testing.assert_allclose(columns['ensemble'], [0.5, 0.5, 0, 0.5], atol=1e-6)


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_a_component_that_is_not_finite_is_named(bad):
  broken = fakes.Table(rewards=(('a', 1.0), ('b', bad)), name='broken')
  config = composed.Minimum(
    components=[composed.Component(reward=r) for r in (Y, broken)]
  )
  with pytest.raises(FloatingPointError, match=r"'broken' .* at position 1"):
    config.load(fakes.resources()).score(['s', 't'], ['a', 'b'])


def test_references_reach_the_component_that_needs_them():
  needy = fakes.Table(rewards=Y.rewards, name='needy', needs_references=True)
  config = composed.Ensemble(
    components=[composed.Component(reward=r) for r in (Y, needy)]
  )
  reward = config.load(fakes.resources())
  assert config.needs_references and reward.needs_references
  np.testing.assert_allclose(reward.score(*TEXTS, ['r'] * 4), Y.score(*TEXTS))
  with pytest.raises(ValueError, match="'needy' compares with references"):
    reward.score(*TEXTS)


def test_digests_tell_settings_apart():
  made = [
    composed.Ensemble(components=COMPONENTS),
    composed.Ensemble(components=MINIMUM),
    composed.Minimum(components=MINIMUM),
    composed.Ensemble(components=COMPONENTS[::-1]),
  ]
  assert len({config.load(fakes.resources()).digest for config in made}) == 4


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: composed.Ensemble(components=COMPONENTS[:1]), 'two rewards'),
    (lambda: composed.Ensemble(components=[COMPONENTS[1]] * 2), "got 'y' more"),
    (
      lambda: composed.Minimum(components=COMPONENTS),
      'no meaning in a Minimum',
    ),
    (
      lambda: composed.Component(reward=Y, weight=0.0),
      'weight must be positive',
    ),
    (lambda: composed.Component(reward=Y, low=1.0), 'low must be below high'),
  ],
)
def test_settings_are_checked(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_a_component_must_be_a_reward():
  with pytest.raises(TypeError, match='settings of a reward'):
    composed.Component(reward='chrf')
