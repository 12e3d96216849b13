"""What the parts of a network are: norms, positions, attention, embeddings.

The defaults are those of T5 1.1. A family of models is a choice of parts; see
`interop.huggingface_config`.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from rest_jax import settings
from rest_jax.data import special_ids

SpecialIds = special_ids.SpecialIds


@dataclasses.dataclass(frozen=True, kw_only=True)
class NormConfig:
  """Norms of a stack of layers.

  Attributes:
    kind: 'rms', or 'layer', which subtracts the mean and has a bias.
    placement: of each block f: 'pre', x + f(norm(x)); 'post', norm(x + f(x));
      'both', x + norm(f(norm(x))).
    epsilon: added to the variance.
    after_embeddings: another norm of what the first layer reads.
    at_end: another norm of what the last layer returns.
    adds_one: the scale is 1 more than its parameter, as in Gemma.
  """

  kind: str = 'rms'
  placement: str = 'pre'
  epsilon: float = 1e-6
  after_embeddings: bool = False
  at_end: bool = True
  adds_one: bool = False

  def __post_init__(self):
    settings.one_of(self, ('rms', 'layer'), 'kind')
    settings.one_of(self, ('pre', 'post', 'both'), 'placement')
    settings.positive(self, 'epsilon')
    if self.adds_one and self.kind != 'rms':
      raise ValueError(
        "adds_one must be False where kind is 'layer'; got True. Only RMS norms "
        'have such scales.'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PositionConfig:
  """How a stack knows the order of its tokens.

  Attributes:
    kind: 'relative', T5's bias of the attention logits; 'sinusoidal' or
      'learned', vectors added to the embeddings; 'rotary', queries and keys are
      rotated.
    first: number of the first position, of added vectors.
    max_length: positions that learned vectors are there for; of other positions
      how many an exported model is said to have, 0 for a default.
    is_inclusive: the last of D/2 sinusoids has the wavelength 2π * 10,000, as in
      tensor2tensor; otherwise the one after it would.
    theta: base of the rotary wavelengths.
    stretch: divides rotary positions.
    window_theta: as `theta`, of layers with a window.
    window_stretch: likewise.
  """

  kind: str = 'relative'
  first: int = 0
  max_length: int = 0
  is_inclusive: bool = False
  theta: float = 10_000.0
  stretch: float = 1.0
  window_theta: float = 10_000.0
  window_stretch: float = 1.0

  def __post_init__(self):
    kinds = ('relative', 'sinusoidal', 'learned', 'rotary')
    settings.one_of(self, kinds, 'kind')
    settings.at_least(self, 0, 'first', 'max_length')
    settings.positive(self, 'theta', 'window_theta')
    settings.positive(self, 'stretch', 'window_stretch')
    if self.kind == 'learned' and not self.max_length:
      raise ValueError(
        "max_length must be at least 1 where kind is 'learned'; got 0. It is "
        'the number of positions that have a vector.'
      )

  @property
  def is_added(self) -> bool:
    """Whether positions are vectors that are added to the embeddings."""
    return self.kind in ('sinusoidal', 'learned')


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionConfig:
  """The attentions of a stack.

  Attributes:
    has_bias: of all four projections.
    query_scalar: queries are divided by its square root, mostly K; None for
      queries as they are, as in T5, whose initial kernels are smaller instead.
    num_key_value_heads: fewer than heads if each is shared by several; None for
      one a head.
    soft_cap: c of c * tanh(logits / c); None for none.
    window: how many positions to the left and to the right a windowed layer
      sees, besides its own.
    window_layers: whether layer i has a window, at i modulo the length of the
      list; no layer has if it is empty.
    normalizes_heads: queries and keys pass an RMS norm, before any rotation.
    is_merged: the decoder attends to its own positions and to the source by one
      softmax over both, with the same projections.
    dropout_rate: of the attention probabilities; None for that of the network.
  """

  has_bias: bool = False
  query_scalar: float | None = None
  num_key_value_heads: int | None = None
  soft_cap: float | None = None
  window: Sequence[int] = (0, 0)
  window_layers: Sequence[bool] = ()
  normalizes_heads: bool = False
  is_merged: bool = False
  dropout_rate: float | None = None

  def __post_init__(self):
    settings.make_tuples(self, 'window', 'window_layers')
    settings.at_least(self, 1, 'num_key_value_heads', none='one a head')
    settings.positive(self, 'soft_cap', none='none')
    settings.positive(self, 'query_scalar', none='none')
    settings.inside(self, '[0, 1)', 'dropout_rate', none="the network's")
    if len(self.window) != 2 or min(self.window) < 0:
      raise ValueError(
        'window must be two numbers of positions, to the left and to the right; '
        f'got {self.window}.'
      )

  def has_window(self, layer: int) -> bool:
    layers = self.window_layers
    return bool(layers) and layers[layer % len(layers)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeedForwardConfig:
  """Feed-forward blocks.

  Attributes:
    has_bias: of all projections.
    dropout_rate: after the activation; None for that of the network.
  """

  has_bias: bool = False
  dropout_rate: float | None = None

  def __post_init__(self):
    settings.inside(self, '[0, 1)', 'dropout_rate', none="the network's")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingConfig:
  """Token embeddings and logits.

  Attributes:
    is_scaled: embeddings are multiplied by sqrt(D) where tokens are read.
    is_shared: the encoder reads tokens by the decoder's embeddings.
    divides_logits: logits by the embeddings are divided by sqrt(D), as in T5.
    has_logits_bias: a number is added to each token's logit.
    soft_cap: c of c * tanh(logits / c); None for none.
    replaced_id: a token that is read by a vector of its own, beside the
      embedding that gives its logit; None for none.
    fixed_id: a token whose embedding begins as zeros and is not trained; None for
      none. In Marian it is PAD, with which decoding starts: CTranslate2 starts
      from zeros.
  """

  is_scaled: bool = False
  is_shared: bool = True
  divides_logits: bool = True
  has_logits_bias: bool = False
  soft_cap: float | None = None
  replaced_id: int | None = None
  fixed_id: int | None = settings.added(default=None)

  def __post_init__(self):
    settings.positive(self, 'soft_cap', none='none')
    settings.at_least(self, 0, 'replaced_id', 'fixed_id', none='none')


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
  """What an encoder has otherwise than the decoder; None for the same."""

  vocab_size: int | None = None
  emb_dim: int | None = None
  num_heads: int | None = None
  head_dim: int | None = None
  mlp_dim: int | None = None
  mlp_activations: Sequence[str] | None = None
  norm: NormConfig | None = None
  positions: PositionConfig | None = None
  attention: AttentionConfig | None = None

  def __post_init__(self):
    if self.mlp_activations is not None:
      settings.make_tuples(self, 'mlp_activations')
    sizes = ('vocab_size', 'emb_dim', 'num_heads', 'head_dim', 'mlp_dim')
    settings.at_least(self, 1, *sizes, none="the decoder's")

  @classmethod
  def of(
    cls, encoder: Mapping[str, Any], decoder: Mapping[str, Any]
  ) -> 'EncoderConfig | None':
    """The settings of an encoder that differ; None if that is none."""
    own = {
      name: value for name, value in encoder.items() if value != decoder[name]
    }
    return cls(**own) if own else None
