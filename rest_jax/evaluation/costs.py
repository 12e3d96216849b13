"""What ReST and online learning have spent to reach the same reward."""

from collections.abc import Sequence
import dataclasses
import os
from typing import Any

from rest_jax.storage import files


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
  """What was spent from BC on, BC and the reward model aside.

  Attributes:
    samples: hypotheses drawn to train on.
    distinct_samples: those of them that differ; ReST's are counted apart for
      each Grow step.
    sampled_tokens: tokens of the hypotheses.
    trained_tokens: target tokens of all updates.
    flops: of the policy and its value functions: sampling, and training, with
      what a loss makes of other models left out (see `online.cost`).
    seconds: of sampling, scoring and training; not of evaluations.
    peak_rss_mb: the most memory of the process so far, whatever it did before.
  """

  samples: float = 0
  distinct_samples: float = 0
  sampled_tokens: float = 0
  trained_tokens: float = 0
  flops: float = 0
  seconds: float = 0
  peak_rss_mb: float = 0

  def __add__(self, other: 'Cost') -> 'Cost':
    """What both have spent, one after the other."""
    sums = {
      field.name: getattr(self, field.name) + getattr(other, field.name)
      for field in dataclasses.fields(self)
    }
    sums['peak_rss_mb'] = max(self.peak_rss_mb, other.peak_rss_mb)
    return Cost(**sums)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reached:
  """A reward, and what it has cost.

  Attributes:
    policy: its name.
    reward: mean reward x100 of the validation samples that chose the checkpoint;
      the same sources and random numbers for all policies of a run.
    cost: of ReST up to the end of this Improve step; of online learning, up to
      its best evaluation.
    online: what online learning had spent at its first evaluation with at least
      this reward; None if it never had, and for online learning itself.
  """

  policy: str
  reward: float
  cost: Cost
  online: Cost | None = None


def first_with(
  reward: float, course: Sequence[tuple[float, Cost]]
) -> Cost | None:
  """The cost at which a training first had a reward; None if never.

  Args:
    reward: to reach.
    course: the rewards and costs of its evaluations, in order.
  """
  return next((cost for found, cost in course if found >= reward), None)


def mean(runs: Sequence[Sequence[Reached]]) -> list[Reached]:
  """Means over runs of the same policies, such as several seeds.

  A reward that online learning did not reach in every run counts as not
  reached.
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
  """Writes them as JSON, a list of objects."""
  files.write_json(path, [dataclasses.asdict(one) for one in reached])
