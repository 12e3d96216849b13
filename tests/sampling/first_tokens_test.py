"""Hypotheses whose first token each source brings, such as its language."""

import dataclasses

import jax
import numpy as np
import pytest

from rest_jax.data import ragged
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.planning import sampling_programs
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.training import loader, teacher_forcing
from tests.models import families
from tests.sampling import families_test

_FIRST = np.where(np.arange(9) % 3, 9, 11)
_SETTINGS = {
  # Of a queue that is often too short, so that blocks draw again.
  'samples': {'queue_length': 0.5},
  'beam': {
    'temperature': 0.0,
    'beam_size': 3,
    'num_samples_per_source': 2,
    'queue_sources': None,
    'row_shares': (),
    'compact_shares': (),
  },
}


def _policy(**ids):
  policy, params = families.made('nllb')
  special = dataclasses.replace(
    policy.config.special_ids, **{'forced_first': None, **ids}
  )
  config = dataclasses.replace(policy.config, special_ids=special)
  return policy_lib.Policy(config), params


def _sources():
  return families_test.sources(_policy()[0].config.special_ids)


def _sampled(*arguments, **settings):
  settings = {'cache_stages': (12,), **settings}
  return families_test.sampled(*arguments, **settings)


@pytest.fixture(scope='module', params=_SETTINGS)
def mixed(request):
  """Settings, and samples of a batch with two first tokens."""
  policy, params = _policy(is_first_given=True)
  sources = _sources().with_first_tokens(_FIRST)
  settings = _SETTINGS[request.param]
  return settings, _sampled(policy, params, sources, **settings)


def test_a_mixed_batch_equals_a_run_with_one_first_token(mixed):
  settings, block = mixed
  policy, params = _policy(forced_first=11)
  one = _sampled(policy, params, _sources(), **settings)
  assert [samples[0][0] for samples in block.tokens] == _FIRST.tolist()
  for row in np.flatnonzero(_FIRST == 11):
    for mine, its in zip(block.tokens[row], one.tokens[row], strict=True):
      np.testing.assert_array_equal(mine, its)
    np.testing.assert_allclose(
      block.log_probs[row], one.log_probs[row], atol=1e-5
    )


@pytest.mark.parametrize(
  'ids', [{}, {'forced_first': 9}, {'is_first_given': True}]
)
def test_a_first_token_that_is_not_drawn_has_no_entropy(ids):
  policy, params = _policy(**ids)
  other = jax.tree.map(lambda leaf: 1.5 * leaf, params)
  sources, targets = _sources(), [[9, 6, 7, 2], [9, 2]]
  rows = teacher_forcing.Rows(
    sources=(sources, np.arange(2)),
    targets=(ragged.Ragged.from_lists(targets), np.arange(2)),
    mesh_config=mesh_lib.MeshConfig(),
  )
  batch = loader.decoder_batch(
    sources.pad(np.arange(2), 8, policy.config.special_ids.pad),
    np.array([targets[0], [*targets[1], 1, 1]], np.int32),
    policy.config.special_ids,
  )
  log_p, log_q = (
    jax.nn.log_softmax(np.asarray(policy.logits(each, batch), np.float64))
    for each in (params, other)
  )
  divergences = (np.exp(log_p) * (log_p - log_q)).sum(-1)
  entropies = -(np.exp(log_p) * log_p).sum(-1)
  first = 1 if ids else 0
  decode = sampler_lib.DecodeConfig(num_samples_per_source=1, temperature=1.0)
  for found, expected in (
    (rows.divergences(policy, params, other), divergences),
    (rows.entropies(policy, params, decode), entropies),
  ):
    sums = [expected[0, first:4].sum(), expected[1, first:2].sum()]
    np.testing.assert_allclose(found, sums, rtol=1e-3)


def test_samples_are_as_likely_as_by_teacher_forcing(mixed):
  policy, params = _policy(is_first_given=True)
  families_test.check(policy, params, _sources(), mixed[1])


def test_sources_without_first_tokens_are_refused():
  policy, params = _policy(is_first_given=True)
  with pytest.raises(ValueError, match='must have first tokens'):
    _sampled(policy, params, _sources())


def test_planned_programs_take_first_tokens():
  policy, _ = _policy(is_first_given=True)
  inputs = sampling_programs.block_inputs(policy, 2, 3, 8)
  assert inputs.first_tokens.shape == (2,)
