"""`config.json` of encoder-decoders other than T5, and the networks they describe.

Each family is a choice of parts; where a key is missing, its default is that of
transformers. Attention logits are divided by sqrt(K), or what a family has for it, in
the query kernel, see `family_tensors`.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from rest_jax.interop import config_values
from rest_jax.models import network, parts

_SLIDING, _FULL = 'sliding_attention', 'full_attention'
_STACKS = ('encoder', 'decoder')


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Bart:
  """A family after Vaswani et al., with biases and norms that have one.

  Attributes are defaults of transformers, but for `norm` and `positions`.
  """

  norm: parts.NormConfig
  positions: str
  vocab_size: int = 50265
  activation: str = 'gelu'
  is_scaled: bool = False
  attention_dropout: float = 0.0
  has_logits_bias: bool = True
  pad: int = 1
  eos: int = 2
  unk: int = 3
  start: int | None = 2


_POST = parts.NormConfig(
  kind='layer', placement='post', epsilon=1e-5, at_end=False
)
_PRE = parts.NormConfig(kind='layer', placement='pre', epsilon=1e-5)
_BARTS = {
  'bart': _Bart(
    norm=dataclasses.replace(_POST, after_embeddings=True), positions='learned'
  ),
  'm2m_100': _Bart(
    norm=_PRE,
    positions='tensor2tensor',
    vocab_size=128112,
    activation='relu',
    is_scaled=True,
    attention_dropout=0.1,
    has_logits_bias=False,
  ),
  'marian': _Bart(
    norm=_POST,
    positions='sinusoidal',
    vocab_size=58101,
    pad=58100,
    eos=0,
    unk=1,
    start=58100,
  ),
  'mbart': _Bart(
    norm=dataclasses.replace(_PRE, after_embeddings=True),
    positions='learned',
    start=None,
  ),
  'pegasus': _Bart(
    norm=_PRE, positions='sinusoidal', pad=0, eos=1, unk=105, start=0
  ),
}
_GEMMAS = ('t5gemma', 't5gemma2')
FAMILIES = (*_BARTS, *_GEMMAS)
# The vectors of learned positions begin behind those of two that are not used.
_LEARNED_FIRST = 2


def check_readable(values: config_values.Values) -> None:
  """Raises ValueError for what is no encoder-decoder of plain numbers."""
  if not values.flag('is_encoder_decoder', True):
    raise values.error(
      'is_encoder_decoder',
      'true',
      ' A stack alone is no policy. Use an encoder-decoder.',
    )
  if values.described.get('quantization_config'):
    raise values.error(
      'quantization_config',
      'absent: quantised weights are not read',
      ' Use the original checkpoint in float32, bfloat16 or float16.',
    )


def network_config(
  described: Mapping[str, Any],
) -> network.NetworkConfig:
  """The network that a `config.json` describes.

  Args:
    described: of one of `FAMILIES`.

  Raises:
    ValueError: a value that no part covers; the key and the value are named.
  """
  values = config_values.Values(described)
  check_readable(values)
  family = described['model_type']
  if family in _BARTS:
    return _bart(values, _BARTS[family])
  return _gemma(values, family == 't5gemma2')


def _bart(values: config_values.Values, family: _Bart) -> network.NetworkConfig:
  width = values.size('d_model', 1024)
  heads = {
    stack: values.size(f'{stack}_attention_heads', 16)
    for stack in ('encoder', 'decoder')
  }
  for stack, number in heads.items():
    if width % number:
      raise values.error(
        f'{stack}_attention_heads', f'a divisor of d_model, {width}'
      )
  vocab_size = values.size('vocab_size', family.vocab_size)
  is_shared = values.flag('share_encoder_decoder_embeddings', True)
  ids = _bart_ids(values, family, vocab_size)
  encoder: dict[str, Any] = {
    'vocab_size': vocab_size,
    'num_heads': heads['encoder'],
    'head_dim': width // heads['encoder'],
    'mlp_dim': values.size('encoder_ffn_dim', 4096),
  }
  if not is_shared:
    vocab_size = values.size('decoder_vocab_size', vocab_size)
  decoder: dict[str, Any] = {
    'vocab_size': vocab_size,
    'num_heads': heads['decoder'],
    'head_dim': width // heads['decoder'],
    'mlp_dim': values.size('decoder_ffn_dim', 4096),
  }
  return network.NetworkConfig(
    **decoder,
    emb_dim=width,
    num_encoder_layers=values.size('encoder_layers', 12),
    num_decoder_layers=values.size('decoder_layers', 12),
    mlp_activations=(
      values.activation('activation_function', family.activation),
    ),
    dropout_rate=values.rate('dropout', 0.1),
    logits_via_embedding=True,
    norm=family.norm,
    positions=_added_positions(values, family.positions, ids.pad),
    attention=parts.AttentionConfig(
      has_bias=True,
      dropout_rate=values.rate('attention_dropout', family.attention_dropout),
    ),
    feed_forward=parts.FeedForwardConfig(
      has_bias=True, dropout_rate=values.rate('activation_dropout', 0.0)
    ),
    embeddings=parts.EmbeddingConfig(
      is_scaled=values.flag('scale_embedding', family.is_scaled),
      is_shared=is_shared,
      divides_logits=False,
      has_logits_bias=family.has_logits_bias,
    ),
    encoder=_different(encoder, decoder),
    special_ids=ids,
  )


def _bart_ids(
  values: config_values.Values, family: _Bart, vocab_size: int
) -> parts.SpecialIds:
  eos = values.special_id('eos_token_id', family.eos)
  # The language of mBART, which only its tokenizer knows.
  start = family.eos if family.start is None else family.start
  start = values.special_id('decoder_start_token_id', start)
  pad = values.special_id('pad_token_id', family.pad)
  assert pad is not None and eos is not None and start is not None
  return parts.SpecialIds(
    pad=pad,
    eos=eos,
    unk=family.unk if family.unk < vocab_size else None,
    decoder_start=start,
    forced_first=values.special_id('forced_bos_token_id', None),
  )


def _added_positions(
  values: config_values.Values, kind: str, pad: int
) -> parts.PositionConfig:
  if kind == 'learned':
    return parts.PositionConfig(
      kind='learned',
      first=_LEARNED_FIRST,
      max_length=values.size('max_position_embeddings', 1024),
    )
  if kind == 'tensor2tensor':
    return parts.PositionConfig(
      kind='sinusoidal', first=pad + 1, is_inclusive=True
    )
  return parts.PositionConfig(kind='sinusoidal')


def _gemma(
  values: config_values.Values, is_second: bool
) -> network.NetworkConfig:
  stacks = {name: _gemma_section(values, name) for name in _STACKS}
  for name in _STACKS:
    query_scale(values.described, name)
  dropout = values.rate('attention_dropout', 0.0)
  encoder, decoder = (
    _gemma_stack(stack, name, is_second, dropout)
    for name, stack in stacks.items()
  )
  of_decoder = stacks['decoder']
  vocab_size = decoder['vocab_size']
  layers = {
    name: stack.size('num_hidden_layers', 26) for name, stack in stacks.items()
  }
  return network.NetworkConfig(
    **decoder,
    num_encoder_layers=layers['encoder'],
    num_decoder_layers=layers['decoder'],
    dropout_rate=values.rate('dropout_rate', 0.0),
    logits_via_embedding=True,
    embeddings=parts.EmbeddingConfig(
      is_scaled=True,
      is_shared=is_second,
      divides_logits=False,
      soft_cap=of_decoder.cap(
        'final_logit_softcapping', None if is_second else 30.0
      ),
      replaced_id=_image_end(values, vocab_size) if is_second else None,
    ),
    encoder=_different(encoder, decoder),
    special_ids=_gemma_ids(values, of_decoder, vocab_size),
  )


def _gemma_section(
  values: config_values.Values, stack: str
) -> config_values.Values:
  section = values.section(stack)
  return section.section('text_config') if 'text_config' in section else section


def query_scale(described: Mapping[str, Any], stack: str) -> float:
  """What queries of a T5Gemma's encoder or decoder are multiplied by."""
  section = _gemma_section(config_values.Values(described), stack)
  return section.positive('query_pre_attn_scalar', 256) ** -0.5


