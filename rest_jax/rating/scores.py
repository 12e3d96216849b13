"""Mean human ratings of policies, x100 like all results.

Scores count as fractions of the highest score, preferences as the share won,
with a tie as half a win.
"""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses

import numpy as np

from rest_jax.evaluation import metrics
from rest_jax.rating import rating_config as config_lib
from rest_jax.rating import store as store_lib


@dataclasses.dataclass(frozen=True)
class People:
  """The ratings of one kind.

  Attributes:
    kind: 'scores' or 'preference'.
    ratings: all of them.
  """

  kind: str
  ratings: Sequence[store_lib.Rating]

  def policies(self) -> dict[tuple[str, str], str]:
    """Returns the names of rated policies by split and digest."""
    names = {}
    for rating in self.ratings:
      item = rating.item
      names[item.split, item.first_policy] = item.first_name
      names[item.split, item.second_policy] = item.second_name
    return names

  def mean(self, split: str, policy: str) -> metrics.Estimate | None:
    """Returns a policy's mean rating with a standard error clustered by source.

    Returns:
      The mean; None if fewer than two sources were rated.
    """
    return pooled_mean([(self, policy)], split)

  def difference(
    self, split: str, policy: str, baseline: str
  ) -> metrics.Difference | None:
    """Returns the difference of two policies' ratings on the same page.

    Source: ReST (arXiv 2308.08998), Fig. 7, "Human eval diff".

    Returns:
      The difference, paired by source; None if fewer than two sources were
      rated for both.
    """
    return pooled_difference([(self, policy, baseline)], split)

  def sources(self, split: str, policy: str) -> int:
    """Returns the number of sources for which a policy was rated."""
    return len(set(self.values(split, policy)[1]))

  def values(
    self, split: str, policy: str, other: str | None = None
  ) -> tuple[list[float], list[int]]:
    """Returns a policy's values x100 and their sources.

    Args:
      split: split of the sources.
      policy: digest of the policy.
      other: digest of a policy; only ratings on the same page as it count. None
        for all.
    """
    is_score = self.kind == config_lib.SCORES
    scale = 100 / config_lib.HIGHEST_SCORE if is_score else 100
    values, sources = [], []
    for rating in self.ratings:
      for own, beside, value in _sides(rating):
        if (
          rating.item.split == split
          and own == policy
          and other in (None, beside)
        ):
          values.append(value * scale)
          sources.append(rating.item.source_id)
    return values, sources


def pooled_mean(
  parts: Sequence[tuple[People, str]], split: str
) -> metrics.Estimate | None:
  """Returns the mean rating of a policy over several seeds.

  Args:
    parts: ratings and digest of the policy, per seed.
    split: split of the sources, which are the same in all seeds.

  Returns:
    The mean with a standard error clustered by source; None if fewer than two
    sources were rated.
  """
  values, sources = _joined(
    people.values(split, policy) for people, policy in parts
  )
  if len(set(sources)) < 2:
    return None
  return metrics.clustered_mean(np.array(values), np.array(sources))


def pooled_difference(
  parts: Sequence[tuple[People, str, str]], split: str
) -> metrics.Difference | None:
  """Returns the difference of two policies' ratings over several seeds.

  Args:
    parts: ratings and digests of policy and baseline, per seed.
    split: split of the sources, which are the same in all seeds.

  Returns:
    The difference, paired by source; None if fewer than two sources were rated
    for both.
  """
  values, sources = _joined(
    people.values(split, policy, baseline) for people, policy, baseline in parts
  )
  if len(set(sources)) < 2:
    return None
  others, other_sources = _joined(
    people.values(split, baseline, policy) for people, policy, baseline in parts
  )
  return metrics.paired_difference(
    np.array(values),
    np.array(others),
    np.array(sources),
    np.array(other_sources),
  )


def _joined(
  parts: Iterable[tuple[list[float], list[int]]],
) -> tuple[list[float], list[int]]:
  values, sources = [], []
  for some, some_sources in parts:
    values += some
    sources += some_sources
  return values, sources


def _sides(rating: store_lib.Rating) -> Iterator[tuple[str, str, float]]:
  item = rating.item
  yield item.first_policy, item.second_policy, rating.first
  yield item.second_policy, item.first_policy, rating.second
