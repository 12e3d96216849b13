"""The log-probability of a policy as a reward."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.data import vocabularies
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.rewards import base, learned, likelihood, scoring_plan
from rest_jax.stages import likelihood as likelihood_stage
from rest_jax.stages import policies
from tests.models import tiny

_SOURCES = ['a', 'bcd', 'a', 'efghij', 'a', 'klm']
_HYPOTHESES = ['x', 'yz', '', 'uvwxyz', 'xx', 'yz']


class Characters(vocabularies.Encoder):
  """A vocabulary of characters: no file, no training."""

  def encode_batch(self, texts):
    return [
      np.asarray([3 + ord(c) % (tiny.VOCAB - 3) for c in text], np.int32)
      for text in texts
    ]


def _reward(policy, params):
  return learned.LearnedReward(
    likelihood.MeanLogProb(policy),
    params,
    Characters(),
    mesh_lib.MeshConfig(),
    config=scoring_plan.ScoringConfig(
      max_source_length=8,
      max_target_length=8,
      length_buckets=(4, 8),
      candidate_buckets=(1, 3),
      tokens_per_call=16,
    ),
    name='likelihood',
  )


def _mean_log_prob(policy, params, vocabulary, source, hypothesis):
  """One text by itself, without padding."""
  rows = [[*row, 1] for row in vocabulary.encode_batch([source, hypothesis])]
  sources, targets = (np.asarray([row], np.int32) for row in rows)
  found = tiny.jitted(policy, 'sequence_log_probs')(
    params,
    {
      'encoder_input_tokens': sources,
      'decoder_input_tokens': np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
      'decoder_target_tokens': targets,
      'decoder_loss_weights': np.ones(targets.shape, np.float32),
    },
  )
  return float(found[0]) / targets.shape[1]


def test_reward_is_the_mean_log_probability_per_token():
  policy = policy_lib.Policy(
    tiny.config(num_encoder_layers=1, num_decoder_layers=1)
  )
  params = tiny.lively(tiny.init(policy))
  rewards = _reward(policy, params).score(_SOURCES, _HYPOTHESES)
  expected = [
    _mean_log_prob(policy, params, Characters(), *pair)
    for pair in zip(_SOURCES, _HYPOTHESES, strict=True)
  ]
  assert np.ptp(expected) > 0.1
  np.testing.assert_allclose(rewards, expected, atol=1e-5)


def test_a_forced_first_token_does_not_count():
  forced = 7
  config = tiny.config(num_encoder_layers=1, num_decoder_layers=1)
  ids = dataclasses.replace(config.special_ids, forced_first=forced)
  policy = policy_lib.Policy(dataclasses.replace(config, special_ids=ids))
  params = tiny.lively(tiny.init(policy))
  sources = jnp.array([[5, 6, 1]])
  targets = jnp.array([[forced, 9, forced, 1, 0]])
  inputs = jnp.pad(targets, ((0, 0), (1, 0)))[:, :-1]
  log_probs = tiny.jitted(policy, 'log_probs')(
    params,
    {
      'encoder_input_tokens': sources,
      'decoder_input_tokens': inputs,
      'decoder_target_tokens': targets,
    },
  )
  variables, apply = {'params': params}, policy.module.apply
  encoded = apply(variables, sources, method='encode')
  hidden: Any = apply(
    variables, encoded, sources, inputs, targets, method='decode_hidden'
  )
  [found] = likelihood.MeanLogProb(policy).of_hypotheses(
    params, hidden, targets
  )
  assert found == pytest.approx(float(log_probs[0, 1:4].mean()), abs=1e-5)


def test_a_policy_that_knows_nothing_gives_log_1_over_v():
  policy = policy_lib.Policy(tiny.config())
  params = jax.tree.map(jnp.zeros_like, tiny.init(policy))
  rewards = _reward(policy, params).score(_SOURCES, _HYPOTHESES)
  np.testing.assert_allclose(rewards, -np.log(tiny.VOCAB), rtol=1e-6)


def test_a_run_scores_by_its_own_bc_policy(run):
  config = likelihood_stage.Likelihood()
  assert isinstance(config, base.RewardConfig)
  reward = config.load(
    base.Resources(
      mesh=run.experiment.mesh,
      vocabulary=run.data.vocabulary,
      pairs=run.data.pairs('train'),
      network=run.context.policy.config,
      policy=run.folder('bc'),
      trained=run.folder('reward'),
    )
  )
  assert reward.name == 'likelihood'
  assert reward.digest == policies.digest(run.folder('bc'))
  pairs = run.data.pairs('validation')
  sources = [pairs.source_text(row) for row in range(4)]
  references = [pairs.reference_text(row) for row in range(4)]
  params = policies.load(
    run.folder('bc'), run.context.policy, run.experiment.mesh
  )
  expected = [
    _mean_log_prob(run.context.policy, params, run.data.vocabulary, *pair)
    for pair in zip(sources, references, strict=True)
  ]
  rewards = reward.score(sources, references)
  np.testing.assert_allclose(rewards, expected, atol=1e-5)
