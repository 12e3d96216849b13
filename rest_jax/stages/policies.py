"""Policies on disk: the folder of a finished `bc` or `improve` stage."""

import pathlib
from typing import Any

from rest_jax import types
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.stages import folder as folder_lib
from rest_jax.training import checkpoints


def digest(directory: str | pathlib.Path) -> str:
  """Returns the digest of the arrays of a finished stage's best policy."""
  return folder_lib.read_manifest(directory)['training']['params_digest']


def load(
  directory: str | pathlib.Path,
  policy: policy_lib.Policy,
  mesh_config: mesh_lib.MeshConfig,
) -> types.Params:
  """Loads the best policy of a finished stage onto the mesh.

  Args:
    directory: the stage's folder.
    policy: the network that the parameters belong to.
    mesh_config: devices and rules.

  Returns:
    The parameters.

  Raises:
    ValueError: if the checkpoint is of another network.
  """
  manifest = folder_lib.read_manifest(directory)
  step = manifest['training']['best_step']
  return checkpoints.load_params(
    directory, step, abstract_params(policy, mesh_config)
  )


def abstract_params(model: Any, mesh_config: mesh_lib.MeshConfig) -> Any:
  """Returns shapes, types and shardings of a model's parameters."""
  return mesh_lib.abstract_params(model, mesh_config.build(), mesh_config.rules)
