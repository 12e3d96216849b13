"""Tests of people's ratings as a table."""

from rest_jax.rating import agreement, scores
from rest_jax.report import rating_table
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
    'BC (G=0, I=0)    validation        2  33.33 ± 11.11',
    'BC (G=1, I=3)    validation        2  83.33 ± 22.22',
    '',
    '3 ratings (scores) by Anna, Bo␛[2J',
    # Units 0, 3 and 6, 6: D_o = 2 * 9 / 4, D_e = 2 * 99 / 12.
    "Krippendorff's alpha 0.727",
    'Pearson 1.000 of Anna, Bo␛[2J over 2',
  ]


def test_nothing_yet():
  assert render([]) == 'people: nothing rated yet.'
