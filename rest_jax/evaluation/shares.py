"""Shares of cases, with an interval that is valid at 0 and 1, too."""

import dataclasses
import math

from jaxtyping import Bool, Shaped
import numpy as np

from rest_jax.evaluation import metrics

_Z = metrics.Z_95


@dataclasses.dataclass(frozen=True)
class Share:
  """A share of cases in [0, 1], with its 95 % interval."""

  value: float
  low: float
  high: float


def clustered_share(
  hits: Bool[np.ndarray, ' n'], clusters: Shaped[np.ndarray, ' n']
) -> Share:
  r"""Share of hits with Wilson's interval, clustered by source.

  $$ \frac{p + z^2/2m \pm z \sqrt{p(1-p)/m + z^2/4m^2}}{1 + z^2/m} $$

  with m the effective number of cases: p(1-p)/se^2 with se of
  `metrics.clustered_mean`, at most n. If all cases agree, m is the number of
  sources; a bootstrap interval would have no width there.

  Source: Wilson, Probable Inference (1927), eq. 10; Kish, Survey Sampling
  (1965), section 8.2, for the effective number.

  Args:
    hits: whether each case is a hit, n at least 1.
    clusters: the source of each case.

  Raises:
    ValueError: there is no case, or not one source per case.
  """
  if not len(hits) or len(hits) != len(clusters):
    raise ValueError(
      'hits must be at least one case, each with its source; got '
      f'{len(hits)} cases and {len(clusters)} sources.'
    )
  value = float(np.mean(hits))
  size = float(len(np.unique(clusters)))
  if 0 < value < 1 and size > 1:
    stderr = metrics.clustered_mean(hits.astype(np.float64), clusters).stderr
    size = float(len(hits))
    if stderr > 0:
      size = min(size, value * (1 - value) / stderr**2)
  shrink = 1 + _Z**2 / size
  centre = (value + _Z**2 / (2 * size)) / shrink
  spread = value * (1 - value) / size + (_Z / (2 * size)) ** 2
  half = _Z * math.sqrt(spread) / shrink
  # Rounding may put an end slightly outside [0, 1].
  low, high = max(0.0, centre - half), min(1.0, centre + half)
  return Share(value, min(low, value), max(high, value))
