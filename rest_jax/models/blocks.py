"""The layers of encoder and decoder."""

from collections.abc import Callable
import operator
from typing import NamedTuple

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rest_jax.models import attention, layers, positions, shared_rows
from rest_jax.models import network_config as config_lib


class Seen(NamedTuple):
  """What a layer's self-attention reads beside its input.

  Attributes:
    bias: of the attention logits.
    rotation: of queries and keys; None where they are not turned.
  """

  bias: Float[Array, '...']
  rotation: positions.Rotation | None


class Entered(NamedTuple):
  """Where new positions of a decoding step are.

  Attributes:
    position: where caches get them.
    length: how many of the caches' positions are attended to.
    room: M, that the caches have.
    ring_positions: positions of each source's hypotheses; None where all are at
      `position`.
  """

  position: Int[Array, ''] | int
  length: int
  room: int
  ring_positions: Int[Array, ' B'] | None

  @property
  def numbers(self) -> Int[Array, '#B 1'] | Int[Array, ''] | int:
    """The number of each hypothesis's position."""
    if self.ring_positions is None:
      return self.position
    return self.ring_positions[:, None]

  def seen(self, left: int | None) -> Bool[Array, '... L']:
    """Which places of the caches are attended to.

    Args:
      left: how many before the new one a windowed layer sees; None for all.
    """
    places = jnp.arange(self.length)
    if self.ring_positions is None:
      seen = (places <= self.position)[None]
      return seen if left is None else seen & (places >= self.position - left)
    ages = layers.ring_ages(self.position, self.length)
    seen = ages <= self.ring_positions[:, None, None, None]
    return seen if left is None else seen & (ages <= left)


def _attention(stack: config_lib.Stack) -> attention.MultiHeadAttention:
  dropout_rate = stack.attention.dropout_rate
  return attention.MultiHeadAttention(
    num_heads=stack.num_heads,
    head_dim=stack.head_dim,
    emb_dim=stack.emb_dim,
    dropout_rate=stack.dropout_rate if dropout_rate is None else dropout_rate,
    float32_logits=stack.float32_attention_logits,
    dtype=stack.dtype,
    config=stack.attention,
    norm=stack.norm,
  )


def _mlp(stack: config_lib.Stack) -> layers.Mlp:
  dropout_rate = stack.feed_forward.dropout_rate
  return layers.Mlp(
    mlp_dim=stack.mlp_dim,
    activations=tuple(stack.mlp_activations),
    dropout_rate=stack.dropout_rate if dropout_rate is None else dropout_rate,
    dtype=stack.dtype,
    has_bias=stack.feed_forward.has_bias,
  )


def relpos_bias(stack: config_lib.Stack) -> layers.RelativePositionBias:
  return layers.RelativePositionBias(
    num_heads=stack.num_heads,
    num_buckets=stack.relative_attention_num_buckets,
    max_distance=stack.relative_attention_max_distance,
    bidirectional=stack.is_encoder,
  )


def step_bias(
  relpos_bias: layers.RelativePositionBias, entered: Entered
) -> Float[Array, 'H L']:
  is_ring = entered.ring_positions is not None
  make = relpos_bias.ring if is_ring else relpos_bias.row
  return make(entered.position, entered.length)


def residual(x: Array) -> Array:
  return layers.constrain(x, ('batch', 'length', 'embed'))


class Layer(nn.Module):
  """What layers of both stacks share: norms around blocks."""

  stack: config_lib.Stack

  def _norm(self, placement: str) -> Callable[[Array], Array] | None:
    """A norm before or after a block; None if the stack has none there."""
    if self.stack.norm.placement not in (placement, 'both'):
      return None
    return layers.norm(self.stack.norm, self.stack.dtype)

  def _block(self, x, before, block, after, dropped):
    """x and what a block makes of it, added; `dropped` is its dropout."""
    y = block(x if before is None else before(x))
    if after is not None and self.stack.norm.placement == 'both':
      y = after(y)
    x = dropped(x, y)
    if after is not None and self.stack.norm.placement == 'post':
      x = after(x)
    return x


class EncoderLayer(Layer):
  """Self-attention and feed-forward block, each normed and added."""

  def setup(self):
    stack = self.stack
    self.pre_attention_layer_norm = self._norm('pre')
    if stack.is_relative_by_layer:
      self.relpos_bias = relpos_bias(stack)
    self.attention = _attention(stack)
    self.post_attention_layer_norm = self._norm('post')
    self.pre_mlp_layer_norm = self._norm('pre')
    self.mlp = _mlp(stack)
    self.post_mlp_layer_norm = self._norm('post')
    # One mask for all positions of a row, as in T5.
    self.dropout = layers.Dropout(stack.dropout_rate, (-2,))

  def __call__(
    self,
    x: Float[Array, 'B S D'],
    seen: Seen,
    *,
    deterministic: bool,
  ) -> Float[Array, 'B S D']:
    bias, rotation = seen
    if self.stack.is_relative_by_layer:
      bias = bias + self.relpos_bias(x.shape[1], x.shape[1])

    def added(x, y):
      return residual(x + self.dropout(y, deterministic=deterministic))

    x = self._block(
      x,
      self.pre_attention_layer_norm,
      lambda y: self.attention(
        y, y, bias, deterministic=deterministic, rotation=rotation
      ),
      self.post_attention_layer_norm,
      added,
    )
    return self._block(
      x,
      self.pre_mlp_layer_norm,
      lambda y: self.mlp(y, deterministic=deterministic),
      self.post_mlp_layer_norm,
      added,
    )


