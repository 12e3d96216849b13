"""Encoder and decoder: stacks of layers, and how tokens enter them."""

from collections.abc import Callable

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rest_jax.models import (
  attention,
  blocks,
  layer_stack,
  layers,
  positions,
  shared_rows,
)
from rest_jax.models import network_config as config_lib

# A pair for each decoder layer.
Caches = tuple[attention.Cache, ...]
CrossCaches = tuple[attention.CrossCache, ...]


class _Stack(nn.Module):
  """What encoder and decoder share: how tokens enter, and what layers read."""

  config: config_lib.NetworkConfig

  @property
  def stack(self) -> config_lib.Stack:
    raise NotImplementedError

  def _setup(self, layer: type[blocks.Layer]):
    stack = self.stack
    if stack.is_relative:
      self.relpos_bias = blocks.relpos_bias(stack)
    if stack.positions.is_added:
      self.position_embedder = positions.PositionVectors(
        stack.positions, stack.emb_dim
      )
    if stack.norm.after_embeddings:
      self.embeddings_norm = layers.norm(stack.norm, stack.dtype)
    self.layers = [layer(stack) for _ in range(stack.num_layers)]

  def _final_norm(self):
    stack = self.stack
    return layers.norm(stack.norm, stack.dtype) if stack.norm.at_end else None

  def _entered(self, x: Array, vectors: Callable[[], Array]) -> Array:
    """Embedded tokens with their positions, normed if the stack does so."""
    if self.stack.positions.is_added:
      x = x + vectors().astype(x.dtype)
    if self.stack.norm.after_embeddings:
      x = self.embeddings_norm(x)
    return x

  def _vectors(self, length: int, segment_ids: Array | None) -> Array:
    """Those of the positions of whole sequences."""
    numbers = positions.numbers(length, segment_ids)
    return self.position_embedder(numbers, length)

  def _seen(self, make: Callable[[bool], blocks.Seen]) -> list[blocks.Seen]:
    """What each layer reads; `make` says what those with a window do."""
    stack = self.stack
    has_window = [
      stack.attention.has_window(i) for i in range(stack.num_layers)
    ]
    kinds = {kind: make(kind) for kind in dict.fromkeys(has_window)}
    return [kinds[kind] for kind in has_window]

  def _whole(
    self, mask: Array, length: int, segment_ids: Array | None
  ) -> list[blocks.Seen]:
    """What layers read of whole sequences."""
    stack = self.stack
    relative = self.relpos_bias(length, length) if stack.is_relative else None

    def make(is_windowed: bool) -> blocks.Seen:
      seen = mask
      if is_windowed:
        window = stack.attention.window
        seen = seen & positions.within_window(window, length)
      bias, rotation = layers.mask_to_bias(seen), None
      if relative is not None:
        bias = relative + bias
      if stack.positions.kind == 'rotary':
        rotation = positions.rotation(
          stack.positions,
          stack.head_dim,
          # Anew in each segment: a source's keys are not turned.
          positions.numbers(length, segment_ids),
          length,
          is_windowed=is_windowed,
        )
      return blocks.Seen(bias, rotation)

    return self._seen(make)


class Encoder(_Stack):
  """The stack of encoder layers over embedded tokens."""

  @property
  def stack(self) -> config_lib.Stack:
    return self.config.encoder_stack

  def setup(self):
    self._setup(blocks.EncoderLayer)
    self.encoder_norm = self._final_norm()
    self.input_dropout = layers.Dropout(self.config.dropout_rate, (-2,))
    # T5X draws this one for each position; so do we.
    self.output_dropout = layers.Dropout(self.config.dropout_rate)

  def __call__(
    self,
    x: Float[Array, 'B S D'],
    mask: Bool[Array, 'B 1 S S'],
    segment_ids: Int[Array, 'B S'] | None,
    *,
    deterministic: bool,
  ) -> Float[Array, 'B S D']:
    """Encodes tokens; positions are numbered within segments."""
    seen = self._whole(mask, x.shape[1], segment_ids)
    x = self._entered(x, lambda: self._vectors(x.shape[1], segment_ids))
    x = blocks.residual(self.input_dropout(x, deterministic=deterministic))
    x = layer_stack.apply(
      self, self.layers, self.config, x, seen, deterministic=deterministic
    )
    if self.encoder_norm is not None:
      x = self.encoder_norm(x)
    return self.output_dropout(x, deterministic=deterministic)


