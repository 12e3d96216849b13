"""Tests of what is shown, in what order, on which side."""

from rest_jax.rating import order


def test_more_sources_contain_the_fewer():
  few = order.chosen(range(1000), 20, seed=3)
  assert len(set(few)) == 20
  assert order.chosen(range(1000), 50, seed=3)[:20] == few
  assert order.chosen(range(1000), 20, seed=4) != few
  assert sorted(order.chosen([5, 7], 20, seed=3)) == [5, 7]


def test_each_rater_has_an_order_that_stays():
  ids = list(range(30))
  own = order.of_rater(ids, 'A', seed=0)
  assert sorted(own) == ids
  assert own != ids
  assert order.of_rater(reversed(ids), 'A', seed=0) == own
  assert order.of_rater(ids, 'B', seed=0) != own
  assert order.of_rater(ids, 'A', seed=1) != own
  # Items that are added do not change the order of the others.
  more = order.of_rater(range(60), 'A', seed=0)
  assert [number for number in more if number < 30] == own


def test_sides_are_as_good_as_fair_coins():
  sides = [order.is_swapped(n, 'A', 0) for n in range(2000)]
  # Five standard deviations of a fair coin.
  assert abs(sum(sides) - 1000) < 5 * 2000**0.5 / 2
  # Raters and seeds differ in their sides half of the time.
  for other in (
    [order.is_swapped(n, 'B', 0) for n in range(2000)],
    [order.is_swapped(n, 'A', 1) for n in range(2000)],
  ):
    same = sum(a == b for a, b in zip(sides, other, strict=True))
    assert abs(same - 1000) < 5 * 2000**0.5 / 2
