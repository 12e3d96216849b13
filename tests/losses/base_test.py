"""Tests of what all losses share."""

import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.data import special_ids
from rest_jax.losses import (
  base,
  bc,
  bve,
  bvmpo,
  dpo,
  gold,
  oac,
  regression,
  reward_conditioned,
  reward_weighted_bc,
  value,
)
from tests.losses import table


class _Scored(table.Table):
  """Every model that a loss may call, with numbers of no interest."""

  class config:
    vocab_size = 17
    special_ids = special_ids.T5

  def unconditioned(self):
    return self

  def values(self, params, batch, *, dropout_key=None):
    return params['x'][..., 0]

  def rewards(self, params, batch, *, dropout_key=None):
    return params['x'][:, 0, 0]


@pytest.mark.parametrize(
  'loss',
  [
    bc.BC(label_smoothing=0.1),
    bve.BVE(),
    bvmpo.BVMPO(),
    dpo.DPO(),
    gold.GoldP(),
    gold.GoldS(lag=2),
    oac.OAC(value_coefficient=0.5),
    regression.Regression(),
    reward_conditioned.RewardConditionedBC(),
    reward_weighted_bc.RewardWeightedBC(temperature=0.3, max_weight=0.5),
    value.ValueRegression(),
    value.ValueRegression(remaining_power=1.5),
  ],
  ids=repr,
)
def test_normalisers_of_rows_add_up_to_that_of_the_batch(loss, monkeypatch):
  monkeypatch.setattr(base.scalar, 'ScalarModel', table.ValueTable)
  random = np.random.default_rng(0)
  lengths = np.array([5, 2, 4, 1, 3, 3])
  theta = table.params(random, len(lengths), 5, 17)
  cases = table.batch(random, lengths, 5, 17)
  weights = np.array([1, 0.25, 1, 0.5, 0.25, 1], np.float32)
  cases['decoder_loss_weights'] *= weights[:, None]
  cases['scores'] = cases['rewards']
  cases['score_weights'] = jnp.asarray(weights)
  given = {'bc': theta, 'value': {'v': theta['x'][..., 0]}}
  output = loss(
    base.Inputs(
      model=_Scored(),
      params=theta,
      auxiliary=loss.init_auxiliary(theta, given),
      given=given,
      batch={**cases, 'decoder_input_tokens': cases['decoder_target_tokens']},
      statistics=table.statistics(loss, given, cases),
    )
  )
  each = loss.layout.hypotheses_per_source
  rows = loss.row_normalizers(
    lengths=lengths.reshape(-1, each),
    weights=weights.reshape(-1, each),
    rewards=np.asarray(cases['rewards']).reshape(-1, each),
  )
  assert rows.shape == (6 // each,)
  assert rows.sum() == pytest.approx(float(output.normalizer), rel=1e-5)
