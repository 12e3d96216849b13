"""Tests of counting distinct samples."""

import numpy as np
import pytest

from rest_jax.online import distinct


def test_counts_sources_and_texts(tmp_path):
  seen = distinct.SeenSamples(tmp_path / 'hashes', 0)
  assert seen.count() == 0
  seen.add(np.array([1, 1, 2]), ['a', 'a', 'a'])
  seen.add(np.array([1, 2, 12]), ['b', 'a', 'a'])
  # (1, a), (2, a), (1, b), (12, a)
  assert seen.count() == 4


def test_forgets_what_came_after_a_checkpoint(tmp_path):
  path = tmp_path / 'hashes'
  seen = distinct.SeenSamples(path, 0)
  seen.add(np.arange(3), ['a', 'b', 'c'])
  seen.add(np.arange(2), ['d', 'e'])
  with open(path, 'ab') as opened:
    opened.write(b'torn')
  assert distinct.SeenSamples(path, 5).count() == 5
  assert distinct.SeenSamples(path, 3).count() == 3
  again = distinct.SeenSamples(path, 3)
  again.add(np.array([2]), ['c'])
  assert again.count() == 3
  with pytest.raises(ValueError, match='9 samples'):
    distinct.SeenSamples(path, 9)
