"""Loading of the models of finished stages."""

import pathlib
from typing import Any

from rest_jax import types
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.stages import folder as folder_lib
from rest_jax.training import checkpoints


def digest(directory: str | pathlib.Path) -> str:
  """Returns the digest of the best parameters of a finished stage."""
  return folder_lib.read_manifest(directory)['training']['params_digest']


def load(
  directory: str | pathlib.Path,
  model: Any,
  mesh_config: mesh_lib.MeshConfig,
) -> types.Params:
  """Loads the best parameters of a finished stage onto the mesh.

  Args:
    model: the `Policy` or `ScalarModel` that the parameters belong to.

  Raises:
    ValueError: the checkpoint is of another network.
  """
  manifest = folder_lib.read_manifest(directory)
  abstract = mesh_lib.abstract_params(
    model, mesh_config.build(), mesh_config.rules
  )
  return checkpoints.load_params(
    directory, manifest['training']['best_step'], abstract
  )