class DecoderLayer(Layer):
  """Self-attention, attention to the source, and feed-forward block."""

  def setup(self):
    stack = self.stack
    self.pre_self_attention_layer_norm = self._norm('pre')
    if stack.is_relative_by_layer:
      self.relpos_bias = relpos_bias(stack)
    self.self_attention = _attention(stack)
    self.post_self_attention_layer_norm = self._norm('post')
    if not stack.attention.is_merged:
      self.pre_cross_attention_layer_norm = self._norm('pre')
      self.encoder_decoder_attention = _attention(stack)
      self.post_cross_attention_layer_norm = self._norm('post')
    self.pre_mlp_layer_norm = self._norm('pre')
    self.mlp = _mlp(stack)
    self.post_mlp_layer_norm = self._norm('post')
    self.dropout = layers.Dropout(stack.dropout_rate, (-2,))

  def __call__(
    self,
    x: Float[Array, 'R T D'],
    seen: Seen,
    encoded: Float[Array, 'B S encoder_D'],
    cross_bias: Float[Array, 'B 1 Q S'],
    *,
    deterministic: bool,
  ) -> Float[Array, 'R T D']:
    bias, rotation = seen
    if self.stack.is_relative_by_layer:
      bias = bias + self.relpos_bias(x.shape[1], x.shape[1])
    is_merged = self.stack.attention.is_merged

    def attend(y):
      if is_merged:
        return self.self_attention.merged(
          y,
          encoded,
          bias,
          cross_bias,
          deterministic=deterministic,
          rotation=rotation,
        )
      return self.self_attention(
        y, y, bias, deterministic=deterministic, rotation=rotation
      )

    def added(x, y):
      return residual(x + self.dropout(y, deterministic=deterministic))

    return self._blocks(
      x,
      attend,
      lambda y: self.encoder_decoder_attention(
        y, encoded, cross_bias, deterministic=deterministic
      ),
      lambda y: self.mlp(y, deterministic=deterministic),
      added,
    )

  def _blocks(self, x, attend, attend_to_source, mlp, added):
    """All blocks in their order; merged attention has read the source already."""
    x = self._block(
      x,
      self.pre_self_attention_layer_norm,
      attend,
      self.post_self_attention_layer_norm,
      added,
    )
    if not self.stack.attention.is_merged:
      x = self._block(
        x,
        self.pre_cross_attention_layer_norm,
        attend_to_source,
        self.post_cross_attention_layer_norm,
        added,
      )
    return self._block(
      x, self.pre_mlp_layer_norm, mlp, self.post_mlp_layer_norm, added
    )

  def step(
    self,
    x: Float[Array, 'R D'],
    caches: tuple[attention.Cache, attention.CrossCache],
    seen: Seen,
    cross_bias: Float[Array, 'sources 1 1 S'],
    entered: Entered,
    rows: shared_rows.Rows,
  ) -> tuple[Float[Array, 'R D'], attention.Cache]:
    """The layer's output of one new position, and its cache with it."""
    cache, cross_cache = caches
    bias, rotation = seen
    if self.stack.is_relative_by_layer:
      bias = bias + step_bias(self.relpos_bias, entered)
    is_merged = self.stack.attention.is_merged

    def attend(y):
      nonlocal cache
      position = entered.position
      if is_merged:
        y, cache = self.self_attention.merged_step(
          y, caches, bias, cross_bias, position, rows, rotation
        )
      else:
        y, cache = self.self_attention.step(
          y, cache, bias, position, rows, rotation
        )
      return y

    x = self._blocks(
      x,
      attend,
      lambda y: self.encoder_decoder_attention.cross_step(
        y, cross_cache, cross_bias, rows
      ),
      # [R, D] -> [R, 1, D], as of one position
      lambda y: self.mlp(y[:, None], deterministic=True)[:, 0],
      operator.add,
    )
    return x, cache

  def cross_cache(
    self, encoded: Float[Array, 'B S encoder_D']
  ) -> attention.CrossCache:
    """What the layer's steps attend to of sources."""
    if self.stack.attention.is_merged:
      return self.self_attention.cross_cache(encoded)
    return self.encoder_decoder_attention.cross_cache(encoded)
