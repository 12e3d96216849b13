"""Numbers of given rows of tokens under a policy, by teacher forcing."""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp
import numpy as np

from rest_jax import types
from rest_jax.data import ragged
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.runtime import progress as progress_lib
from rest_jax.sampling import categorical
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.training import loader

_ROWS = 64


def log_probs(
  params: types.Params,
  policy: policy_lib.Policy,
  mesh_config: mesh_lib.MeshConfig,
  *,
  sources: tuple[ragged.Ragged, np.ndarray],
  targets: tuple[ragged.Ragged, np.ndarray],
) -> np.ndarray:
  """log pi(y | x) of rows of tokens, by teacher forcing.

  Args:
    params: of the policy, on any devices.
    policy: the network.
    mesh_config: devices and rules; those of this process are used.
    sources: tokens, and which row of them is each of n sources.
    targets: likewise for the n targets.

  Returns:
    float32 [n], nats, summed over tokens, untempered.
  """
  put = _put_local(mesh_config)
  compute = _jitted_log_probs(policy)
  params = put(params, policy)
  return _teacher_forced(
    lambda batch: compute(params, batch),
    mesh_config,
    sources=sources,
    targets=targets,
    description='log-probabilities',
  )


def divergences(
  params: types.Params,
  policy: policy_lib.Policy,
  bc_params: types.Params,
  mesh_config: mesh_lib.MeshConfig,
  *,
  sources: tuple[ragged.Ragged, np.ndarray],
  targets: tuple[ragged.Ragged, np.ndarray],
) -> np.ndarray:
  """sum_t KL(pi(. | y_<t, x) || pi_BC(. | y_<t, x)) of rows of tokens.

  Args:
    params: parameters of the policy, on any devices.
    policy: its network; that of BC is `policy.unconditioned()`.
    bc_params: parameters of BC, on any devices.
    mesh_config: devices and rules; those of this process are used.
    sources: tokens, and which row of them is each of n sources.
    targets: likewise for the n targets.

  Returns:
    float32 [n], nats, untempered, at least 0.
  """
  put = _put_local(mesh_config)
  compute = _jitted_divergences(policy)
  both = put(params, policy), put(bc_params, policy.unconditioned())
  return _teacher_forced(
    lambda batch: compute(*both, batch),
    mesh_config,
    sources=sources,
    targets=targets,
    description='KL to BC',
  )


def entropies(
  params: types.Params,
  policy: policy_lib.Policy,
  decode: sampler_lib.DecodeConfig,
  mesh_config: mesh_lib.MeshConfig,
  *,
  sources: tuple[ragged.Ragged, np.ndarray],
  targets: tuple[ragged.Ragged, np.ndarray],
) -> np.ndarray:
  """sum_t H(q(. | y_<t, x)) of rows of tokens, q what they are drawn from.

  Args:
    params: parameters of the policy, on any devices.
    policy: its network.
    decode: temperature above 0, `top_k` and `top_p` of q.
    mesh_config: devices and rules; those of this process are used.
    sources: as for `log_probs`.
    targets: likewise.

  Returns:
    float32 [n], nats, at least 0. Pieces that are never drawn count as others.
  """
  compute = _jitted_entropies(policy, decode.top_k, decode.top_p)
  placed = _put_local(mesh_config)(params, policy)
  inverse = np.float32(1 / decode.temperature)
  return _teacher_forced(
    lambda batch: compute(placed, batch, inverse),
    mesh_config,
    sources=sources,
    targets=targets,
    description='entropies',
  )


def _put_local(
  mesh_config: mesh_lib.MeshConfig,
) -> Callable[[types.Params, policy_lib.Policy], types.Params]:
  mesh = mesh_config.build_local()
  return lambda params, policy: mesh_lib.put_params(
    params, policy.logical_axes(), mesh, mesh_config.rules
  )


def _teacher_forced(
  compute: Callable[[types.Batch], jax.Array],
  mesh_config: mesh_lib.MeshConfig,
  *,
  sources: tuple[ragged.Ragged, np.ndarray],
  targets: tuple[ragged.Ragged, np.ndarray],
  description: str,
) -> np.ndarray:
  """Computes a number per row of tokens, float32 [n], in batches of few shapes."""
  (source_tokens, source_rows), (target_tokens, target_rows) = sources, targets
  mesh = mesh_config.build_local()
  num_rows = _ROWS * mesh_lib.num_parts(mesh)
  lengths = np.maximum(
    source_tokens.lengths[source_rows], target_tokens.lengths[target_rows]
  )
  order = np.argsort(lengths, kind='stable')
  result = np.empty(len(order), np.float32)
  with (
    mesh_lib.use(mesh, mesh_config.rules),
    progress_lib.Progress(description, len(order), 'row') as progress,
  ):
    for start in range(0, len(order), num_rows):
      chosen = order[start : start + num_rows]
      # A few lengths and one number of rows: few compilations.
      length = int(2 ** np.ceil(np.log2(max(lengths[chosen].max(), 16))))
      filled = np.resize(chosen, num_rows)
      batch = loader.decoder_batch(
        source_tokens.pad(source_rows[filled], length),
        target_tokens.pad(target_rows[filled], length),
      )
      found = compute(mesh_lib.put_batch(batch, mesh))
      result[chosen] = np.asarray(found)[: len(chosen)]
      progress.advance(len(chosen))
  return result


@functools.lru_cache(maxsize=4)
def _jitted_log_probs(policy: policy_lib.Policy):
  return jax.jit(policy.sequence_log_probs)


@functools.lru_cache(maxsize=4)
def _jitted_divergences(policy: policy_lib.Policy):
  bc_policy = policy.unconditioned()

  def divergences(params, bc_params, batch):
    # [B, T, V], in float32.
    log_pi = jax.nn.log_softmax(policy.logits(params, batch))
    log_bc = jax.nn.log_softmax(bc_policy.logits(bc_params, batch))
    of_token = (jnp.exp(log_pi) * (log_pi - log_bc)).sum(-1)
    is_token = batch['decoder_target_tokens'] != types.PAD_ID
    return jnp.where(is_token, of_token, 0.0).sum(-1)

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
    is_token = batch['decoder_target_tokens'] != types.PAD_ID
    return jnp.where(is_token, terms.sum(-1), 0.0).sum(-1)

  return jax.jit(entropies)
