"""Tests of agreement, against hand-computed and published values."""

import itertools

import numpy as np
import pytest
from scipy import stats

from rest_jax.rating import agreement
from tests.rating import made

_NAN = float('nan')
# Krippendorff (2011), example C: four observers, twelve units.
_PUBLISHED = np.array(
  [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, _NAN, _NAN, _NAN],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _NAN, 3],
    [_NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _NAN],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _NAN],
  ]
)


def coincidence_alpha(values):
  """Alpha by coincidences, as Krippendorff computes it: another way."""
  coincidences = {}
  for unit in values.T:
    present = unit[~np.isnan(unit)]
    for a, b in itertools.permutations(present, 2):
      coincidences[a, b] = coincidences.get((a, b), 0) + 1 / (len(present) - 1)
  totals = {}
  for (a, _), count in coincidences.items():
    totals[a] = totals.get(a, 0) + count
  n = sum(totals.values())
  observed = sum(o * (a - b) ** 2 for (a, b), o in coincidences.items())
  expected = sum(
    totals[a] * totals[b] * (a - b) ** 2 for a in totals for b in totals
  )
  return 1 - (n - 1) * observed / expected


def test_the_published_example():
  alpha = agreement.krippendorff_alpha(_PUBLISHED)
  assert alpha == pytest.approx(0.849, abs=5e-4)
  assert alpha == pytest.approx(coincidence_alpha(_PUBLISHED), abs=1e-12)


def test_by_hand():
  # D_o = (2 * 1 + 2 * 0) / 4 = 1/2. Of the values 0, 1, 3, 3 the squared
  # distances are 1, 9, 9, 4, 4, 0: D_e = 2 * 27 / 12 = 9/2.
  values = np.array([[0.0, 3.0], [1.0, 3.0]])
  assert agreement.krippendorff_alpha(values) == pytest.approx(1 - 1 / 9)
  # A unit that one rater alone saw changes nothing.
  values = np.array([[0.0, 3.0, 6.0], [1.0, 3.0, _NAN]])
  assert agreement.krippendorff_alpha(values) == pytest.approx(1 - 1 / 9)


@pytest.mark.parametrize('seed', range(5))
def test_any_table_against_coincidences(seed):
  generator = np.random.default_rng(seed)
  values = generator.integers(0, 7, (4, 30)).astype(float)
  values[generator.random(values.shape) < 0.4] = _NAN
  assert agreement.krippendorff_alpha(values) == pytest.approx(
    coincidence_alpha(values), abs=1e-12
  )


def test_where_alpha_is_not_defined():
  for values in (
    np.zeros((0, 0)),
    np.array([[1.0, _NAN], [_NAN, 2.0]]),
    np.array([[2.0, 2.0], [2.0, 2.0]]),
  ):
    assert agreement.krippendorff_alpha(values) is None


def test_scores_of_both_outputs_are_units():
  items = made.items(4)
  answers = {'A': [(0, 3), (2, 5), (6, 1)], 'B': [(1, 3), (2, 6), (5, 1)]}
  ratings = [
    made.rating(rater, item, *scores)
    for rater, given in answers.items()
    for item, scores in zip(items, given, strict=False)
  ]
  ratings.append(made.rating('C', items[3], 1, 1))  # With nobody else.
  found = agreement.measure(ratings, 'scores')
  a, b = (np.array(answers[rater], float).reshape(-1) for rater in 'AB')
  assert found.raters == ('A', 'B', 'C')
  assert found.alpha == pytest.approx(coincidence_alpha(np.stack([a, b])))
  (pair,) = found.pairs
  assert (pair.first, pair.second, pair.outputs) == ('A', 'B', 6)
  assert pair.pearson == pytest.approx(stats.pearsonr(a, b).statistic)


def test_preferences_count_once_an_item():
  items = made.items(3)
  ratings = [
    made.rating('A', items[0], 1.0, 0.0),
    made.rating('A', items[1], 0.0, 1.0),
    made.rating('A', items[2], 0.5, 0.5),
    made.rating('B', items[0], 1.0, 0.0),
    made.rating('B', items[1], 0.5, 0.5),
    made.rating('B', items[2], 0.5, 0.5),
  ]
  found = agreement.measure(ratings, 'preference')
  table = np.array([[1, 0, 0.5], [1, 0.5, 0.5]])
  assert found.pairs[0].outputs == 3
  assert found.alpha == pytest.approx(coincidence_alpha(table))


def test_a_rater_who_gives_all_the_same_has_no_correlation():
  items = made.items(2)
  ratings = [
    made.rating(rater, item, score, score)
    for rater, scores in (('A', (3, 3)), ('B', (1, 5)))
    for item, score in zip(items, scores, strict=True)
  ]
  (pair,) = agreement.measure(ratings, 'scores').pairs
  assert pair.pearson is None


def test_nothing_rated():
  assert agreement.measure([], 'scores') == agreement.Agreement((), None, ())
