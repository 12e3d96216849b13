"""Tests of behavioural cloning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.losses import base, bc


class LogitsModel:
  """Its parameter x is the logits themselves, [B, T, V]."""

  def logits(self, params, batch, *, dropout_key=None):
    del batch, dropout_key
    return params['x']


def make_batch(targets, weights):
  return {
    'decoder_target_tokens': jnp.asarray(targets, jnp.int32),
    'decoder_loss_weights': jnp.asarray(weights, jnp.float32),
  }


def call(loss, logits, batch):
  return loss(
    base.Inputs(
      model=LogitsModel(),
      params={'x': jnp.asarray(logits, jnp.float32)},
      batch=batch,
    )
  )


def random_case(seed, rows=3, length=5, vocab=7):
  random = np.random.default_rng(seed)
  logits = random.normal(size=(rows, length, vocab)) * 3
  targets = random.integers(0, vocab, (rows, length))
  weights = (random.random((rows, length)) < 0.7).astype(np.float32)
  return logits, make_batch(targets, weights)


def test_by_hand():
  # softmax(0, ln 3) = (1/4, 3/4).
  logits = [[[0.0, np.log(3.0)], [0.0, np.log(3.0)]]]
  output = call(bc.BC(), logits, make_batch([[0, 1]], [[1, 1]]))
  assert output.weighted_sum == pytest.approx(-np.log(0.25) - np.log(0.75))
  assert output.normalizer == 2
  total, count = output.metrics['nll']
  assert total / count == pytest.approx(output.weighted_sum / 2)


@pytest.mark.parametrize('smoothing', [0.1, 0.5])
def test_label_smoothing_is_a_kl_divergence(smoothing):
  logits, batch = random_case(0)
  output = call(bc.BC(label_smoothing=smoothing), logits, batch)
  vocab = logits.shape[-1]
  q = np.full(logits.shape, smoothing / (vocab - 1))
  np.put_along_axis(
    q,
    np.asarray(batch['decoder_target_tokens'])[..., None],
    1 - smoothing,
    axis=-1,
  )
  log_p = np.asarray(jax.nn.log_softmax(jnp.asarray(logits)))
  kl = (q * (np.log(q) - log_p)).sum(-1)
  expected = (kl * np.asarray(batch['decoder_loss_weights'])).sum()
  assert output.weighted_sum == pytest.approx(expected, rel=1e-4)


def test_z_loss_by_hand():
  logits = [[[1.0, 1.0, 1.0]]]
  output = call(bc.BC(z_loss=0.1), logits, make_batch([[2]], [[1]]))
  log_z = 1 + np.log(3)
  assert output.weighted_sum == pytest.approx(np.log(3) + 0.1 * log_z**2)


def test_gradient_is_softmax_minus_target():
  logits, batch = random_case(1)
  gradient = jax.grad(lambda x: call(bc.BC(), x, batch).weighted_sum)(
    jnp.asarray(logits)
  )
  one_hot = jax.nn.one_hot(batch['decoder_target_tokens'], logits.shape[-1])
  expected = jax.nn.softmax(jnp.asarray(logits)) - one_hot
  expected *= batch['decoder_loss_weights'][..., None]
  np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_jit_and_masking_equal_dropping():
  logits, batch = random_case(2)
  loss = bc.BC(label_smoothing=0.1, z_loss=1e-3)
  weights = batch['decoder_loss_weights'].at[1].set(0.0)
  masked = jax.jit(
    lambda x: call(loss, x, {**batch, 'decoder_loss_weights': weights})
  )(logits)
  rows = np.array([0, 2])
  dropped = call(
    loss,
    logits[rows],
    make_batch(batch['decoder_target_tokens'][rows], weights[rows]),
  )
  assert masked.weighted_sum == pytest.approx(
    float(dropped.weighted_sum), rel=1e-5
  )
  assert masked.normalizer == dropped.normalizer


def test_a_full_mask_gives_zero_and_finite_gradients():
  logits, batch = random_case(3)
  batch['decoder_loss_weights'] *= 0
  value, gradient = jax.value_and_grad(
    lambda x: call(bc.BC(label_smoothing=0.1), x, batch).weighted_sum
  )(jnp.asarray(logits))
  assert value == 0
  assert not np.any(gradient)


@pytest.mark.parametrize('arguments', [
  {'label_smoothing': 1.0}, {'label_smoothing': -0.1}, {'z_loss': -1.0},
])  # fmt: skip
def test_wrong_settings(arguments):
  with pytest.raises(ValueError, match=next(iter(arguments))):
    bc.BC(**arguments)
