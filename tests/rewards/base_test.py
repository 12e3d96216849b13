"""Tests of the checks that all rewards share."""

import numpy as np
import pytest

from rest_jax.rewards import base
from tests.rewards import fakes


def test_texts_of_one_length_pass():
  base.check_texts(['a', 'b'], ['', 'c'])
  base.check_texts([], [])


@pytest.mark.parametrize(
  ('sources', 'hypotheses', 'message'),
  [
    (['a'], ['b', 'c'], 'got 1 and 2'),
    ('ab', ['b', 'c'], 'sources must be a list of texts'),
    (['a'], 'b', 'hypotheses must be a list of texts'),
    (['a', 'b'], ['c', None], 'hypotheses must hold texts; position 1'),
    ([3], ['c'], 'sources must hold texts; position 0'),
  ],
)
def test_bad_texts_are_refused(sources, hypotheses, message):
  with pytest.raises(ValueError, match=message):
    base.check_texts(sources, hypotheses)


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_a_reward_that_is_not_finite_names_the_first_offender(bad):
  rewards = np.asarray([0.5, bad, 1.0, np.nan], np.float32)
  with pytest.raises(FloatingPointError) as caught:
    base.check_finite('tiny', list('abcd'), list('wxyz'), rewards)
  message = str(caught.value)
  assert "'tiny'" in message
  assert 'position 1' in message
  assert "'b'" in message and "'x'" in message
  assert '2 such among 4' in message


@pytest.mark.parametrize(
  ('references', 'message'),
  [
    (['c'], 'one for each hypothesis; got 1 and 2'),
    ('cd', 'references must be a list of texts'),
    (['c', None], 'references must hold texts; position 1'),
  ],
)
def test_bad_references_are_refused(references, message):
  base.check_texts(['a', 'b'], ['', 'c'], ['d', ''])
  with pytest.raises(ValueError, match=message):
    base.check_texts(['a', 'b'], ['', 'c'], references)


def test_a_plain_reward_has_one_column():
  reward = fakes.Table(rewards=(('a', 2.0),))
  found = base.columns(reward, ['s'], ['a'])
  assert list(found) == ['table'] and found['table'].tolist() == [2.0]
  assert base.scales(reward) == {} and base.floor(reward) is None
  assert base.describe(reward) == {'table': {'digest': reward.digest}}


@pytest.mark.parametrize('name', ['', 'a/b', '.a', 'a b'])
def test_the_name_of_a_reward_must_be_a_valid_file_name(name):
  with pytest.raises(ValueError, match='letters, digits'):
    base.check_names(fakes.Table(rewards=(), name=name))
  base.check_names(fakes.Table(rewards=(), name='metricx-24_xl.v2'))


def test_every_column_is_checked():
  broken = fakes.Table(rewards=(('a', np.nan),))
  with pytest.raises(FloatingPointError, match="'table'"):
    base.columns(broken, ['s'], ['a'])


def test_finite_rewards_pass():
  base.check_finite('tiny', ['a'], ['b'], np.asarray([-3.5], np.float32))
