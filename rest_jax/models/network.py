"""The T5 1.1 encoder-decoder, with the parameter tree of T5X."""

import dataclasses

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rest_jax.models import attention
from rest_jax.models import layers

Caches = tuple[attention.Cache, ...]
CrossCaches = tuple[attention.CrossCache, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig:
  """Sizes of the network.

  Attributes:
    vocab_size: V; 0 stands for the size of the vocabulary, see `with_vocab`.
    emb_dim: D, width of the residual stream.
    num_heads: H, of every attention.
    head_dim: K; H * K need not be D.
    num_encoder_layers: layers of the encoder.
    num_decoder_layers: layers of the decoder.
    mlp_dim: width inside the feed-forward blocks.
    mlp_activations: one name for a plain block, two for a gated one.
    dropout_rate: in [0, 1); of embeddings, residual branches, feed-forward
      blocks and attention probabilities.
    logits_via_embedding: logits from the token embeddings ("tied").
    dtype: of activations; parameters, norms, and logits over the vocabulary
      are float32 always.
    float32_attention_logits: attention logits and softmax in float32 under
      bfloat16 activations too.
    relative_attention_num_buckets: of the relative position bias.
    relative_attention_max_distance: beyond it all distances share a bucket.
  """

  vocab_size: int = 0
  emb_dim: int = 512
  num_heads: int = 4
  head_dim: int = 128
  num_encoder_layers: int = 6
  num_decoder_layers: int = 6
  mlp_dim: int = 1024
  mlp_activations: tuple[str, ...] = ('gelu', 'linear')
  dropout_rate: float = 0.1
  logits_via_embedding: bool = False
  dtype: str = 'float32'
  float32_attention_logits: bool = True
  relative_attention_num_buckets: int = 32
  relative_attention_max_distance: int = 128

  def __post_init__(self):
    # gin hands lists over as lists.
    object.__setattr__(self, 'mlp_activations', tuple(self.mlp_activations))
    for name in (
      'emb_dim',
      'num_heads',
      'head_dim',
      'num_encoder_layers',
      'num_decoder_layers',
      'mlp_dim',
    ):
      if getattr(self, name) < 1:
        raise ValueError(
          f'{name} must be at least 1; got {getattr(self, name)}. '
          'See gin_configs/models/.'
        )
    if self.vocab_size < 0:
      raise ValueError(
        'vocab_size must be positive, or 0 for that of the vocabulary; got '
        f'{self.vocab_size}.'
      )
    if not 0.0 <= self.dropout_rate < 1.0:
      raise ValueError(
        f'dropout_rate must be in [0, 1); got {self.dropout_rate}.'
      )
    unknown = set(self.mlp_activations) - set(layers.ACTIVATIONS)
    if unknown or not self.mlp_activations:
      raise ValueError(
        'mlp_activations must be one or more of '
        f'{sorted(layers.ACTIVATIONS)}; got {self.mlp_activations}.'
      )
    if self.dtype not in ('float32', 'bfloat16'):
      raise ValueError(
        f"dtype must be 'float32' or 'bfloat16'; got {self.dtype!r}."
      )
    buckets = self.relative_attention_num_buckets
    if buckets < 4 or buckets % 2:
      raise ValueError(
        'relative_attention_num_buckets must be even and at least 4, as '
        f'the encoder gives half of them to each side; got {buckets}.'
      )
    if self.relative_attention_max_distance <= buckets // 2:
      raise ValueError(
        'relative_attention_max_distance must be more than half of '
        f'relative_attention_num_buckets ({buckets}); got '
        f'{self.relative_attention_max_distance}.'
      )

  def with_vocab(self, size: int) -> 'NetworkConfig':
    """A copy for a vocabulary of `size` pieces.

    Args:
      size: number of pieces, at least 1.

    Returns:
      The configuration with `vocab_size` set if it was 0.

    Raises:
      ValueError: `vocab_size` is set and smaller than the vocabulary.
    """
    if self.vocab_size == 0:
      return dataclasses.replace(self, vocab_size=size)
    if self.vocab_size < size:
      raise ValueError(
        f'vocab_size must be 0 or at least the vocabulary size {size}; got '
        f'{self.vocab_size}. Leave it 0 to follow the vocabulary.'
      )
    return self


def _attention(config: NetworkConfig) -> attention.MultiHeadAttention:
  return attention.MultiHeadAttention(
    num_heads=config.num_heads,
    head_dim=config.head_dim,
    emb_dim=config.emb_dim,
    dropout_rate=config.dropout_rate,
    float32_logits=config.float32_attention_logits,
    dtype=config.dtype,
  )


def _mlp(config: NetworkConfig) -> layers.Mlp:
  return layers.Mlp(
    mlp_dim=config.mlp_dim,
    activations=config.mlp_activations,
    dropout_rate=config.dropout_rate,
    dtype=config.dtype,
  )


def _relpos_bias(
  config: NetworkConfig, *, bidirectional: bool
) -> layers.RelativePositionBias:
  return layers.RelativePositionBias(
    num_heads=config.num_heads,
    num_buckets=config.relative_attention_num_buckets,
    max_distance=config.relative_attention_max_distance,
    bidirectional=bidirectional,
  )


def _residual(x: Array) -> Array:
  return layers.constrain(x, ('batch', 'length', 'embed'))


class EncoderLayer(nn.Module):
  """Self-attention and feed-forward block, each normed and added."""

  config: NetworkConfig

  def setup(self):
    dtype = self.config.dtype
    self.pre_attention_layer_norm = layers.RMSNorm(dtype)
    self.attention = _attention(self.config)
    self.pre_mlp_layer_norm = layers.RMSNorm(dtype)
    self.mlp = _mlp(self.config)
    # One mask for all positions of a row, as in T5.
    self.dropout = layers.Dropout(self.config.dropout_rate, (-2,))

  def __call__(
    self,
    x: Float[Array, 'B S D'],
    bias: Float[Array, 'B H S S'],
    *,
    deterministic: bool,
  ) -> Float[Array, 'B S D']:
    y = self.pre_attention_layer_norm(x)
    y = self.attention(y, y, bias, deterministic=deterministic)
    x = _residual(x + self.dropout(y, deterministic=deterministic))
    y = self.mlp(self.pre_mlp_layer_norm(x), deterministic=deterministic)
    return _residual(x + self.dropout(y, deterministic=deterministic))


class DecoderLayer(nn.Module):
  """Self-attention, attention to the source, and feed-forward block."""

  config: NetworkConfig

  def setup(self):
    dtype = self.config.dtype
    self.pre_self_attention_layer_norm = layers.RMSNorm(dtype)
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
    bias: Float[Array, '#R H T T'],
    cross_bias: Float[Array, 'B 1 Q S'],
    *,
    deterministic: bool,
  ) -> Float[Array, 'R T D']:
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
    x: Float[Array, 'B N D'],
    cache: attention.Cache,
    cross_cache: attention.CrossCache,
    bias: Float[Array, 'H L'],
    cross_bias: Float[Array, 'B 1 1 S'],
    position: Int[Array, ''],
  ) -> tuple[Float[Array, 'B N D'], attention.Cache]:
    y = self.pre_self_attention_layer_norm(x)
    y, cache = self.self_attention.step(y, cache, bias, position)
    x = x + y
    y = self.pre_cross_attention_layer_norm(x)
    x = x + self.encoder_decoder_attention.cross_step(
      y, cross_cache, cross_bias
    )
    y = self.mlp(self.pre_mlp_layer_norm(x), deterministic=True)
    return x + y, cache


