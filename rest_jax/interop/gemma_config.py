"""`config.json` of T5Gemma and T5Gemma 2, and the networks they describe.

The defaults are those of transformers.
"""

from typing import Any

from rest_jax.interop import config_values
from rest_jax.models import network, network_config, parts

FIRST, SECOND = FAMILIES = ('t5gemma', 't5gemma2')
_SLIDING, _FULL = 'sliding_attention', 'full_attention'
_STACKS = ('encoder', 'decoder')
# Others are called as ours are.
_ACTIVATIONS = {'gelu': 'gelu_pytorch_tanh', 'gelu_erf': 'gelu'}
_DEFAULT_LENGTHS = {FIRST: 8192, SECOND: 131_072}
# A vision tower of one small layer: transformers makes one, and no text reads it.
_VISION = {
  'model_type': 'siglip_vision_model',
  'hidden_size': 16,
  'intermediate_size': 16,
  'num_hidden_layers': 1,
  'num_attention_heads': 2,
  'image_size': 16,
  'patch_size': 8,
}


def read(values: config_values.Values) -> network.NetworkConfig:
  """The network that a `config.json` describes.

  Args:
    values: of one of `FAMILIES`.

  Raises:
    ValueError: a value that no part covers.
  """
  is_second = values.described['model_type'] == SECOND
  stacks = {name: _section(values, name) for name in _STACKS}
  dropout = values.rate('attention_dropout', 0.0)
  encoder, decoder = (
    _stack(stack, name, is_second, dropout) for name, stack in stacks.items()
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
    logits_via_embedding=values.flag('tie_word_embeddings', True),
    embeddings=parts.EmbeddingConfig(
      is_scaled=True,
      is_shared=is_second,
      divides_logits=False,
      soft_cap=of_decoder.cap(
        'final_logit_softcapping', None if is_second else 30.0
      ),
      replaced_id=_image_end(values, vocab_size) if is_second else None,
    ),
    encoder=parts.EncoderConfig.of(encoder, decoder),
    special_ids=_ids(values, of_decoder, vocab_size),
  )


def _section(values: config_values.Values, stack: str) -> config_values.Values:
  section = values.section(stack)
  return section.section('text_config') if 'text_config' in section else section


def _image_end(values: config_values.Values, vocab_size: int) -> int | None:
  """The token that ends an image, which has a vector of its own."""
  token = values.section('encoder').special_id('eoi_token_index', 256_000)
  return token if token is not None and token < vocab_size else None


def _ids(
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


def _stack(
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
      placement='both',
      epsilon=values.positive('rms_norm_eps', 1e-6),
      adds_one=True,
    ),
    'positions': _rotary(values, is_second),
    'attention': parts.AttentionConfig(
      has_bias=values.flag('attention_bias', False),
      query_scalar=values.positive('query_pre_attn_scalar', 256),
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
  length = values.size(
    'max_position_embeddings', _DEFAULT_LENGTHS[SECOND if is_second else FIRST]
  )
  if not is_second:
    key = 'rope_parameters' if 'rope_parameters' in values else 'rope_scaling'
    theta = values.positive('rope_theta', 10_000.0)
    if key in values:
      theta = values.section(key).positive('rope_theta', theta)
    stretch = values.rotary(key)
    return parts.PositionConfig(
      kind='rotary',
      max_length=length,
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
    max_length=length,
    theta=theta,
    stretch=stretch,
    window_theta=window_theta,
    window_stretch=window_stretch,
  )


def describe(config: network.NetworkConfig) -> dict[str, Any]:
  """The `config.json` of a network, as far as its tensors tell no more."""
  is_second = config.attention.is_merged
  family = SECOND if is_second else FIRST
  name = 'T5Gemma2' if is_second else 'T5Gemma'
  encoder, decoder = (
    _describe_stack(config, stack)
    for stack in (config.encoder_stack, config.decoder_stack)
  )
  if is_second:
    token = config.embeddings.replaced_id
    encoder = {
      'model_type': 't5gemma2_encoder',
      # Beyond the vocabulary there is no such token.
      'eoi_token_index': config.vocab_size if token is None else token,
      'text_config': encoder | {'model_type': 't5gemma2_text'},
      'vision_config': _VISION,
    }
    decoder['model_type'] = 't5gemma2_decoder'
  else:
    decoder['is_decoder'] = True
    decoder['cross_attention_hidden_size'] = config.encoder_stack.emb_dim
  described = {
    'architectures': [f'{name}ForConditionalGeneration'],
    'model_type': family,
    'encoder': encoder,
    'decoder': decoder,
    'vocab_size': config.vocab_size,
    'dropout_rate': config.dropout_rate,
    'attention_dropout': decoder['attention_dropout'],
    'tie_word_embeddings': config.logits_via_embedding,
    'is_encoder_decoder': True,
  }
  if is_second:
    described['eoi_token_index'] = encoder['eoi_token_index']
  return described


def _describe_stack(
  config: network.NetworkConfig, stack: network_config.Stack
) -> dict[str, Any]:
  attention, ids = stack.attention, config.special_ids
  windows = [attention.has_window(i) for i in range(stack.num_layers)]
  rate = attention.dropout_rate
  scalar = attention.query_scalar or 1.0
  return {
    'model_type': 't5_gemma_module',
    'vocab_size': config.encoder_vocab_size
    if stack.is_encoder
    else config.vocab_size,
    'hidden_size': stack.emb_dim,
    'intermediate_size': stack.mlp_dim,
    'num_hidden_layers': stack.num_layers,
    'num_attention_heads': stack.num_heads,
    'num_key_value_heads': stack.num_key_value_heads,
    'head_dim': stack.head_dim,
    'hidden_activation': _ACTIVATIONS.get(
      stack.mlp_activations[0], stack.mlp_activations[0]
    ),
    'rms_norm_eps': stack.norm.epsilon,
    'query_pre_attn_scalar': int(scalar) if scalar == int(scalar) else scalar,
    'attention_bias': attention.has_bias,
    'attn_logit_softcapping': attention.soft_cap,
    'final_logit_softcapping': config.embeddings.soft_cap,
    'sliding_window': _window(stack),
    'layer_types': [_SLIDING if each else _FULL for each in windows],
    'max_position_embeddings': stack.positions.max_length
    or _DEFAULT_LENGTHS[SECOND if attention.is_merged else FIRST],
    'dropout_rate': stack.dropout_rate,
    'attention_dropout': stack.dropout_rate if rate is None else rate,
    'pad_token_id': ids.pad,
    'eos_token_id': ids.eos,
    'bos_token_id': ids.decoder_start,
    'tie_word_embeddings': config.logits_via_embedding,
    **_describe_rotary(stack),
  }


def _window(stack: network_config.Stack) -> int:
  left, right = stack.attention.window
  if not any(stack.attention.window_layers):
    return 4096
  if stack.is_encoder and not stack.attention.is_merged:
    return left
  return left + right + 1


def _describe_rotary(stack: network_config.Stack) -> dict[str, Any]:
  positions = stack.positions
  every, windowed = (
    {'rope_type': 'default', 'rope_theta': theta}
    if stretch == 1
    else {'rope_type': 'linear', 'rope_theta': theta, 'factor': stretch}
    for theta, stretch in (
      (positions.theta, positions.stretch),
      (positions.window_theta, positions.window_stretch),
    )
  )
  if stack.attention.is_merged:
    return {'rope_parameters': {_FULL: every, _SLIDING: windowed}}
  # Version 4 of transformers reads the second.
  return {'rope_parameters': every, 'rope_theta': positions.theta}
