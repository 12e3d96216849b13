"""Imported policies as finished `bc` folders, and the network of a folder.

An imported policy replaces BC: with `BC_DIR` it is the policy G=0, I=0; with
`BC_INIT_DIR` it is the initial policy of BC.
"""

from collections.abc import Iterator
import dataclasses
import pathlib
from typing import Any

from rest_jax import types
from rest_jax.data import vocabularies
from rest_jax.models import network, network_config
from rest_jax.models import policy as policy_lib
from rest_jax.stages import folder as folder_lib
from rest_jax.storage import files
from rest_jax.training import checkpoints, digests

NETWORK_GIN = 'network.gin'
POLICY_GIN = 'policy.gin'


def write(
  directory: str | pathlib.Path,
  config: network.NetworkConfig,
  params: types.Params,
  *,
  vocabulary: str | pathlib.Path,
  origin: str,
  overwrite: bool = False,
) -> pathlib.Path:
  """Writes a finished stage folder with the parameters of a policy.

  The folder also has the policy's vocabulary, the only one that a run may use
  it with; `network.gin`, the sizes as a file like those of models/; and
  `policy.gin`, with which a run's BC starts from the policy.

  Args:
    vocabulary: the sentencepiece model, or the folder of the tokeniser, that
      the policy was trained with.
    origin: origin of the parameters, for the manifest.

  Raises:
    ValueError: the vocabulary cannot be read, or has more pieces than the
      network embeds.
  """
  pieces = check_vocabulary(vocabulary, config)
  digest = digests.of_bytes(params)
  folder = folder_lib.begin(
    directory,
    {
      'imported': digest,
      'network': config,
      'vocabulary': pieces.digest,
    },
    overwrite=overwrite,
  )
  if folder.is_finished:
    return folder.path
  checkpoints.save_params(folder.path, 0, params)
  with files.atomic_write(folder.path / NETWORK_GIN) as temporary:
    temporary.write_text(_gin(config, origin), encoding='utf-8')
  vocabularies.copy(pieces, folder.path)
  with files.atomic_write(folder.path / POLICY_GIN) as temporary:
    text = _gin(config, origin) + _task_gin(folder.path, pieces)
    temporary.write_text(text, encoding='utf-8')
  training = {
    'steps': 0,
    'best_step': 0,
    'best_objective': None,
    'evaluation': {},
    'seconds': 0.0,
    'evaluation_seconds': 0.0,
    'source_tokens': 0,
    'target_tokens': 0,
    'params_digest': digest,
  }
  folder.finish(
    {
      'origin': origin,
      'training': training,
      'num_params': policy_lib.num_params(params),
      'vocabulary': {'size': pieces.size, 'digest': pieces.digest},
    }
  )
  return folder.path


def check_vocabulary(
  path: str | pathlib.Path, config: network.NetworkConfig
) -> vocabularies.Vocabulary:
  """Reads the vocabulary of a policy; raises ValueError if it does not fit."""
  vocabulary = vocabularies.Vocabulary(path)
  if vocabulary.size > config.vocab_size:
    raise ValueError(
      f'the vocabulary must have at most the {config.vocab_size} pieces that '
      f'the network embeds; {path} has {vocabulary.size}. It is not the '
      'vocabulary of this checkpoint.'
    )
  ids, own = config.special_ids, vocabulary.special_ids
  for name in ('pad', 'eos', 'unk'):
    if getattr(ids, name) not in (None, getattr(own, name)):
      raise ValueError(
        f'{name} of the vocabulary must be {getattr(ids, name)}, as the network '
        f'was trained with; in {path} it is {getattr(own, name)}. It is not the '
        'vocabulary of this checkpoint.'
      )
  return vocabulary


def network_of(directory: str | pathlib.Path) -> network.NetworkConfig:
  """Returns the sizes of the network of a finished stage's policy.

  Raises:
    ValueError: the stage made no policy, or a policy whose decoder starts with
      another input than T5's.
  """
  settings = folder_lib.read_manifest(directory)['settings']
  described = settings.get('network')
  if not described or described.get('is') != network.NetworkConfig.__name__:
    raise ValueError(
      f'{directory} must be the folder of a policy, such as bc or improve_1_1; '
      'its manifest has no network.'
    )
  loss = settings.get('improve', {}).get('loss', {}).get('is')
  if loss == 'RewardConditionedBC':
    raise ValueError(
      f"the policy of {directory} reads a reward in place of the decoder's first "
      f'input (loss {loss}), which other libraries do not support.'
    )
  return network_config.from_described(described)


def _gin(config: network.NetworkConfig, origin: str) -> str:
  """Formats the sizes as a gin file like those of models/."""
  lines = [
    f'# The network of {origin}.',
    '#',
    '# Provides NETWORK. Requires nothing.',
    'NETWORK = @NetworkConfig()',
    *_bindings(config, ''),
  ]
  return '\n'.join(lines) + '\n'


def _task_gin(
  directory: pathlib.Path, vocabulary: vocabularies.Vocabulary
) -> str:
  """Formats the settings of a run whose BC starts from the policy."""
  path = directory.absolute()
  lines = [
    '',
    "# Its vocabulary, and BC from its parameters. Include after the task's file.",
    f'VocabularyConfig.model_file = {str(vocabularies.stored(path))!r}',
    f'BC_INIT_DIR = {str(path)!r}',
  ]
  codes = sorted(vocabulary.language_ids)
  if codes:
    lines += [
      f'# Languages of the tokeniser: {", ".join(codes)}.',
      f'# SOURCE_LANGUAGE = {codes[0]!r}',
      f'# TARGET_LANGUAGE = {codes[-1]!r}',
    ]
  return '\n'.join(lines) + '\n'


def _bindings(config: Any, scope: str) -> Iterator[str]:
  """Yields the lines that set all fields of a dataclass and of its parts."""
  cls = type(config).__name__
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    is_part = dataclasses.is_dataclass(value)
    if not field.metadata.get('feeds', True):
      continue  # Settings that do not change the network.
    may_be_left_out = is_part or value is None or 'since' in field.metadata
    if may_be_left_out and value == field.default:
      continue
    key = f'{scope}{cls}.{field.name}'
    if not is_part:
      yield f'{key} = {value!r}'
      continue
    # The encoder's own settings are set in a gin scope.
    own = f'{field.name}/' if field.name == 'encoder' else scope
    yield f'{key} = @{own}{type(value).__name__}()'
    yield from _bindings(value, own)
