"""Samples of a policy: in memory, or in a sample store shard by shard.

A shard that is complete is not drawn again.
"""

from collections.abc import Sequence
import dataclasses
import pathlib

import numpy as np

from rest_jax import types
from rest_jax.data import pair_store, ragged, sample_store
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

# Sources that a sampler is planned for, in multiples of the sources of one Grow.
# Evaluations and the choice of checkpoints sample more than a Grow of the demo
# does, and compiled programs are kept for later runs.
_GROWS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedPolicy:
  """A policy with its parameters on the mesh."""

  network: policy_lib.Policy
  params: types.Params
  data: prepare.PreparedData
  mesh_config: mesh_lib.MeshConfig

  @classmethod
  def of_stage(
    cls, stage: base.PolicyStage, context: context_lib.Context
  ) -> 'LoadedPolicy':
    """Loads the policy of a finished stage."""
    network = stage.network(context)
    return cls(
      network=network,
      params=policies.load(stage.policy_folder, network, context.mesh),
      data=context.data,
      mesh_config=context.mesh,
    )

  def draw(
    self,
    decode: sampler_lib.DecodeConfig,
    pairs: pair_store.PairStore,
    rows: np.ndarray,
    *,
    seed: int,
    description: str,
  ) -> tuple[ragged.Ragged, np.ndarray]:
    """Draws samples without storing them.

    Args:
      rows: int [n], rows of `pairs` to sample for, rising.
      description: label of the progress bar.

    Returns:
      The tokens of n * N samples in the order of `rows`, and the row of each
      sample's source, int [n * N].
    """
    sampler = policy_sampler(self.network, decode, self.mesh_config, self.data)
    tokens, ids = [], []
    with progress_lib.Progress(description, len(rows), 'source') as progress:
      for block in sampler.sample(
        self.params,
        pairs.source_tokens,
        rows,
        seed=seed,
        grow_step=0,
        progress=progress.advance,
      ):
        tokens += [sample for samples in block.tokens for sample in samples]
        ids.append(np.repeat(block.source_ids, block.finished.shape[1]))
    return ragged.Ragged.from_lists(tokens), np.concatenate(ids)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawer:
  """Draws samples of a policy into a store.

  Attributes:
    grow_step: g; part of the random key.
  """

  loaded: LoadedPolicy
  decode: sampler_lib.DecodeConfig
  seed: int
  grow_step: int = 0


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
  """Samples for every source of the shards that are missing.

  Each process makes the shards of its share, independently of the others.

  Args:
    drawer: the policy and how it is sampled.
    rows: int [n], rows of `pairs` to sample for, rising.
    shards: ranges of positions in `rows`.
    with_references: store each source's reference beside its samples.
    share: the shards to make here; None for the share of this process.
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
  loaded = drawer.loaded
  sampler = policy_sampler(
    loaded.network,
    drawer.decode,
    loaded.mesh_config,
    loaded.data,
    is_shared=False,
  )
  total = sum(stop - start for start, stop in missing.values())
  with (
    progress_lib.Progress(description, total, 'source') as progress,
    profiling.Trace(directory, 'sample') as trace,
  ):
    for shard, (start, stop) in missing.items():
      columns = [
        _columns(block)
        for block in sampler.sample(
          loaded.params,
          pairs.source_tokens,
          rows[start:stop],
          seed=drawer.seed,
          grow_step=drawer.grow_step,
          progress=progress.advance,
          trace=trace,
        )
      ]
      if with_references:
        columns.append(_references(loaded, pairs, rows[start:stop]))
      sample_store.write_shard(
        directory,
        shard,
        len(shards),
        _join(columns),
        loaded.network.config.vocab_size,
        loaded.network.config.special_ids,
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
  loaded: LoadedPolicy, pairs: pair_store.PairStore, rows: np.ndarray
) -> sample_store.SampleRows:
  """Returns the references as rows, scored by teacher forcing."""
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
      mesh_config=loaded.mesh_config,
    ).log_probs(loaded.network, loaded.params),
    finished=np.ones(len(rows), bool),
  )


def _join(parts: Sequence[sample_store.SampleRows]) -> sample_store.SampleRows:
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
  """Returns a sampler on the mesh that draws only pieces of the vocabulary.

  Args:
    lengths: source lengths that programs are planned for, one per source to be
      sampled for; None for those of a few Grow steps, so that stages with equal
      settings share compiled programs.
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