class Encoder(nn.Module):
  """The stack of encoder layers over embedded tokens."""

  config: NetworkConfig

  def setup(self):
    config = self.config
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
    bias = self.relpos_bias(length, length) + layers.mask_to_bias(mask)
    x = _residual(self.input_dropout(x, deterministic=deterministic))
    for layer in self.layers:
      x = layer(x, bias, deterministic=deterministic)
    x = self.encoder_norm(x)
    return self.output_dropout(x, deterministic=deterministic)


class Decoder(nn.Module):
  """The stack of decoder layers over embedded tokens, and its head.

  Attributes:
    config: sizes.
    head: 'logits' or 'value'.
  """

  config: NetworkConfig
  head: str

  def setup(self):
    config = self.config
    self.relpos_bias = _relpos_bias(config, bidirectional=False)
    self.layers = [
      DecoderLayer(config) for _ in range(config.num_decoder_layers)
    ]
    self.decoder_norm = layers.RMSNorm(config.dtype)
    self.dropout = layers.Dropout(config.dropout_rate, (-2,))
    if self.head == 'value':
      self.value_dense = layers.Dense(1, ('embed', 'value'))
    elif not config.logits_via_embedding:
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
    bias = self.relpos_bias(length, length) + layers.mask_to_bias(mask)
    cross_bias = layers.mask_to_bias(cross_mask)
    x = _residual(self.dropout(x, deterministic=deterministic))
    for layer in self.layers:
      x = layer(x, encoded, bias, cross_bias, deterministic=deterministic)
    x = self.decoder_norm(x)
    return self.dropout(x, deterministic=deterministic)

  def step(
    self,
    x: Float[Array, 'B N D'],
    caches: Caches,
    cross_caches: CrossCaches,
    cross_mask: Bool[Array, 'B 1 1 S'],
    position: Int[Array, ''],
  ) -> tuple[Float[Array, 'B N D'], Caches]:
    """The hidden states of one new position, and the caches with it."""
    length = cache_length(caches)
    seen = jnp.arange(length) <= position
    bias = self.relpos_bias.row(position, length) + layers.mask_to_bias(seen)
    cross_bias = layers.mask_to_bias(cross_mask)
    new_caches = []
    for layer, cache, cross_cache in zip(
      self.layers, caches, cross_caches, strict=True
    ):
      x, cache = layer.step(x, cache, cross_cache, bias, cross_bias, position)
      new_caches.append(cache)
    return self.decoder_norm(x), tuple(new_caches)

  def cross_attention_cache(self, encoded: Float[Array, 'B S D']):
    return tuple(
      layer.encoder_decoder_attention.keys_and_values(encoded)
      for layer in self.layers
    )

  def logits(self, hidden: Float[Array, '*R D']) -> Float[Array, '*R V']:
    return self.logits_dense(hidden)

  def values(self, hidden: Float[Array, '*R D']) -> Float[Array, '*R']:
    return self.value_dense(hidden)[..., 0]


