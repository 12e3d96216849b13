"""Tests of packing: every pair once, in rows that hold it, and nothing else."""

import jax
import numpy as np
import pytest

from rest_jax.data import special_ids
from rest_jax.filters import base as filters_base
from rest_jax.losses import bc
from rest_jax.training import loader, packing
from tests.models import tiny
from tests.training import toy


def _batch():
  return loader.decoder_batch(
    np.array([[5, 1, 0], [6, 7, 1], [8, 1, 0]], np.int32),
    np.array([[9, 1, 0, 0], [10, 11, 12, 1], [13, 1, 0, 0]], np.int32),
  )


def test_pack_by_hand():
  batch = _batch() | {'rewards': np.array([0.5, 0.25, 1.0], np.float32)}
  packed = packing.pack(batch, np.array([0, 0, 1]), 6)
  expected = {
    'encoder_input_tokens': [[5, 1, 6, 7, 1, 0], [8, 1, 0, 0, 0, 0]],
    'encoder_segment_ids': [[1, 1, 2, 2, 2, 0], [1, 1, 0, 0, 0, 0]],
    'decoder_input_tokens': [[0, 9, 0, 10, 11, 12], [0, 13, 0, 0, 0, 0]],
    'decoder_target_tokens': [[9, 1, 10, 11, 12, 1], [13, 1, 0, 0, 0, 0]],
    'decoder_segment_ids': [[1, 1, 2, 2, 2, 2], [1, 1, 0, 0, 0, 0]],
    'decoder_loss_weights': [[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]],
    'rewards': [[0.5, 0.5, 0.25, 0.25, 0.25, 0.25], [1, 1, 0, 0, 0, 0]],
  }
  assert packed.keys() == expected.keys()
  for name, values in expected.items():
    np.testing.assert_array_equal(packed[name], values, err_msg=name)
  assert packed['encoder_segment_ids'].dtype == np.int32


@pytest.mark.parametrize('seed', range(4))
def test_assigned_pairs_fit_and_rows_are_full(seed):
  random = np.random.default_rng(seed)
  sources = np.minimum(random.geometric(0.09, 3000) + 1, 64)
  targets = np.clip(sources + random.integers(-3, 4, 3000), 2, 64)
  row_of = packing.assign(sources, targets, 64, seed)
  for lengths in (sources, targets):
    assert np.bincount(row_of, lengths).max() <= 64
  num_rows = row_of.max() + 1
  assert set(row_of) == set(range(num_rows))
  assert (sources + targets).sum() / (num_rows * 128) > 0.9
  np.testing.assert_array_equal(
    row_of, packing.assign(sources, targets, 64, seed)
  )


def test_pairs_that_share_no_row_have_rows_of_their_own():
  row_of = packing.assign(np.full(5, 6), np.full(5, 8), 10, 0)
  assert sorted(row_of) == [0, 1, 2, 3, 4]


def test_a_packed_policy_is_the_policy_of_each_pair():
  policy = toy.make_policy(num_encoder_layers=2, num_decoder_layers=2)
  params = tiny.lively(tiny.init(policy))
  batch = tiny.batch(1, [3, 5, 2, 4, 6], [4, 2, 5, 3, 7], pad=1)
  row_of = np.array([0, 0, 0, 1, 1])
  packed = packing.pack(batch, row_of, 12)
  log_probs = tiny.jitted(policy, 'log_probs')
  alone = np.asarray(log_probs(params, batch))
  together = np.asarray(log_probs(params, packed))
  np.testing.assert_allclose(
    together[packed['decoder_loss_weights'] > 0],
    alone[batch['decoder_loss_weights'] > 0],
    atol=2e-5,
  )


def test_a_packed_loss_and_its_gradient_are_those_of_the_pairs():
  policy = toy.make_policy(dropout_rate=0.0)
  params = tiny.lively(tiny.init(policy))
  batch = tiny.batch(2, [3, 5, 2], [4, 2, 5]) | {
    'rewards': np.array([0.9, 0.1, 0.8], np.float32),
    'thresholds': np.full(3, 0.5, np.float32),
    'row_weights': np.array([1.0, 1.0, 0.25], np.float32),
  }
  packed = packing.pack(batch, np.array([0, 0, 1]), 8)

  def loss(params, batch):
    output = bc.BC(label_smoothing=0.1)(
      bc.base.Inputs(
        model=policy,
        params=params,
        batch=filters_base.mask_rows(batch, is_inclusive=False),
      )
    )
    return output.weighted_sum, output.normalizer

  gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))
  results = [gradients(params, b) for b in (batch, packed)]
  (alone, count), gradient = results[0]
  (together, packed_count), packed_gradient = results[1]
  assert count == packed_count == 4 + 5 * 0.25
  np.testing.assert_allclose(alone, together, rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
    gradient,
    packed_gradient,
  )


def test_pack_other_special_ids_by_hand():
  ids = special_ids.SpecialIds(pad=9, eos=0, unk=1, decoder_start=9)
  batch = loader.decoder_batch(
    np.array([[5, 0, 9], [6, 7, 0]], np.int32),
    np.array([[8, 0, 9], [4, 3, 0]], np.int32),
    ids,
  )
  packed = packing.pack(batch, np.array([0, 1]), 4, ids.pad)
  expected = {
    'encoder_input_tokens': [[5, 0, 9, 9], [6, 7, 0, 9]],
    'encoder_segment_ids': [[1, 1, 0, 0], [1, 1, 1, 0]],
    'decoder_input_tokens': [[9, 8, 9, 9], [9, 4, 3, 9]],
    'decoder_target_tokens': [[8, 0, 9, 9], [4, 3, 0, 9]],
    'decoder_loss_weights': [[1, 1, 0, 0], [1, 1, 1, 0]],
  }
  for name, values in expected.items():
    np.testing.assert_array_equal(packed[name], values, err_msg=name)
