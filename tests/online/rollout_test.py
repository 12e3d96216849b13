"""Tests of drawing hypotheses and measuring their tokens."""

import collections
import functools

import jax
import numpy as np
import pytest

from rest_jax.data import ragged
from rest_jax.online import rollout
from rest_jax.training import loader
from tests.models import tiny
from tests.online import toy
from tests.training import toy as training_toy

_POLICY = training_toy.make_policy()


def params(seed=0):
  return tiny.lively(tiny.init(_POLICY, seed), seed=seed, scale=0.1)


def batching(**changes):
  settings = {'tokens_per_batch': 24, 'buckets': (4, 8), 'row_multiple': 1}
  return rollout.Batching(**{**settings, **changes})


def hypotheses(num_rows=13, seed=0):
  random = np.random.default_rng(seed)
  tokens = [
    [*random.integers(3, training_toy.VOCAB, size).tolist(), 1]
    for size in random.integers(0, 8, num_rows)
  ]
  return rollout.Hypotheses(
    rows=random.integers(0, toy.NUM_SOURCES, num_rows),
    tokens=ragged.Ragged.from_lists(tokens),
    finished=np.ones(num_rows, bool),
  )


def whole_batch(pairs, found):
  return loader.decoder_batch(
    pairs.source_tokens.pad(found.rows, 8),
    found.tokens.pad(np.arange(len(found)), 8),
  )


def test_each_pass_holds_every_source_once():
  rows = rollout.source_rows(10, 0, 30, seed=1)
  for number in range(3):
    counted = collections.Counter(rows[10 * number :][:10].tolist())
    assert counted == collections.Counter(range(10))
  assert rows[:10].tolist() != rows[10:20].tolist()
  # Windows, also across two passes, are parts of one sequence.
  for first, count in ((0, 7), (7, 7), (14, 1), (8, 15)):
    part = rollout.source_rows(10, first, count, seed=1)
    np.testing.assert_array_equal(part, rows[first : first + count])
  assert rollout.source_rows(10, 0, 30, seed=2).tolist() != rows.tolist()


def test_no_two_draws_share_their_random_numbers():
  environment = toy.environment(_POLICY, toy.config())
  first = environment.draw(params(), 0, 8)
  texts = environment.texts(first)
  again = environment.draw(params(), 0, 8)
  assert texts == environment.texts(again)
  # Two more passes in one call: every source twice.
  later = environment.draw(params(), toy.NUM_SOURCES, 2 * toy.NUM_SOURCES)
  by_row = collections.defaultdict(list)
  for row, text in zip(later.rows, environment.texts(later), strict=True):
    by_row[int(row)].append(text)
  for found in by_row.values():
    assert len(found) == 8
    assert found[:4] != found[4:]
  for start in range(0, len(texts), 4):
    found = by_row[int(first.rows[start])]
    assert texts[start : start + 4] not in (found[:4], found[4:])


@pytest.mark.parametrize('row_multiple', [1, 2])
def test_numbers_of_tokens_come_back_in_order(row_multiple):
  pairs, found = toy.Pairs(), hypotheses()
  numbers = batching(row_multiple=row_multiple).per_token(
    pairs,
    found,
    functools.partial(rollout.log_probs, _POLICY, params()),
    toy.MESH.build(),
  )
  batch = whole_batch(pairs, found)
  expected = tiny.jitted(_POLICY, 'log_probs')(params(), batch)
  is_token = batch['decoder_target_tokens'] > 0
  np.testing.assert_array_equal(found.is_token(8), is_token)
  np.testing.assert_allclose(
    numbers, np.where(is_token, expected, 0.0), atol=1e-5
  )


def test_columns_stay_with_their_tokens():
  pairs, found = toy.Pairs(), hypotheses()
  # A column that says which token it is of.
  column = found.tokens.pad(np.arange(len(found)), 8).astype(np.float32)
  batches = batching().plan(pairs, found, {'copy': column}, seed=3)
  seen = 0
  for index in range(2 * batches.batches_per_epoch):
    batch = batches[index]
    np.testing.assert_array_equal(batch['copy'], batch['decoder_target_tokens'])
    seen += int(batch['decoder_loss_weights'].sum())
  assert seen == 2 * found.tokens.num_tokens


def test_at_temperature_1_what_is_trained_is_what_samples():
  environment = toy.environment(_POLICY, toy.config())
  rows = rollout.source_rows(toy.NUM_SOURCES, 0, 16, environment.seed)
  block = environment.sampler.sample_all(
    params(),
    environment.pairs.source_tokens,
    np.arange(16),
    seed=environment.seed,
    grow_step=0,
    rows=rows,
  )
  found = environment.draw(params(), 0, 16)
  numbers = batching().per_token(
    environment.pairs,
    found,
    functools.partial(rollout.log_probs, _POLICY, params()),
    toy.MESH.build(),
  )
  np.testing.assert_allclose(
    numbers.sum(1), block.log_probs.reshape(-1), atol=1e-4
  )
  np.testing.assert_array_equal(found.finished, block.finished.reshape(-1))


def test_mean_kl_by_hand():
  found = hypotheses(2)
  ratios = np.zeros((2, 8), np.float32)
  ratios[0, 0], ratios[1, 0] = 0.5, -0.1
  measured = rollout.mean_kl(ratios, found)
  assert measured['kl_sequence'] == pytest.approx(0.2)
  assert measured['kl_token'] == pytest.approx(0.4 / found.tokens.num_tokens)


def test_kl_to_bc_is_that_of_all_tokens_at_each_position():
  environment = toy.environment(_POLICY, toy.config())
  measure = rollout.KLToBC(
    sampler=environment.sampler,
    policy=_POLICY,
    bc_params=params(1),
    pairs=environment.pairs,
    rows=np.arange(10),
    batching=batching(),
    mesh=toy.MESH.build(),
    seed=9,
  )
  assert measure(params(1)) == {'kl_token': 0.0, 'kl_sequence': 0.0}
  found = rollout.draw(
    environment.sampler,
    params(0),
    environment.pairs,
    np.arange(10),
    first=0,
    seed=9,
  )
  batch = jax.tree.map(jax.numpy.asarray, whole_batch(environment.pairs, found))

  def probabilities(tree):
    logits = np.asarray(jax.jit(_POLICY.logits)(tree, batch), np.float64)
    weights = np.exp(logits)
    return weights / weights.sum(-1, keepdims=True)

  ours, theirs = probabilities(params(0)), probabilities(params(1))
  kl = (ours * np.log(ours / theirs)).sum(-1)[found.is_token(8)]
  measured = measure(params(0))
  assert measured['kl_token'] == pytest.approx(kl.mean(), rel=1e-4)
  assert measured['kl_sequence'] == pytest.approx(kl.sum() / 40, rel=1e-4)
  # What the penalty sees estimates the same, with noise.
  of_policy, of_bc = (
    batching().per_token(
      environment.pairs,
      found,
      functools.partial(rollout.log_probs, _POLICY, tree),
      toy.MESH.build(),
    )
    for tree in (params(0), params(1))
  )
  noisy = (of_policy - of_bc)[found.is_token(8)]
  error = noisy.std() / np.sqrt(noisy.size)
  assert abs(noisy.mean() - measured['kl_token']) < 4 * error
