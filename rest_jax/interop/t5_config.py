"""`config.json` of T5, mT5 and umT5, and the networks they describe.

Versions 4 and 5 of transformers compute the logits of one folder differently,
so `transformers_version` decides how it is read; see `Logits`.
"""

from collections.abc import Mapping
import dataclasses
import re
from typing import Any

from rest_jax.data import special_ids
from rest_jax.interop import config_values
from rest_jax.models import network, parts

# Activations of the feed-forward block, by Hugging Face's names.
_FEED_FORWARD = {
  'gated-gelu': ('gelu', 'linear'),
  'gated-relu': ('relu', 'linear'),
  'gated-silu': ('silu', 'linear'),
  'gelu': ('gelu_erf',),
  'gelu_new': ('gelu',),
  'relu': ('relu',),
  'silu': ('silu',),
}
FAMILIES = ('t5', 'mt5', 'umt5')
# By family, what is meant where config.json does not say.
_DEFAULT_FEED_FORWARD = {'t5': 'relu'}
_MT5_SIZES = {
  'vocab_size': 250112,
  'd_ff': 1024,
  'num_layers': 8,
  'num_heads': 6,
}
_DEFAULT_SIZES = {
  't5': {'vocab_size': 32128, 'd_ff': 2048, 'num_layers': 6, 'num_heads': 8},
  'mt5': _MT5_SIZES,
  'umt5': _MT5_SIZES,
}
# Only version 5 writes it.
_SCALE = 'scale_decoder_outputs'


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
          f'{config_values.CONFIG_FILE} must say by transformers_version what wrote it: the '
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
    'layer_norm_epsilon': config.norm.epsilon,
    'is_encoder_decoder': True,
    'use_cache': True,
  }


def read(values: config_values.Values) -> network.NetworkConfig:
  """The network that a `config.json` describes.

  Args:
    values: of one of `FAMILIES`.

  Raises:
    ValueError: a value that no part covers.
  """
  if values.flag('tie_encoder_decoder', False):
    raise values.error('tie_encoder_decoder', 'false')
  family = values.described['model_type']
  sizes = {'d_model': 512, 'd_kv': 64, **_DEFAULT_SIZES[family]}
  sizes = {name: values.size(name, size) for name, size in sizes.items()}
  layers = sizes['num_layers']
  return network.NetworkConfig(
    vocab_size=sizes['vocab_size'],
    emb_dim=sizes['d_model'],
    head_dim=sizes['d_kv'],
    mlp_dim=sizes['d_ff'],
    num_heads=sizes['num_heads'],
    num_encoder_layers=layers,
    num_decoder_layers=values.size('num_decoder_layers', layers),
    mlp_activations=_activations(values, family),
    logits_via_embedding=Logits.of(values.described).is_scaled,
    relative_attention_num_buckets=values.size(
      'relative_attention_num_buckets', 32
    ),
    relative_attention_max_distance=values.size(
      'relative_attention_max_distance', 128
    ),
    dropout_rate=values.rate('dropout_rate', 0.1),
    relative_bias_per_layer=family == 'umt5',
    norm=parts.NormConfig(epsilon=values.positive('layer_norm_epsilon', 1e-6)),
    special_ids=_ids(values),
  )


def _ids(values: config_values.Values) -> parts.SpecialIds:
  pad = values.special_id('pad_token_id', special_ids.T5.pad)
  eos = values.special_id('eos_token_id', special_ids.T5.eos)
  start = (
    values.special_id('bos_token_id', None) or special_ids.T5.decoder_start
  )
  start = values.special_id('decoder_start_token_id', start)
  assert pad is not None and eos is not None and start is not None
  # PAD, EOS and UNK are the first three pieces, in an order of the vocabulary.
  others = sorted({0, 1, 2} - {pad, eos})
  return parts.SpecialIds(
    pad=pad,
    eos=eos,
    unk=others[-1],
    decoder_start=start,
    forced_first=values.special_id('forced_bos_token_id', None),
  )


def _activations(values: config_values.Values, family: str) -> tuple[str, ...]:
  """Those of the feed-forward block; `dense_act_fn` has the last word."""
  key = 'feed_forward_proj'
  default = _DEFAULT_FEED_FORWARD.get(family, 'gated-gelu')
  said = values.described.get(key, default)
  known = config_values.ACTIVATIONS
  *gate, name = str(said).split('-')
  if gate not in ([], ['gated']) or name not in known:
    raise values.error(
      key, f"one of {tuple(known)}, with or without 'gated-' before it"
    )
  is_gated = values.flag('is_gated_act', bool(gate))
  if is_gated != bool(gate):
    raise values.error('is_gated_act', f'{bool(gate)}, as {key} is {said!r}')
  # The exact one is meant by `gelu` alone.
  implied = 'gelu_new' if said == 'gated-gelu' else name
  activation = values.activation('dense_act_fn', implied)
  return (activation, 'linear') if is_gated else (activation,)
