"""Tests of the NLL of validation pairs."""

import numpy as np
import pytest

from rest_jax.parallel import mesh as mesh_lib
from rest_jax.training import validation_nll
from tests.models import tiny
from tests.training import toy

MESH = mesh_lib.MeshConfig()
TOKENS = toy.make_tokens()


def test_the_mean_is_over_tokens():
  config = toy.make_config(tokens_per_batch=8 * 16)
  policy = toy.make_policy()
  params = tiny.init(policy, 1)
  batches = config.batches(toy.make_rows(TOKENS))
  metrics = validation_nll.evaluation(policy, batches, MESH)(params, 0)
  batch = toy.make_rows(TOKENS).load(np.arange(40), 8, 8)
  log_probs = tiny.jitted(policy, 'sequence_log_probs')(params, batch)
  expected = -float(log_probs.sum()) / (40 * toy.LENGTH)
  assert metrics['nll'] == pytest.approx(expected, rel=1e-5)
  assert metrics['objective'] == -metrics['nll']
