"""Rows shared by hypotheses of a block that are equal so far.

The distribution of the next token depends on the source and the prefix. Samples
of one source start equal, and those of a trained policy stay equal for long.
Each distinct unfinished prefix is one row.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from rest_jax.models import shared_rows

_COUNTED = 1024


class Sharing(NamedTuple):
  """The rows of the next step.

  Attributes:
    row_of: row of each hypothesis; 0 for finished ones.
    hypothesis_of: first hypothesis b * N + n of each row; 0 from `num_rows` on.
    num_rows: number of distinct unfinished prefixes.
  """

  row_of: Int[Array, 'B N']
  hypothesis_of: Int[Array, ' BN']
  num_rows: Int[Array, '']

  def rows(self, capacity: int) -> shared_rows.SharedRows:
    """Returns the map for a step with `capacity` rows, at least `num_rows`."""
    return shared_rows.SharedRows(self.row_of, self.hypothesis_of[:capacity])


def first(done: Bool[Array, 'B N']) -> Sharing:
  """Returns the rows of the first step: one per source."""
  alike = jnp.zeros_like(done, jnp.int32)
  return after(alike, alike, done)


def after(
  prefix: Int[Array, 'B N'], token: Int[Array, 'B N'], done: Bool[Array, 'B N']
) -> Sharing:
  """Returns the rows after another token was drawn.

  Args:
    prefix: equal for two hypotheses of a source exactly if their prefixes are.
    token: the appended tokens.
    done: finished hypotheses.
  """
  num_sources, num_samples = prefix.shape
  sample = jnp.arange(num_samples)
  # [B, N, N]: hypothesis n equals n', which is not done.
  alike = (prefix[:, :, None] == prefix[:, None, :]) & (
    token[:, :, None] == token[:, None, :]
  )
  alike = alike & ~done[:, None, :]
  leader = jnp.min(jnp.where(alike, sample, num_samples), -1)  # [B, N]
  leads = (leader == sample) & ~done
  through = jnp.cumsum(leads.reshape(-1).astype(jnp.int32))  # [B * N]
  number = (through - 1).reshape(num_sources, num_samples)
  row_of = jnp.take_along_axis(
    number, jnp.minimum(leader, num_samples - 1), axis=1
  )
  # Row r belongs to the first hypothesis at which r + 1 rows are reached.
  size = num_sources * num_samples
  before = jnp.searchsorted(
    through,
    jnp.arange(1, size + 1),
    # Counting is fast on a vector unit while there are few.
    method='compare_all' if size <= _COUNTED else 'scan',
  )
  return Sharing(
    row_of=jnp.where(done, 0, row_of),
    hypothesis_of=jnp.where(before < size, before, 0).astype(jnp.int32),
    num_rows=through[-1],
  )
