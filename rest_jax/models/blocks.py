"""Encoder and decoder: their layers, and the stacks of them."""

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rest_jax.models import attention, layer_stack, layers
from rest_jax.models import network_config as config_lib
from rest_jax.models import rows as rows_lib

# A pair for each decoder layer.
Caches = tuple[attention.Cache, ...]
CrossCaches = tuple[attention.CrossCache, ...]


def _attention(
  config: config_lib.NetworkConfig,
) -> attention.MultiHeadAttention:
  return attention.MultiHeadAttention(
    num_heads=config.num_heads,
    head_dim=config.head_dim,
    emb_dim=config.emb_dim,
    dropout_rate=config.dropout_rate,
    float32_logits=config.float32_attention_logits,
    dtype=config.dtype,
  )


def _mlp(config: config_lib.NetworkConfig) -> layers.Mlp:
  return layers.Mlp(
    mlp_dim=config.mlp_dim,
    activations=tuple(config.mlp_activations),
    dropout_rate=config.dropout_rate,
    dtype=config.dtype,
  )


def _relpos_bias(
  config: config_lib.NetworkConfig, *, bidirectional: bool
) -> layers.RelativePositionBias:
  return layers.RelativePositionBias(
    num_heads=config.num_heads,
    num_buckets=config.relative_attention_num_buckets,
    max_distance=config.relative_attention_max_distance,
    bidirectional=bidirectional,
  )


def _step_bias(
  relpos_bias: layers.RelativePositionBias,
  position: Int[Array, ''] | int,
  length: int,
  is_ring: bool,
) -> Float[Array, 'H L']:
  return (relpos_bias.ring if is_ring else relpos_bias.row)(position, length)


def _residual(x: Array) -> Array:
  return layers.constrain(x, ('batch', 'length', 'embed'))


class EncoderLayer(nn.Module):
  """Self-attention and feed-forward block, each normed and added."""

  config: config_lib.NetworkConfig

  def setup(self):
    dtype = self.config.dtype
    self.pre_attention_layer_norm = layers.RMSNorm(dtype)
    if self.config.relative_bias_per_layer:
      self.relpos_bias = _relpos_bias(self.config, bidirectional=True)
    self.attention = _attention(self.config)
    self.pre_mlp_layer_norm = layers.RMSNorm(dtype)
    self.mlp = _mlp(self.config)
    # One mask for all positions of a row, as in T5.
    self.dropout = layers.Dropout(self.config.dropout_rate, (-2,))

  def __call__(
    self,
    x: Float[Array, 'B S D'],
    bias: Float[Array, 'B #H S S'],
    *,
    deterministic: bool,
  ) -> Float[Array, 'B S D']:
    if self.config.relative_bias_per_layer:
      bias = bias + self.relpos_bias(x.shape[1], x.shape[1])
    y = self.pre_attention_layer_norm(x)
    y = self.attention(y, y, bias, deterministic=deterministic)
    x = _residual(x + self.dropout(y, deterministic=deterministic))
    y = self.mlp(self.pre_mlp_layer_norm(x), deterministic=deterministic)
    return _residual(x + self.dropout(y, deterministic=deterministic))


class DecoderLayer(nn.Module):
  """Self-attention, attention to the source, and feed-forward block."""

  config: config_lib.NetworkConfig

  def setup(self):
    dtype = self.config.dtype
    self.pre_self_attention_layer_norm = layers.RMSNorm(dtype)
    if self.config.relative_bias_per_layer:
      self.relpos_bias = _relpos_bias(self.config, bidirectional=False)
    self.self_attention = _attention(self.config)
    self.pre_cross_attention_layer_norm = layers.RMSNorm(dtype)
    self.encoder_decoder_attention = _attention(self.config)
    self.pre_mlp_layer_norm = layers.RMSNorm(dtype)
    self.mlp = _mlp(self.config)
    self.dropout = layers.Dropout(self.config.dropout_rate, (-2,))

  def __call__(
    self,
    x: Float[Array, 'R T D'],
    encoded: Float[Array, 'B S D'],
    bias: Float[Array, '#R #H T T'],
    cross_bias: Float[Array, 'B 1 Q S'],
    *,
    deterministic: bool,
  ) -> Float[Array, 'R T D']:
    if self.config.relative_bias_per_layer:
      bias = bias + self.relpos_bias(x.shape[1], x.shape[1])
    y = self.pre_self_attention_layer_norm(x)
    y = self.self_attention(y, y, bias, deterministic=deterministic)
    x = _residual(x + self.dropout(y, deterministic=deterministic))
    y = self.pre_cross_attention_layer_norm(x)
    y = self.encoder_decoder_attention(
      y, encoded, cross_bias, deterministic=deterministic
    )
    x = _residual(x + self.dropout(y, deterministic=deterministic))
    y = self.mlp(self.pre_mlp_layer_norm(x), deterministic=deterministic)
    return _residual(x + self.dropout(y, deterministic=deterministic))

  def step(
    self,
    x: Float[Array, 'R D'],
    cache: attention.Cache,
    cross_cache: attention.CrossCache,
    bias: Float[Array, '*#B #H L'],
    cross_bias: Float[Array, 'sources 1 1 S'],
    position: Int[Array, ''] | int,
    rows: rows_lib.Rows,
    is_ring: bool,
  ) -> tuple[Float[Array, 'R D'], attention.Cache]:
    if self.config.relative_bias_per_layer:
      bias = bias + _step_bias(
        self.relpos_bias, position, bias.shape[-1], is_ring
      )
    y = self.pre_self_attention_layer_norm(x)
    y, cache = self.self_attention.step(y, cache, bias, position, rows)
    x = x + y
    y = self.pre_cross_attention_layer_norm(x)
    x = x + self.encoder_decoder_attention.cross_step(
      y, cross_cache, cross_bias, rows
    )
    # [R, D] -> [R, 1, D], as of one position
    y = self.pre_mlp_layer_norm(x)[:, None]
    return x + self.mlp(y, deterministic=True)[:, 0], cache


