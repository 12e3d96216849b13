"""Stage `grow`: sample D_g from the latest policy and score it once."""

import dataclasses
import pathlib
import time

import jax
import numpy as np

from rest_jax.data import sample_store
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import normalize
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import collect, policies, prepare, sample_events
from rest_jax.stages import folder as folder_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class GrowConfig:
  """What to sample.

  Attributes:
    decode: number of samples, temperature, length, block shape. The paper
      samples at temperature 0.8 (N = 100, 25 or 1,000).
    sources_per_shard: sources in a shard of the store, which is what is lost
      when a Grow is cut off.
    max_sources: sample for the first sources only; None for all.
  """

  decode: sampler_lib.DecodeConfig
  sources_per_shard: int = 2048
  max_sources: int | None = None

  def __post_init__(self):
    if self.sources_per_shard < 1:
      raise ValueError(
        f'sources_per_shard must be at least 1; got {self.sources_per_shard}'
      )
    if self.max_sources is not None and self.max_sources < 1:
      raise ValueError(
        f'max_sources must be at least 1, or None for all; got '
        f'{self.max_sources}'
      )
    if self.decode.temperature <= 0:
      raise ValueError(
        'Grow needs a positive temperature (the paper: 0.8); got '
        f'{self.decode.temperature}'
      )


def run(
  config: GrowConfig,
  *,
  grow_step: int,
  policy: policy_lib.Policy,
  policy_directory: str | pathlib.Path,
  data: prepare.PreparedData,
  reward: rewards_base.Reward,
  normalizer: normalize.Normalizer | None,
  mesh_config: mesh_lib.MeshConfig,
  directory: str | pathlib.Path,
  seed: int,
  overwrite: bool = False,
) -> pathlib.Path:
  """Makes D_g: N samples of every source, the references, and their rewards.

  Source: ReST (arXiv 2308.08998), section 3 "Grow" and Algorithm 1.

  Args:
    config: see `GrowConfig`.
    grow_step: g, from 1.
    policy: the network.
    policy_directory: a finished `bc` or `improve` folder; its best policy
      samples.
    data: the prepared data.
    reward: scores every distinct (source, text) once.
    normalizer: of the run; None at the first Grow, which fixes it from the 0.5
      and 99.5 percentiles of D_1.
    mesh_config: devices and rules.
    directory: the folder to write; shards that are there are kept.
    seed: of the draws.
    overwrite: see `folder.begin`.

  Returns:
    The finished folder.
  """
  folder = folder_lib.begin(
    directory,
    {
      'grow': config,
      'grow_step': grow_step,
      'seed': seed,
      'network': policy.config,
      'policy': policies.digest(policy_directory),
      'data': data.digest,
      'reward': {'name': reward.name, 'digest': reward.digest},
      'normalizer': None if normalizer is None else normalizer.to_json(),
      'platform': jax.default_backend(),
    },
    overwrite=overwrite,
  )
  if folder.is_finished:
    return folder.path
  pairs = data.pairs(data.grow_split)
  collect.check_references(reward, pairs, data.grow_split)
  num_sources = min(len(pairs), config.max_sources or len(pairs))
  shards = sample_store.shard_ranges(num_sources, config.sources_per_shard)
  started = time.monotonic()
  collect.sample(
    folder.path,
    sampler=collect.policy_sampler(
      policy, config.decode, mesh_config, data.vocabulary
    ),
    params=policies.load(policy_directory, policy, mesh_config),
    policy=policy,
    mesh_config=mesh_config,
    pairs=pairs,
    rows=np.arange(num_sources),
    shards=shards,
    seed=seed,
    grow_step=grow_step,
    with_references=pairs.reference_tokens is not None,
    description=f'grow {grow_step}: sample',
  )
  sampled = time.monotonic()
  normalizer = collect.score(
    folder.path,
    reward=reward,
    num_shards=len(shards),
    pairs=pairs,
    vocabulary=data.vocabulary,
    normalizer=normalizer,
    description=f'grow {grow_step}: score',
  )
  scored = time.monotonic()
  entries = sample_store.shard_entries(folder.path, len(shards))
  sample_events.write(
    folder.path,
    entries,
    reward_name=reward.name,
    pairs=pairs,
    vocabulary=data.vocabulary,
    step=grow_step,
  )
  opened = [
    sample_store.Shard(folder.path / entry['file']) for entry in entries
  ]
  folder.finish(
    {
      'schema_version': sample_store.SCHEMA_VERSION,
      'num_sources': num_sources,
      'num_rows': sum(entry['rows'] for entry in entries),
      'num_samples_per_source': config.decode.num_samples_per_source,
      'num_unfinished': int(sum((~shard.finished).sum() for shard in opened)),
      'num_tokens': int(sum(shard.tokens.lengths.sum() for shard in opened)),
      'grow_step': grow_step,
      'split': data.grow_split,
      'seed': seed,
      'temperature': config.decode.temperature,
      'max_target_length': config.decode.max_target_length,
      'block_sources': config.decode.block_sources,
      'dtype': policy.config.dtype,
      'platform': jax.default_backend(),
      'policy_digest': policies.digest(policy_directory),
      'vocabulary_digest': data.vocabulary.digest,
      'rewards': rewards_base.describe(reward),
      'normalizer': normalizer.to_json(),
      # Of the last start alone, if the stage was cut off.
      'seconds': {'grow': sampled - started, 'score': scored - sampled},
      'shards': entries,
    }
  )
  return folder.path
