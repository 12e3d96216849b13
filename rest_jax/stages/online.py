"""Stage `online`: reinforcement learning from the BC policy, ReST's baseline."""

import pathlib
from typing import Any

import jax
import numpy as np

from rest_jax.data import pair_store
from rest_jax.models import policy as policy_lib
from rest_jax.online import ppo, rollout
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import normalize
from rest_jax.stages import draw_samples, policies, prepare, unfinished
from rest_jax.stages import folder as folder_lib
from rest_jax.training import journal
from rest_jax.training import trainer as trainer_lib


def run(
  config: ppo.PPOConfig,
  *,
  policy: policy_lib.Policy,
  bc_directory: str | pathlib.Path,
  grow_directory: str | pathlib.Path,
  data: prepare.PreparedData,
  reward: rewards_base.Reward,
  normalizer: normalize.Normalizer,
  evaluate_fn: trainer_lib.EvaluateFn,
  evaluation_settings: dict[str, Any],
  mesh_config: mesh_lib.MeshConfig,
  directory: str | pathlib.Path,
  seed: int,
  overwrite: bool = False,
) -> pathlib.Path:
  """Trains on the policy's own samples for the sources that Grow samples for.

  Source: ReST (arXiv 2308.08998), section 4 "ReST vs Online RL".

  Args:
    config: see `PPOConfig`.
    policy: the network.
    bc_directory: finished BC: where training starts, and what KL is to.
    grow_directory: the first Grow; says the sources and, where the settings
      do not, the number of samples.
    data: the prepared data.
    reward: scores the samples.
    normalizer: of the run.
    evaluate_fn: sampled validation reward, as Improve steps use.
    evaluation_settings: what feeds it, for the record.
    mesh_config: devices and rules.
    directory: the folder to write.
    seed: of draws, batches and the critic's head.
    overwrite: see `folder.begin`.

  Returns:
    The finished folder.
  """
  grown = folder_lib.read_manifest(grow_directory)
  num_sources = grown['num_sources']
  num_samples = config.num_samples
  if num_samples is None:
    num_samples = num_sources * grown['num_samples_per_source']
  folder = folder_lib.begin(
    directory,
    {
      'online': config,
      'num_samples': num_samples,
      'sources': {'split': grown['split'], 'number': num_sources},
      'network': policy.config,
      'init': policies.digest(bc_directory),
      'data': data.digest,
      'reward': {'name': reward.name, 'digest': reward.digest},
      'normalizer': normalizer.to_json(),
      'evaluation': evaluation_settings,
      'seed': seed,
      'platform': jax.default_backend(),
    },
    overwrite=overwrite,
    origins={'init': bc_directory, 'data': data.directory},
  )
  if folder.is_finished:
    return folder.path
  bc_params = policies.load(bc_directory, policy, mesh_config)
  sampler = draw_samples.policy_sampler(
    policy, config.decode, mesh_config, data.vocabulary
  )
  untempered = draw_samples.policy_sampler(
    policy, config.decode.untempered(), mesh_config, data.vocabulary
  )
  held_out = data.pairs(prepare.VALIDATION)
  mesh = mesh_config.build()
  kl_to_bc = rollout.KLToBC(
    sampler=untempered,
    policy=policy,
    bc_params=bc_params,
    pairs=held_out,
    rows=pair_store.spread_rows(len(held_out), config.sources_per_iteration),
    batching=config.batching(mesh),
    mesh=mesh,
    # Not the training's, whose draws have the same numbers.
    seed=seed ^ 1,
  )
  result = ppo.train(
    config,
    policy=policy,
    bc_params=bc_params,
    environment=rollout.Environment(
      sampler=sampler,
      pairs=data.pairs(grown['split']),
      num_sources=num_sources,
      vocabulary=data.vocabulary,
      reward=reward,
      normalizer=normalizer,
      seed=seed,
    ),
    num_samples=num_samples,
    evaluate_fn=lambda params, step: {
      **evaluate_fn(params, step),
      **kl_to_bc(params),
    },
    mesh_config=mesh_config,
    directory=folder.path,
    seed=seed,
    description=f'online {config.name}',
  )
  shares = [
    line['unfinished']
    for line in journal.read_metrics(folder.path)
    if line['split'] == 'train'
  ]
  message = unfinished.message(
    round(float(np.mean(shares)) * result['cost']['samples']),
    result['cost']['samples'],
    config.decode.max_target_length,
  )
  if message:
    folder.warn(message)
  folder.finish({**result, 'vocabulary': data.described_vocabulary})
  return folder.path
