"""Log-probabilities, divergences and entropies by teacher forcing."""

from collections.abc import Callable
import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float
import numpy as np

from rest_jax import types
from rest_jax.data import ragged
from rest_jax.losses import ops
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.runtime import progress as progress_lib
from rest_jax.sampling import categorical
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.training import loader

_ROWS = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
  """Rows of tokens for teacher forcing, and the devices.

  Attributes:
    sources: token rows, and the row of each of n sources.
    targets: token rows, and the row of each of n targets.
  """

  sources: tuple[ragged.Ragged, np.ndarray]
  targets: tuple[ragged.Ragged, np.ndarray]
  mesh_config: mesh_lib.MeshConfig

  def log_probs(
    self, policy: policy_lib.Policy, params: types.Params
  ) -> np.ndarray:
    """Computes log pi(y | x) of each row, untempered.

    Returns:
      float32 [n], nats, summed over tokens.
    """
    return self._computed(
      'log-probabilities', _jitted_log_probs(policy), (policy, params)
    )

  def divergences(
    self,
    policy: policy_lib.Policy,
    params: types.Params,
    bc_params: types.Params,
  ) -> np.ndarray:
    """Computes sum_t KL(pi(. | y_<t, x) || pi_BC(. | y_<t, x)) of each row.

    The sum is over tokens that are drawn: a forced first token is none.

    Args:
      policy: the network; that of BC is `policy.unconditioned()`.

    Returns:
      float32 [n], nats, untempered, at least 0.
    """
    return self._computed(
      'KL to BC',
      _jitted_divergences(policy),
      (policy, params),
      (policy.unconditioned(), bc_params),
    )

  def entropies(
    self,
    policy: policy_lib.Policy,
    params: types.Params,
    decode: sampler_lib.DecodeConfig,
  ) -> np.ndarray:
    """Computes sum_t H(q(. | y_<t, x)) of each row, q as sampled from.

    The sum is over tokens that are drawn: a forced first token is none.

    Args:
      decode: temperature above 0, `top_k` and `top_p` of q.

    Returns:
      float32 [n], nats, at least 0. Pieces that are never drawn count, too.
    """
    compute = _jitted_entropies(policy, decode.top_k, decode.top_p)
    inverse = np.float32(1 / decode.temperature)
    return self._computed(
      'entropies', lambda *given: compute(*given, inverse), (policy, params)
    )

  def _computed(
    self,
    description: str,
    compute: Callable[..., jax.Array],
    *models: tuple[policy_lib.Policy, types.Params],
  ) -> np.ndarray:
    """Computes a number per row, float32 [n], in batches of few shapes.

    Args:
      compute: called with the placed parameters of each model and a batch.
      *models: networks and their parameters.
    """
    (source_tokens, source_rows), (target_tokens, target_rows) = (
      self.sources,
      self.targets,
    )
    ids = models[0][0].config.special_ids
    mesh, rules = self.mesh_config.build_local(), self.mesh_config.rules
    placed = [
      mesh_lib.put_params(params, model.logical_axes(), mesh, rules)
      for model, params in models
    ]
    num_rows = _ROWS * mesh_lib.num_parts(mesh)
    lengths = np.maximum(
      source_tokens.lengths[source_rows], target_tokens.lengths[target_rows]
    )
    order = np.argsort(lengths, kind='stable')
    result = np.empty(len(order), np.float32)
    with (
      mesh_lib.use(mesh, rules),
      progress_lib.Progress(description, len(order), 'row') as progress,
    ):
      for start in range(0, len(order), num_rows):
        chosen = order[start : start + num_rows]
        # A few lengths and one number of rows, for few compilations.
        length = int(2 ** np.ceil(np.log2(max(lengths[chosen].max(), 16))))
        filled = np.resize(chosen, num_rows)
        batch = loader.decoder_batch(
          source_tokens.pad(source_rows[filled], length, ids.pad),
          target_tokens.pad(target_rows[filled], length, ids.pad),
          ids,
        )
        found = compute(*placed, mesh_lib.put_batch(batch, mesh))
        result[chosen] = np.asarray(found)[: len(chosen)]
        progress.advance(len(chosen))
    return result


def token_divergences(
  policy: policy_lib.Policy,
  params: types.Params,
  bc_params: types.Params,
  batch: types.Batch,
) -> Float[Array, 'B T']:
  """Returns KL(pi || pi_BC) of the next token at each position, in nats.

  It is 0 where no token is drawn: for a forced first token, and for PAD.
  """
  log_pi = jax.nn.log_softmax(policy.logits(params, batch))
  bc_logits = policy.unconditioned().logits(bc_params, batch)
  divergences = ops.kl_divergence(log_pi, jax.nn.log_softmax(bc_logits))
  return jnp.where(_is_drawn(policy, batch), divergences, 0.0)


def _is_drawn(
  policy: policy_lib.Policy, batch: types.Batch
) -> Bool[Array, 'B T']:
  """Returns which targets a sampler draws, of rows that are not packed."""
  ids = policy.config.special_ids
  is_drawn = jnp.asarray(batch['decoder_target_tokens']) != ids.pad
  if ids.is_first_given or ids.forced_first is not None:
    is_drawn = is_drawn.at[:, 0].set(False)
  return is_drawn


@functools.lru_cache(maxsize=4)
def _jitted_log_probs(policy: policy_lib.Policy):
  return jax.jit(policy.sequence_log_probs)


@functools.lru_cache(maxsize=4)
def _jitted_divergences(policy: policy_lib.Policy):
  def divergences(params, bc_params, batch):
    return token_divergences(policy, params, bc_params, batch).sum(-1)

  return jax.jit(divergences)


@functools.lru_cache(maxsize=4)
def _jitted_entropies(
  policy: policy_lib.Policy, top_k: int | None, top_p: float
):
  def entropies(params, batch, inverse_temperature):
    logits = policy.logits(params, batch) * inverse_temperature
    log_q = jax.nn.log_softmax(
      categorical.likeliest(logits, top_k=top_k, top_p=top_p)
    )
    # A token of probability 0 adds nothing: [B, T, V] -> [B, T].
    terms = jnp.where(jnp.isfinite(log_q), -jnp.exp(log_q) * log_q, 0.0)
    return jnp.where(_is_drawn(policy, batch), terms.sum(-1), 0.0).sum(-1)

  return jax.jit(entropies)
