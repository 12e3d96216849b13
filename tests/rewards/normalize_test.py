"""Tests of the scale of rewards."""

import json

import hypothesis
from hypothesis import strategies
import numpy as np
import pytest

from rest_jax.rewards import normalize


def test_hand_values():
  # 0 ... 200: the 0.5 percentile is 1, the 99.5 percentile is 199.
  normalizer = normalize.Normalizer.from_raw(np.arange(201.0))
  assert (normalizer.low, normalizer.high) == (1.0, 199.0)
  got = normalizer(np.asarray([1.0, 199.0, 100.0, 0.0, 200.0]))
  expected = [0.0, 1.0, 0.5, -1 / 198, 199 / 198]
  np.testing.assert_allclose(got, expected, rtol=1e-6)
  assert got.dtype == np.float32


def test_nothing_is_clamped():
  normalizer = normalize.Normalizer(-1.0, 1.0)
  np.testing.assert_array_equal(
    normalizer(np.asarray([-3.0, 5.0])), np.asarray([-1.0, 3.0], np.float32)
  )


@hypothesis.settings(deadline=None, derandomize=True, max_examples=50)
@hypothesis.given(
  strategies.lists(
    strategies.floats(-1e6, 1e6, width=32), min_size=3, max_size=40
  )
)
def test_order_is_kept(values):
  raw = np.asarray(values, np.float32)
  hypothesis.assume(np.ptp(np.percentile(raw, [0.5, 99.5])) > 1e-3)
  rewards = normalize.Normalizer.from_raw(raw)(raw)
  order = np.argsort(raw, kind='stable')
  assert np.all(np.diff(rewards[order]) >= 0)


def test_percentiles_ignore_strays():
  raw = np.concatenate([np.linspace(0, 1, 1000), [1e9]])
  normalizer = normalize.Normalizer.from_raw(raw)
  assert normalizer.high < 1.0


def test_json_keeps_every_bit():
  normalizer = normalize.Normalizer(0.1, 1 / 3)
  content = json.loads(json.dumps(normalizer.to_json()))
  assert normalize.Normalizer.from_json(content) == normalizer


def test_nan_stays_nan():
  assert np.isnan(normalize.Normalizer(0.0, 1.0)(np.asarray([np.nan]))).all()


@pytest.mark.parametrize(
  ('raw', 'message'),
  [
    ([], 'got none'),
    ([1.0, np.nan], 'position 1 is nan'),
    ([2.0, 2.0, 2.0], 'low must be below high'),
  ],
)
def test_raw_rewards_without_a_scale_are_refused(raw, message):
  with pytest.raises(ValueError, match=message):
    normalize.Normalizer.from_raw(np.asarray(raw))


@pytest.mark.parametrize(
  ('low', 'high'), [(1.0, 1.0), (2.0, 1.0), (np.nan, 1.0), (0.0, np.inf)]
)
def test_bad_scales_are_refused(low, high):
  with pytest.raises(ValueError, match='low'):
    normalize.Normalizer(low, high)


def test_damaged_json_is_refused():
  with pytest.raises(ValueError, match='"low" and "high"'):
    normalize.Normalizer.from_json({'low': 1.0})
