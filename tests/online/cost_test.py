"""Tests of what a training reports to have cost."""

import numpy as np

from rest_jax.online import cost


def tree(encoder, decoder, embedding, **heads):
  return {
    'encoder': {'kernel': np.zeros(encoder)},
    'decoder': {'kernel': np.zeros(decoder), **heads},
    'token_embedder': {'embedding': np.zeros(embedding)},
  }


def test_forward_flops_by_hand():
  # Tied: the embedding makes the logits.
  assert cost.forward_flops(tree(10, 20, 5), 3, 4) == 2 * (10 * 3 + 25 * 4)
  logits = {'logits_dense': {'kernel': np.zeros(7)}}
  assert cost.forward_flops(tree(10, 20, 5, **logits), 3, 4) == 2 * (
    10 * 3 + 27 * 4
  )
  head = {'value_dense': {'kernel': np.zeros(1)}}
  assert cost.forward_flops(tree(10, 20, 5, **head), 3, 4) == 2 * (
    10 * 3 + 21 * 4
  )


def test_report_by_hand():
  spent = cost.Cost(
    samples=8,
    source_tokens=6,
    paired_source_tokens=12,
    sampled_tokens=20,
    trained_source_tokens=24,
    trained_target_tokens=40,
    seconds={'sample': 1.0, 'train': 2.5},
  )
  policy = tree(10, 20, 5)
  critic = tree(10, 20, 5, value_dense={'kernel': np.zeros(1)})
  found = spent.report(policy, critic)
  sample = 2 * (10 * 6 + 25 * 20)
  credit = 2 * 2 * (10 * 12 + 25 * 20) + 2 * (10 * 12 + 21 * 20)
  train = 3 * 2 * (10 * 24 + 25 * 40) + 3 * 2 * (10 * 24 + 21 * 40)
  assert found['flops'] == {
    'sample': sample,
    'credit': credit,
    'train': train,
    'total': sample + credit + train,
  }
  assert found['seconds'] == {'sample': 1.0, 'train': 2.5, 'total': 3.5}
  assert found['samples'] == 8


def test_time_adds_up_and_memory_is_the_peak():
  spent = cost.Cost(seconds={'sample': 5.0}, peak_rss_mb=1e9)
  with spent.timed('sample'):
    pass
  assert 5.0 < spent.seconds['sample'] < 6.0
  spent.note_memory()
  assert spent.peak_rss_mb == 1e9
  here = cost.Cost()
  here.note_memory()
  # Python, NumPy and JAX.
  assert 50 < here.peak_rss_mb < 1e6
