"""Stage `grow`: samples D_g from the latest policy and scores it once."""

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
from rest_jax.parallel import processes
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import normalize
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import (
  base,
  draw_samples,
  policies,
  run_reward,
  sample_events,
  samples_without_eos,
  score_samples,
)
from rest_jax.stages import context as context_lib
from rest_jax.stages import folder as folder_lib
from rest_jax.storage import lock


@dataclasses.dataclass(frozen=True, kw_only=True)
class GrowConfig:
  """Settings of a Grow step.

  Attributes:
    decode: number of samples, temperature, length, block shape. The paper
      samples at temperature 0.8 (N = 100, 25 or 1,000).
    sources_per_shard: number of sources per shard of the store. An interrupted
      Grow loses the shard it was working on.
    max_sources: number of sources to sample for, the first ones; None for all.
    worker: index of this worker, from 0. Each worker is a run of its own, which
      makes its own shards. None for one run that makes all shards.
    num_workers: number of workers.
  """

  decode: sampler_lib.DecodeConfig
  sources_per_shard: int = 2048
  max_sources: int | None = None
  # These do not change D_g, only which run makes it.
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


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Grow(base.Stage):
  """Makes D_g: N samples of every source, the references, and their rewards.

  A worker leaves the folder unfinished while shards of other workers are
  missing; the last worker, or a run without workers, finishes it.

  Source: ReST (arXiv 2308.08998), section 3 "Grow" and Algorithm 1.

  Attributes:
    reward: scores every distinct (source, text) once. It has no scale at the
      first Grow, which fixes the scale from the 0.5 and 99.5 percentiles of
      D_1.
  """

  config: GrowConfig
  policy: base.PolicyStage
  reward: run_reward.RunReward
  data: base.Stage
  seed: int

  run_mode = 'grow'
  help = 'Samples D_g from the latest policy and scores it; see --grow_step.'
  pattern = r'grow_(?P<grow_step>\d+)'
  given_as = 'grow'

  @property
  def name(self) -> str:
    return f'grow_{self.grow_step}'

  @property
  def inputs(self) -> dict[str, base.Stage]:
    return {'data': self.data, 'policy': self.policy, **self.reward.inputs}

  @property
  def _normalizer(self) -> normalize.Normalizer | None:
    return None if self.reward.scale is None else self.reward.normalizer()

  def check(self, context: context_lib.Context) -> None:
    self.reward.check_agreement(context)
    is_several = context.overwrite or processes.count() > 1
    if self.config.worker is not None and not self.is_given and is_several:
      raise ValueError(
        'a worker shares its folder with others, so that it neither overwrites '
        'nor is one of several processes. Leave --overwrite and --distributed '
        'out, or GROW_WORKER.'
      )

  def settings(self, context: context_lib.Context) -> dict[str, Any]:
    normalizer = self._normalizer
    return {
      'grow': self.config,
      'grow_step': self.grow_step,
      'seed': self.seed,
      'network': self.policy.network(context).config,
      'policy': policies.digest(self.policy.policy_folder),
      'data': context.data.digest,
      'reward': self.reward.described(context),
      'normalizer': None if normalizer is None else normalizer.to_json(),
      'platform': jax.default_backend(),
    }

  def make(
    self, context: context_lib.Context, output: folder_lib.StageFolder
  ) -> dict[str, Any] | None:
    data, reward = context.data, self.reward.load(context)
    pairs = data.pairs(data.grow_split)
    score_samples.check_references(reward, pairs, data.grow_split)
    num_sources = len(pairs)
    if self.config.max_sources is not None:
      num_sources = min(num_sources, self.config.max_sources)
    shards = sample_store.shard_ranges(
      num_sources, self.config.sources_per_shard
    )
    share = processes.share()
    if self.config.worker is not None:
      share = processes.Share(self.config.worker, self.config.num_workers)
    started = time.monotonic()
    self._sample(context, output.path, shards, share)
    sampled = time.monotonic()
    store = score_samples.Store(
      output.path, len(shards), pairs, data.vocabulary
    )
    description = f'grow {self.grow_step}: score'
    if self.config.worker is not None:
      own = [shard for shard in range(len(shards)) if shard in share]
      score_samples.score_raw(
        store, reward=reward, shards=own, description=description
      )
      if not _is_last(output.held, output.path, reward.name, len(shards)):
        logging.info('grow %d: all shards of this worker done', self.grow_step)
        return None
    normalizer = score_samples.score(
      store,
      reward=reward,
      normalizer=self._normalizer,
      description=description,
    )
    scored = time.monotonic()
    return {
      # In one process: it reads all shards, which others need not download.
      **processes.by_main(
        f'grow {self.grow_step}: shards',
        lambda: self._of_shards(context, output, len(shards)),
      ),
      'num_sources': num_sources,
      'num_samples_per_source': self.config.decode.num_samples_per_source,
      'grow_step': self.grow_step,
      'split': data.grow_split,
      'seed': self.seed,
      'temperature': self.config.decode.temperature,
      'max_target_length': self.config.decode.max_target_length,
      'block_sources': self.config.decode.block_sources,
      'dtype': context.policy.config.dtype,
      'platform': jax.default_backend(),
      'policy_digest': policies.digest(self.policy.policy_folder),
      'vocabulary_digest': data.vocabulary.digest,
      'rewards': rewards_base.describe(reward),
      'normalizer': normalizer.to_json(),
      # Since the last start, if the stage was interrupted.
      'seconds': {'grow': sampled - started, 'score': scored - sampled},
    }

  def lines(self) -> list[str]:
    decode = self.config.decode
    return [
      f'  grow      {decode.num_samples_per_source} samples a source at '
      f'temperature {decode.temperature}'
    ]

  def _sample(
    self,
    context: context_lib.Context,
    directory: pathlib.Path,
    shards: draw_samples.Shards,
    share: processes.Share,
  ) -> None:
    """Draws the samples of missing shards."""
    pairs = context.data.pairs(context.data.grow_split)
    draw_samples.sample(
      directory,
      draw_samples.Drawer(
        loaded=draw_samples.LoadedPolicy.of_stage(self.policy, context),
        decode=self.config.decode,
        seed=self.seed,
        grow_step=self.grow_step,
      ),
      pairs=pairs,
      rows=np.arange(shards[-1][1] if shards else 0),
      shards=shards,
      description=f'grow {self.grow_step}: sample',
      with_references=pairs.reference_tokens is not None,
      share=share,
    )
    processes.barrier('sampled')

  def _of_shards(
    self,
    context: context_lib.Context,
    output: folder_lib.StageFolder,
    num_shards: int,
  ) -> dict[str, Any]:
    """Returns the manifest's fields on all shards; writes TensorBoard events."""
    entries = sample_store.shard_entries(output.path, num_shards)
    data = context.data
    sample_events.write(
      output.path,
      entries,
      reward_name=self.reward.load(context).name,
      pairs=data.pairs(data.grow_split),
      vocabulary=data.vocabulary,
      step=self.grow_step,
    )
    store = sample_store.SampleStore.unfinished(output.path, entries)
    num_unfinished = int((~store.finished).sum())
    is_sample = store.sample_id != sample_store.REFERENCE_SAMPLE_ID
    output.warn(
      samples_without_eos.message(
        num_unfinished,
        int(is_sample.sum()),
        self.config.decode.max_target_length,
      )
    )
    return {
      'schema_version': sample_store.SCHEMA_VERSION,
      'num_rows': len(store),
      'num_unfinished': num_unfinished,
      'num_tokens': int(store.tokens.lengths.sum()),
      'shards': entries,
    }


def _is_last(
  stack: contextlib.ExitStack,
  directory: pathlib.Path,
  reward_name: str,
  num_shards: int,
) -> bool:
  """Whether a worker is the first to find all shards scored.

  If so, it holds the lock of the folder until `stack` is closed.
  """
  if not score_samples.is_scored_raw(directory, reward_name, num_shards):
    return False
  try:
    stack.enter_context(lock.held(directory))
  except lock.LockedError:
    return False
  # Another worker may have finished it in between.
  return not folder_lib.is_finished(directory)
