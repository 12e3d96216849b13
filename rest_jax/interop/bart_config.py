"""`config.json` of BART, M2M-100, Marian, mBART and Pegasus, and their networks.

The defaults are those of transformers.
"""

import dataclasses
from typing import Any

from rest_jax.interop import config_values
from rest_jax.models import network, network_config, parts


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Bart:
  """A family after Vaswani et al., with biases and norms that have one.

  Attributes are defaults of transformers, but for these.

  Attributes:
    norm: of both stacks.
    positions: kind of positions.
    architecture: name of the class that generates.
    has_fixed_pad: whether the embedding of PAD is not trained.
  """

  norm: parts.NormConfig
  positions: str
  architecture: str
  vocab_size: int = 50265
  activation: str = 'gelu'
  is_scaled: bool = False
  attention_dropout: float = 0.0
  has_logits_bias: bool = True
  has_fixed_pad: bool = False
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
    norm=dataclasses.replace(_POST, after_embeddings=True),
    positions='learned',
    architecture='BartForConditionalGeneration',
  ),
  'm2m_100': _Bart(
    norm=_PRE,
    positions='tensor2tensor',
    architecture='M2M100ForConditionalGeneration',
    vocab_size=128112,
    activation='relu',
    is_scaled=True,
    attention_dropout=0.1,
    has_logits_bias=False,
  ),
  'marian': _Bart(
    norm=_POST,
    positions='sinusoidal',
    architecture='MarianMTModel',
    vocab_size=58101,
    has_fixed_pad=True,
    pad=58100,
    eos=0,
    unk=1,
    start=58100,
  ),
  'mbart': _Bart(
    norm=dataclasses.replace(_PRE, after_embeddings=True),
    positions='learned',
    architecture='MBartForConditionalGeneration',
    start=None,
  ),
  'pegasus': _Bart(
    norm=_PRE,
    positions='sinusoidal',
    architecture='PegasusForConditionalGeneration',
    pad=0,
    eos=1,
    unk=105,
    start=0,
  ),
}
FAMILIES = tuple(_BARTS)
# The vectors of learned positions begin behind those of two that are not used.
_LEARNED_FIRST = 2
_DEFAULT_LENGTH = 1024


def read(values: config_values.Values) -> network.NetworkConfig:
  """The network that a `config.json` describes.

  Args:
    values: of one of `FAMILIES`.

  Raises:
    ValueError: a value that no part covers.
  """
  family = _BARTS[values.described['model_type']]
  width = values.size('d_model', 1024)
  vocab_size = values.size('vocab_size', family.vocab_size)
  is_shared = values.flag('share_encoder_decoder_embeddings', True)
  ids = _ids(values, family, vocab_size)
  encoder, decoder = (
    _stack(values, family, stack, width) for stack in ('encoder', 'decoder')
  )
  encoder['vocab_size'] = decoder['vocab_size'] = vocab_size
  if not is_shared:
    decoder['vocab_size'] = values.size('decoder_vocab_size', vocab_size)
  return network.NetworkConfig(
    **decoder,
    emb_dim=width,
    num_encoder_layers=values.size('encoder_layers', 12),
    num_decoder_layers=values.size('decoder_layers', 12),
    mlp_activations=(
      values.activation('activation_function', family.activation),
    ),
    dropout_rate=values.rate('dropout', 0.1),
    logits_via_embedding=values.flag('tie_word_embeddings', True),
    norm=family.norm,
    positions=_positions(values, family.positions, ids.pad),
    feed_forward=parts.FeedForwardConfig(
      has_bias=True, dropout_rate=values.rate('activation_dropout', 0.0)
    ),
    embeddings=parts.EmbeddingConfig(
      is_scaled=values.flag('scale_embedding', family.is_scaled),
      is_shared=is_shared,
      divides_logits=False,
      has_logits_bias=family.has_logits_bias,
      fixed_id=ids.pad if family.has_fixed_pad else None,
    ),
    encoder=parts.EncoderConfig.of(encoder, decoder),
    special_ids=ids,
  )


