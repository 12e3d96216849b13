"""Tests of the loss of pairs of one source."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.losses import base, regression, within_source


class _Given:
  """A model whose rewards are its parameters."""

  def rewards(self, params, batch, *, dropout_key=None):
    del batch, dropout_key
    return params['rewards']


def _batch(scores, weights):
  scores = jnp.asarray(scores, jnp.float32)
  return {
    'encoder_input_tokens': jnp.ones((len(scores), 3), jnp.int32),
    'scores': scores.reshape(-1),
    'score_weights': jnp.asarray(weights, jnp.float32).reshape(-1),
  }


def _loss(loss, rewards, scores, weights):
  return loss(
    base.Inputs(
      model=_Given(),
      params={'rewards': jnp.asarray(rewards, jnp.float32).reshape(-1)},
      batch=_batch(scores, weights),
    )
  )


def _sigmoid(x):
  return 1 / (1 + np.exp(-x))


def _divergence(target, logit):
  p, q = _sigmoid(target), _sigmoid(logit)
  return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))


def test_by_hand():
  loss = within_source.WithinSource(regression=0.5, weight=2.0, temperature=0.5)
  rewards, scores = [[0.3, -0.2, 0.1]], [[1.0, 0.0, 0.5]]
  weights = [[1.0, 3.0, 2.0]]
  found = _loss(loss, rewards, scores, weights)
  squared = 1 * 0.7**2 + 3 * 0.2**2 + 2 * 0.4**2
  # Each pair twice, over n - 1 = 2.
  pairs = (
    (2 * 1 * 3 / 4) * _divergence(2.0, 1.0)
    + (2 * 1 * 2 / 3) * _divergence(1.0, 0.4)
    + (2 * 3 * 2 / 5) * _divergence(-1.0, -0.6)
  )
  assert float(found.weighted_sum) == pytest.approx(
    0.5 * squared + 2.0 * pairs, rel=1e-5
  )
  assert float(found.normalizer) == 6.0
  total, count = found.metrics['accuracy']
  assert float(total / count) == pytest.approx(1.0)
  total, count = found.metrics['squared_error']
  assert float(total / count) == pytest.approx(squared / 6, rel=1e-5)


def test_only_pairs_of_one_source_count():
  loss = within_source.WithinSource(regression=0.0)
  right = [[0.0, 1.0], [9.0, 8.0]]
  found = _loss(loss, np.add(right, [[5.0], [-7.0]]), right, np.ones((2, 2)))
  assert float(found.weighted_sum) == pytest.approx(0.0, abs=1e-6)
  wrong = _loss(loss, [[1.0, 0.0], [9.0, 8.0]], right, np.ones((2, 2)))
  assert float(wrong.weighted_sum) > 1.0
  total, count = wrong.metrics['accuracy']
  assert float(total / count) == 0.5


def test_padding_does_not_matter():
  loss = within_source.WithinSource()
  one = _loss(loss, [[0.3, 0.1]], [[0.0, 2.0]], [[1.0, 2.0]])
  padded = _loss(
    loss,
    [[0.3, 9.0, 0.1], [4.0, 5.0, 6.0]],
    [[0.0, 0.0, 2.0], [0.0, 0.0, 0.0]],
    [[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]],
  )
  assert float(one.weighted_sum) == pytest.approx(float(padded.weighted_sum))
  assert float(one.normalizer) == float(padded.normalizer)


def test_one_hypothesis_is_regression():
  ours = _loss(within_source.WithinSource(), [[0.5]], [[2.0]], [[3.0]])
  theirs = _loss(regression.Regression(), [[0.5]], [[2.0]], [[3.0]])
  assert float(ours.weighted_sum) == float(theirs.weighted_sum) == 3 * 1.5**2


def test_jit_is_eager_and_gradients_are_finite_without_rows():
  loss = within_source.WithinSource()
  scores = np.zeros((2, 3), np.float32)

  def total(rewards, weights):
    return _loss(loss, rewards, scores, weights).weighted_sum

  rewards = jnp.arange(6.0)
  value = total(rewards, np.ones(6))
  assert jax.jit(total)(rewards, np.ones(6)) == pytest.approx(float(value))
  gradient = jax.grad(total)(rewards, np.zeros(6))
  np.testing.assert_array_equal(gradient, np.zeros(6))


@pytest.mark.parametrize(
  'settings',
  [{'regression': -1.0}, {'weight': 0.0}, {'temperature': 0.0},
   {'hypotheses': 1}],
)  # fmt: skip
def test_bad_settings_are_refused(settings):
  with pytest.raises(ValueError, match=f'{next(iter(settings))} must be'):
    within_source.WithinSource(**settings)
