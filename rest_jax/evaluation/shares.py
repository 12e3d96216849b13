"""A share of cases, with an interval that holds at 0 and 1 as well."""

import dataclasses
import math

from jaxtyping import Bool, Shaped
import numpy as np

from rest_jax.evaluation import metrics

# Standard errors to each side of a 95 % interval.
_Z = 1.959963984540054


@dataclasses.dataclass(frozen=True)
class Share:
  """A share of cases.

  Attributes:
    value: the share, in [0, 1].
    low: lower end of the 95 % interval.
    high: upper end.
  """

  value: float
  low: float
  high: float


def clustered_share(
  hits: Bool[np.ndarray, ' n'], clusters: Shaped[np.ndarray, ' n']
) -> Share:
  r"""Share of hits with Wilson's interval, clustered by source.

  $$ \frac{p + z^2/2m \pm z \sqrt{p(1-p)/m + z^2/4m^2}}{1 + z^2/m} $$

  with m the effective number of cases: p(1-p)/se^2, se of
  `metrics.clustered_mean`, at most n; and the number of sources where all cases
  agree. There a bootstrap gives an interval of no width, however few the cases.

  Source: Wilson, Probable Inference (1927), eq. 10; Kish, Survey Sampling
  (1965), section 8.2, for the effective number.

  Args:
    hits: whether each case is one, n at least 1.
    clusters: the source of each case.

  Returns:
    The share and its interval.

  Raises:
    ValueError: if there is no case, or not a source for each.
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
  # Rounding puts an end a hair outside.
  low, high = max(0.0, centre - half), min(1.0, centre + half)
  return Share(value, min(low, value), max(high, value))