class Transformer(nn.Module):
  """The encoder-decoder.

  Attributes:
    config: sizes.
    head: 'logits' for a policy, 'value' for one scalar a decoder position.
  """

  config: NetworkConfig
  head: str = 'logits'

  def setup(self):
    config = self.config
    self.token_embedder = layers.Embed(
      config.vocab_size, config.emb_dim, config.dtype
    )
    self.encoder = Encoder(config)
    self.decoder = Decoder(config, self.head)

  def encode(
    self, encoder_input_tokens: Int[Array, 'B S'], *, deterministic: bool = True
  ) -> Float[Array, 'B S D']:
    """Encodes each source; PAD is not attended to."""
    real = encoder_input_tokens > 0
    # [B, S] -> [B, 1, S, S]
    mask = real[:, None, :, None] & real[:, None, None, :]
    x = self.token_embedder(encoder_input_tokens)
    return self.encoder(x, mask, deterministic=deterministic)

  def decode_hidden(
    self,
    encoded: Float[Array, 'B S D'],
    encoder_input_tokens: Int[Array, 'B S'],
    decoder_input_tokens: Int[Array, 'R T'],
    decoder_target_tokens: Int[Array, 'R T'] | None = None,
    *,
    deterministic: bool = True,
  ) -> Float[Array, 'R T D']:
    """Final decoder states of R = B * N hypotheses of B sources.

    Args:
      encoded: of `encode`.
      encoder_input_tokens: the sources, for their padding.
      decoder_input_tokens: targets shifted right; rows b * N ... b * N + N - 1
        belong to source b.
      decoder_target_tokens: if given, positions whose target is PAD neither
        attend nor are attended to. Nothing before them depends on it.
      deterministic: no dropout.

    Returns:
      Normed hidden states, those that a head reads.
    """
    batch, source_length = encoder_input_tokens.shape
    rows, length = decoder_input_tokens.shape
    if rows % batch:
      raise ValueError(
        'decoder_input_tokens must have a whole number of rows for each of '
        f'the {batch} sources; got {rows} rows.'
      )
    # [T, T] -> [1, 1, T, T]; [B, S] -> [B, 1, 1, S]
    mask = jnp.tril(jnp.ones((length, length), bool))[None, None]
    cross_mask = (encoder_input_tokens > 0)[:, None, None, :]
    if decoder_target_tokens is not None:
      real = decoder_target_tokens > 0
      mask = mask & real[:, None, :, None] & real[:, None, None, :]
      # [B * N, T] -> [B, 1, N * T, 1]
      cross_mask = cross_mask & real.reshape(batch, 1, -1, 1)
    x = self.token_embedder(decoder_input_tokens)
    return self.decoder(
      x, encoded, mask, cross_mask, deterministic=deterministic
    )

  def logits(self, hidden: Float[Array, '*R D']) -> Float[Array, '*R V']:
    """Float32 logits of decoder states."""
    if self.config.logits_via_embedding:
      return self.token_embedder.attend(hidden)
    return self.decoder.logits(hidden)

  def values(self, hidden: Float[Array, '*R D']) -> Float[Array, '*R']:
    """Float32 scalar of each decoder state, for `head='value'`."""
    return self.decoder.values(hidden)

  def decode(
    self,
    encoded: Float[Array, 'B S D'],
    encoder_input_tokens: Int[Array, 'B S'],
    decoder_input_tokens: Int[Array, 'R T'],
    decoder_target_tokens: Int[Array, 'R T'] | None = None,
    *,
    deterministic: bool = True,
  ) -> Float[Array, 'R T V']:
    """Logits of each next token; arguments as for `decode_hidden`."""
    hidden = self.decode_hidden(
      encoded,
      encoder_input_tokens,
      decoder_input_tokens,
      decoder_target_tokens,
      deterministic=deterministic,
    )
    logits = self.logits(hidden)
    return layers.constrain(logits, ('batch', 'length', 'vocab'))

  def __call__(
    self,
    encoder_input_tokens: Int[Array, 'B S'],
    decoder_input_tokens: Int[Array, 'R T'],
    decoder_target_tokens: Int[Array, 'R T'] | None = None,
    *,
    deterministic: bool = True,
  ) -> Array:
    """What the head says of each decoder position: logits or values."""
    arguments = (
      self.encode(encoder_input_tokens, deterministic=deterministic),
      encoder_input_tokens,
      decoder_input_tokens,
      decoder_target_tokens,
    )
    if self.head == 'value':
      hidden = self.decode_hidden(*arguments, deterministic=deterministic)
      return self.values(hidden)
    return self.decode(*arguments, deterministic=deterministic)

  def cross_attention_cache(
    self, encoded: Float[Array, 'B S D']
  ) -> CrossCaches:
    """Keys and values of the sources for each decoder layer, made once."""
    return self.decoder.cross_attention_cache(encoded)

  def decode_step(
    self,
    tokens: Int[Array, 'B N'],
    caches: Caches,
    cross_caches: CrossCaches,
    encoder_input_tokens: Int[Array, 'B S'],
    position: Int[Array, ''],
  ) -> tuple[Float[Array, 'B N V'], Caches]:
    """Logits of the next token of N hypotheses for each source.

    Args:
      tokens: the decoder's input at `position`: PAD at position 0, then the
        token drawn at position - 1.
      caches: of `init_caches`, filled by the calls for earlier positions.
      cross_caches: of `cross_attention_cache`.
      encoder_input_tokens: the sources, for their padding.
      position: in [0, L) where L is the caches' length; may be traced.

    Returns:
      Float32 logits, and the caches with this position stored.
    """
    x = self.token_embedder(tokens)
    cross_mask = (encoder_input_tokens > 0)[:, None, None, :]
    hidden, caches = self.decoder.step(
      x, caches, cross_caches, cross_mask, position
    )
    return self.logits(hidden), caches


