"""Tests of what ratings say of policies, by hand."""

import dataclasses

import pytest

from rest_jax.rating import scores
from tests.rating import made

_SPLIT = 'validation'


def test_means_and_difference_of_scores():
  items = made.items(3)
  people = scores.People(
    'scores',
    [
      made.rating('A', items[0], 0, 6),
      made.rating('B', items[0], 3, 6),
      made.rating('A', items[1], 3, 3),
    ],
  )
  # Of BC: 0, 3 | 3. The mean is 2; the sources' parts of its error are
  # (-2 + 1) / 3 and 1 / 3: se^2 = 2 * (1/9 + 1/9) = 4/9.
  mean = people.mean(_SPLIT, 'digest-1')
  assert mean.mean == pytest.approx(100 * 2 / 6)
  assert mean.stderr == pytest.approx(100 / 6 * 2 / 3)
  assert people.mean(_SPLIT, 'digest-2').mean == pytest.approx(100 * 5 / 6)
  # Differences 6, 3 | 0 with the mean 3: (3 + 0) / 3 and -1; se^2 = 2 * 2.
  difference = people.difference(_SPLIT, 'digest-2', 'digest-1')
  assert difference.mean == pytest.approx(100 / 6 * 3)
  assert difference.stderr == pytest.approx(100 / 6 * 2)
  assert people.sources(_SPLIT, 'digest-1') == 2
  assert people.policies() == {
    (_SPLIT, 'digest-1'): 'BC',
    (_SPLIT, 'digest-2'): 'ReST G1 I3',
  }


def test_preferences_are_shares():
  items = made.items(4)
  people = scores.People(
    'preference',
    [
      made.rating('A', items[0], 0.0, 1.0),
      made.rating('A', items[1], 0.0, 1.0),
      made.rating('A', items[2], 0.5, 0.5),
      made.rating('A', items[3], 1.0, 0.0),
    ],
  )
  assert people.mean(_SPLIT, 'digest-2').mean == pytest.approx(62.5)
  assert people.mean(_SPLIT, 'digest-1').mean == pytest.approx(37.5)
  difference = people.difference(_SPLIT, 'digest-2', 'digest-1')
  assert difference.mean == pytest.approx(25.0)


def test_a_difference_is_of_what_stood_side_by_side():
  items = made.items(4)
  others = [
    dataclasses.replace(item, second_policy='digest-3') for item in items[2:]
  ]
  people = scores.People(
    'scores',
    [
      made.rating('A', items[0], 2, 3),
      made.rating('A', items[1], 2, 3),
      # BC beside a third policy was rated differently.
      made.rating('A', others[0], 6, 6),
      made.rating('A', others[1], 6, 6),
    ],
  )
  difference = people.difference(_SPLIT, 'digest-2', 'digest-1')
  assert difference.mean == pytest.approx(100 / 6)
  assert people.mean(_SPLIT, 'digest-1').mean == pytest.approx(100 * 4 / 6)


def test_seeds_are_pooled_by_source():
  items = made.items(2)
  of_seeds = [
    scores.People('scores', [made.rating('A', items[0], 0, 6)]),
    scores.People(
      'scores',
      [made.rating('A', items[0], 2, 2), made.rating('A', items[1], 4, 4)],
    ),
    scores.People('scores', []),
  ]
  parts = [(people, 'digest-2', 'digest-1') for people in of_seeds]
  # 6, 2 | 4: the mean is 4; the sources' parts of its error are 0 and 0.
  mean = scores.pooled_mean([part[:2] for part in parts], _SPLIT)
  assert mean.mean == pytest.approx(100 * 4 / 6)
  assert mean.stderr == pytest.approx(0)
  # 6, 0 | 0: (4 - 2) / 3 and -2 / 3; se^2 = 2 * (4/9 + 4/9) = 16/9.
  difference = scores.pooled_difference(parts, _SPLIT)
  assert difference.mean == pytest.approx(100 / 6 * 2)
  assert difference.stderr == pytest.approx(100 / 6 * 4 / 3)
  # One seed alone saw too few sources.
  assert scores.pooled_mean([parts[0][:2]], _SPLIT) is None


def test_too_little_is_none():
  items = made.items(2)
  one = scores.People('scores', [made.rating('A', items[0], 1, 2)])
  assert one.mean(_SPLIT, 'digest-1') is None
  assert one.difference(_SPLIT, 'digest-2', 'digest-1') is None
  both = scores.People('scores', [made.rating('A', i, 1, 2) for i in items])
  assert both.mean('test', 'digest-1') is None
  assert both.mean(_SPLIT, 'digest-9') is None
