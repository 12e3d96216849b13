"""The policy: log-probabilities of targets under the network."""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any, cast

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rest_jax import types
from rest_jax.models import network


@jax.custom_jvp
def target_logits(
  logits: Float[Array, '*R V'], targets: Int[Array, '*R']
) -> Float[Array, '*R']:
  """`logits[target]`: a look-up whose gradient is one-hot.

  The gradient of a plain look-up is a scatter into an array of zeros as large
  as the logits; a comparison fuses with whatever else the logits get.
  """
  return jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]


@target_logits.defjvp
def _target_logits_jvp(primals, tangents):
  logits, targets = primals
  hit = jnp.arange(logits.shape[-1]) == targets[..., None]
  tangent = jnp.sum(jnp.where(hit, tangents[0], 0), axis=-1)
  return target_logits(logits, targets), tangent


def target_log_probs(
  logits: Float[Array, '*R V'], targets: Int[Array, '*R']
) -> Float[Array, '*R']:
  """`log softmax(logits)[target]` in float32, in nats."""
  logits = logits.astype(jnp.float32)
  log_normalizer = jax.nn.logsumexp(logits, axis=-1)
  return target_logits(logits, targets) - log_normalizer


@dataclasses.dataclass(frozen=True)
class Policy:
  """pi(y | x): an encoder-decoder over one shared vocabulary.

  Parameters are the nested dict of T5X's names, float32, without boxes.

  Attributes:
    config: sizes; `vocab_size` must be set (see `NetworkConfig.with_vocab`).
    decoder_start: the decoder's first input, whatever that of a batch is; by
      default that of the network. A policy that was conditioned on something in
      training is told it here.
  """

  config: network.NetworkConfig
  # None stands for the default until the policy is made.
  decoder_start: int = cast(int, None)

  def __post_init__(self):
    check_vocab_size(self.config)
    if self.decoder_start is None:
      start = self.config.special_ids.decoder_start
      object.__setattr__(self, 'decoder_start', start)

  @functools.cached_property
  def module(self) -> network.Transformer:
    return network.Transformer(self.config)

  def starting_with(self, decoder_start: int | None) -> 'Policy':
    """The same network with another first input; None for that of the network."""
    if decoder_start is None:
      return Policy(self.config)
    return Policy(self.config, decoder_start)

  def unconditioned(self) -> 'Policy':
    """The same network, whose first input is that of the batch."""
    return Policy(self.config)

  def init(self, key: Array) -> types.Params:
    return init_params(self.module, key)

  def logical_axes(self) -> types.Params:
    """The logical names of each parameter's axes, a PartitionSpec each."""
    return logical_axes(self.module)

  def logits(
    self,
    params: types.Params,
    batch: Mapping[str, Any],
    *,
    dropout_key: Array | None = None,
  ) -> Float[Array, 'R T V']:
    """Float32 logits of each target position, given those before it.

    Args:
      params: of `init`.
      batch: encoder_input_tokens [B, S]; decoder_input_tokens and
        decoder_target_tokens [R, T] with R = B * N, N hypotheses for each
        source beside each other. Where pairs are packed (N = 1) also
        encoder_segment_ids [B, S] and decoder_segment_ids [B, T].
      dropout_key: typed key; no dropout without it.

    Returns:
      Logits; those of positions whose target is PAD mean nothing.
    """
    if self.decoder_start != self.config.special_ids.decoder_start:
      inputs = jnp.asarray(batch['decoder_input_tokens'])
      inputs = inputs.at[:, 0].set(self.decoder_start)
      batch = {**batch, 'decoder_input_tokens': inputs}
    return apply(self.module, params, batch, dropout_key)

  def log_probs(
    self,
    params: types.Params,
    batch: Mapping[str, Any],
    *,
    dropout_key: Array | None = None,
  ) -> Float[Array, 'R T']:
    """log pi(y_t | y_<t, x) of every target token in nats, not masked."""
    logits = self.logits(params, batch, dropout_key=dropout_key)
    targets = jnp.asarray(batch['decoder_target_tokens'])
    return target_log_probs(logits, targets)

  def sequence_log_probs(
    self,
    params: types.Params,
    batch: Mapping[str, Any],
    *,
    dropout_key: Array | None = None,
  ) -> Float[Array, ' R']:
    """log pi(y | x): the sum over tokens, weighted by their loss weights."""
    log_probs = self.log_probs(params, batch, dropout_key=dropout_key)
    weights = batch['decoder_loss_weights']
    # Not a product: a masked position must not matter even if it is infinite.
    return jnp.sum(jnp.where(weights > 0, log_probs * weights, 0.0), axis=-1)


def check_vocab_size(config: network.NetworkConfig):
  """Raises unless the number of embeddings is known."""
  if config.vocab_size == 0:
    raise ValueError(
      'config.vocab_size must be set to build a model; got 0. Take it from '
      'the vocabulary: config.with_vocab(vocabulary.size).'
    )


def apply(
  module: network.Transformer,
  params: types.Params,
  batch: Mapping[str, Any],
  dropout_key: Array | None,
) -> Array:
  """The network's head on each decoder position of a batch."""

  def segments(name):
    return jnp.asarray(batch[name]) if name in batch else None

  output = module.apply(
    {'params': params},
    jnp.asarray(batch['encoder_input_tokens']),
    jnp.asarray(batch['decoder_input_tokens']),
    jnp.asarray(batch['decoder_target_tokens']),
    encoder_segment_ids=segments('encoder_segment_ids'),
    decoder_segment_ids=segments('decoder_segment_ids'),
    deterministic=dropout_key is None,
    rngs={} if dropout_key is None else {'dropout': dropout_key},
  )
  return cast(Array, output)  # Only with `mutable` is it a pair.


def _init_boxed(module: network.Transformer, key: Array) -> Any:
  tokens = jnp.ones((1, 1), jnp.int32)
  return module.init(key, tokens, tokens, tokens)['params']


def init_params(module: network.Transformer, key: Array) -> types.Params:
  """Fresh float32 parameters, a nested dict of arrays.

  Compiled as one program, so that the values are the same bits as when the
  same program is compiled for a mesh.
  """
  rules = tuple(nn.get_logical_axis_rules())
  # Modules can be hashed, which type checkers do not see.
  return _jitted_init(cast(Any, module), rules)(key)


@functools.lru_cache(maxsize=32)
def _jitted_init(module: network.Transformer, rules: tuple[Any, ...]) -> Any:
  """Traced once for a network, and for the rules that are active then."""
  del rules
  return jax.jit(lambda key: nn.unbox(_init_boxed(module, key)))


def logical_axes(module: network.Transformer) -> types.Params:
  """The tree of the parameters with a PartitionSpec of names for each."""
  return nn.get_partition_spec(_boxed_shapes(cast(Any, module)))


@functools.lru_cache(maxsize=32)
def _boxed_shapes(module: network.Transformer) -> Any:
  return jax.eval_shape(
    functools.partial(_init_boxed, module), jax.random.key(0)
  )


def num_params(params: types.Params) -> int:
  """How many numbers a tree of parameters holds."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))
