"""Tests of the weighted squared error."""

import jax
import jax.numpy as jnp
import numpy as np

from rest_jax.losses import base, regression


class RewardsModel:
  """Its parameter x is the rewards themselves, [B]."""

  def rewards(self, params, batch, *, dropout_key=None):
    del batch, dropout_key
    return params['x']


def call(rewards, scores, weights):
  return regression.Regression()(
    base.Inputs(
      model=RewardsModel(),
      params={'x': jnp.asarray(rewards, jnp.float32)},
      batch={
        'scores': jnp.asarray(scores, jnp.float32),
        'score_weights': jnp.asarray(weights, jnp.float32),
      },
    )
  )


def test_by_hand():
  output = call([1.0, 2.0, 5.0], [0.0, 4.0, 5.5], [1.0, 2.0, 4.0])
  assert output.weighted_sum == 1 + 2 * 4 + 4 * 0.25
  assert output.normalizer == 7
  assert output.metrics['squared_error'] == (10.0, 7.0)


def test_rows_of_weight_zero_have_no_gradient():
  gradient = jax.grad(
    lambda rewards: call(rewards, [0.0, 9.0], [1.0, 0.0]).weighted_sum
  )(jnp.array([3.0, 3.0]))
  np.testing.assert_array_equal(gradient, [6.0, 0.0])
