"""Moves the unfinished ("open") hypotheses of a block into a smaller block.

Attention reads the caches of all hypotheses of a block, including finished
ones. Once few are open, they continue in a smaller block, and are put back at
the end.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from rest_jax.models import shared_rows


class Open(NamedTuple):
  """The open hypotheses of a block [B, N], as a block [C, 1].

  Attributes:
    number: b * N + n of each, padded with B * N.
  """

  number: Int[Array, ' C']

  def take(self, x: Array) -> Array:
    """Gathers [B, N, ...] -> [C, 1, ...]; padding rows are arbitrary."""
    flat = x.reshape(-1, *x.shape[2:])
    return jnp.take(flat, self.number, axis=0, mode='clip')[:, None]

  def done(self, done: Bool[Array, 'B N']) -> Bool[Array, 'C 1']:
    """Returns which are done, including padding rows."""
    return self.take(done) | (self.number == done.size)[:, None]

  def put(self, x: Array, taken: Array) -> Array:
    """Scatters [C, 1, ...] back into [B, N, ...]."""
    flat = x.reshape(-1, *x.shape[2:])
    flat = flat.at[self.number].set(jnp.squeeze(taken, 1), mode='drop')
    return flat.reshape(x.shape)

  def rows(
    self, shape: tuple[int, ...], before: shared_rows.CompactRows | None
  ) -> shared_rows.CompactRows:
    """Returns the rows of their steps.

    Args:
      shape: (B, N) of the original block.
      before: the rows of that block, if it was compact itself.
    """
    number = self.number
    if before is not None:
      shape = before.places.row_of.shape
      number = before.places.hypothesis_of.at[number].get(
        mode='fill', fill_value=math.prod(shape)
      )
    row_of = jnp.zeros(math.prod(shape), jnp.int32)
    row_of = row_of.at[number].set(jnp.arange(len(number)), mode='drop')
    return shared_rows.CompactRows(
      shared_rows.SharedRows(row_of.reshape(shape), number)
    )


def first(done: Bool[Array, 'B N'], size: int) -> Open:
  """Returns the first C = `size` hypotheses that are not done."""
  (number,) = jnp.nonzero(~done.reshape(-1), size=size, fill_value=done.size)
  return Open(number.astype(jnp.int32))
