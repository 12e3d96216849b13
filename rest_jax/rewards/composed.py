"""Combined rewards: the weighted mean or the minimum of several.

Each component is first put on a common scale by its own `low` and `high`, so
that a MetricX of [-25, 0] and a chrF of [0, 1] can be compared:

  s_k(x, y) = (R_k(x, y) - low_k) / (high_k - low_k)

s_k is not clamped. The store has a column for each component: its raw reward
R_k, and s_k.
"""

from collections.abc import Callable, Sequence
import dataclasses
import hashlib
import json
from typing import Any

from jaxtyping import Float, Float32
import numpy as np

from rest_jax import settings
from rest_jax.rewards import base, normalize


@dataclasses.dataclass(frozen=True, kw_only=True)
class Component:
  """One of several rewards.

  Attributes:
    reward: its settings.
    weight: w_k of an `Ensemble`, above 0; a `Minimum` has no weights.
    low: raw reward that becomes 0.
    high: raw reward that becomes 1.
  """

  reward: base.RewardConfig
  weight: float = 1.0
  low: float = 0.0
  high: float = 1.0

  def __post_init__(self):
    if not isinstance(self.reward, base.RewardConfig):
      raise TypeError(
        f'reward must be the settings of a reward; got {self.reward!r}.'
      )
    settings.positive(self, 'weight')
    normalize.Normalizer(self.low, self.high)  # Raises for an invalid scale.

  @property
  def scale(self) -> normalize.Normalizer:
    return normalize.Normalizer(self.low, self.high)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Several:
  """Base of `Ensemble` and `Minimum`.

  Attributes:
    components: at least two rewards with distinct names.
    name: name of the combined reward.
  """

  components: tuple[Component, ...]
  name: str

  def __post_init__(self):
    # gin hands lists over as lists.
    settings.make_tuples(self, 'components')
    if len(self.components) < 2:
      raise ValueError(
        f'components must be two rewards or more; got {len(self.components)}.'
      )
    base.check_names(self)

  @property
  def parts(self) -> tuple[base.RewardConfig, ...]:
    return tuple(component.reward for component in self.components)

  @property
  def needs_references(self) -> bool:
    return any(part.needs_references for part in self.parts)

  @property
  def needs_samples(self) -> bool:
    return any(map(base.needs_samples, self.parts))

  def check(self) -> str:
    names = ', '.join(part.name for part in self.parts)
    return f'{type(self).__name__.lower()} of {names}'

  def load(self, resources: base.Resources) -> 'ComposedReward':
    return ComposedReward(
      self.name,
      self.components,
      [part.load(resources) for part in self.parts],
      self._combine,
      settings=type(self).__name__,
    )

  def _combine(
    self, scaled: Float[np.ndarray, 'k n']
  ) -> Float[np.ndarray, ' n']:
    raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ensemble(_Several):
  """The weighted mean of its components: sum_k w_k s_k / sum_k w_k."""

  name: str = 'ensemble'

  def _combine(
    self, scaled: Float[np.ndarray, 'k n']
  ) -> Float[np.ndarray, ' n']:
    weights = [component.weight for component in self.components]
    return np.average(scaled, axis=0, weights=weights)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Minimum(_Several):
  """The worst of its components: min_k s_k, a conservative reward.

  A hypothesis that only one model likes gains nothing.
  """

  name: str = 'minimum'

  def __post_init__(self):
    super().__post_init__()
    if any(component.weight != 1.0 for component in self.components):
      raise ValueError(
        'weight has no meaning in a Minimum; got another than 1. Use low and '
        'high to move a component, or an Ensemble.'
      )

  def _combine(
    self, scaled: Float[np.ndarray, 'k n']
  ) -> Float[np.ndarray, ' n']:
    return scaled.min(axis=0)


class ComposedReward:
  """Rewards combined into one; see `base.Reward` and `base.Composed`."""

  def __init__(
    self,
    name: str,
    components: Sequence[Component],
    rewards: Sequence[base.Reward],
    combine: Callable[[np.ndarray], np.ndarray],
    *,
    settings: str,
  ):
    """Takes loaded rewards.

    Args:
      name: name of the combined reward.
      components: settings of the components.
      rewards: one reward per component.
      combine: float64 [components, n] on the common scale -> [n].
      settings: how the rewards are combined, for the digest.
    """
    self.name = name
    self.needs_references = any(reward.needs_references for reward in rewards)
    self.needs_samples = any(map(base.needs_samples, rewards))
    self.floor = None
    self.scales: dict[str, normalize.Normalizer] = {}
    for component, reward in zip(components, rewards, strict=True):
      self.scales |= {reward.name: component.scale, **base.scales(reward)}
    self.digest = digest(
      settings,
      [
        (reward.digest, component.weight, component.low, component.high)
        for component, reward in zip(components, rewards, strict=True)
      ],
    )
    self._rewards = rewards
    self._combine = combine

  def score(
    self,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: base.References = None,
    peers: base.Peers | None = None,
  ) -> Float32[np.ndarray, ' n']:
    """Scores each hypothesis; see `base.Reward.score`."""
    return self.columns(sources, hypotheses, references, peers)[self.name]

  def columns(
    self,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: base.References = None,
    peers: base.Peers | None = None,
  ) -> dict[str, Float32[np.ndarray, ' n']]:
    """The combined reward, then the raw rewards of all components."""
    found: dict[str, np.ndarray] = {}
    for reward in self._rewards:
      found |= base.columns(reward, sources, hypotheses, references, peers)
    scaled = np.stack(
      [self.scales[r.name](found[r.name]) for r in self._rewards]
    )
    combined = self._combine(scaled.astype(np.float64)).astype(np.float32)
    return {self.name: combined, **found}


def digest(*described: Any) -> str:
  """Returns a digest of plain values."""
  return hashlib.sha256(json.dumps(described).encode()).hexdigest()
