"""The encoder-decoder; as a T5 it has the parameter tree of T5X."""

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rest_jax.models import attention, blocks, layers, shared_rows, stacks
from rest_jax.models import network_config as config_lib

NetworkConfig = config_lib.NetworkConfig
Caches = stacks.Caches
CrossCaches = stacks.CrossCaches


class Transformer(nn.Module):
  """The encoder-decoder.

  Attributes:
    config: sizes.
    head: 'logits' for a policy, 'value' for one scalar a decoder position,
      'judgement' for that scalar and the target's log-probability together.
  """

  config: config_lib.NetworkConfig
  head: str = 'logits'

  def setup(self):
    config = self.config
    self.token_embedder = layers.Embed(
      config.vocab_size, config.emb_dim, config.dtype, config.embeddings
    )
    if not config.embeddings.is_shared:
      self.encoder_embedder = layers.Embed(
        config.encoder_vocab_size,
        config.encoder_stack.emb_dim,
        config.dtype,
        config.embeddings,
      )
    self.encoder = stacks.Encoder(config)
    self.decoder = stacks.Decoder(config, self.head)

  def encode(
    self,
    encoder_input_tokens: Int[Array, 'B S'],
    *,
    encoder_segment_ids: Int[Array, 'B S'] | None = None,
    deterministic: bool = True,
  ) -> Float[Array, 'B S encoder_D']:
    """Encodes each source; PAD and other segments are not attended to."""
    real = self._is_token(encoder_input_tokens)
    # [B, S] -> [B, 1, S, S]
    mask = real[:, None, :, None] & real[:, None, None, :]
    mask = _within_segments(mask, encoder_segment_ids, encoder_segment_ids)
    embedder = self.token_embedder
    if not self.config.embeddings.is_shared:
      embedder = self.encoder_embedder
    return self.encoder(
      embedder(encoder_input_tokens),
      mask,
      encoder_segment_ids,
      deterministic=deterministic,
    )

  def _is_token(self, tokens: Int[Array, '...']) -> Bool[Array, '...']:
    return tokens != self.config.special_ids.pad

  def decode_hidden(
    self,
    encoded: Float[Array, 'B S encoder_D'],
    encoder_input_tokens: Int[Array, 'B S'],
    decoder_input_tokens: Int[Array, 'R T'],
    decoder_target_tokens: Int[Array, 'R T'] | None = None,
    *,
    encoder_segment_ids: Int[Array, 'B S'] | None = None,
    decoder_segment_ids: Int[Array, 'B T'] | None = None,
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
      encoder_segment_ids: which pair of its row each source token belongs to,
        where several share one (N = 1); None for a pair a row.
      decoder_segment_ids: likewise of target tokens.
      deterministic: no dropout.

    Returns:
      Normed hidden states, those that a head reads.
    """
    batch = encoder_input_tokens.shape[0]
    rows, length = decoder_input_tokens.shape
    if rows % batch:
      raise ValueError(
        'decoder_input_tokens must have a whole number of rows for each of '
        f'the {batch} sources; got {rows} rows.'
      )
    # [T, T] -> [1, 1, T, T]; [B, S] -> [B, 1, 1, S]
    mask = jnp.tril(jnp.ones((length, length), bool))[None, None]
    cross_mask = self._is_token(encoder_input_tokens)[:, None, None, :]
    if decoder_target_tokens is not None:
      real = self._is_token(decoder_target_tokens)
      mask = mask & real[:, None, :, None] & real[:, None, None, :]
      # [B * N, T] -> [B, 1, N * T, 1]
      cross_mask = cross_mask & real.reshape(batch, 1, -1, 1)
    mask = _within_segments(mask, decoder_segment_ids, decoder_segment_ids)
    cross_mask = _within_segments(
      cross_mask, decoder_segment_ids, encoder_segment_ids
    )
    x = self.token_embedder(decoder_input_tokens)
    return self.decoder(
      x,
      encoded,
      mask,
      cross_mask,
      decoder_segment_ids,
      deterministic=deterministic,
    )

  def turned_embeddings(self) -> Float[Array, 'D V'] | None:
    """The embeddings as a kernel of the logits, None if those have their own."""
    if not self.config.logits_via_embedding:
      return None
    return self.token_embedder.embedding.T

  def logits(
    self,
    hidden: Float[Array, '*R D'],
    turned_embeddings: Float[Array, 'D V'] | None = None,
  ) -> Float[Array, '*R V']:
    """Float32 logits of decoder states."""
    if self.config.logits_via_embedding:
      logits = self.token_embedder.attend(hidden, turned_embeddings)
    else:
      logits = self.decoder.logits(hidden)
    if self.config.embeddings.has_logits_bias:
      logits = logits + self.decoder.logits_bias
    return layers.soft_cap(logits, self.config.embeddings.soft_cap)

  def values(self, hidden: Float[Array, '*R D']) -> Float[Array, '*R']:
    """Float32 scalar of each decoder state, for `head='value'`."""
    return self.decoder.values(hidden)

  def judgements(
    self, hidden: Float[Array, '*R T D'], targets: Int[Array, '*R T']
  ) -> Float[Array, '*R T']:
    """value + log softmax(logits)[target] of states, for `head='judgement'`."""
    logits = self.logits(hidden).astype(jnp.float32)
    # A masked sum, not a look-up, whose gradient would be a scatter.
    is_target = jnp.arange(logits.shape[-1]) == targets[..., None]
    chosen = jnp.where(is_target, logits, 0.0).sum(-1)
    return self.values(hidden) + chosen - nn.logsumexp(logits, axis=-1)

  def __call__(
    self,
    encoder_input_tokens: Int[Array, 'B S'],
    decoder_input_tokens: Int[Array, 'R T'],
    decoder_target_tokens: Int[Array, 'R T'] | None = None,
    *,
    encoder_segment_ids: Int[Array, 'B S'] | None = None,
    decoder_segment_ids: Int[Array, 'B T'] | None = None,
    deterministic: bool = True,
  ) -> Array:
    """What the head says of each decoder position: logits or values."""
    encoded = self.encode(
      encoder_input_tokens,
      encoder_segment_ids=encoder_segment_ids,
      deterministic=deterministic,
    )
    hidden = self.decode_hidden(
      encoded,
      encoder_input_tokens,
      decoder_input_tokens,
      decoder_target_tokens,
      encoder_segment_ids=encoder_segment_ids,
      decoder_segment_ids=decoder_segment_ids,
      deterministic=deterministic,
    )
    if self.head == 'value':
      return self.values(hidden)
    if self.head == 'judgement':
      if decoder_target_tokens is None:
        raise ValueError('decoder_target_tokens must be given to be judged')
      return self.judgements(hidden, decoder_target_tokens)
    logits = self.logits(hidden)
    return layers.constrain(logits, ('batch', 'length', 'vocab'))

  def cross_attention_cache(
    self, encoded: Float[Array, 'B S encoder_D']
  ) -> CrossCaches:
    """Keys and values of the sources for each decoder layer, made once."""
    return self.decoder.cross_attention_cache(encoded)

  def decode_step(
    self,
    tokens: Int[Array, 'B N'],
    caches: Caches,
    cross_caches: CrossCaches,
    encoder_input_tokens: Int[Array, 'sources S'],
    position: Int[Array, ''] | int,
    rows: shared_rows.Rows | None = None,
    turned_embeddings: Float[Array, 'D V'] | None = None,
    length: int | None = None,
    ring_positions: Int[Array, ' B'] | None = None,
  ) -> tuple[Float[Array, '... V'], Caches]:
    """Logits of the next token of N hypotheses for each source.

    Args:
      tokens: the decoder's input at `position`: the start at position 0, then
        the token drawn at position - 1.
      caches: of `init_caches`, filled by the calls for earlier positions.
      cross_caches: of `cross_attention_cache`.
      encoder_input_tokens: the sources, for their padding.
      position: in [0, `length`); may be traced.
      rows: which hypotheses share a row; None for a row each.
      turned_embeddings: of the method of that name, made once for all steps.
      length: how many of the caches' positions are attended to; None for all.
      ring_positions: positions of each source's hypotheses where those of
        different sources began at different times. Caches are rings then, of
        which the step writes the place `position`. From `length` on a position
        sees the last `length` alone; no step is to draw from it.

    Returns:
      Float32 logits, [R, V] of the rows, or [B, N, V] if each hypothesis has
      its own; and the caches with this position stored.
    """
    own = shared_rows.OwnRows(*tokens.shape)
    shared = own if rows is None else rows
    x = self.token_embedder(shared.select(tokens))  # [R, D]
    cross_mask = self._is_token(encoder_input_tokens)[:, None, None, :]
    room = cache_length(caches)
    entered = blocks.Entered(position, length or room, room, ring_positions)
    hidden, caches = self.decoder.step(
      x, caches, cross_caches, cross_mask, entered, shared
    )
    logits = self.logits(hidden, turned_embeddings)
    return own.expand(logits) if rows is None else logits, caches


def _within_segments(
  mask: Bool[Array, '...'],
  queries: Int[Array, 'B Q'] | None,
  keys: Int[Array, 'B K'] | None,
) -> Bool[Array, '...']:
  """Only what is of the query's own segment; all if there are no segments."""
  if queries is None or keys is None:
    return mask
  # [B, Q], [B, K] -> [B, 1, Q, K]
  return mask & (queries[:, None, :, None] == keys[:, None, None, :])


def init_caches(
  config: config_lib.NetworkConfig,
  batch: int,
  num_samples_per_source: int,
  length: int,
) -> Caches:
  """Empty self-attention caches for every decoder layer.

  Args:
    config: of the network.
    batch: B, sources.
    num_samples_per_source: N.
    length: M, positions that fit.

  Returns:
    For each layer keys and values [B, N, G, M, K], zero.
  """
  heads = config.decoder_stack.num_key_value_heads
  shape = (batch, num_samples_per_source, heads, length)
  zeros = jnp.zeros((*shape, config.head_dim), config.dtype)
  return tuple((zeros, zeros) for _ in range(config.num_decoder_layers))


def cache_length(caches: Caches) -> int:
  """M: how many positions fit into the caches."""
  return caches[0][0].shape[3]


def grow_caches(
  caches: Caches, new_length: int
) -> tuple[attention.GrownCache, ...]:
  """Appends room for later positions, up to `new_length` in all."""
  extra = new_length - cache_length(caches)
  if extra < 0:
    raise ValueError(
      f'new_length must be at least the current {cache_length(caches)}; got '
      f'{new_length}. Caches can only grow.'
    )

  widths = ((0, 0), (0, 0), (0, 0), (0, extra), (0, 0))
  return tuple(
    (jnp.pad(keys, widths), jnp.pad(values, widths)) for keys, values in caches
  )