def init_caches(
  config: NetworkConfig,
  batch: int,
  num_samples_per_source: int,
  length: int,
) -> Caches:
  """Empty self-attention caches for every decoder layer.

  Args:
    config: of the network.
    batch: B, sources.
    num_samples_per_source: N.
    length: L, positions that fit.

  Returns:
    For each layer keys [B, N, H, K, L] and values [B, N, H, L, K], zero.
  """
  rows = (batch, num_samples_per_source, config.num_heads)
  return tuple(
    (
      jnp.zeros((*rows, config.head_dim, length), config.dtype),
      jnp.zeros((*rows, length, config.head_dim), config.dtype),
    )
    for _ in range(config.num_decoder_layers)
  )


def cache_length(caches: Caches) -> int:
  """L: how many positions fit into the caches."""
  return caches[0][1].shape[3]


def grow_caches(caches: Caches, new_length: int) -> Caches:
  """Appends room for later positions, up to `new_length` in all."""
  extra = new_length - cache_length(caches)
  if extra < 0:
    raise ValueError(
      f'new_length must be at least the current {cache_length(caches)}; got '
      f'{new_length}. Caches can only grow.'
    )

  def pad(x: Array, axis: int) -> Array:
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, extra)
    return jnp.pad(x, widths)

  return tuple((pad(keys, 4), pad(values, 3)) for keys, values in caches)