class Encoder(nn.Module):
  """The stack of encoder layers over embedded tokens."""

  config: config_lib.NetworkConfig

  def setup(self):
    config = self.config
    if not config.relative_bias_per_layer:
      self.relpos_bias = _relpos_bias(config, bidirectional=True)
    self.layers = [
      EncoderLayer(config) for _ in range(config.num_encoder_layers)
    ]
    self.encoder_norm = layers.RMSNorm(config.dtype)
    self.input_dropout = layers.Dropout(config.dropout_rate, (-2,))
    # T5X draws this one for each position; so do we.
    self.output_dropout = layers.Dropout(config.dropout_rate)

  def __call__(
    self,
    x: Float[Array, 'B S D'],
    mask: Bool[Array, 'B 1 S S'],
    *,
    deterministic: bool,
  ) -> Float[Array, 'B S D']:
    length = x.shape[1]
    bias = layers.mask_to_bias(mask)
    if not self.config.relative_bias_per_layer:
      bias = self.relpos_bias(length, length) + bias
    x = _residual(self.input_dropout(x, deterministic=deterministic))
    x = layer_stack.apply(
      self, self.layers, self.config, x, bias, deterministic=deterministic
    )
    x = self.encoder_norm(x)
    return self.output_dropout(x, deterministic=deterministic)


class Decoder(nn.Module):
  """The stack of decoder layers over embedded tokens, and its head.

  Attributes:
    config: sizes.
    head: 'logits', 'value', or 'judgement' for both.
  """

  config: config_lib.NetworkConfig
  head: str

  def setup(self):
    config = self.config
    if not config.relative_bias_per_layer:
      self.relpos_bias = _relpos_bias(config, bidirectional=False)
    self.layers = [
      DecoderLayer(config) for _ in range(config.num_decoder_layers)
    ]
    self.decoder_norm = layers.RMSNorm(config.dtype)
    self.dropout = layers.Dropout(config.dropout_rate, (-2,))
    if self.head != 'logits':
      # Small, so that training starts near 0 and the body hardly moves.
      self.value_dense = layers.Dense(1, ('embed', 'value'), init_scale=0.1)
    if self.head != 'value' and not config.logits_via_embedding:
      self.logits_dense = layers.Dense(config.vocab_size, ('embed', 'vocab'))

  def __call__(
    self,
    x: Float[Array, 'R T D'],
    encoded: Float[Array, 'B S D'],
    mask: Bool[Array, '#R 1 T T'],
    cross_mask: Bool[Array, 'B 1 Q S'],
    *,
    deterministic: bool,
  ) -> Float[Array, 'R T D']:
    """The hidden states that a head reads."""
    length = x.shape[1]
    bias = layers.mask_to_bias(mask)
    if not self.config.relative_bias_per_layer:
      bias = self.relpos_bias(length, length) + bias
    cross_bias = layers.mask_to_bias(cross_mask)
    x = _residual(self.dropout(x, deterministic=deterministic))
    x = layer_stack.apply(
      self,
      self.layers,
      self.config,
      x,
      encoded,
      bias,
      cross_bias,
      deterministic=deterministic,
    )
    x = self.decoder_norm(x)
    return self.dropout(x, deterministic=deterministic)

  def step(
    self,
    x: Float[Array, 'R D'],
    caches: Caches,
    cross_caches: CrossCaches,
    cross_mask: Bool[Array, 'sources 1 1 S'],
    position: Int[Array, ''] | int,
    rows: rows_lib.Rows,
    length: int,
    ring_positions: Int[Array, ' B'] | None,
  ) -> tuple[Float[Array, 'R D'], Caches]:
    """The hidden states of one new position, and the caches with it."""
    is_ring = ring_positions is not None
    if is_ring:
      ages = layers.ring_ages(position, length)
      seen = ages <= ring_positions[:, None, None, None]  # [B, 1, 1, L]
    else:
      seen = (jnp.arange(length) <= position)[None]
    bias = layers.mask_to_bias(seen)
    if not self.config.relative_bias_per_layer:
      bias = bias + _step_bias(self.relpos_bias, position, length, is_ring)
    cross_bias = layers.mask_to_bias(cross_mask)
    new_caches = []
    for layer, cache, cross_cache in zip(
      self.layers, caches, cross_caches, strict=True
    ):
      x, cache = layer.step(
        x, cache, cross_cache, bias, cross_bias, position, rows, is_ring
      )
      new_caches.append(cache)
    return self.decoder_norm(x), tuple(new_caches)

  def cross_attention_cache(
    self, encoded: Float[Array, 'B S D']
  ) -> CrossCaches:
    return tuple(
      layer.encoder_decoder_attention.cross_cache(encoded)
      for layer in self.layers
    )

  def logits(self, hidden: Float[Array, '*R D']) -> Float[Array, '*R V']:
    return self.logits_dense(hidden)

  def values(self, hidden: Float[Array, '*R D']) -> Float[Array, '*R']:
    return self.value_dense(hidden)[..., 0]
