"""Choice of the samples that people are asked to rate."""

import dataclasses

from jaxtyping import Float, Int
import numpy as np

from rest_jax import settings

UNIFORM, UNCERTAIN, HIGH_REWARD = 'uniform', 'uncertain', 'high_reward'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Acquisition:
  """Number of samples to rate, by reason of choice.

  Samples chosen uniformly measure the policy; uncertain ones teach a regression
  most per rating; those with the highest reward are where an exploited reward
  is most wrong. Each sample is chosen once. Uniform ones are chosen first, so
  that they represent all samples.

  Uncertainty is the standard deviation of the reward over `num_draws` passes of
  the trained model with dropout.

  Source: Gal and Ghahramani, Dropout as a Bayesian Approximation (arXiv
  1506.02142), section 4, for the standard deviation under dropout. ReST (arXiv
  2308.08998) leaves the refresh of its reward model as future work.

  Attributes:
    num_uniform: number of samples chosen at random.
    num_uncertain: number of samples with the highest uncertainty.
    num_high_reward: number of samples with the highest reward.
    num_draws: number of passes with dropout, at least 2.
    dropout_rate: dropout rate of these passes, in (0, 1).
  """

  num_uniform: int = 200
  num_uncertain: int = 200
  num_high_reward: int = 200
  num_draws: int = 8
  dropout_rate: float = 0.1

  def __post_init__(self):
    settings.at_least(
      self, 0, 'num_uniform', 'num_uncertain', 'num_high_reward'
    )
    settings.at_least(self, 2, 'num_draws')
    hint = 'Without dropout all passes agree.'
    settings.inside(self, '(0, 1)', 'dropout_rate', hint=hint)
    if self.size < 2:
      raise ValueError(
        'num_uniform, num_uncertain and num_high_reward must ask for two '
        f'ratings or more together; got {self.size}.'
      )

  @property
  def size(self) -> int:
    return self.num_uniform + self.num_uncertain + self.num_high_reward

  def choose(
    self,
    rewards: Float[np.ndarray, ' n'],
    uncertainty: Float[np.ndarray, ' n'] | None,
    *,
    seed: int,
  ) -> tuple[Int[np.ndarray, ' k'], list[str]]:
    """Chooses samples.

    Args:
      rewards: rewards of n samples, higher is better.
      uncertainty: their uncertainty; None if `num_uncertain` is 0.
      seed: seed for the uniform choice.

    Returns:
      k distinct rows, k = min(n, size), and the reason of each. Among equal
      numbers the first row is taken.

    Raises:
      ValueError: if uncertainty is needed and missing.
    """
    if self.num_uncertain and uncertainty is None:
      raise ValueError(
        f'uncertainty must be given for num_uncertain={self.num_uncertain}; '
        'got None.'
      )
    drawn = np.random.default_rng(seed).permutation(len(rewards))
    orders = {
      UNIFORM: (self.num_uniform, np.sort(drawn[: self.num_uniform])),
      UNCERTAIN: (self.num_uncertain, _falling(uncertainty)),
      HIGH_REWARD: (self.num_high_reward, _falling(rewards)),
    }
    rows: list[int] = []
    reasons: list[str] = []
    is_free = np.ones(len(rewards), bool)
    for reason, (count, order) in orders.items():
      chosen = order[is_free[order]][:count]
      is_free[chosen] = False
      rows += chosen.tolist()
      reasons += [reason] * len(chosen)
    return np.asarray(rows, np.int64), reasons


def _falling(values: np.ndarray | None) -> np.ndarray:
  if values is None:
    return np.zeros(0, np.int64)
  return np.argsort(-np.asarray(values, np.float64), kind='stable')
