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
  items = made.items(7)
  answers = {
    'A': [(0, 3), (2, 5), (6, 1), (4, 4), (3, 0), (1, 6)],
    'B': [(1, 3), (2, 6), (5, 1), (6, 2), (3, 2), (0, 4)],
  }
  ratings = [
    made.rating(rater, item, *scores)
    for rater, given in answers.items()
    for item, scores in zip(items, given, strict=False)
  ]
  ratings.append(made.rating('C', items[6], 1, 1))  # With nobody else.
  found = agreement.measure(ratings, 'scores')
  a, b = (np.array(answers[rater], float).reshape(-1) for rater in 'AB')
  assert found.raters == ('A', 'B', 'C')
  assert found.alpha == pytest.approx(coincidence_alpha(np.stack([a, b])))
  assert found.units == 12
  (pair,) = found.pairs
  assert (pair.first, pair.second, pair.outputs) == ('A', 'B', 12)
  assert pair.pearson == pytest.approx(stats.pearsonr(a, b).statistic)
  for value, interval in (
    (found.alpha, found.interval),
    (pair.pearson, pair.interval),
  ):
    low, high = interval
    assert -1 <= low < value < high <= 1
  # Fisher's interval is 0.36 to 0.93, if the outputs were independent.
  assert pair.interval[1] - pair.interval[0] > 0.2
  assert agreement.measure(ratings, 'scores') == found


def test_few_outputs_are_not_measured():
  items = made.items(10)
  ratings = [
    made.rating(rater, item, number, 6 - number % 3)
    for rater in 'AB'
    for number, item in enumerate(items)
  ]
  for kind, number in (('scores', 4), ('preference', 9)):
    few = [r for r in ratings if r.item in items[:number]]
    found = agreement.measure(few, kind)
    assert (found.alpha, found.interval) == (None, None)
    assert (found.pairs[0].pearson, found.pairs[0].interval) == (None, None)
    assert found.pairs[0].outputs == (8 if kind == 'scores' else 9)
  assert agreement.measure(ratings, 'preference').pairs[0].pearson == 1.0


def test_preferences_count_once_an_item():
  items = made.items(12)
  table = np.array([[1, 0, 0.5] * 4, [1, 0.5, 0.5] * 4])
  ratings = [
    made.rating(rater, item, value, 1 - value)
    for rater, row in zip('AB', table, strict=True)
    for item, value in zip(items, row, strict=True)
  ]
  found = agreement.measure(ratings, 'preference')
  assert found.pairs[0].outputs == 12
  assert found.alpha == pytest.approx(coincidence_alpha(table))


def test_a_rater_who_gives_all_the_same_has_no_correlation():
  items = made.items(10)
  ratings = [
    made.rating(rater, item, score, score)
    for rater, scores in (('A', (3, 3)), ('B', (1, 5)))
    for item, score in zip(items, scores * 5, strict=True)
  ]
  (pair,) = agreement.measure(ratings, 'scores').pairs
  assert (pair.pearson, pair.interval) == (None, None)


def test_rare_answers_have_an_interval():
  # Most resamples hold the one item that differs, some do not.
  items = made.items(10)
  ratings = [
    made.rating(rater, item, 6 if number == 0 else 3, 3)
    for rater in 'AB'
    for number, item in enumerate(items)
  ]
  (pair,) = agreement.measure(ratings, 'scores').pairs
  assert pair.pearson == pytest.approx(1.0)
  assert pair.interval == pytest.approx((1.0, 1.0))


def test_nothing_rated():
  assert agreement.measure([], 'scores') == agreement.Agreement((), None, ())
