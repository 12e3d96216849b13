"""Stage `online`: online reinforcement learning from BC, a baseline for ReST."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import numpy as np

from rest_jax import types
from rest_jax.data import pair_store
from rest_jax.data import task as task_lib
from rest_jax.online import ppo, rollout
from rest_jax.stages import (
  base,
  draw_samples,
  policies,
  run_reward,
  samples_without_eos,
)
from rest_jax.stages import context as context_lib
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import selection as selection_lib
from rest_jax.training import journal
from rest_jax.training import trainer as trainer_lib


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Online(base.PolicyStage):
  """Trains on samples of the current policy, for the sources of the first Grow.

  Source: ReST (arXiv 2308.08998), section 4 "ReST vs Online RL".

  Attributes:
    bc: finished BC: the initial policy, and the reference of the KL penalty.
    grow: the first Grow, which determines the sources and, unless `config`
      does, the number of samples.
    selection: chooses the checkpoint, as in Improve steps.
  """

  config: ppo.PPOConfig
  bc: base.PolicyStage
  data: base.Stage
  grow: base.Stage
  reward: run_reward.RunReward
  selection: selection_lib.Selection
  seed: int

  run_mode = 'online'
  help = 'Trains the online baseline from BC, if there is one.'
  is_profiled = False
  pattern = r'online_\w+'
  missing = (
    'Experiment.online must say how to train online; got None. Add '
    '--gin_file=gin_configs/online/ppo.gin.'
  )
  is_online = True

  @property
  def title(self) -> str:
    return 'online'

  @property
  def inputs(self) -> dict[str, base.Stage]:
    return {
      'data': self.data,
      'init': self.bc,
      'grow': self.grow,
      **self.reward.inputs,
      **self.selection.inputs,
    }

  def _num_samples(self, grown: Mapping[str, Any]) -> int:
    if self.config.num_samples is not None:
      return self.config.num_samples
    return grown['num_sources'] * grown['num_samples_per_source']

  def check(self, context: context_lib.Context) -> None:
    self.reward.check_agreement(context)

  def settings(self, context: context_lib.Context) -> dict[str, Any]:
    grown = self.grow.manifest()
    return {
      'online': self.config,
      'num_samples': self._num_samples(grown),
      'sources': {'split': grown['split'], 'number': grown['num_sources']},
      'network': context.policy.config,
      'init': policies.digest(self.bc.folder),
      'data': context.data.digest,
      'reward': self.reward.described(context),
      'normalizer': self.reward.normalizer().to_json(),
      'evaluation': self.selection.settings(context),
      'seed': self.seed,
      'platform': jax.default_backend(),
    }

  def make(
    self, context: context_lib.Context, output: folder_lib.StageFolder
  ) -> dict[str, Any]:
    config, policy, data = self.config, context.policy, context.data
    grown = self.grow.manifest()
    bc_params = policies.load(self.bc.folder, policy, context.mesh)
    kl_to_bc = self._kl_to_bc(context, bc_params)
    evaluate_fn = self.selection.evaluate_fn(context, policy)
    result = ppo.train(
      config,
      trainer_lib.Given(policy, bc_params),
      rollout.Environment(
        sampler=draw_samples.policy_sampler(
          policy, config.decode, context.mesh, data
        ),
        pairs=data.pairs(grown['split']),
        num_sources=grown['num_sources'],
        vocabulary=data.vocabulary,
        reward=self.reward.load(context),
        normalizer=self.reward.normalizer(),
        seed=self.seed,
      ),
      num_samples=self._num_samples(grown),
      evaluate_fn=lambda params, step: {
        **evaluate_fn(params, step),
        **kl_to_bc(params),
      },
      mesh_config=context.mesh,
      directory=output.path,
      seed=self.seed,
    )
    shares = [
      line['unfinished']
      for line in journal.read_metrics(output.path)
      if line['split'] == 'train'
    ]
    output.warn(
      samples_without_eos.message(
        round(float(np.mean(shares)) * result['cost']['samples']),
        result['cost']['samples'],
        config.decode.max_target_length,
      )
    )
    return {**result, 'vocabulary': data.described_vocabulary}

  def _kl_to_bc(
    self, context: context_lib.Context, bc_params: types.Params
  ) -> rollout.KLToBC:
    """Returns the measurement of KL(pi || pi_BC) on validation sources."""
    policy, data = context.policy, context.data
    held_out = data.pairs(task_lib.VALIDATION)
    mesh = context.mesh.build()
    return rollout.KLToBC(
      sampler=draw_samples.policy_sampler(
        policy, self.config.decode.untempered(), context.mesh, data
      ),
      policy=policy,
      bc_params=bc_params,
      pairs=held_out,
      rows=pair_store.spread_rows(
        len(held_out), self.config.sources_per_iteration
      ),
      batching=self.config.batching(mesh, policy.config.special_ids),
      mesh=mesh,
      # Another seed than that of the training, which numbers its samples alike.
      seed=self.seed ^ 1,
    )

  def lines(self) -> list[str]:
    config = self.config
    samples = config.num_samples or 'as many as a Grow has'
    return [
      f'  online    {config.name}, samples: {samples}, '
      f'{config.sources_per_iteration} sources an iteration with '
      f'{config.decode.num_samples_per_source} samples each'
    ]
