"""`config.json` of Hugging Face's T5 family, and the sizes it describes.

Versions 4 and 5 of transformers compute the logits of one folder differently,
so `transformers_version` decides how it is read; see `Logits`.
"""

from collections.abc import Mapping
import dataclasses
import re
from typing import Any

from rest_jax import types
from rest_jax.models import network

CONFIG_FILE = 'config.json'
# May say the special ids again, for `generate`.
GENERATION_FILE = 'generation_config.json'

# Activations of the feed-forward block, by Hugging Face's names.
_FEED_FORWARD = {
  'gated-gelu': ('gelu', 'linear'),
  'gated-silu': ('silu', 'linear'),
  'relu': ('relu',),
}
# What `dense_act_fn`, which has the last word there, may say of each.
_ACTIVATIONS = {
  'gated-gelu': ('gelu_new',),
  'gated-silu': ('silu', 'swish'),
  'relu': ('relu',),
}
_NORM_EPSILON = 1e-6
_FAMILIES = ('t5', 'mt5', 'umt5')
# By family, what is meant where config.json does not say.
_DEFAULT_FEED_FORWARD = {'t5': 'relu'}
_SPECIAL_IDS = {
  'pad_token_id': types.PAD_ID,
  'eos_token_id': types.EOS_ID,
  'decoder_start_token_id': types.DECODER_START_ID,
}
# Only version 5 writes it.
_SCALE = 'scale_decoder_outputs'
# These draw or force other tokens than the policy does.
_UNSUPPORTED = ('forced_bos_token_id', 'forced_decoder_ids')


@dataclasses.dataclass(frozen=True)
class Logits:
  """How a folder's logits are computed.

  Version 4 of transformers, and those before, take `tie_word_embeddings` at its
  word: logits are products with the embeddings over sqrt(D) if it is true, and
  with `lm_head.weight` otherwise. Version 5 writes true for all; it uses
  `lm_head.weight` if that differs from the embeddings, and divides by sqrt(D)
  if `scale_decoder_outputs` says so; an mT5 never.

  Attributes:
    version: the major version that wrote the folder: 4 (or before), 5 (or
      later), None if the file does not tell.
    is_tied: what `tie_word_embeddings` says.
    is_scaled: whether the logits of a tied network are divided by sqrt(D).
  """

  version: int | None
  is_tied: bool
  is_scaled: bool

  @classmethod
  def of(cls, described: Mapping[str, Any]) -> 'Logits':
    """Reads a `config.json`.

    Raises:
      ValueError: an mT5 that is tied, of an unknown version.
    """
    family, version = described.get('model_type'), _version(described)
    is_tied = described.get('tie_word_embeddings')
    if is_tied is None:
      is_tied = family != 'mt5' or version == 5
    is_scaled = is_tied
    if family == 'mt5' and is_tied:
      if version is None:
        raise ValueError(
          f'{CONFIG_FILE} must say by transformers_version what wrote it: the '
          'tied logits of an mT5 are divided by sqrt(d_model) in transformers '
          '4, and not in 5. Add "transformers_version".'
        )
      is_scaled = version == 4
    elif version == 5:
      is_scaled = described.get(_SCALE, is_tied)
    return cls(version, is_tied, is_scaled)


def _version(described: Mapping[str, Any]) -> int | None:
  found = re.match(r'(\d+)\.', str(described.get('transformers_version')))
  if found:
    return 5 if int(found[1]) >= 5 else 4
  return 5 if _SCALE in described else None


def describe(config: network.NetworkConfig) -> dict[str, Any]:
  """The `config.json` of a network.

  Raises:
    ValueError: Hugging Face's T5 has no such feed-forward block or logits.
  """
  names = {value: key for key, value in _FEED_FORWARD.items()}
  activations = tuple(config.mlp_activations)
  if activations not in names:
    raise ValueError(
      f'mlp_activations must be one of {sorted(names)} for Hugging Face; got '
      f'{activations}.'
    )
  if config.relative_bias_per_layer and not config.logits_via_embedding:
    raise ValueError(
      'logits_via_embedding must be True where relative_bias_per_layer is: '
      'transformers 5 scales the logits of every umT5 as tied ones.'
    )
  family = 'umt5' if config.relative_bias_per_layer else 't5'
  return {
    'architectures': [f'{family.upper()}ForConditionalGeneration'],
    'model_type': family,
    'vocab_size': config.vocab_size,
    'd_model': config.emb_dim,
    'd_kv': config.head_dim,
    'd_ff': config.mlp_dim,
    'num_heads': config.num_heads,
    'num_layers': config.num_encoder_layers,
    'num_decoder_layers': config.num_decoder_layers,
    'feed_forward_proj': names[activations],
    'tie_word_embeddings': config.logits_via_embedding,
    'relative_attention_num_buckets': config.relative_attention_num_buckets,
    'relative_attention_max_distance': config.relative_attention_max_distance,
    'dropout_rate': config.dropout_rate,
    'layer_norm_epsilon': _NORM_EPSILON,
    **_SPECIAL_IDS,
    'is_encoder_decoder': True,
    'use_cache': True,
  }


