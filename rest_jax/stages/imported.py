"""Policies from elsewhere as finished `bc` folders, and the sizes of a folder.

An imported policy takes the place of the one that BC would train: as `BC_DIR` it
is the policy G=0, I=0, as `BC_INIT_DIR` the one that BC starts from.
"""

import dataclasses
import pathlib

import optax

from rest_jax import types
from rest_jax.data import files
from rest_jax.losses import bc as bc_loss
from rest_jax.models import network
from rest_jax.models import policy as policy_lib
from rest_jax.stages import folder as folder_lib
from rest_jax.training import checkpoints
from rest_jax.training import step as step_lib

NETWORK_GIN = 'network.gin'


def write(
  directory: str | pathlib.Path,
  config: network.NetworkConfig,
  params: types.Params,
  *,
  origin: str,
  overwrite: bool = False,
) -> pathlib.Path:
  """Writes a finished stage folder that holds given parameters.

  Beside the checkpoint stands `network.gin`: the sizes as a file of models/.

  Args:
    directory: the folder to write.
    config: sizes of the network, `vocab_size` among them.
    params: of the policy.
    origin: where they came from, for the record.
    overwrite: see `folder.begin`.

  Returns:
    The finished folder.
  """
  digest = checkpoints.digest(params)
  folder = folder_lib.begin(
    directory,
    {'imported': digest, 'network': config},
    overwrite=overwrite,
  )
  if folder.is_finished:
    return folder.path
  # Training from here would begin anew: there is no state of an optimiser.
  state = step_lib.init_state(params, bc_loss.BC(), optax.identity(), {})
  saved = checkpoints.Checkpoints(folder.path)
  try:
    if saved.latest_step is None:
      saved.save(state, record={'best_step': 0})
  finally:
    saved.close()
  with files.atomic_write(folder.path / NETWORK_GIN) as temporary:
    temporary.write_text(_gin(config, origin), encoding='utf-8')
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
    }
  )
  return folder.path


def network_of(directory: str | pathlib.Path) -> network.NetworkConfig:
  """The sizes of the network that a finished stage's policy has.

  Raises:
    ValueError: if the stage made no policy, or one that starts decoding in
      another way than T5.
  """
  settings = folder_lib.read_manifest(directory)['settings']
  described = settings.get('network')
  if not described or described.get('is') != network.NetworkConfig.__name__:
    raise ValueError(
      f'{directory} must be the folder of a policy, such as bc or improve_1_1; '
      'its manifest names no network.'
    )
  loss = settings.get('improve', {}).get('loss', {}).get('is')
  if loss == 'RewardConditionedBC':
    raise ValueError(
      f"the policy of {directory} reads a reward in place of the decoder's first "
      f'input (loss {loss}), which no other library would give it.'
    )
  return network.NetworkConfig(
    **{name: value for name, value in described.items() if name != 'is'}
  )


def _gin(config: network.NetworkConfig, origin: str) -> str:
  """The sizes as a gin file of models/."""
  lines = [
    f'# The network of {origin}.',
    '#',
    '# Provides NETWORK. Requires nothing.',
    'NETWORK = @NetworkConfig()',
  ]
  for field in dataclasses.fields(config):
    if field.metadata.get('feeds', True):  # Not how it is trained.
      lines.append(
        f'NetworkConfig.{field.name} = {getattr(config, field.name)!r}'
      )
  return '\n'.join(lines) + '\n'
