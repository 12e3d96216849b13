"""Which hypotheses share a row of a decoding step.

Hypotheses of one source that agree so far are one row: embeddings, projections,
feed-forward blocks and logits depend on the source and the prefix alone, and are
computed once for all of them.

Self-attention reads a cache of each hypothesis, cross-attention the encoded source
of each: a map of rows leads to both.
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

  to_sources = expand
  from_sources = select

  def beside_sources(self, x: Array) -> Array:
    """[B, N, ...] of the caches, beside the sources: as they are."""
    return x

  beside_caches = beside_sources


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

  to_sources = expand
  from_sources = select

  def beside_sources(self, x: Array) -> Array:
    """[B, N, ...] of the caches, beside the sources: as they are."""
    return x

  beside_caches = beside_sources


class CompactRows(NamedTuple):
  """A row for each of R hypotheses of a block, whose caches were taken out of it.

  Attributes:
    places: in the block, whose sources lie where they were.
  """

  places: SharedRows

  def expand(self, x: Array) -> Array:
    """[R, ...] -> [R, 1, ...]: the row of each hypothesis that has a cache."""
    return x[:, None]

  def select(self, x: Array) -> Array:
    """[R, 1, ...] -> [R, ...]: one hypothesis of each row."""
    return jnp.squeeze(x, 1)

  def to_sources(self, x: Array) -> Array:
    """[R, ...] -> [B, N, ...]: beside the sources; of the others, any."""
    return self.places.expand(x)

  def from_sources(self, x: Array) -> Array:
    """[B, N, ...] -> [R, ...]: of each row."""
    return self.places.select(x)

  def beside_sources(self, x: Array) -> Array:
    """[R, 1, ...] of the caches -> [B, N, ...]: beside the sources."""
    return self.to_sources(self.select(x))

  def beside_caches(self, x: Array) -> Array:
    """[B, N, ...] of the sources -> [R, 1, ...]: beside the caches."""
    return self.expand(self.from_sources(x))


Rows = OwnRows | SharedRows | CompactRows