def network_config(described: Mapping[str, Any]) -> network.NetworkConfig:
  """The sizes that a `config.json` describes.

  Raises:
    ValueError: another architecture, a setting that ours lacks, or special ids
      that are not those of T5.
  """
  _check_family(described)
  check_special_ids(described, CONFIG_FILE)
  family = described['model_type']
  default = _DEFAULT_FEED_FORWARD.get(family, 'gated-gelu')
  feed_forward = described.get('feed_forward_proj', default)
  _check_settings(described, feed_forward)
  layers = _size(described, 'num_layers')
  return network.NetworkConfig(
    vocab_size=_size(described, 'vocab_size'),
    emb_dim=_size(described, 'd_model'),
    head_dim=_size(described, 'd_kv'),
    mlp_dim=_size(described, 'd_ff'),
    num_heads=_size(described, 'num_heads'),
    num_encoder_layers=layers,
    num_decoder_layers=_size(described, 'num_decoder_layers', layers),
    mlp_activations=_FEED_FORWARD[feed_forward],
    logits_via_embedding=Logits.of(described).is_scaled,
    relative_attention_num_buckets=_size(
      described, 'relative_attention_num_buckets', 32
    ),
    relative_attention_max_distance=_size(
      described, 'relative_attention_max_distance', 128
    ),
    dropout_rate=described.get('dropout_rate', 0.1),
    relative_bias_per_layer=family == 'umt5',
  )


def check_special_ids(described: Mapping[str, Any], file: str) -> None:
  """Raises ValueError for special ids other than those of T5.

  Args:
    described: `config.json` or `generation_config.json`.
    file: which of them, for the error.
  """
  for name, expected in _SPECIAL_IDS.items():
    value = described.get(name, expected)
    # Version 5 may list several ends.
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    if value is None and name == 'decoder_start_token_id':
      value = described.get('bos_token_id') or expected
    if type(value) is not int or value != expected:
      raise ValueError(
        f'{name} of {file} must be {expected}, as in T5, mT5 and umT5; got '
        f'{value!r}. Special ids are fixed here: '
        + ', '.join(f'{key} {number}' for key, number in _SPECIAL_IDS.items())
        + '. A checkpoint with others cannot be read yet.'
      )
  for name in _UNSUPPORTED:
    if described.get(name):
      raise ValueError(
        f'{name} of {file} must be absent or null; got {described[name]!r}. '
        'Outputs are drawn from the policy here, none of their tokens is forced.'
      )


def _check_family(described: Mapping[str, Any]) -> None:
  family = described.get('model_type')
  if family not in _FAMILIES:
    said = described.get('architectures') or ['none']
    raise ValueError(
      f'model_type of {CONFIG_FILE} must be one of {_FAMILIES}: T5 (also 1.1, '
      f'Flan-T5, UL2), mT5 and umT5; got {family!r} (architectures: '
      f'{", ".join(map(str, said))}). Other families, such as BART, Marian, '
      'NLLB, Pegasus or T5Gemma, have other networks, which cannot be read.'
    )
  if described.get('is_encoder_decoder') is False:
    raise ValueError(
      f'is_encoder_decoder of {CONFIG_FILE} must be true; got false. A T5 '
      'without decoder is no policy. Use an encoder-decoder.'
    )
  if described.get('quantization_config'):
    raise ValueError(
      f'quantization_config of {CONFIG_FILE} must be absent: quantised weights '
      'are not read. Use the original checkpoint in float32, bfloat16 or '
      'float16.'
    )


def _check_settings(described: Mapping[str, Any], feed_forward: str) -> None:
  expected = {
    'feed_forward_proj': tuple(_FEED_FORWARD),
    'dense_act_fn': _ACTIVATIONS.get(str(feed_forward), ()),
    'is_gated_act': (str(feed_forward).startswith('gated-'),),
    'layer_norm_epsilon': (_NORM_EPSILON,),
    'tie_encoder_decoder': (False,),
  }
  for name, allowed in expected.items():
    if name in described and described[name] not in allowed:
      raise ValueError(
        f'{name} of {CONFIG_FILE} must be one of {allowed}, as far as networks '
        f'of this package go; got {described[name]!r}.'
      )


def _size(
  described: Mapping[str, Any], name: str, default: int | None = None
) -> int:
  value = described.get(name)
  value = default if value is None else value
  if type(value) is not int or value < 1:
    raise ValueError(
      f'{name} of {CONFIG_FILE} must be a whole number above 0; got {value!r}. '
      'Fetch config.json again.'
    )
  return value
