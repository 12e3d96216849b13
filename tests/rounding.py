"""How far float32 rounding takes two programs for the same numbers apart."""

import math
from typing import Any

import jax
import numpy as np

_EPS = float(np.finfo(np.float32).eps)


def bound(num_terms: int, size: float) -> float:
  """Bounds the difference of two sums of the same terms, in any two orders.

  Each of n roundings is off by at most eps / 2 of the size of the terms. They
  are as good as independent, so that with a probability of 1 - 2 exp(-18) one
  sum is off by less than 6 · sqrt(n) · eps / 2, and two by twice that. Where
  terms cancel, this is far above eps times the result, and has to be.

  Source: Higham and Mary, A new approach to probabilistic rounding error
  analysis, SIAM J. Sci. Comput. 41 (2019), Theorem 2.4.

  Args:
    num_terms: terms added one after another in all sums on the way to a result;
      a product of matrices adds as many as its inner length.
    size: sum of the magnitudes of the terms.
  """
  return 6 * math.sqrt(num_terms) * _EPS * size


def assert_close(found: Any, expected: Any, *, num_terms: int) -> None:
  """Asserts that trees of arrays differ by rounding alone; see `bound`.

  The largest entry of an array stands for the size of the terms of each of its
  entries: those with a small result are sums of terms like the others'.
  """

  def check(path, one, other):
    np.testing.assert_allclose(
      one,
      other,
      rtol=0,
      atol=bound(num_terms, float(np.abs(other).max(initial=0))),
      err_msg=jax.tree_util.keystr(path),
    )

  jax.tree_util.tree_map_with_path(check, found, expected)
