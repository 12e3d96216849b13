"""A model whose parameters are its logits, and random cases for losses."""

import jax
import jax.numpy as jnp
import numpy as np

from rest_jax.losses import base
from rest_jax.models import network_config, policy

_NOTHING: dict = {}


class Table:
  """pi(y_t | …) = softmax(params['x'][row, t]), whatever came before."""

  config = network_config.NetworkConfig()

  def logits(self, params, batch, *, dropout_key=None):
    del batch, dropout_key
    return params['x']  # [R, T, V]

  def log_probs(self, params, batch, *, dropout_key=None):
    logits = self.logits(params, batch, dropout_key=dropout_key)
    return policy.target_log_probs(logits, batch['decoder_target_tokens'])


class ValueTable:
  """V(s_t) = params['v'][row, t]; in the place of `scalar.ScalarModel`."""

  config = network_config.NetworkConfig()

  def __init__(self, config=None):
    del config

  def values(self, params, batch, *, dropout_key=None):
    del batch, dropout_key
    return params['v']  # [R, T]


def params(random, rows, length, vocab=7):
  return {'x': jnp.asarray(random.normal(size=(rows, length, vocab)) * 2)}


def batch(random, lengths, length, vocab=7):
  """Rows of these lengths; all of them count, with rewards in [0, 1]."""
  targets = random.integers(1, vocab, (len(lengths), length))
  targets = np.where(
    np.arange(length) < np.asarray(lengths)[:, None], targets, 0
  )
  return {
    'decoder_target_tokens': jnp.asarray(targets, jnp.int32),
    'decoder_loss_weights': jnp.asarray(targets > 0, jnp.float32),
    'rewards': jnp.asarray(random.random(len(lengths)), jnp.float32),
  }


def rows_of(tree, rows):
  return jax.tree.map(lambda x: x[np.asarray(rows)], tree)


def call(loss, theta, cases, *, given=_NOTHING, auxiliary=None):
  if auxiliary is None:
    auxiliary = loss.init_auxiliary(theta, given)
  return loss(
    base.Inputs(
      model=Table(),
      params=theta,
      auxiliary=auxiliary,
      given={name: given[name] for name in loss.reads},
      batch=cases,
      statistics=statistics(loss, given, cases),
    )
  )


def statistics(loss, given, cases):
  if not loss.needs_statistics:
    return None
  inputs = base.Inputs(model=Table(), params={}, given=given, batch=cases)
  return loss.reduce_statistics(loss.batch_statistics(inputs))


def gradient(loss, theta, cases, *, given=_NOTHING):
  """Of weighted_sum / normalizer, as the trainer takes it."""

  def mean(theta):
    output = call(loss, theta, cases, given=given, auxiliary=auxiliary)
    return output.weighted_sum / jnp.maximum(output.normalizer, 1e-9)

  auxiliary = loss.init_auxiliary(theta, given)
  return jax.grad(mean)(theta)['x']


def assert_masking_is_dropping(
  loss, theta, cases, masked, *, given=_NOTHING, group=1
):
  """Rows (groups of rows) of weight 0 are as if they were not there."""
  rows = len(cases['rewards'])
  gone = np.isin(np.arange(rows) // group, masked)
  weights = jnp.where(gone[:, None], 0.0, cases['decoder_loss_weights'])
  kept = np.flatnonzero(~gone)
  whole = call(
    loss, theta, {**cases, 'decoder_loss_weights': weights}, given=given
  )
  part = call(
    loss,
    rows_of(theta, kept),
    rows_of(cases, kept),
    given=rows_of(given, kept),
  )
  assert isinstance(whole, base.LossOutput)
  np.testing.assert_allclose(whole.weighted_sum, part.weighted_sum, rtol=1e-5)
  np.testing.assert_allclose(whole.normalizer, part.normalizer, rtol=1e-6)


def assert_padding_is_nothing(loss, theta, cases, *, given=_NOTHING):
  """More columns of PAD, with any logits, change nothing."""

  def wider(tree, value):
    def pad(x):
      widths = [(0, 0)] * x.ndim
      if x.ndim > 1:
        widths[1] = (0, 3)
      return jnp.pad(x, widths, constant_values=value)

    return jax.tree.map(pad, tree)

  narrow = call(loss, theta, cases, given=given)
  wide = call(
    loss,
    wider(theta, 3.0),
    wider(cases, 0),
    given=wider(given, -2.0),
  )
  np.testing.assert_allclose(
    narrow.weighted_sum, wide.weighted_sum, rtol=1e-5, atol=1e-6
  )
  np.testing.assert_allclose(narrow.normalizer, wide.normalizer)


def assert_an_empty_mask_is_harmless(loss, theta, cases, *, given=_NOTHING):
  empty = {
    **cases,
    'decoder_loss_weights': jnp.zeros_like(cases['decoder_loss_weights']),
  }
  output = call(loss, theta, empty, given=given)
  assert output.weighted_sum == 0
  assert output.normalizer == 0
  assert not np.any(gradient(loss, theta, empty, given=given))
