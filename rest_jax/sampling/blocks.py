"""Inputs and outputs of a block, and what all decoders share."""

import dataclasses
import functools
from typing import Any, NamedTuple

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Shaped, UInt32
import numpy as np

from rest_jax import types
from rest_jax.models import network, parts
from rest_jax.models import policy as policy_lib
from rest_jax.sampling import shapes


class BlockInputs(NamedTuple):
  """Inputs of a block.

  Attributes:
    encoder_input_tokens: padded sources; padding rows have a token too.
    source_words: ids of the sources, see `categorical.split_words`.
    sample_ids: indices of the samples of each source.
    active: requested rows; the others take part in no step.
    first_tokens: the first token of the hypotheses of each source, for
      `SpecialIds.is_first_given`; otherwise None.
  """

  encoder_input_tokens: Int[Array | np.ndarray, 'B S']
  source_words: UInt32[Array | np.ndarray, 'B 2']
  sample_ids: UInt32[Array | np.ndarray, ' N']
  active: Bool[Array | np.ndarray, 'B N']
  first_tokens: Int[Array | np.ndarray, ' B'] | None = None


class BlockOutputs(NamedTuple):
  """Decoded hypotheses.

  Attributes:
    tokens: token ids, PAD after the last; uint16 if the vocabulary allows it.
    lengths: number of tokens per hypothesis, with EOS.
    log_probs: sum over tokens, in nats, of the untempered model.
    finished: whether EOS was drawn.
  """

  tokens: Shaped[Array | np.ndarray, 'B N T']
  lengths: Int[Array | np.ndarray, 'B N']
  log_probs: Float[Array | np.ndarray, 'B N']
  finished: Bool[Array | np.ndarray, 'B N']


class Model(NamedTuple):
  """Arguments of `Decoder.decode` that many blocks share."""

  params: types.Params
  key: Key[Array, '']
  inverse_temperature: Float[Array | np.ndarray, '']
  transposed_embeddings: Float[Array, 'D V'] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoder:
  """Base of the compile-time settings of sampling and of beam search.

  Attributes:
    policy: the network.
    loops: its loops; the longest cache stage is T.
    forbidden: token ids that are never drawn.
  """

  policy: policy_lib.Policy
  loops: shapes.Loops
  forbidden: tuple[int, ...]

  def decode(
    self,
    params: types.Params,
    key: Key[Array, ''],
    inverse_temperature: Float[Array, ''],
    inputs: BlockInputs,
    transposed_embeddings: Float[Array, 'D V'] | None = None,
  ) -> BlockOutputs:
    """Decodes one block or queue on one device.

    Args:
      params: parameters of the policy.
      key: result of `categorical.base_key`; beams and greedy decoding ignore it.
      inverse_temperature: 1/τ; ignored as the key is.
      inputs: the block.
      transposed_embeddings: result of `transpose_embeddings`; None to do so here.

    Returns:
      The hypotheses; inactive rows are empty.
    """
    # Sharding names raise under `shard_map`.
    with nn.logical_axis_rules(()):
      if transposed_embeddings is None:
        # Otherwise transposed again in each step.
        transposed_embeddings = lax.optimization_barrier(
          transpose_embeddings(self.policy, params)
        )
      model = Model(params, key, inverse_temperature, transposed_embeddings)
      return self._decoded(model, inputs)

  def _decoded(self, model: Model, inputs: BlockInputs) -> BlockOutputs:
    raise NotImplementedError

  @property
  def max_target_length(self) -> int:
    return self.loops.cache_stages[-1]

  @property
  def ids(self) -> parts.SpecialIds:
    return self.policy.config.special_ids

  @property
  def token_dtype(self) -> Any:
    """The type of token ids in `BlockOutputs`."""
    vocab_size = self.policy.config.vocab_size
    return jnp.uint16 if vocab_size <= 2**16 else jnp.uint32

  def apply(self, params: types.Params, method: str, *arguments: Any) -> Any:
    """Calls a method of the network."""
    return self.policy.module.apply(
      {'params': params}, *arguments, method=method
    )

  def cross_caches(
    self,
    params: types.Params,
    encoder_input_tokens: Int[Array | np.ndarray, 'B S'],
  ) -> network.CrossCaches:
    """Returns the cross-attention keys and values of the sources."""
    encoded = self.apply(params, 'encode', encoder_input_tokens)
    return self.apply(params, 'cross_attention_cache', encoded)

  def first_tokens(self, inputs: BlockInputs) -> Int[Array, ' B'] | None:
    """Returns the first token per source where it is forced; otherwise None.

    It is one for all sources (`SpecialIds.forced_first`), or each source brings
    its own: see `data.tokenizers.fairseq` and `data.pair_languages`.
    """
    if self.ids.is_first_given:
      assert inputs.first_tokens is not None
      return jnp.asarray(inputs.first_tokens)
    if self.ids.forced_first is None:
      return None
    return jnp.full(len(inputs.active), self.ids.forced_first, jnp.int32)


@functools.partial(jax.jit, static_argnums=0)
def transpose_embeddings(
  policy: policy_lib.Policy, params: types.Params
) -> Any:
  """Returns transposed embeddings [D, V]; None if logits have a kernel."""
  return policy.module.apply({'params': params}, method='turned_embeddings')


@functools.lru_cache(maxsize=64)
def compiled(decoder: Decoder, mesh: jax.sharding.Mesh):
  """Compiles `decoder.decode` for every device of a mesh, each looping alone.

  Cached for the life of the process, so that all samplers of one shape, and all
  policies of one size, share compiled programs.

  Args:
    decoder: settings of decoding.
    mesh: mesh with one axis, 'data'.

  Returns:
    A compiled function of the arguments of `decode` whose inputs and outputs
    hold one block per device, concatenated along the first axis.
  """
  each = jax.sharding.PartitionSpec('data')
  whole = jax.sharding.PartitionSpec()
  on_each_device = jax.shard_map(
    decoder.decode,
    mesh=mesh,
    in_specs=(whole, whole, whole, each, whole),
    out_specs=each,
    # Loop states start as constants and become different on each device.
    check_vma=False,
  )

  def decode(
    params, key, inverse_temperature, inputs, transposed_embeddings=None
  ):
    return on_each_device(
      params, key, inverse_temperature, inputs, transposed_embeddings
    )

  return jax.jit(decode)
