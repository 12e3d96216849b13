"""The sizes of a network."""

from collections.abc import Sequence
import dataclasses

from rest_jax import settings
from rest_jax.models import layers

REMATS = ('none', 'minimal', 'full')


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
    relative_bias_per_layer: each layer has a relative position bias of its own,
      as in umT5; otherwise a stack has one.
    remat: what training computes again in its backward pass to save memory:
      'none', 'minimal' (all but products of matrices), 'full' (every layer from
      its input).
    scan_layers: compile one encoder and one decoder layer as a loop, for deep
      networks. Dropout draws other masks then. Checkpoints stay as they are.
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
