"""Signs of reward hacking in a policy's samples, measured by its evaluation."""

import pathlib
from typing import Any

import numpy as np

from rest_jax.data import pair_store, sample_store
from rest_jax.data import task as task_lib
from rest_jax.evaluation import hacking, metrics
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import draw_samples, policies, prepare
from rest_jax.training import teacher_forcing

# Number of training pairs that the language classifier is fitted to.
_LANGUAGE_PAIRS = 2000


def measure(
  store: sample_store.SampleStore,
  *,
  data: prepare.PreparedData,
  pairs: pair_store.PairStore,
  rows: np.ndarray,
  max_sources: int | None,
  tokenize: str,
) -> dict[str, Any]:
  """Measures the samples of some sources.

  Args:
    store: the samples, equally many of every source.
    rows: int [n], the sampled rows of `pairs`, rising.
    max_sources: number of sources to measure, evenly spread; None for all.

  Returns:
    The fields of `variant.Diagnostics` except those of `distance_to_bc`.
  """
  chosen = pair_store.spread_rows(len(rows), max_sources)
  # The store is in the order of sources: [chosen, samples] -> [n]
  num_samples = len(store) // len(rows)
  in_store = (chosen[:, None] * num_samples + np.arange(num_samples)).reshape(
    -1
  )
  texts = data.vocabulary.decode_batch([store.tokens[int(r)] for r in in_store])
  sources = [pairs.source_text(int(row)) for row in store.source_id[in_store]]
  references = pair_store.texts_of(pairs, rows[chosen])[1]
  train = data.pairs(task_lib.TRAIN)
  languages = hacking.LanguageClassifier(
    *pair_store.texts_of(
      train, pair_store.spread_rows(len(train), _LANGUAGE_PAIRS)
    )
  )
  return {
    'sources': len(chosen),
    'repetition': hacking.repetition(texts),
    'distinct_1': hacking.distinct(texts, 1),
    'distinct_2': hacking.distinct(texts, 2),
    'self_bleu': hacking.self_bleu(
      [
        texts[start : start + num_samples]
        for start in range(0, len(texts), num_samples)
      ],
      tokenize=tokenize,
    ),
    'wrong_language': languages.wrong(texts),
    'wrong_language_references': languages.wrong(references),
    'copied': hacking.copied(sources, texts),
  }


def distance_to_bc(
  decode: sampler_lib.DecodeConfig,
  loaded: draw_samples.LoadedPolicy,
  *,
  policy_directory: str | pathlib.Path,
  bc_directory: str | pathlib.Path,
  pairs: pair_store.PairStore,
  rows: np.ndarray,
  seed: int,
) -> dict[str, Any]:
  """Estimates KL(pi || pi_BC) from samples drawn at temperature 1.

  Args:
    rows: int [n], rows of `pairs` to sample for, rising.

  Returns:
    `kl_to_bc`, nats per sequence with its standard error, and
    `kl_to_bc_per_token`; 0 for BC itself.
  """
  kl, per_token = metrics.Estimate(0.0, 0.0), 0.0
  if policies.digest(policy_directory) != policies.digest(bc_directory):
    network, mesh_config = loaded.network, loaded.mesh_config
    tokens, ids = loaded.draw(
      decode.untempered(), pairs, rows, seed=seed, description='KL to BC'
    )
    forced = teacher_forcing.Rows(
      sources=(pairs.source_tokens, ids),
      targets=(tokens, np.arange(len(tokens))),
      mesh_config=mesh_config,
    )
    bc_params = policies.load(
      bc_directory, network.unconditioned(), mesh_config
    )
    divergences = forced.divergences(network, loaded.params, bc_params)
    kl, per_token = hacking.divergence(divergences, tokens.lengths, ids)
  return {
    'kl_to_bc': {'mean': kl.mean, 'stderr': kl.stderr},
    'kl_to_bc_per_token': per_token,
  }
