"""Samples and beams of networks with other parts and special ids than T5's."""

import jax
import numpy as np
import pytest

from rest_jax.data import ragged
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.training import teacher_forcing
from tests.models import families

_NUM_SOURCES = 9


def sources(ids):
  """Returns sources without special ids, but for EOS."""
  random = np.random.default_rng(0)
  special = {ids.pad, ids.eos, ids.unk, ids.decoder_start}
  words = [i for i in range(families.VOCAB) if i not in special]
  lengths = random.integers(1, 8, _NUM_SOURCES)
  rows = [np.append(random.choice(words, n), ids.eos) for n in lengths]
  return ragged.Ragged.from_lists(rows)


def sampled(policy, params, sources, **settings):
  """Samples 3 hypotheses of each of `_NUM_SOURCES` sources in blocks of 2."""
  settings = {
    'num_samples_per_source': 3,
    'temperature': 0.7,
    'max_target_length': 12,
    'block_sources': 2,
    'source_length_buckets': (8,),
    'cache_stages': (6,),
    'row_shares': (0.5,),
    'compact_shares': (0.34,),
    **settings,
  }
  config = sampler_lib.DecodeConfig(**settings)
  mesh = mesh_lib.MeshConfig().build(jax.devices()[:1])
  sampler = sampler_lib.Sampler(policy, config, mesh)
  return sampler.sample_all(
    params, sources, np.arange(_NUM_SOURCES), seed=1, grow_step=1
  )


def check(policy, params, sources, block):
  """Rows are well formed, and as likely as by teacher forcing."""
  ids = policy.config.special_ids
  rows = [row for samples in block.tokens for row in samples]
  num_samples = block.log_probs.shape[1]
  for row, is_finished in zip(rows, block.finished.flat, strict=True):
    is_end = row == ids.eos
    assert is_end.sum() == is_finished and is_end[-1] == is_finished
    assert not np.isin(row, [ids.pad, ids.unk]).any()
    assert ids.forced_first is None or row[0] == ids.forced_first
  forced = teacher_forcing.Rows(
    sources=(sources, np.repeat(np.arange(_NUM_SOURCES), num_samples)),
    targets=(ragged.Ragged.from_lists(rows), np.arange(len(rows))),
    mesh_config=mesh_lib.MeshConfig(),
  ).log_probs(policy, params)
  np.testing.assert_allclose(
    block.log_probs, forced.reshape(block.log_probs.shape), atol=1e-4
  )


@pytest.mark.parametrize(
  'name', ['t5', 'nllb', 'marian', 't5gemma', 't5gemma2']
)
def test_samples_are_as_likely_as_by_teacher_forcing(name):
  """Of a queue that is often too short, so that blocks draw again."""
  policy, params = families.made(name)
  texts = sources(policy.config.special_ids)
  block = sampled(policy, params, texts, queue_length=0.5)
  assert 0 < block.finished.mean() < 1
  assert len({tuple(row) for samples in block.tokens for row in samples}) > 9
  check(policy, params, texts, block)


@pytest.mark.parametrize('name', ['nllb', 't5gemma2'])
def test_beams_are_as_likely_as_by_teacher_forcing(name):
  policy, params = families.made(name)
  texts = sources(policy.config.special_ids)
  block = sampled(
    policy,
    params,
    texts,
    temperature=0.0,
    beam_size=3,
    num_samples_per_source=2,
  )
  check(policy, params, texts, block)