def _image_end(values: config_values.Values, vocab_size: int) -> int | None:
  """The token that ends an image, which has a vector of its own."""
  token = values.section('encoder').special_id('eoi_token_index', 256_000)
  return token if token is not None and token < vocab_size else None


def _gemma_ids(
  values: config_values.Values,
  of_decoder: config_values.Values,
  vocab_size: int,
) -> parts.SpecialIds:
  def read(name, default):
    return values.special_id(name, of_decoder.special_id(name, default))

  pad, eos = read('pad_token_id', 0), read('eos_token_id', 1)
  start = of_decoder.special_id('bos_token_id', 2)
  start = values.special_id('decoder_start_token_id', start)
  assert pad is not None and eos is not None and start is not None
  return parts.SpecialIds(
    pad=pad,
    eos=eos,
    unk=3 if vocab_size > 3 else None,
    decoder_start=start,
  )


def _gemma_stack(
  values: config_values.Values, name: str, is_second: bool, dropout: float
) -> dict[str, Any]:
  heads = values.size('num_attention_heads', 8)
  key_heads = values.size('num_key_value_heads', 4)
  if heads % key_heads:
    raise values.error(
      'num_key_value_heads', f'a divisor of num_attention_heads, {heads}'
    )
  return {
    'vocab_size': values.size('vocab_size', 262_208 if is_second else 256_000),
    'emb_dim': values.size('hidden_size', 2304),
    'num_heads': heads,
    'head_dim': values.size('head_dim', 256),
    'mlp_dim': values.size('intermediate_size', 9216),
    'mlp_activations': (
      values.activation('hidden_activation', 'gelu_pytorch_tanh'),
      'linear',
    ),
    'norm': parts.NormConfig(
      placement='both', epsilon=values.positive('rms_norm_eps', 1e-6)
    ),
    'positions': _rotary(values, is_second),
    'attention': parts.AttentionConfig(
      has_bias=values.flag('attention_bias', False),
      num_key_value_heads=key_heads,
      # Of T5Gemma 2 transformers reads the key, and does not use it.
      soft_cap=None
      if is_second
      else values.cap('attn_logit_softcapping', 50.0),
      **_windows(values, name, is_second),
      normalizes_heads=is_second,
      is_merged=is_second,
      dropout_rate=dropout,
    ),
  }


