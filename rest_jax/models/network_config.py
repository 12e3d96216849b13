"""The sizes and parts of a network."""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
from typing import Any

from rest_jax import settings
from rest_jax.models import layers, parts

REMATS = ('none', 'minimal', 'full')


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig:
  """Sizes and parts of the network: those of T5 1.1 unless others are named.

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
    relative_bias_per_layer: each layer has a relative position bias of its own,
      as in umT5; otherwise a stack has one.
    remat: what training computes again in its backward pass to save memory:
      'none', 'minimal' (all but products of matrices), 'full' (every layer from
      its input).
    scan_layers: compile one encoder and one decoder layer as a loop, for deep
      networks. Dropout draws other masks then. Checkpoints stay as they are.
    norm: of both stacks.
    positions: likewise.
    attention: likewise.
    feed_forward: likewise.
    embeddings: of tokens, and the logits.
    encoder: what the encoder has otherwise than the decoder; None for nothing.
    special_ids: of the vocabulary that the network was trained with.
  """

  vocab_size: int = 0
  emb_dim: int = 512
  num_heads: int = 4
  head_dim: int = 128
  num_encoder_layers: int = 6
  num_decoder_layers: int = 6
  mlp_dim: int = 1024
  mlp_activations: Sequence[str] = ('gelu', 'linear')
  dropout_rate: float = 0.1
  logits_via_embedding: bool = False
  dtype: str = 'float32'
  float32_attention_logits: bool = True
  relative_attention_num_buckets: int = 32
  relative_attention_max_distance: int = 128
  relative_bias_per_layer: bool = False
  remat: str = settings.recorded(default='none')
  scan_layers: bool = settings.recorded(default=False)
  norm: parts.NormConfig = settings.added(default=parts.NormConfig())
  positions: parts.PositionConfig = settings.added(
    default=parts.PositionConfig()
  )
  attention: parts.AttentionConfig = settings.added(
    default=parts.AttentionConfig()
  )
  feed_forward: parts.FeedForwardConfig = settings.added(
    default=parts.FeedForwardConfig()
  )
  embeddings: parts.EmbeddingConfig = settings.added(
    default=parts.EmbeddingConfig()
  )
  encoder: parts.EncoderConfig | None = settings.added(default=None)
  special_ids: parts.SpecialIds = settings.added(default=parts.SpecialIds())

  def __post_init__(self):
    # gin hands lists over as lists.
    settings.make_tuples(self, 'mlp_activations')
    settings.at_least(
      self,
      1,
      'emb_dim',
      'num_heads',
      'head_dim',
      'num_encoder_layers',
      'num_decoder_layers',
      'mlp_dim',
      hint='See gin_configs/models/.',
    )
    if self.vocab_size < 0:
      raise ValueError(
        'vocab_size must be positive, or 0 for that of the vocabulary; got '
        f'{self.vocab_size}.'
      )
    settings.inside(self, '[0, 1)', 'dropout_rate')
    unknown = set(self.mlp_activations) - set(layers.ACTIVATIONS)
    if unknown or not self.mlp_activations:
      raise ValueError(
        'mlp_activations must be one or more of '
        f'{sorted(layers.ACTIVATIONS)}; got {self.mlp_activations}.'
      )
    settings.one_of(self, ('float32', 'bfloat16'), 'dtype')
    settings.one_of(self, REMATS, 'remat')
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
    self._check_parts()

  def _check_parts(self):
    for stack in (self.encoder_stack, self.decoder_stack):
      unknown = set(stack.mlp_activations) - set(layers.ACTIVATIONS)
      if unknown:
        raise ValueError(
          'mlp_activations of the encoder must be one or more of '
          f'{sorted(layers.ACTIVATIONS)}; got {stack.mlp_activations}.'
        )
      if stack.num_heads % stack.num_key_value_heads:
        raise ValueError(
          f'num_key_value_heads must divide num_heads={stack.num_heads}; got '
          f'{stack.num_key_value_heads}.'
        )
      if stack.positions.kind == 'rotary' and stack.head_dim % 2:
        raise ValueError(
          "head_dim must be even where positions are 'rotary', as features are "
          f'turned in pairs; got {stack.head_dim}.'
        )
    if self.embeddings.is_shared and (
      self.encoder_stack.emb_dim != self.emb_dim
      or self.encoder_vocab_size != self.vocab_size
    ):
      raise ValueError(
        'EmbeddingConfig.is_shared must be False where the encoder has another '
        'width or vocabulary than the decoder.'
      )
    if self.attention.is_merged and self.encoder_stack.emb_dim != self.emb_dim:
      raise ValueError(
        'EncoderConfig.emb_dim must be that of the decoder where attention is '
        f'merged, {self.emb_dim}; got {self.encoder_stack.emb_dim}.'
      )

  @property
  def encoder_vocab_size(self) -> int:
    """How many tokens the encoder reads."""
    own = self.encoder.vocab_size if self.encoder else None
    return own or self.vocab_size

  @functools.cached_property
  def decoder_stack(self) -> 'Stack':
    return Stack(
      **{
        field.name: getattr(self, field.name)
        for field in dataclasses.fields(Stack)
        if field.name not in _OF_STACKS
      },
      num_layers=self.num_decoder_layers,
      is_encoder=False,
    )

  @functools.cached_property
  def encoder_stack(self) -> 'Stack':
    own = self.encoder or parts.EncoderConfig()
    given = {
      field.name: getattr(own, field.name)
      for field in dataclasses.fields(own)
      if field.name != 'vocab_size'
    }
    return dataclasses.replace(
      self.decoder_stack,
      num_layers=self.num_encoder_layers,
      is_encoder=True,
      **{name: value for name, value in given.items() if value is not None},
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

  def with_special_ids(self, ids: parts.SpecialIds) -> 'NetworkConfig':
    """A copy with the special ids of a vocabulary.

    Args:
      ids: of the vocabulary. Those of T5 leave another first input of the
        decoder as it is.

    Raises:
      ValueError: `special_ids` is set, and pads or ends rows otherwise.
    """
    own, default = self.special_ids, parts.SpecialIds()
    if own != default and (own.pad, own.eos) != (ids.pad, ids.eos):
      raise ValueError(
        f'special_ids of the network must have pad {ids.pad} and eos {ids.eos}, '
        f'those of the vocabulary; got pad {own.pad} and eos {own.eos}. Use the '
        'vocabulary that the network was trained with: '
        'VocabularyConfig.model_file, or leave special_ids out for a new network.'
      )
    if ids in (own, default):
      return self
    return dataclasses.replace(self, special_ids=ids)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stack:
  """What the layers of an encoder or a decoder are made of.

  Attributes are those of `NetworkConfig`, with the encoder's own in its place.
  """

  num_layers: int
  is_encoder: bool
  emb_dim: int
  num_heads: int
  head_dim: int
  mlp_dim: int
  mlp_activations: Sequence[str]
  dropout_rate: float
  dtype: str
  float32_attention_logits: bool
  relative_attention_num_buckets: int
  relative_attention_max_distance: int
  relative_bias_per_layer: bool
  norm: parts.NormConfig
  positions: parts.PositionConfig
  attention: parts.AttentionConfig
  feed_forward: parts.FeedForwardConfig

  @property
  def num_key_value_heads(self) -> int:
    return self.attention.num_key_value_heads or self.num_heads

  @property
  def is_relative(self) -> bool:
    """Whether layers read one relative position bias of the stack."""
    return self.positions.kind == 'relative' and not self.is_relative_by_layer

  @property
  def is_relative_by_layer(self) -> bool:
    """Whether each layer has a relative position bias of its own."""
    return self.positions.kind == 'relative' and self.relative_bias_per_layer


_OF_STACKS = ('num_layers', 'is_encoder')
# The classes that gin files may name beside `NetworkConfig`.
PARTS = (
  parts.NormConfig,
  parts.PositionConfig,
  parts.AttentionConfig,
  parts.FeedForwardConfig,
  parts.EmbeddingConfig,
  parts.EncoderConfig,
  parts.SpecialIds,
)


def from_described(described: Mapping[str, Any]) -> NetworkConfig:
  """The network that `settings.describe` described."""
  classes = {cls.__name__: cls for cls in (NetworkConfig, *PARTS)}

  def built(value):
    if not isinstance(value, Mapping):
      return value
    fields = {name: built(each) for name, each in value.items() if name != 'is'}
    return classes[value['is']](**fields)

  config = built({'is': NetworkConfig.__name__, **described})
  assert isinstance(config, NetworkConfig)
  return config
