"""Combined rewards: the weighted mean or the minimum of several.

Each component is first put on a common scale by its own `low` and `high`, so
that a MetricX of [-25, 0] and a chrF of [0, 1] can be compared:

  s_k(x, y) = (R_k(x, y) - low_k) / (high_k - low_k)

s_k is not clamped. The store has a column for each component: its raw reward
R_k, and s_k.
"""

from collections.abc import Sequence
import dataclasses

from jaxtyping import Float, Float32
import numpy as np

from rest_jax import settings
from rest_jax.rewards import base, normalize
from rest_jax.rewards import peers as peers_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Component:
  """One of several rewards.

  Attributes:
    reward: settings of the reward.
    weight: w_k in an `Ensemble`, above 0; a `Minimum` has no weights.
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
class _Several(base.NeedsOfParts):
  """Base of `Ensemble` and `Minimum`.

  Attributes:
    components: at least two rewards with distinct names.
    name: name of the combined reward.
  """

  components: tuple[Component, ...]
  name: str

  def __post_init__(self):
    settings.make_tuples(self, 'components')
    if len(self.components) < 2:
      raise ValueError(
        f'components must be two rewards or more; got {len(self.components)}.'
      )
    base.check_names(self)

  @property
  def parts(self) -> tuple[base.RewardConfig, ...]:
    return tuple(component.reward for component in self.components)

  def check(self) -> str:
    names = ', '.join(part.name for part in self.parts)
    return f'{type(self).__name__.lower()} of {names}'

  def load(self, resources: base.Resources) -> 'ComposedReward':
    return ComposedReward(self, [part.load(resources) for part in self.parts])

  def combine(
    self, scaled: Float[np.ndarray, 'k n']
  ) -> Float[np.ndarray, ' n']:
    """Combines rewards of k components on the common scale."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ensemble(_Several):
  """The weighted mean of its components: sum_k w_k s_k / sum_k w_k."""

  name: str = 'ensemble'

  def combine(
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
        'weight has no meaning in a Minimum, and must be 1; got another '
        'number. Use low and high to shift a component, or an Ensemble.'
      )

  def combine(
    self, scaled: Float[np.ndarray, 'k n']
  ) -> Float[np.ndarray, ' n']:
    return scaled.min(axis=0)


class ComposedReward(base.Composed):
  """Rewards combined into one."""

  def __init__(self, config: _Several, rewards: Sequence[base.Reward]):
    """Takes the settings, and one loaded reward per component."""
    scales: dict[str, normalize.Normalizer] = {}
    described = []
    for component, reward in zip(config.components, rewards, strict=True):
      scales |= {reward.name: component.scale, **base.scales(reward)}
      described.append(
        (reward.digest, component.weight, component.low, component.high)
      )
    digest = base.digest_of([type(config).__name__, described])
    super().__init__(config.name, rewards, scales=scales, digest=digest)
    self._config = config

  def columns(
    self,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: base.References = None,
    peers: peers_lib.Peers | None = None,
  ) -> dict[str, Float32[np.ndarray, ' n']]:
    """Returns the combined reward, then the raw rewards of all components."""
    raw: dict[str, np.ndarray] = {}
    for reward in self.parts:
      raw |= base.columns(reward, sources, hypotheses, references, peers)
    scaled = np.stack([self.scales[r.name](raw[r.name]) for r in self.parts])
    combined = self._config.combine(scaled.astype(np.float64))
    return {self.name: combined.astype(np.float32), **raw}
