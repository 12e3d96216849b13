"""Which hypotheses of a block still agree, and so share a row of computation.

The next token's distribution depends on the source and the prefix. Samples of
one source begin alike, and those of a trained policy stay alike for long: each
distinct prefix that is still open is one row.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from rest_jax.models import rows as rows_lib

_COUNTED = 1024


class Sharing(NamedTuple):
  """The rows of the next step.

  Attributes:
    row_of: the row of each hypothesis; 0 for those that are done.
    hypothesis_of: a hypothesis b * N + n of each row, the first; 0 from
      `num_rows` on.
    num_rows: distinct prefixes that are not done.
  """

  row_of: Int[Array, 'B N']
  hypothesis_of: Int[Array, ' BN']
  num_rows: Int[Array, '']

  def rows(self, capacity: int) -> rows_lib.SharedRows:
    """The map for a step that computes `capacity` rows, `num_rows` at least."""
    return rows_lib.SharedRows(self.row_of, self.hypothesis_of[:capacity])


def first(done: Bool[Array, 'B N']) -> Sharing:
  """The rows of the first step: the hypotheses of a source are all alike."""
  alike = jnp.zeros_like(done, jnp.int32)
  return after(alike, alike, done)


def after(
  prefix: Int[Array, 'B N'], token: Int[Array, 'B N'], done: Bool[Array, 'B N']
) -> Sharing:
  """The rows once another token was drawn.

  Args:
    prefix: equal for two hypotheses of a source just if their prefixes are.
    token: what was appended.
    done: hypotheses that take no further step.

  Returns:
    Rows in the order of their first hypotheses.
  """
  num_sources, num_samples = prefix.shape
  sample = jnp.arange(num_samples)
  # [B, N, N]: hypothesis n goes on like n', which is not done.
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
  # Row r belongs to the first hypothesis through which there are r + 1 rows.
  size = num_sources * num_samples
  before = jnp.searchsorted(
    through,
    jnp.arange(1, size + 1),
    # Counting is quick on a vector machine while it is few.
    method='compare_all' if size <= _COUNTED else 'scan',
  )
  return Sharing(
    row_of=jnp.where(done, 0, row_of),
    hypothesis_of=jnp.where(before < size, before, 0).astype(jnp.int32),
    num_rows=through[-1],
  )
