"""What goes into a block, what comes out of it, and what decoders share."""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt32
import numpy as np

from rest_jax import types
from rest_jax.models import network, parts
from rest_jax.models import policy as policy_lib


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoder:
  """Base of the compile-time settings of sampling and of beam search.

  Attributes:
    policy: the network.
    max_target_length: T.
    forbidden: token ids that are never drawn; None for PAD and UNK.
  """

  policy: policy_lib.Policy
  max_target_length: int
  forbidden: tuple[int, ...] | None = None

  @property
  def ids(self) -> parts.SpecialIds:
    return self.policy.config.special_ids

  @property
  def never_drawn(self) -> tuple[int, ...]:
    """`forbidden`, or its default."""
    return self.ids.undrawable if self.forbidden is None else self.forbidden

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
