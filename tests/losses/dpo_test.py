"""Tests of direct preference optimisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.losses import dpo
from tests.losses import table


def _case(seed=0, lengths=(5, 2, 4, 3)):
  random = np.random.default_rng(seed)
  theta = table.params(random, len(lengths), 5)
  of_bc = table.params(random, len(lengths), 5)
  return theta, table.batch(random, lengths, 5), of_bc


def test_by_hand():
  theta, cases, of_bc = _case()
  ratios = [
    sum(
      float(jax.nn.log_softmax(model['x'])[row, t, token]) * sign
      for model, sign in ((theta, 1), (of_bc, -1))
      for t, token in enumerate(np.asarray(targets))
      if token
    )
    for row, targets in enumerate(cases['decoder_target_tokens'])
  ]
  margins = 0.3 * np.array([ratios[0] - ratios[1], ratios[2] - ratios[3]])
  output = table.call(dpo.DPO(beta=0.3), theta, cases, given={'bc': of_bc})
  expected = np.log1p(np.exp(-margins)).sum()
  assert output.weighted_sum == pytest.approx(expected, rel=1e-4)
  assert output.normalizer == 2
  total, count = output.metrics['accuracy']
  assert total / count == pytest.approx((margins > 0).mean())


def test_the_loss_at_the_reference_policy_is_log_two():
  theta, cases, _ = _case(1)
  output = table.call(dpo.DPO(), theta, cases, given={'bc': theta})
  assert output.weighted_sum / output.normalizer == pytest.approx(np.log(2))


def test_a_step_makes_the_best_likelier_and_the_worst_less():
  theta, cases, of_bc = _case(2)
  gradient = table.gradient(dpo.DPO(), theta, cases, given={'bc': of_bc})
  moved = {'x': theta['x'] - 0.1 * gradient}
  real = cases['decoder_target_tokens'] > 0

  def sequences(theta):
    return jnp.where(real, table.Table().log_probs(theta, cases), 0).sum(-1)

  change = np.asarray(sequences(moved) - sequences(theta))
  assert (change[0::2] > 0).all()
  assert (change[1::2] < 0).all()


def test_a_pair_counts_by_its_best_sample():
  theta, cases, of_bc = _case(3)
  weights = cases['decoder_loss_weights'] * jnp.array([[0.5], [9], [0], [1]])
  output = table.call(
    dpo.DPO(),
    theta,
    {**cases, 'decoder_loss_weights': weights},
    given={'bc': of_bc},
  )
  rows = [0, 1]
  first = table.call(
    dpo.DPO(),
    table.rows_of(theta, rows),
    table.rows_of(cases, rows),
    given={'bc': table.rows_of(of_bc, rows)},
  )
  assert output.normalizer == 0.5
  assert output.weighted_sum == pytest.approx(0.5 * first.weighted_sum)


def test_identities():
  theta, cases, of_bc = _case(4, (5, 2, 4, 3, 1, 5))
  loss = dpo.DPO()
  table.assert_masking_is_dropping(
    loss, theta, cases, [1], given={'bc': of_bc}, group=2
  )
  table.assert_padding_is_nothing(loss, theta, cases, given={'bc': of_bc})
  table.assert_an_empty_mask_is_harmless(
    loss, theta, cases, given={'bc': of_bc}
  )


def test_wrong_settings():
  with pytest.raises(ValueError, match='beta must be positive'):
    dpo.DPO(beta=0.0)
