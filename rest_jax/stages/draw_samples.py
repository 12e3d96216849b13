"""Samples of a policy, drawn into a store shard by shard.

A shard that is complete is never made again.
"""

from collections.abc import Sequence
import pathlib

import numpy as np

from rest_jax import types
from rest_jax.data import pair_store, sample_store, vocabularies
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.parallel import processes
from rest_jax.runtime import profiling
from rest_jax.runtime import progress as progress_lib
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.storage import remote
from rest_jax.training import teacher_forcing

Shards = Sequence[tuple[int, int]]


def sample(
  directory: pathlib.Path,
  *,
  sampler: sampler_lib.Sampler,
  params: types.Params,
  policy: policy_lib.Policy,
  mesh_config: mesh_lib.MeshConfig,
  pairs: pair_store.PairStore,
  rows: np.ndarray,
  shards: Shards,
  seed: int,
  grow_step: int,
  with_references: bool,
  description: str,
  share: processes.Share | None = None,
) -> None:
  """Samples every source into the shards that are missing.

  Several processes make the shards of their shares, without each other.

  Args:
    directory: the store's folder.
    sampler: draws N samples a source.
    params: of the policy.
    policy: the network, for the references' log-probabilities.
    mesh_config: devices and rules.
    pairs: the sources.
    rows: int [n], rows of `pairs` to sample for, rising.
    shards: ranges of positions in `rows`.
    seed: of the draws.
    grow_step: g; part of the draws' key.
    with_references: store each source's reference beside its samples.
    description: the words before the progress bar.
    share: which shards are made here; None for the share of this process.
  """
  share = share or processes.share()
  done = sample_store.finished_shards(directory, len(shards))
  missing = {
    shard: bounds
    for shard, bounds in enumerate(shards)
    if shard in share and shard not in done
  }
  if not missing:
    return
  total = sum(stop - start for start, stop in missing.values())
  with (
    progress_lib.Progress(description, total, 'source') as progress,
    profiling.Trace(directory, 'sample') as trace,
  ):
    for shard, (start, stop) in missing.items():
      columns = [
        _columns(block)
        for block in sampler.sample(
          params,
          pairs.source_tokens,
          rows[start:stop],
          seed=seed,
          grow_step=grow_step,
          progress=progress.advance,
          trace=trace,
        )
      ]
      if with_references:
        columns.append(
          _references(params, policy, mesh_config, pairs, rows[start:stop])
        )
      sample_store.write_shard(
        directory,
        shard,
        len(shards),
        _join(columns),
        policy.config.vocab_size,
      )
      remote.push()


def _columns(block: sampler_lib.SampleBlock) -> sample_store.SampleRows:
  num_sources, num_samples = block.log_probs.shape
  return sample_store.SampleRows(
    source_id=np.repeat(np.asarray(block.source_ids, np.int64), num_samples),
    sample_id=np.tile(np.arange(num_samples, dtype=np.int32), num_sources),
    tokens=[tokens for samples in block.tokens for tokens in samples],
    log_prob=np.asarray(block.log_probs, np.float32).reshape(-1),
    finished=np.asarray(block.finished, bool).reshape(-1),
  )


def _references(
  params: types.Params,
  policy: policy_lib.Policy,
  mesh_config: mesh_lib.MeshConfig,
  pairs: pair_store.PairStore,
  rows: np.ndarray,
) -> sample_store.SampleRows:
  """The references as rows, with their log-probability by teacher forcing."""
  references = pairs.reference_tokens
  if references is None:
    raise ValueError('pairs must have references to be stored; got none')
  return sample_store.SampleRows(
    source_id=np.asarray(rows, np.int64),
    sample_id=np.full(len(rows), sample_store.REFERENCE_SAMPLE_ID, np.int32),
    tokens=[references[int(row)] for row in rows],
    log_prob=teacher_forcing.Rows(
      sources=(pairs.source_tokens, rows),
      targets=(references, rows),
      mesh_config=mesh_config,
    ).log_probs(policy, params),
    finished=np.ones(len(rows), bool),
  )


def _join(
  parts: Sequence[sample_store.SampleRows],
) -> sample_store.SampleRows:
  return sample_store.SampleRows(
    source_id=np.concatenate([part.source_id for part in parts]),
    sample_id=np.concatenate([part.sample_id for part in parts]),
    tokens=[tokens for part in parts for tokens in part.tokens],
    log_prob=np.concatenate([part.log_prob for part in parts]),
    finished=np.concatenate([part.finished for part in parts]),
  )


def policy_sampler(
  policy: policy_lib.Policy,
  decode: sampler_lib.DecodeConfig,
  mesh_config: mesh_lib.MeshConfig,
  vocabulary: vocabularies.Vocabulary,
  *,
  is_shared: bool = True,
) -> sampler_lib.Sampler:
  """Returns a sampler on the mesh that draws pieces of the vocabulary alone."""
  return sampler_lib.Sampler(
    policy,
    decode,
    mesh_config.build(),
    vocabulary_size=vocabulary.size,
    is_shared=is_shared,
  )
