"""The affine scale of normalised rewards."""

import dataclasses
import math
from typing import Any

from jaxtyping import Float, Float32
import numpy as np

# Percentiles of raw rewards that become 0 and 1.
_PERCENTILES = 0.5, 99.5


@dataclasses.dataclass(frozen=True)
class Normalizer:
  """Maps raw rewards so that `low` becomes 0 and `high` becomes 1.

  R(x, y) = (raw - low) / (high - low)

  It is computed once per run, from the rewards of D_1, so that thresholds and
  results of all steps have one scale. The result is not clamped: clamping makes
  ties among the best samples, which filters compare.

  Note: the paper reports rewards between 0 and 1 (x 100 in its figures) without
  saying how they are scaled; this scale is ours.

  Attributes:
    low: raw reward that becomes 0.
    high: raw reward that becomes 1, above `low`.
  """

  low: float
  high: float

  def __post_init__(self):
    object.__setattr__(self, 'low', float(self.low))
    object.__setattr__(self, 'high', float(self.high))
    if not (math.isfinite(self.low) and math.isfinite(self.high)):
      raise ValueError(
        f'low and high must be finite; got {self.low} and {self.high}.'
      )
    if not self.low < self.high:
      raise ValueError(
        f'low must be below high; got {self.low} and {self.high}. Rewards that '
        'do not vary cannot be filtered: look at the reward model and at the '
        'samples it scored.'
      )

  @classmethod
  def from_raw(cls, raw: Float[np.ndarray, ' n']) -> 'Normalizer':
    """Computes the scale from raw rewards.

    The 0.5 percentile becomes 0 and the 99.5 percentile 1, so that one outlier
    among millions of samples does not determine the scale.

    Args:
      raw: raw rewards of D_1.

    Returns:
      The normaliser.

    Raises:
      ValueError: if there are no rewards, one is not finite, or both
        percentiles are equal.
    """
    raw = np.asarray(raw, np.float64)
    if raw.size == 0:
      raise ValueError('raw must have at least one reward; got none.')
    if not np.isfinite(raw).all():
      first = int(np.flatnonzero(~np.isfinite(raw))[0])
      raise ValueError(
        f'raw must be finite; position {first} is {raw[first]}. Score these '
        'samples again.'
      )
    low, high = np.percentile(raw, _PERCENTILES)
    return cls(float(low), float(high))

  def __call__(self, raw: Float[np.ndarray, '*n']) -> Float32[np.ndarray, '*n']:
    """Normalises raw rewards; NaN stays NaN, and the store refuses it."""
    raw = np.asarray(raw, np.float64)
    return ((raw - self.low) / (self.high - self.low)).astype(np.float32)

  def to_json(self) -> dict[str, float]:
    """Returns the JSON values for a manifest."""
    return {'low': self.low, 'high': self.high}

  @classmethod
  def from_json(cls, content: dict[str, Any]) -> 'Normalizer':
    """Reads the result of `to_json`."""
    try:
      return cls(content['low'], content['high'])
    except (KeyError, TypeError) as error:
      raise ValueError(
        f'a normaliser must have the numbers "low" and "high"; got {content!r}.'
      ) from error
