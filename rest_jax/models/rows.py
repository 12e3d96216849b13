"""Which hypotheses share a row of a decoding step.

Hypotheses of one source that agree so far are one row: embeddings, projections,
feed-forward blocks and logits depend on the source and the prefix alone, and are
computed once for all of them.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int


class OwnRows(NamedTuple):
  """A row for each hypothesis: R = B * N.

  Attributes:
    num_sources: B.
    num_samples_per_source: N.
  """

  num_sources: int
  num_samples_per_source: int

  def expand(self, x: Array) -> Array:
    """[R, ...] -> [B, N, ...]: the row of each hypothesis."""
    return x.reshape(*self, *x.shape[1:])

  def select(self, x: Array) -> Array:
    """[B, N, ...] -> [R, ...]: one hypothesis of each row."""
    return x.reshape(-1, *x.shape[2:])


class SharedRows(NamedTuple):
  """Rows of some hypotheses each.

  Attributes:
    row_of: the row of each hypothesis, in [0, R); of those that are done, any.
    hypothesis_of: a hypothesis b * N + n of each row; of rows that nobody needs,
      any.
  """

  row_of: Int[Array, 'B N']
  hypothesis_of: Int[Array, ' R']

  def expand(self, x: Array) -> Array:
    """[R, ...] -> [B, N, ...]: the row of each hypothesis."""
    return jnp.take(x, self.row_of, axis=0, mode='clip')

  def select(self, x: Array) -> Array:
    """[B, N, ...] -> [R, ...]: one hypothesis of each row."""
    flat = x.reshape(-1, *x.shape[2:])
    return jnp.take(flat, self.hypothesis_of, axis=0, mode='clip')


Rows = OwnRows | SharedRows
