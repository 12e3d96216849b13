"""`config.json` and `generation_config.json` of Hugging Face, and networks.

A family is read and written by `t5_config`, `bart_config` or `gemma_config`. A network
is of the family whose parts it has.
"""

from collections.abc import Iterator, Mapping
import dataclasses
from typing import Any

from rest_jax.interop import (
  bart_config,
  config_values,
  gemma_config,
  t5_config,
)
from rest_jax.models import network

CONFIG_FILE = config_values.CONFIG_FILE
# May say the special ids again, for `generate`, and has the last word.
GENERATION_FILE = 'generation_config.json'
FAMILIES = (
  *t5_config.FAMILIES,
  *bart_config.FAMILIES,
  *gemma_config.FAMILIES,
)
SPECIAL_IDS = (
  'pad_token_id',
  'eos_token_id',
  'bos_token_id',
  'decoder_start_token_id',
  'forced_bos_token_id',
)
# How a network is trained or computed, which no folder tells.
_OWN = ('dtype', 'float32_attention_logits', 'num_layers')
# Of what is exported by default, where longer outputs are asked for by name.
_MAX_LENGTH = 128


def network_config(described: Mapping[str, Any]) -> network.NetworkConfig:
  """The network that a `config.json` describes.

  Where a key is missing, its default is that of transformers.

  Raises:
    ValueError: another architecture, or a value that no part covers.
  """
  family = described.get('model_type')
  if family not in FAMILIES:
    said = described.get('architectures') or ['none']
    raise ValueError(
      f'model_type of {CONFIG_FILE} must be one of {FAMILIES}; got {family!r} '
      f'(architectures: {", ".join(map(str, said))}). Other families have other '
      'networks, which cannot be read.'
    )
  values = config_values.Values(described)
  _check_readable(values)
  for module in (t5_config, bart_config):
    if family in module.FAMILIES:
      return module.read(values)
  return gemma_config.read(values)


def _check_readable(values: config_values.Values) -> None:
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


def describe(config: network.NetworkConfig) -> dict[str, Any]:
  """The `config.json` of a network.

  Raises:
    ValueError: no family of Hugging Face has such parts.
  """
  kind = config.positions.kind
  if kind == 'relative':
    described = t5_config.describe(config)
  elif kind == 'rotary':
    described = gemma_config.describe(config)
  else:
    described = bart_config.describe(config)
  ids = config.special_ids
  described |= {
    'pad_token_id': ids.pad,
    'eos_token_id': ids.eos,
    'decoder_start_token_id': ids.decoder_start,
  }
  if ids.forced_first is not None:
    described['forced_bos_token_id'] = ids.forced_first
  found, expected = _compared(network_config(described)), _compared(config)
  others = sorted(name for name in expected if found[name] != expected[name])
  if others:
    name = others[0]
    raise ValueError(
      f'{name} must be {found[name]!r} in a network of the kind that Hugging '
      f'Face calls {described["model_type"]}; got {expected[name]!r}. No family '
      'there has such a network.'
    )
  return described


def _compared(config: network.NetworkConfig) -> dict[str, Any]:
  """What must be equal once a network is read again."""
  embeddings = dataclasses.asdict(config.embeddings)
  del embeddings['is_shared']  # The tensors tell.
  del embeddings['fixed_id']  # Of training alone.
  found = {f'embeddings.{name}': each for name, each in embeddings.items()}
  for stack in (config.encoder_stack, config.decoder_stack):
    name = 'encoder' if stack.is_encoder else 'decoder'
    found |= dict(_flat(dataclasses.asdict(stack), f'{name}.'))
    attention = f'{name}.attention'
    windows = [stack.attention.has_window(i) for i in range(stack.num_layers)]
    found[f'{attention}.window_layers'] = windows
    if not any(windows):
      del found[f'{attention}.window']
  if config.positions.kind != 'relative':
    found = {
      name: each for name, each in found.items() if '.relative_' not in name
    }
  # Sinusoids that were changed are stored, and read as learned vectors.
  is_stored = config.positions.kind == 'learned' and not config.positions.first
  return {
    name: each
    for name, each in found.items()
    if not (is_stored and '.positions.' in name)
  }


def _flat(values: Mapping[str, Any], scope: str) -> Iterator[tuple[str, Any]]:
  for name, value in values.items():
    if isinstance(value, Mapping):
      yield from _flat(value, f'{scope}{name}.')
    elif name not in _OWN and not name.endswith('dropout_rate'):
      # gin hands over lists.
      yield scope + name, tuple(value) if isinstance(value, list) else value


def describe_generation(config: network.NetworkConfig) -> dict[str, Any]:
  """The `generation_config.json` of a network: what is never drawn is suppressed."""
  ids = config.special_ids
  described: dict[str, Any] = {
    'pad_token_id': ids.pad,
    'eos_token_id': ids.eos,
    'decoder_start_token_id': ids.decoder_start,
    'suppress_tokens': sorted(ids.undrawable),
    'max_length': _MAX_LENGTH,
  }
  if ids.forced_first is not None:
    described['forced_bos_token_id'] = ids.forced_first
  return described
