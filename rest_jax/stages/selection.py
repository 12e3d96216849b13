"""Choice of checkpoints by the sampled validation reward."""

import dataclasses
from typing import Any

from rest_jax.data import pair_store
from rest_jax.data import task as task_lib
from rest_jax.models import policy as policy_lib
from rest_jax.rewards import sampled_reward
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import base, draw_samples, run_reward
from rest_jax.stages import context as context_lib
from rest_jax.stages import evidence as evidence_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
  """How checkpoints of a policy are chosen.

  Attributes:
    max_sources: number of validation sources, evenly spread; None for all.
    evidence: stored samples for a reward that compares the samples of a source;
      None for other rewards.
  """

  decode: sampler_lib.DecodeConfig
  max_sources: int | None
  reward: run_reward.RunReward
  evidence: evidence_lib.Evidence | None
  seed: int

  @property
  def inputs(self) -> dict[str, base.Stage]:
    """The stages whose folders are read, by role."""
    return {**self.reward.inputs, **evidence_lib.inputs(self.evidence)}

  def evaluate_fn(
    self, context: context_lib.Context, policy: policy_lib.Policy
  ) -> sampled_reward.SampledReward:
    """Returns the evaluation function of a training."""
    pairs = context.data.pairs(task_lib.VALIDATION)
    vocabulary = context.data.vocabulary
    return sampled_reward.SampledReward(
      sampler=draw_samples.policy_sampler(
        policy, self.decode, context.mesh, context.data
      ),
      pairs=pairs,
      rows=pair_store.spread_rows(len(pairs), self.max_sources),
      vocabulary=vocabulary,
      reward=self.reward.load(context),
      normalizer=self.reward.normalizer(),
      seed=self.seed,
      evidence=evidence_lib.load(self.evidence, context),
    )

  def settings(self, context: context_lib.Context) -> dict[str, Any]:
    """Returns the settings that decide which checkpoint is chosen."""
    return {
      **evidence_lib.settings(self.evidence, context),
      'decode': self.decode,
      'max_sources': self.max_sources,
      'reward': self.reward.load(context).digest,
      'normalizer': self.reward.normalizer().to_json(),
      'seed': self.seed,
    }
