"""Texts to train, select and probe a reward model."""

from collections.abc import Callable, Sequence

import numpy as np

from rest_jax import types
from rest_jax.data import pair_store, vocabularies
from rest_jax.data import ratings as ratings_lib
from rest_jax.evaluation import correlations
from rest_jax.rewards import corruptions as corruptions_lib
from rest_jax.rewards import reward_agreement
from rest_jax.sampling import sampler as sampler_lib


def corruptor(
  config: corruptions_lib.CorruptionConfig,
  pairs: pair_store.PairStore,
  count: int,
  *,
  per_reference: int,
  seed: int,
) -> corruptions_lib.Corruptor:
  """Makes a corruptor of references.

  Args:
    config: how references are corrupted.
    pairs: pairs with references.
    count: number of corruptions.
    per_reference: corruptions per reference; more if there are few references.
    seed: seed of the corruptions.
  """
  # Reads only the references that are corrupted.
  rows = pair_store.spread_rows(len(pairs), max(count // per_reference, 2))
  sources, references = pair_store.texts_of(pairs, rows)
  return corruptions_lib.Corruptor(config, sources, references, seed=seed)


def samples(
  sampler: sampler_lib.Sampler,
  params: types.Params,
  pairs: pair_store.PairStore,
  vocabulary: vocabularies.Vocabulary,
  num_sources: int,
  *,
  chrf_beta: int,
  seed: int,
) -> corruptions_lib.ScoredTexts:
  """Draws samples for training sources, scored by chrF to the reference.

  Args:
    sampler: sampler of the policy.
    params: parameters of the policy.
    pairs: training pairs.
    vocabulary: decodes tokens.
    num_sources: number of sources to sample for, evenly spread.
    chrf_beta: see `CorruptionConfig`.
    seed: sampling seed.
  """
  drawn = sampler.sample(
    params,
    pairs.source_tokens,
    pair_store.spread_rows(len(pairs), num_sources),
    seed=seed,
    grow_step=0,
  )
  texts = (
    (pairs.source_text(int(row)), hypothesis, pairs.reference_text(int(row)))
    for block in drawn
    for row, tokens in zip(block.source_ids, block.tokens, strict=True)
    for hypothesis in vocabulary.decode_batch(tokens)
  )
  return corruptions_lib.score_samples(texts, chrf_beta=chrf_beta)


def rated(ratings: ratings_lib.Ratings) -> corruptions_lib.ScoredTexts:
  """Converts ratings to scored texts."""
  return corruptions_lib.ScoredTexts(
    ratings.source, ratings.hypothesis, ratings.score
  )


def spread(
  texts: corruptions_lib.ScoredTexts, limit: int
) -> corruptions_lib.ScoredTexts:
  """Returns the texts of evenly spread sources, at most about `limit`."""
  rows = spread_rows(texts.sources, limit)
  return corruptions_lib.ScoredTexts(
    [texts.sources[row] for row in rows],
    [texts.hypotheses[row] for row in rows],
    texts.scores[rows],
  )


def spread_rows(sources: Sequence[str], limit: int) -> np.ndarray:
  """Returns all rows of evenly spread sources, at most about `limit` rows."""
  groups = reward_agreement.grouped(sources)
  count = int(groups.max()) + 1
  chosen = pair_store.spread_rows(count, max(1, count * limit // len(groups)))
  return np.flatnonzero(np.isin(groups, chosen))


def probe(
  score: Callable[[corruptions_lib.ScoredTexts], np.ndarray],
  corruptor: corruptions_lib.Corruptor,
  count: int,
) -> dict[str, float]:
  """Measures how a model ranks corruptions of references.

  Args:
    score: scores texts.
    corruptor: corruptor of the references.
    count: number of corruptions.

  Returns:
    pearson: correlation with chrF to the reference; prefers_reference: share of
    corruptions that score below their reference.
  """
  texts = corruptor.scored(count)
  references = [
    corruptor.reference(index) for index in range(len(texts.sources))
  ]
  rewards = score(texts)
  ideal = score(texts._replace(hypotheses=references))
  changed = np.asarray(texts.hypotheses) != np.asarray(references)
  return {
    'pearson': correlations.pearson(rewards, texts.scores),
    'prefers_reference': float(np.mean((rewards < ideal)[changed])),
  }
