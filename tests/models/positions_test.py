"""Sinusoids, rotations, windows and numbers of positions."""

import jax.numpy as jnp
import numpy as np

from rest_jax.models import parts, positions


def test_sinusoids_by_hand():
  table = positions.sinusoids(1, 2, 4, False)
  np.testing.assert_allclose(
    table[0], [np.sin(1), np.sin(0.01), np.cos(1), np.cos(0.01)], rtol=1e-6
  )
  # The last of two wavelengths is 10,000 times the first.
  inclusive = positions.sinusoids(1, 2, 4, True)
  np.testing.assert_allclose(
    inclusive[1], [np.sin(2), np.sin(2e-4), np.cos(2), np.cos(2e-4)], rtol=1e-6
  )


def test_an_odd_width():
  exclusive = positions.sinusoids(0, 1, 3, False)
  np.testing.assert_array_equal(exclusive, [[0, 0, 1]])  # Two sines.
  inclusive = positions.sinusoids(0, 1, 3, True)
  np.testing.assert_array_equal(inclusive, [[0, 1, 0]])


def test_a_rotation_turns_pairs_and_keeps_distances():
  config = parts.PositionConfig(kind='rotary', theta=100.0)
  turn = positions.rotation(config, 4, np.arange(6), 6, is_windowed=False).turn
  x = jnp.ones((6, 1, 4))
  turned = np.asarray(turn(x))[:, 0]
  np.testing.assert_allclose(
    turned[1],
    [
      np.cos(1) - np.sin(1),
      np.cos(0.1) - np.sin(0.1),
      np.cos(1) + np.sin(1),
      np.cos(0.1) + np.sin(0.1),
    ],
    rtol=1e-6,
  )
  # The product of two depends on their distance alone.
  products = turned @ turned.T
  np.testing.assert_allclose(products[0, 2], products[3, 5], rtol=1e-5)
  assert abs(products[0, 2] - products[0, 3]) > 0.1


def test_stretched_positions_and_those_of_windows():
  config = parts.PositionConfig(
    kind='rotary', theta=100.0, stretch=2.0, window_theta=10.0
  )

  def angle(number, is_windowed):
    found = positions.rotation(
      config, 4, np.asarray([number]), 8, is_windowed=is_windowed
    )
    return np.arcsin(np.asarray(found.sin))[0, 0, 1]

  np.testing.assert_allclose(angle(4, False), 0.2, rtol=1e-5)
  np.testing.assert_allclose(angle(1, True), 10**-0.5, rtol=1e-5)


def test_windows_look_left_and_right():
  seen = positions.within_window((2, 1), 5)
  np.testing.assert_array_equal(seen[2], [1, 1, 1, 1, 0])
  np.testing.assert_array_equal(seen[4], [0, 0, 1, 1, 1])


def test_numbers_begin_anew_in_each_segment():
  segments = jnp.asarray([[1, 1, 2, 2, 2, 0], [1, 2, 3, 3, 0, 0]])
  np.testing.assert_array_equal(
    positions.numbers(6, segments),
    [[0, 1, 0, 1, 2, 0], [0, 0, 0, 1, 0, 1]],
  )
  np.testing.assert_array_equal(positions.numbers(3, None), [0, 1, 2])