def _stack(
  values: config_values.Values, family: _Bart, name: str, width: int
) -> dict[str, Any]:
  heads = values.size(f'{name}_attention_heads', 16)
  if width % heads:
    raise values.error(
      f'{name}_attention_heads', f'a divisor of d_model, {width}'
    )
  return {
    'num_heads': heads,
    'head_dim': width // heads,
    'mlp_dim': values.size(f'{name}_ffn_dim', 4096),
    'attention': parts.AttentionConfig(
      has_bias=True,
      query_scalar=float(width // heads),
      dropout_rate=values.rate('attention_dropout', family.attention_dropout),
    ),
  }


def _ids(
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


def _positions(
  values: config_values.Values, kind: str, pad: int
) -> parts.PositionConfig:
  length = values.size('max_position_embeddings', _DEFAULT_LENGTH)
  if kind == 'learned':
    return parts.PositionConfig(
      kind='learned', first=_LEARNED_FIRST, max_length=length
    )
  if kind == 'tensor2tensor':
    return parts.PositionConfig(
      kind='sinusoidal', first=pad + 1, max_length=length, is_inclusive=True
    )
  return parts.PositionConfig(kind='sinusoidal', max_length=length)


def describe(config: network.NetworkConfig) -> dict[str, Any]:
  """The `config.json` of a network, as far as its tensors tell no more.

  Raises:
    ValueError: no family has such norms and positions.
  """
  family = family_of(config)
  encoder, decoder = config.encoder_stack, config.decoder_stack
  described: dict[str, Any] = {
    'architectures': [_BARTS[family].architecture],
    'model_type': family,
    'vocab_size': config.encoder_vocab_size,
    'd_model': config.emb_dim,
    'activation_function': config_values.name_of_activation(
      config.mlp_activations[0]
    ),
    'max_position_embeddings': config.positions.max_length or _DEFAULT_LENGTH,
    'scale_embedding': config.embeddings.is_scaled,
    'tie_word_embeddings': config.logits_via_embedding,
    # By which CTranslate2 tells the families' norms.
    'normalize_before': config.norm.placement == 'pre',
    'normalize_embedding': config.norm.after_embeddings,
    **_rates(decoder),
    'is_encoder_decoder': True,
    'use_cache': True,
  }
  for name, stack in (('encoder', encoder), ('decoder', decoder)):
    described |= {
      f'{name}_layers': stack.num_layers,
      f'{name}_attention_heads': stack.num_heads,
      f'{name}_ffn_dim': stack.mlp_dim,
      f'{name}_layerdrop': 0.0,
    }
  described['num_hidden_layers'] = config.num_encoder_layers
  if family == 'marian':
    described |= {
      'decoder_vocab_size': config.vocab_size,
      'share_encoder_decoder_embeddings': config.embeddings.is_shared,
    }
  if family == 'mbart':
    # CTranslate2 knows by it whether decoding starts with EOS or a language.
    ids = config.special_ids
    is_50 = ids.decoder_start == ids.eos
    described['tokenizer_class'] = f'MBart{"50" if is_50 else ""}Tokenizer'
  return described


def _rates(stack: network_config.Stack) -> dict[str, float]:
  """Rates of dropout, by name."""
  found = {
    'attention_dropout': stack.attention.dropout_rate,
    'activation_dropout': stack.feed_forward.dropout_rate,
  }
  rate = stack.dropout_rate
  return {'dropout': rate} | {
    name: rate if own is None else own for name, own in found.items()
  }


def family_of(config: network.NetworkConfig) -> str:
  """The family that has the norms and positions of a network.

  Raises:
    ValueError: there is none.
  """
  kind = config.positions.kind
  if config.positions.is_inclusive:
    kind = 'tensor2tensor'
  elif kind == 'learned' and not config.positions.first:
    # Sinusoids that were changed.
    kind = 'sinusoidal'
  norm = _without_epsilon(config.norm)
  for name, family in _BARTS.items():
    if (norm, kind) == (_without_epsilon(family.norm), family.positions):
      return name
  raise ValueError(
    'norm and positions must be those of one of the families '
    f'{", ".join(FAMILIES)} to be written for Hugging Face; got {config.norm} and '
    f'{config.positions.kind!r} positions.'
  )


def _without_epsilon(norm: parts.NormConfig) -> parts.NormConfig:
  return dataclasses.replace(norm, epsilon=1.0)
