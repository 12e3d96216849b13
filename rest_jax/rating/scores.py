"""What people's ratings say of policies, x100 as results are reported.

Scores count as their share of the highest, preferences as shares won, where
neither is half a win.
"""

from collections.abc import Iterator, Sequence
import dataclasses

import numpy as np

from rest_jax.evaluation import metrics
from rest_jax.rating import config as config_lib
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
    """Mean of all that was said of a policy, with an error by source.

    Args:
      split: whose sources.
      policy: its digest.

    Returns:
      The mean; None where fewer than two sources were rated.
    """
    values, sources = self._values(split, policy)
    if len(set(sources)) < 2:
      return None
    mean = metrics.clustered_mean(np.array(values), np.array(sources))
    return mean.scaled(self._scale)

  def difference(
    self, split: str, policy: str, baseline: str
  ) -> metrics.Difference | None:
    """How much better a policy was rated than another on the same page.

    Source: ReST (arXiv 2308.08998), Fig. 7, "Human eval diff".

    Args:
      split: whose sources.
      policy: its digest.
      baseline: that of the other.

    Returns:
      The difference, paired by source; None where fewer than two sources were
      rated for both.
    """
    values, sources = self._values(split, policy, baseline)
    if len(set(sources)) < 2:
      return None
    others, other_sources = self._values(split, baseline, policy)
    return metrics.paired_difference(
      np.array(values),
      np.array(others),
      np.array(sources),
      np.array(other_sources),
    ).scaled(self._scale)

  def sources(self, split: str, policy: str) -> int:
    """Number of sources for which a policy was rated."""
    return len(set(self._values(split, policy)[1]))

  @property
  def _scale(self) -> float:
    is_score = self.kind == config_lib.SCORES
    return 100 / config_lib.HIGHEST_SCORE if is_score else 100

  def _values(
    self, split: str, policy: str, other: str | None = None
  ) -> tuple[list[float], list[int]]:
    """Values of a policy and their sources, beside `other` if it is given."""
    values, sources = [], []
    for rating in self.ratings:
      for own, beside, value in _sides(rating):
        if (
          rating.item.split == split
          and own == policy
          and other in (None, beside)
        ):
          values.append(value)
          sources.append(rating.item.source_id)
    return values, sources


def _sides(rating: store_lib.Rating) -> Iterator[tuple[str, str, float]]:
  item = rating.item
  yield item.first_policy, item.second_policy, rating.first
  yield item.second_policy, item.first_policy, rating.second