class Decoder(_Stack):
  """The stack of decoder layers over embedded tokens, and its head.

  Attributes:
    config: sizes.
    head: 'logits', 'value', or 'judgement' for both.
  """

  head: str

  @property
  def stack(self) -> config_lib.Stack:
    return self.config.decoder_stack

  def setup(self):
    config = self.config
    self._setup(blocks.DecoderLayer)
    self.decoder_norm = self._final_norm()
    self.dropout = layers.Dropout(config.dropout_rate, (-2,))
    if self.head != 'logits':
      # Small, so that training starts near 0 and the body hardly moves.
      self.value_dense = layers.Dense(1, ('embed', 'value'), init_scale=0.1)
    if self.head != 'value' and not config.logits_via_embedding:
      self.logits_dense = layers.Dense(config.vocab_size, ('embed', 'vocab'))
    if self.head != 'value' and config.embeddings.has_logits_bias:
      self.logits_bias = self.param(
        'logits_bias',
        layers.named_axes(nn.initializers.zeros, ('vocab',)),
        (config.vocab_size,),
        jnp.float32,
      )

  def __call__(
    self,
    x: Float[Array, 'R T D'],
    encoded: Float[Array, 'B S encoder_D'],
    mask: Bool[Array, '#R 1 T T'],
    cross_mask: Bool[Array, 'B 1 Q S'],
    segment_ids: Int[Array, 'B T'] | None,
    *,
    deterministic: bool,
  ) -> Float[Array, 'R T D']:
    """The hidden states that a head reads."""
    seen = self._whole(mask, x.shape[1], segment_ids)
    cross_bias = layers.mask_to_bias(cross_mask)
    x = self._entered(x, lambda: self._vectors(x.shape[1], segment_ids))
    x = blocks.residual(self.dropout(x, deterministic=deterministic))
    x = layer_stack.apply(
      self,
      self.layers,
      self.config,
      x,
      seen,
      encoded,
      cross_bias,
      deterministic=deterministic,
    )
    return self.dropout(self._normed(x), deterministic=deterministic)

  def _normed(self, x: Array) -> Array:
    return x if self.decoder_norm is None else self.decoder_norm(x)

  def step(
    self,
    x: Float[Array, 'R D'],
    caches: Caches,
    cross_caches: CrossCaches,
    cross_mask: Bool[Array, 'sources 1 1 S'],
    entered: blocks.Entered,
    rows: shared_rows.Rows,
  ) -> tuple[Float[Array, 'R D'], Caches]:
    """The hidden states of one new position, and the caches with it."""
    stack = self.stack
    relative = None
    if stack.is_relative:
      relative = blocks.step_bias(self.relpos_bias, entered)

    def make(is_windowed: bool) -> blocks.Seen:
      left = stack.attention.window[0] if is_windowed else None
      bias, rotation = layers.mask_to_bias(entered.seen(left)), None
      if relative is not None:
        bias = bias + relative
      if stack.positions.kind == 'rotary':
        rotation = positions.rotation(
          stack.positions,
          stack.head_dim,
          # [B, 1], or [1, 1]: beside [B, N, H, K]
          jnp.reshape(jnp.asarray(entered.numbers), (-1, 1)),
          entered.room,
          is_windowed=is_windowed,
        )
      return blocks.Seen(bias, rotation)

    def vectors():
      found = self.position_embedder(
        jnp.asarray(entered.numbers), entered.room
      )  # [D] or [B, 1, D]
      if entered.ring_positions is None:
        return found
      shape = caches[0][0].shape[:2]  # [B, N]
      return rows.select(jnp.broadcast_to(found, (*shape, found.shape[-1])))

    x = self._entered(x, vectors)
    cross_bias = layers.mask_to_bias(cross_mask)
    new_caches = []
    for layer, seen, *both in zip(
      self.layers, self._seen(make), caches, cross_caches, strict=True
    ):
      x, cache = layer.step(x, tuple(both), seen, cross_bias, entered, rows)
      new_caches.append(cache)
    return self._normed(x), tuple(new_caches)

  def cross_attention_cache(
    self, encoded: Float[Array, 'B S encoder_D']
  ) -> CrossCaches:
    return tuple(layer.cross_cache(encoded) for layer in self.layers)

  def logits(self, hidden: Float[Array, '*R D']) -> Float[Array, '*R V']:
    return self.logits_dense(hidden)

  def values(self, hidden: Float[Array, '*R D']) -> Float[Array, '*R']:
    return self.value_dense(hidden)[..., 0]
