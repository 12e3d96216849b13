"""First tokens of hypotheses that are forced, such as the target's language.

They are one for all sources (`SpecialIds.forced_first`), or each source brings
its own (`SpecialIds.is_first_given`), which its target's language decides: see
`data.tokenizers.fairseq`, and `data.pair_languages` for what the pair store keeps.
`decode` puts them in the place of drawn tokens.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from rest_jax.data import ragged, special_ids
from rest_jax.models import policy as policy_lib
from rest_jax.models import shared_rows


def check(ids: special_ids.SpecialIds, source_tokens: ragged.Ragged) -> None:
  """Raises ValueError unless sources bring the first tokens that they must."""
  if ids.is_first_given and source_tokens.first_tokens is None:
    raise ValueError(
      'source_tokens must have first tokens, as the targets of this policy begin '
      'with their language; got none. Use those of the prepared pairs, or see '
      'Ragged.with_first_tokens.'
    )


def of_block(
  source_tokens: ragged.Ragged, rows: np.ndarray, num_sources: int, pad: int
) -> np.ndarray | None:
  """Returns the first tokens of a block's sources; None if they bring none.

  Args:
    rows: rows of `source_tokens`.
    num_sources: sources of the block, at least as many.
    pad: fills up.
  """
  if source_tokens.first_tokens is None:
    return None
  first = np.full(num_sources, pad, np.int32)
  first[: len(rows)] = source_tokens.first_tokens[rows]
  return first


def of_hypotheses(
  first: Int[Array | np.ndarray, ' B'] | None, shape: tuple[int, ...]
) -> Int[Array, 'B N'] | None:
  """Returns the first token of each of [B, N] hypotheses; None for None."""
  if first is None:
    return None
  return jnp.broadcast_to(jnp.asarray(first)[:, None], shape)


def log_probs(
  logits: Float[Array, 'R V'],
  first: int | Int[Array, 'B N'],
  rows: shared_rows.Rows,
  row_of: Int[Array, ' BN'] | None,
) -> Float[Array, ' BN']:
  """Returns the log-probability of each hypothesis' first token.

  Args:
    first: the first token of all hypotheses, or of each.
    rows: the computed rows.
    row_of: row of each hypothesis; None if each has its own.
  """
  if isinstance(first, int):
    of_rows = jnp.full(len(logits), first)
  elif isinstance(rows, shared_rows.SharedRows):
    of_rows = rows.select(first)
  else:
    of_rows = first.reshape(-1)
  found = policy_lib.target_log_probs(logits, of_rows)
  return found if row_of is None else jnp.take(found, row_of, mode='clip')
