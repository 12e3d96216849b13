"""Open hypotheses are taken out of a block and put back."""

import jax.numpy as jnp
import numpy as np

from rest_jax.sampling import compaction

# Open are 1, 3 and 4.
_DONE = jnp.array([[True, False, True], [False, False, True]])


def test_open_hypotheses_are_taken_in_order():
  few = compaction.first(_DONE, 4)
  assert few.number.tolist() == [1, 3, 4, 6]
  x = jnp.arange(12).reshape(2, 3, 2)
  taken = few.take(x)
  assert taken.shape == (4, 1, 2)
  assert taken[:3, 0].tolist() == [[2, 3], [6, 7], [8, 9]]
  # There is no fourth: it must take no step.
  assert few.done(_DONE).tolist() == [[False], [False], [False], [True]]


def test_they_are_put_back_where_they_were():
  few = compaction.first(_DONE, 4)
  x = jnp.arange(6).reshape(2, 3)
  changed = few.put(x, jnp.array([[10], [30], [40], [99]]))
  assert changed.tolist() == [[0, 10, 2], [30, 40, 5]]


def test_more_open_ones_than_asked_for_stay_where_they_are():
  few = compaction.first(_DONE, 2)
  assert few.number.tolist() == [1, 3]
  x = jnp.arange(6).reshape(2, 3)
  assert few.put(x, few.take(x) * 10).tolist() == [[0, 10, 2], [30, 4, 5]]


def test_rows_lie_beside_their_sources():
  rows = compaction.first(_DONE, 4).rows((2, 3), None)
  x = jnp.array([[1.0], [2.0], [3.0], [7.0]])
  beside = rows.to_sources(x)
  assert beside.shape == (2, 3, 1)
  assert [float(beside[p]) for p in ((0, 1, 0), (1, 0, 0), (1, 1, 0))] == [
    1.0,
    2.0,
    3.0,
  ]
  np.testing.assert_array_equal(rows.from_sources(beside)[:3], x[:3])
  np.testing.assert_array_equal(rows.select(rows.expand(x)), x)


def test_rows_of_a_block_in_a_block_lie_beside_the_first_sources():
  outer = compaction.first(_DONE, 4)
  # Of 1, 3 and 4, the second is done by now.
  done = jnp.array([[False], [True], [False], [True]])
  inner = compaction.first(done, 3)
  rows = inner.rows((4, 1), outer.rows((2, 3), None))
  assert rows.places.hypothesis_of.tolist() == [1, 4, 6]
  beside = rows.to_sources(jnp.array([5.0, 6.0, 7.0]))
  assert beside.shape == (2, 3)
  assert (float(beside[0, 1]), float(beside[1, 1])) == (5.0, 6.0)
