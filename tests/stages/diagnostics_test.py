"""Diagnostics of a finished run: against the samples they are of."""

import dataclasses

import numpy as np
import pytest

from rest_jax.data import ragged, sample_store, special_ids
from rest_jax.evaluation import paired_text
from rest_jax.evaluation import results as results_lib
from rest_jax.stages import diagnostics, draw_samples, outputs, policies
from rest_jax.stages import folder as folder_lib
from rest_jax.training import loader
from tests.models import tiny


def measured(run, step, split='validation'):
  directory = run.evaluation(step, split).folder
  return folder_lib.read_manifest(directory)['diagnostics']


def test_every_policy_is_diagnosed(run):
  results = results_lib.read(run.model_dir / 'results.json')
  assert len(results.variants) == 10
  for variant in results.variants:
    found = variant.diagnostics
    assert found.sources == len(run.data.pairs(variant.split))
    assert 0 < found.distinct_1 < found.distinct_2 < 1
    assert found.wrong_language_references == 0.0
    assert (variant.bleu_difference_to_bc is None) == variant.is_bc


def test_bc_is_no_way_from_itself(run):
  found = measured(run, run.policies()[0])
  assert found['kl_to_bc'] == {'mean': 0.0, 'stderr': 0.0}
  assert found['kl_to_bc_per_token'] == 0.0


def distance(run, step, decode):
  pairs = run.data.pairs('validation')
  return diagnostics.distance_to_bc(
    decode,
    draw_samples.LoadedPolicy.of_stage(step, run.context),
    policy_directory=step.policy_folder,
    bc_directory=run.folder('bc'),
    pairs=pairs,
    rows=np.arange(len(pairs)),
    seed=1,
  )


def test_the_distance_is_that_of_draws_at_temperature_1(run):
  decode = run.experiment.evaluate.decode
  step = run.policies()[-1]
  cold = dataclasses.replace(decode, temperature=0.2)
  untempered = dataclasses.replace(decode, temperature=1.0)
  found = distance(run, step, cold)
  assert found == distance(run, step, untempered)
  assert found['kl_to_bc']['mean'] != 0.0


def test_the_distance_is_the_divergence_of_the_policies(run):
  """Against the definition, in float64, of the same draws."""
  step = run.policies()[-1]
  pairs = run.data.pairs('validation')
  mesh = run.experiment.mesh
  decode = run.experiment.evaluate.decode.untempered()
  ours, bc = (
    policies.load(folder, run.context.policy, mesh)
    for folder in (step.policy_folder, run.folder('bc'))
  )
  sampler = draw_samples.policy_sampler(
    run.context.policy, decode, mesh, run.data
  )
  blocks = list(
    sampler.sample(
      ours, pairs.source_tokens, np.arange(len(pairs)), seed=1, grow_step=0
    )
  )
  ids = np.concatenate(
    [np.repeat(b.source_ids, decode.num_samples_per_source) for b in blocks]
  )
  tokens = ragged.Ragged.from_lists(
    [tokens for b in blocks for of_source in b.tokens for tokens in of_source]
  )
  batch = loader.decoder_batch(
    pairs.source_tokens.pad(ids, 48), tokens.pad(np.arange(len(tokens)), 48)
  )

  policy = run.context.policy

  def probabilities(params):
    weights = np.exp(
      np.asarray(tiny.jitted(policy, 'logits')(params, batch), np.float64)
    )
    return weights / weights.sum(-1, keepdims=True)

  p, q = probabilities(ours), probabilities(bc)
  is_token = batch['decoder_target_tokens'] != special_ids.T5.pad
  kl = (p * np.log(p / q)).sum(-1) * is_token
  found = distance(run, step, decode)
  assert found['kl_to_bc']['mean'] == pytest.approx(kl.sum(-1).mean(), rel=1e-3)
  assert found['kl_to_bc_per_token'] == pytest.approx(
    kl.sum() / is_token.sum(), rel=1e-3
  )


def test_the_counts_are_those_of_the_scores(run):
  for step in run.policies():
    directory = run.evaluation(step, 'test').folder
    scores = folder_lib.read_manifest(directory)['measured']
    greedy = outputs.read(directory)['greedy']
    for name in ('bleu', 'chrf'):
      counts = getattr(greedy, name)
      assert len(counts) == len(run.data.pairs('test'))
      found = getattr(paired_text, name)(counts.sum(axis=0))
      assert found == pytest.approx(scores[name])


def test_differences_are_those_of_the_scores(run):
  results = results_lib.read(run.model_dir / 'results.json')
  bc = results.of_split('test')[0]
  assert bc.is_bc
  for variant in results.of_split('test')[1:]:
    assert variant.bleu_difference_to_bc.mean == pytest.approx(
      variant.bleu - bc.bleu
    )
    assert variant.chrf_difference_to_bc.mean == pytest.approx(
      variant.chrf - bc.chrf
    )


def test_fewer_sources_are_evenly_spread(run):
  step = run.policies()[0]
  directory = run.evaluation(step, 'validation').folder
  manifest = folder_lib.read_manifest(directory)
  pairs = run.data.pairs('validation')
  arguments = {
    'data': run.data,
    'pairs': pairs,
    'rows': np.arange(len(pairs)),
    'tokenize': '13a',
  }
  store = sample_store.SampleStore.unfinished(directory, manifest['shards'])
  again = diagnostics.measure(store, max_sources=None, **arguments)
  assert again.items() <= manifest['diagnostics'].items()
  fewer = diagnostics.measure(store, max_sources=2, **arguments)
  assert fewer['sources'] == 2
  # Of the first and the last source, two samples each.
  rows = [0, 1, len(store) - 2, len(store) - 1]
  texts = run.data.vocabulary.decode_batch([store.tokens[row] for row in rows])
  words = [word for text in texts for word in text.split()]
  assert fewer['distinct_1'] == pytest.approx(len(set(words)) / len(words))
