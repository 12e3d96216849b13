"""Costs of ReST and of online learning to reach the same reward."""

from collections.abc import Sequence
import dataclasses
import os
from typing import Any

from rest_jax.storage import files


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
  """Costs since BC, without BC and the reward model.

  Attributes:
    samples: number of hypotheses drawn for training.
    distinct_samples: number of distinct ones among them, counted separately for
      each Grow step of ReST.
    trained_tokens: number of target tokens of all updates.
    flops: FLOPs of sampling and training of the policy and its value functions,
      without other models of a loss (see `online.cost`).
    seconds: seconds of sampling, scoring and training, without evaluations.
    peak_rss_mb: peak memory of the process so far, including earlier stages.
  """

  samples: float = 0
  distinct_samples: float = 0
  sampled_tokens: float = 0
  trained_tokens: float = 0
  flops: float = 0
  seconds: float = 0
  peak_rss_mb: float = 0

  def __add__(self, other: 'Cost') -> 'Cost':
    """Returns the sum; the peak memory is the larger one."""
    sums = {
      field.name: getattr(self, field.name) + getattr(other, field.name)
      for field in dataclasses.fields(self)
    }
    sums['peak_rss_mb'] = max(self.peak_rss_mb, other.peak_rss_mb)
    return Cost(**sums)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reached:
  """The reward and the cost of a policy.

  Attributes:
    reward: mean reward x100 of the validation samples that chose the
      checkpoint; sources and random numbers are the same for all policies of a
      run.
    cost: cost of ReST up to the end of this Improve step, or of online learning
      up to its best evaluation.
    online: cost of online learning at its first evaluation with at least this
      reward; None if it never reached it, and for online learning itself.
  """

  policy: str
  reward: float
  cost: Cost
  online: Cost | None = None


def first_with(
  reward: float, course: Sequence[tuple[float, Cost]]
) -> Cost | None:
  """Returns the cost at which a training first reached a reward; None if never.

  Args:
    reward: the reward to reach.
    course: rewards and costs of the training's evaluations, in order.
  """
  return next((cost for value, cost in course if value >= reward), None)


def mean(runs: Sequence[Sequence[Reached]]) -> list[Reached]:
  """Returns means over runs of the same policies, such as several seeds.

  A reward counts as reached by online learning only if it is in every run.
  """
  return [_mean(policies) for policies in zip(*runs, strict=True)]


def _mean(values: Sequence[Any]) -> Any:
  if any(value is None for value in values):
    return None
  if isinstance(values[0], str):
    return values[0]
  if isinstance(values[0], (Cost, Reached)):
    return type(values[0])(
      **{
        field.name: _mean([getattr(value, field.name) for value in values])
        for field in dataclasses.fields(values[0])
      }
    )
  return sum(values) / len(values)


def write(path: str | os.PathLike[str], reached: Sequence[Reached]) -> None:
  """Writes a JSON file with a list of objects."""
  files.write_json(path, [dataclasses.asdict(one) for one in reached])
