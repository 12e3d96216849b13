"""Averages of the parameters of several checkpoints of one training.

  theta = (theta_1 + ... + theta_k) / k

It is evaluated as one more checkpoint and is the training's result if no single
checkpoint has a higher objective.

Source: Vaswani et al. (arXiv 1706.03762), section 6.1, average the last
checkpoints of a training; Wortsman et al. (arXiv 2203.05482), section 2, those
that are best on held-out data.
"""

from collections.abc import Iterable, Sequence
import dataclasses

import jax
import jax.numpy as jnp

from rest_jax import settings, types

CHOICES = ('last', 'best')


@dataclasses.dataclass(frozen=True, kw_only=True)
class AverageConfig:
  """Which evaluated checkpoints of a training are averaged.

  Attributes:
    count: how many, at least 2; fewer where a training has fewer. They are kept
      on disk until then, each with the optimiser's state.
    choose: 'last' for the newest, or 'best' for those of the highest objective.
  """

  count: int = 3
  choose: str = 'last'

  def __post_init__(self):
    settings.at_least(self, 2, 'count')
    settings.one_of(self, CHOICES, 'choose')

  def chosen(
    self, evaluated: Iterable[Sequence[float]]
  ) -> list[tuple[int, float]]:
    """Chooses among evaluated checkpoints; of equal objectives the newer.

    Whatever is evaluated later, none that is left out now is chosen again.
    """
    found = [(int(step), objective) for step, objective in evaluated]
    if self.choose == 'best':
      found.sort(key=lambda pair: (pair[1], pair[0]))
    return sorted(found[-self.count :])


def mean(trees: Iterable[types.Params]) -> types.Params:
  """Returns the mean of trees of parameters, at least one, read in turn."""
  trees = iter(trees)
  total, count = next(trees), 1
  for tree in trees:
    total, count = _add(total, tree), count + 1
  return _divide(total, jnp.float32(count))


@jax.jit
def _add(total: types.Params, tree: types.Params) -> types.Params:
  return jax.tree.map(jnp.add, total, tree)


@jax.jit
def _divide(total: types.Params, count: jax.Array) -> types.Params:
  return jax.tree.map(lambda x: x / count, total)
