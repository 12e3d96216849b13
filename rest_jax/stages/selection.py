"""Sampled validation reward, by which checkpoints are chosen."""

import dataclasses
from typing import Any

from rest_jax.data import pair_store
from rest_jax.models import policy as policy_lib
from rest_jax.rewards import sampled_reward
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import base, draw_samples, prepare, run_reward
from rest_jax.stages import context as context_lib
from rest_jax.stages import evidence as evidence_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
  """How checkpoints of a policy are chosen.

  Attributes:
    decode: how outputs are sampled.
    max_sources: number of validation sources, evenly spread; None for all.
    reward: the reward of the run.
    evidence: the samples by which a reward that needs some judges; None for
      others.
    seed: sampling seed.
  """

  decode: sampler_lib.DecodeConfig
  max_sources: int | None
  reward: run_reward.RunReward
  evidence: evidence_lib.Evidence | None
  seed: int

  @property
  def inputs(self) -> dict[str, base.Stage]:
    """The stages that it reads, by their role."""
    found: dict[str, base.Stage] = self.reward.inputs
    if self.evidence is not None:
      found['judged by'] = self.evidence
    return found

  def evaluate_fn(
    self, context: context_lib.Context, policy: policy_lib.Policy
  ) -> sampled_reward.SampledReward:
    """Returns what measures a policy's parameters.

    Args:
      context: what the stages of the run share.
      policy: the network as the policy uses it.
    """
    pairs = context.data.pairs(prepare.VALIDATION)
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
    """Returns what feeds it."""
    return {
      **evidence_lib.described(evidence_lib.load(self.evidence, context)),
      'decode': self.decode,
      'max_sources': self.max_sources,
      'reward': self.reward.load(context).digest,
      'normalizer': self.reward.normalizer().to_json(),
      'seed': self.seed,
    }