def _windows(
  values: config_values.Values, stack: str, is_second: bool
) -> dict[str, Any]:
  num_layers = values.size('num_hidden_layers', 26)
  types = values.described.get('layer_types')
  if types is None:
    every = 2
    if is_second:
      key = 'sliding_window_pattern'
      every = values.size(key if key in values else f'_{key}', 6)
    types = [
      _FULL if (i + 1) % every == 0 else _SLIDING for i in range(num_layers)
    ]
  if not isinstance(types, list) or len(types) < num_layers:
    raise values.error('layer_types', f'a list of {num_layers} layers')
  types = types[:num_layers]
  if set(types) - {_SLIDING, _FULL}:
    raise values.error('layer_types', f'of {_SLIDING!r} and {_FULL!r}')
  if _SLIDING not in types:
    return {}
  width = values.size('sliding_window', 4096)
  window = (width - 1, 0)
  if stack == 'encoder':
    window = (width, width)
    if is_second:
      window = ((width + 1) // 2 - 1, width // 2)
  return {
    'window': window,
    'window_layers': tuple(kind == _SLIDING for kind in types),
  }


def _rotary(
  values: config_values.Values, is_second: bool
) -> parts.PositionConfig:
  if not is_second:
    key = 'rope_parameters' if 'rope_parameters' in values else 'rope_scaling'
    theta = values.positive('rope_theta', 10_000.0)
    if key in values:
      theta = values.section(key).positive('rope_theta', theta)
    stretch = values.rotary(key)
    return parts.PositionConfig(
      kind='rotary',
      theta=theta,
      stretch=stretch,
      window_theta=theta,
      window_stretch=stretch,
    )
  by_layer = config_values.Values({})
  if 'rope_parameters' in values:
    by_layer = values.section('rope_parameters')

  def read(kind, key, default):
    theta = values.positive(key, default)
    if kind not in by_layer:
      return theta, 1.0
    own = by_layer.section(kind)
    return own.positive('rope_theta', theta), by_layer.rotary(kind)

  theta, stretch = read(_FULL, 'rope_theta', 1_000_000.0)
  window_theta, window_stretch = read(
    _SLIDING, 'rope_local_base_freq', 10_000.0
  )
  if 'rope_scaling' in values:
    stretch = values.rotary('rope_scaling')
  return parts.PositionConfig(
    kind='rotary',
    theta=theta,
    stretch=stretch,
    window_theta=window_theta,
    window_stretch=window_stretch,
  )


def _different(
  encoder: Mapping[str, Any], decoder: Mapping[str, Any]
) -> parts.EncoderConfig | None:
  """What an encoder has otherwise; None if that is nothing."""
  own = {
    name: value for name, value in encoder.items() if value != decoder[name]
  }
  return parts.EncoderConfig(**own) if own else None
