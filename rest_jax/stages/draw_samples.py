"""Samples of a policy, drawn into a store shard by shard.

A shard that is complete is never made again.
"""

from collections.abc import Sequence
import dataclasses
import pathlib

import numpy as np

from rest_jax import types
from rest_jax.data import pair_store, sample_store
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.parallel import processes
from rest_jax.runtime import profiling
from rest_jax.runtime import progress as progress_lib
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import base, policies, prepare
from rest_jax.stages import context as context_lib
from rest_jax.training import teacher_forcing

Shards = Sequence[tuple[int, int]]

# Evaluations and the choice of checkpoints sample more than a Grow of the demo
# does, and compiled programs are kept for later runs.
_GROWS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawer:
  """A policy that draws into a store.

  Attributes:
    sampler: draws N samples a source.
    policy: the network, for the references' log-probabilities.
    params: of the policy.
    mesh_config: devices and rules.
    seed: of the draws.
    grow_step: g; part of the draws' key.
  """

  sampler: sampler_lib.Sampler
  policy: policy_lib.Policy
  params: types.Params
  mesh_config: mesh_lib.MeshConfig
  seed: int
  grow_step: int = 0

  @classmethod
  def of_stage(
    cls,
    stage: base.PolicyStage,
    decode: sampler_lib.DecodeConfig,
    context: context_lib.Context,
    *,
    seed: int,
    grow_step: int = 0,
  ) -> 'Drawer':
    """The policy of a finished stage."""
    policy, mesh_config = stage.network(context), context.mesh
    return cls(
      # Each process makes shards of its own.
      sampler=policy_sampler(
        policy, decode, mesh_config, context.data, is_shared=False
      ),
      policy=policy,
      params=policies.load(stage.policy_folder, policy, mesh_config),
      mesh_config=mesh_config,
      seed=seed,
      grow_step=grow_step,
    )


def sample(
  directory: pathlib.Path,
  drawer: Drawer,
  *,
  pairs: pair_store.PairStore,
  rows: np.ndarray,
  shards: Shards,
  description: str,
  with_references: bool = False,
  share: processes.Share | None = None,
) -> None:
  """Samples every source into the shards that are missing.

  Several processes make the shards of their shares, without each other.

  Args:
    directory: the store's folder.
    drawer: what draws.
    pairs: the sources.
    rows: int [n], rows of `pairs` to sample for, rising.
    shards: ranges of positions in `rows`.
    description: the words before the progress bar.
    with_references: store each source's reference beside its samples.
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
        for block in drawer.sampler.sample(
          drawer.params,
          pairs.source_tokens,
          rows[start:stop],
          seed=drawer.seed,
          grow_step=drawer.grow_step,
          progress=progress.advance,
          trace=trace,
        )
      ]
      if with_references:
        columns.append(_references(drawer, pairs, rows[start:stop]))
      sample_store.write_shard(
        directory,
        shard,
        len(shards),
        _join(columns),
        drawer.policy.config.vocab_size,
        drawer.policy.config.special_ids,
      )


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
  drawer: Drawer,
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
      mesh_config=drawer.mesh_config,
    ).log_probs(drawer.policy, drawer.params),
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
  data: prepare.PreparedData,
  *,
  lengths: np.ndarray | None = None,
  is_shared: bool = True,
) -> sampler_lib.Sampler:
  """Returns a sampler on the mesh that draws pieces of the vocabulary alone.

  Args:
    policy: the network.
    decode: settings of sampling.
    mesh_config: devices and rules.
    data: the prepared data.
    lengths: lengths of sources as many as it will sample for; None for those of
      some Grows, so that stages with equal settings share compiled programs.
    is_shared: see `Sampler`.
  """
  if lengths is None:
    lengths = data.pairs(data.grow_split).source_tokens.lengths
    lengths = np.tile(lengths, _GROWS)
  return sampler_lib.Sampler(
    policy,
    decode,
    mesh_config.build(),
    vocabulary_size=data.vocabulary.size,
    lengths=lengths,
    is_shared=is_shared,
  )
