"""Tests of people's ratings as a table."""

from rest_jax.rating import agreement, scores
from rest_jax.report.render import rating_table
from tests.rating import made


def render(ratings):
  return rating_table.render(
    scores.People('scores', ratings), agreement.measure(ratings, 'scores')
  )


def test_policies_raters_and_agreement():
  items = made.items(3)
  ratings = [
    made.rating('Anna', items[0], 0, 6),
    made.rating('Bo\x1b[2J', items[0], 3, 6),
    made.rating('Anna', items[1], 3, 3),
  ]
  assert render(ratings).splitlines() == [
    'rated by people       split  sources      mean x100',
    '---------------------------------------------------',
    # As in tests/rating/scores_test.py.
    'BC               validation        2  33.33 ± 11.11',
    'ReST G1 I3       validation        2  83.33 ± 22.22',
    '',
    '3 ratings (scores) by Anna, Bo␛[2J',
    # Two points always lie on a line.
    "Krippendorff's alpha not measured over 2 rated twice (fewer than 10)",
    'Pearson of Anna, Bo␛[2J: not measured over 2 rated twice (fewer than 10)',
  ]


def test_intervals_are_shown_where_there_are_enough():
  items = made.items(6)
  ratings = []
  for number, item in enumerate(items):
    ratings.append(made.rating('Anna', item, number, 6 - number))
    ratings.append(made.rating('Bo', item, number, 6 - number))
  lines = render(ratings).splitlines()[-2:]
  assert lines == [
    "Krippendorff's alpha 1.000 [1.000, 1.000] over 12",
    'Pearson of Anna, Bo: 1.000 [1.000, 1.000] over 12',
  ]
  alike = [made.rating(rater, item, 3, 3) for rater in 'AB' for item in items]
  assert render(alike).splitlines()[-2:] == [
    "Krippendorff's alpha not measured over 12 rated twice (all alike)",
    'Pearson of A, B: not measured over 12 rated twice (all alike)',
  ]


def test_nothing_yet():
  assert render([]) == 'people: nothing rated yet.'
