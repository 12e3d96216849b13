"""Tests of the bound on rounding: it holds, and it is not far off."""

import numpy as np
import pytest

from tests import rounding


def _sums(terms: np.ndarray, order: np.ndarray) -> np.ndarray:
  """Sums of the columns in float32, one term after another."""
  return np.add.accumulate(terms[order], axis=0, dtype=np.float32)[-1]


@pytest.mark.parametrize('num_terms', [10, 300, 3000])
def test_sums_in_other_orders_are_within_the_bound(num_terms):
  random = np.random.default_rng(num_terms)
  terms = random.normal(size=(num_terms, 400)).astype(np.float32)
  terms[-1] -= terms.sum(0)  # Results are near zero, as if terms cancelled.
  one = _sums(terms, np.arange(num_terms))
  other = _sums(terms, random.permutation(num_terms))
  sizes = np.abs(terms).sum(0)
  apart = np.abs(one - other) / sizes
  assert 0 < apart.max() < rounding.bound(num_terms, 1.0)


def test_small_entries_may_be_off_by_what_large_ones_are():
  expected = {'a': np.array([10.0, 0.09], np.float32), 'b': np.float32(0.0)}
  found = {'a': expected['a'] + np.float32([0, 1.4e-5]), 'b': np.float32(0.0)}
  rounding.assert_close(found, expected, num_terms=100)


@pytest.mark.parametrize(
  'found', [[10.0, 0.0901], [10.01, 0.09], [10.0, np.nan], [10.0]]
)
def test_more_than_rounding_is_found(found):
  with pytest.raises(AssertionError, match='a'):
    rounding.assert_close(
      {'a': np.array(found)}, {'a': np.array([10.0, 0.09])}, num_terms=100
    )
