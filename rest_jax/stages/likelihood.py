"""The reward by the likelihood of BC; it needs no training of its own."""

import dataclasses

from rest_jax.models import policy as policy_lib
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import learned, scoring_plan
from rest_jax.rewards import likelihood as likelihood_lib
from rest_jax.stages import policies


@dataclasses.dataclass(frozen=True, kw_only=True)
class Likelihood(rewards_base.NeedsOfParts):
  """R(x, y) = log pi_BC(y | x) / |y|, in nats per token, at most 0.

  Alone, it rewards a policy for staying at BC, and prefers short and common
  texts: combine it with a reward that is trained on ratings.

  Attributes:
    scoring: maximum lengths, and shapes of scoring batches.
    name: name of the reward.
  """

  scoring: scoring_plan.ScoringConfig = dataclasses.field(
    default_factory=scoring_plan.ScoringConfig
  )
  name: str = 'likelihood'

  def check(self) -> str:
    return 'log-probability of the BC policy'

  def load(self, resources: rewards_base.Resources) -> learned.LearnedReward:
    """Loads BC, which must be finished."""
    policy = policy_lib.Policy(resources.network)
    digest = policies.digest(resources.policy)
    if resources.network.special_ids.forced_first is not None:
      digest += ' of drawn tokens'  # Before, the forced one counted.
    return learned.LearnedReward(
      likelihood_lib.MeanLogProb(policy),
      policies.load(resources.policy, policy, resources.mesh),
      resources.vocabulary,
      resources.mesh,
      config=self.scoring,
      name=self.name,
      digest=digest,
    )
