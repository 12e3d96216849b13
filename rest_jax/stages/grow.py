"""Stage `grow`: sample D_g from the latest policy and score it once."""

import contextlib
import dataclasses
import pathlib
import time
from typing import Any

from absl import logging
import jax
import numpy as np

from rest_jax import settings as settings_lib
from rest_jax.data import sample_store
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.parallel import processes
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import normalize
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import (
  draw_samples,
  policies,
  prepare,
  sample_events,
  score_samples,
  unfinished,
)
from rest_jax.stages import folder as folder_lib
from rest_jax.storage import lock


@dataclasses.dataclass(frozen=True, kw_only=True)
class GrowConfig:
  """What to sample.

  Attributes:
    decode: number of samples, temperature, length, block shape. The paper
      samples at temperature 0.8 (N = 100, 25 or 1,000).
    sources_per_shard: sources in a shard of the store, which is what is lost
      when a Grow is cut off.
    max_sources: sample for the first sources only; None for all.
    worker: which of several workers this is, from 0, each a run of its own that
      makes its shards without the others; None for a run that makes all.
    num_workers: how many there are.
  """

  decode: sampler_lib.DecodeConfig
  sources_per_shard: int = 2048
  max_sources: int | None = None
  # Not what D_g is, but who makes it.
  worker: int | None = settings_lib.recorded(default=None)
  num_workers: int = settings_lib.recorded(default=1)

  def __post_init__(self):
    settings_lib.at_least(self, 1, 'sources_per_shard')
    settings_lib.at_least(self, 1, 'max_sources', none='all')
    if self.num_workers < 1 or not 0 <= (self.worker or 0) < self.num_workers:
      raise ValueError(
        'worker must lie between 0 and num_workers - 1; got '
        f'{self.worker} of {self.num_workers}.'
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
    The folder: finished, unless this is a worker and shards of others are
    missing. A later run, of all or of the last worker, finishes it.

  Raises:
    ValueError: if a worker is to overwrite, or runs as several processes.
  """
  if config.worker is not None and (overwrite or processes.count() > 1):
    raise ValueError(
      'a worker shares its folder with others, so that it neither overwrites nor '
      'is one of several processes. Leave --overwrite and --distributed out, or '
      'GROW_WORKER.'
    )
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
    origins={'policy': policy_directory, 'data': data.directory},
  )
  if folder.is_finished:
    return folder.path
  pairs = data.pairs(data.grow_split)
  score_samples.check_references(reward, pairs, data.grow_split)
  num_sources = len(pairs)
  if config.max_sources is not None:
    num_sources = min(num_sources, config.max_sources)
  shards = sample_store.shard_ranges(num_sources, config.sources_per_shard)
  share = processes.share()
  if config.worker is not None:
    share = processes.Share(config.worker, config.num_workers)
  started = time.monotonic()
  draw_samples.sample(
    folder.path,
    sampler=draw_samples.policy_sampler(
      policy, config.decode, mesh_config, data.vocabulary, is_shared=False
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
    share=share,
  )
  processes.barrier('sampled')
  sampled = time.monotonic()
  scoring = {
    'reward': reward,
    'num_shards': len(shards),
    'pairs': pairs,
    'vocabulary': data.vocabulary,
    'description': f'grow {grow_step}: score',
  }
  with contextlib.ExitStack() as stack:
    if config.worker is not None:
      own = [shard for shard in range(len(shards)) if shard in share]
      score_samples.score_raw(folder.path, shards=own, **scoring)
      if not _is_last(stack, folder.path, reward.name, len(shards)):
        logging.info('grow %d: this worker has done its shards', grow_step)
        return folder.path
    normalizer = score_samples.score(
      folder.path, normalizer=normalizer, **scoring
    )
    _finish(
      folder,
      grow_step=grow_step,
      reward=reward,
      data=data,
      num_shards=len(shards),
      manifest={
        'num_sources': num_sources,
        'num_samples_per_source': config.decode.num_samples_per_source,
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
        'seconds': {
          'grow': sampled - started,
          'score': time.monotonic() - sampled,
        },
      },
    )
  return folder.path


def _is_last(
  stack: contextlib.ExitStack,
  directory: pathlib.Path,
  reward_name: str,
  num_shards: int,
) -> bool:
  """Whether a worker finds all shards there and is the first to.

  Then it keeps the folder for itself until `stack` ends.
  """
  if not score_samples.is_scored_raw(directory, reward_name, num_shards):
    return False
  try:
    stack.enter_context(lock.held(directory))
  except lock.LockedError:
    return False
  # Another may have finished it in between.
  return not (directory / folder_lib.MANIFEST).exists()


def _finish(
  folder: folder_lib.StageFolder,
  *,
  grow_step: int,
  reward: rewards_base.Reward,
  data: prepare.PreparedData,
  num_shards: int,
  manifest: dict[str, Any],
) -> None:
  """Writes what is of all shards: events, and the manifest at last."""
  entries = sample_store.shard_entries(folder.path, num_shards)
  if processes.is_main():
    sample_events.write(
      folder.path,
      entries,
      reward_name=reward.name,
      pairs=data.pairs(data.grow_split),
      vocabulary=data.vocabulary,
      step=grow_step,
    )
  opened = [
    sample_store.Shard(folder.path / entry['file']) for entry in entries
  ]
  is_sample = [
    shard.sample_id != sample_store.REFERENCE_SAMPLE_ID for shard in opened
  ]
  num_unfinished = int(sum((~shard.finished).sum() for shard in opened))
  message = unfinished.message(
    num_unfinished,
    int(sum(rows.sum() for rows in is_sample)),
    manifest['max_target_length'],
  )
  if message:
    folder.warn(message)
  folder.finish(
    {
      'schema_version': sample_store.SCHEMA_VERSION,
      'num_rows': sum(entry['rows'] for entry in entries),
      'num_unfinished': num_unfinished,
      'num_tokens': int(sum(shard.tokens.lengths.sum() for shard in opened)),
      **manifest,
      'shards': entries,
    }
  )
