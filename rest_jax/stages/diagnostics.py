"""What shows reward hacking in a policy's samples, measured as it is evaluated."""

from collections.abc import Sequence
import pathlib
from typing import Any

import numpy as np

from rest_jax import types
from rest_jax.data import pair_store, ragged, sample_store
from rest_jax.evaluation import hacking, metrics
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.runtime import progress as progress_lib
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import draw_samples, policies, prepare
from rest_jax.training import teacher_forcing

# Training pairs from which the languages are learned.
_LANGUAGE_PAIRS = 2000


def measure(
  directory: pathlib.Path,
  entries: Sequence[dict[str, Any]],
  *,
  data: prepare.PreparedData,
  pairs: pair_store.PairStore,
  rows: np.ndarray,
  max_sources: int | None,
  tokenize: str,
) -> dict[str, Any]:
  """Measures the samples of some sources.

  Args:
    directory: of a sample store with as many samples of every source.
    entries: its shards.
    data: the prepared data.
    pairs: the sources.
    rows: int [n], the sampled rows of `pairs`, rising.
    max_sources: measure the samples of this many, evenly spread; None for all.
    tokenize: sacrebleu's tokeniser.

  Returns:
    The fields of `results.Diagnostics` but those of `distance_to_bc`.
  """
  shards = [sample_store.Shard(directory / entry['file']) for entry in entries]
  tokens = ragged.Ragged.concatenate([shard.tokens for shard in shards])
  ids = np.concatenate([shard.source_id for shard in shards])
  chosen = pair_store.spread_rows(len(rows), max_sources)
  # The store is in the order of sources: [chosen, samples] -> [n]
  each = len(ids) // len(rows)
  at = (chosen[:, None] * each + np.arange(each)).reshape(-1)
  texts = data.vocabulary.decode_batch([tokens[int(row)] for row in at])
  sources = [pairs.source_text(int(row)) for row in ids[at]]
  references = pair_store.texts_of(pairs, rows[chosen])[1]
  languages = _languages(data)
  return {
    'sources': len(chosen),
    'repetition': hacking.repetition(texts),
    'distinct_1': hacking.distinct(texts, 1),
    'distinct_2': hacking.distinct(texts, 2),
    'self_bleu': hacking.self_bleu(
      [texts[start : start + each] for start in range(0, len(texts), each)],
      tokenize=tokenize,
    ),
    'wrong_language': languages.wrong(texts),
    'wrong_language_references': languages.wrong(references),
    'copied': hacking.copied(sources, texts),
  }


def distance_to_bc(
  decode: sampler_lib.DecodeConfig,
  *,
  params: types.Params,
  policy: policy_lib.Policy,
  policy_directory: str | pathlib.Path,
  bc_directory: str | pathlib.Path,
  data: prepare.PreparedData,
  pairs: pair_store.PairStore,
  rows: np.ndarray,
  max_sources: int | None,
  mesh_config: mesh_lib.MeshConfig,
  seed: int,
) -> dict[str, Any]:
  """Estimates KL(pi || pi_BC) from draws at temperature 1.

  Args:
    decode: number of samples per source, length and block shape.
    params: parameters of the policy.
    policy: its network.
    policy_directory: its folder.
    bc_directory: the folder of BC.
    data: the prepared data.
    pairs: the sources.
    rows: int [n], rows of `pairs`, rising.
    max_sources: draw for this many of them, evenly spread; None for all.
    mesh_config: devices and rules.
    seed: sampling seed.

  Returns:
    `kl_to_bc`, nats per sequence with its standard error, and
    `kl_to_bc_per_token`; 0 for BC itself.
  """
  kl, per_token = metrics.Estimate(0.0, 0.0), 0.0
  if policies.digest(policy_directory) != policies.digest(bc_directory):
    tokens, ids = draw(
      decode.untempered(),
      params=params,
      policy=policy,
      data=data,
      pairs=pairs,
      rows=rows[pair_store.spread_rows(len(rows), max_sources)],
      mesh_config=mesh_config,
      seed=seed,
      description='KL to BC',
    )
    forced = teacher_forcing.Rows(
      sources=(pairs.source_tokens, ids),
      targets=(tokens, np.arange(len(tokens))),
      mesh_config=mesh_config,
    )
    bc_params = policies.load(bc_directory, policy.unconditioned(), mesh_config)
    divergences = forced.divergences(policy, params, bc_params)
    kl, per_token = hacking.divergence(divergences, tokens.lengths, ids)
  return {
    'kl_to_bc': {'mean': kl.mean, 'stderr': kl.stderr},
    'kl_to_bc_per_token': per_token,
  }


def draw(
  decode: sampler_lib.DecodeConfig,
  *,
  params: types.Params,
  policy: policy_lib.Policy,
  data: prepare.PreparedData,
  pairs: pair_store.PairStore,
  rows: np.ndarray,
  mesh_config: mesh_lib.MeshConfig,
  seed: int,
  description: str,
) -> tuple[ragged.Ragged, np.ndarray]:
  """Draws samples that are not stored; returns their tokens and source ids."""
  sampler = draw_samples.policy_sampler(policy, decode, mesh_config, data)
  tokens, ids = [], []
  with progress_lib.Progress(description, len(rows), 'source') as progress:
    for block in sampler.sample(
      params,
      pairs.source_tokens,
      rows,
      seed=seed,
      grow_step=0,
      progress=progress.advance,
    ):
      tokens += [sample for samples in block.tokens for sample in samples]
      ids.append(np.repeat(block.source_ids, block.finished.shape[1]))
  return ragged.Ragged.from_lists(tokens), np.concatenate(ids)


def _languages(data: prepare.PreparedData) -> hacking.LanguageClassifier:
  pairs = data.pairs(prepare.TRAIN)
  rows = pair_store.spread_rows(len(pairs), _LANGUAGE_PAIRS)
  return hacking.LanguageClassifier(*pair_store.texts_of(pairs, rows))
