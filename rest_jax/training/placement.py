"""Sharding of the state of a training."""

from collections.abc import Mapping
import functools
from typing import Any

import jax
import jax.numpy as jnp

from rest_jax import types
from rest_jax.losses import base
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.training import optimizers
from rest_jax.training import step as step_lib


def sharded_state(
  model: Any,
  loss: base.Loss,
  optimizer: optimizers.OptimizerConfig,
  params: types.Params,
  given: Mapping[str, Any] | None,
  mesh_config: mesh_lib.MeshConfig,
  mesh: jax.sharding.Mesh,
) -> tuple[step_lib.TrainState, dict[str, types.Params]]:
  """Places parameters, the rest of the state, and models that steps read.

  Args:
    params: parameters of the model, on any device; copied.
    given: models that the loss needs, with parameters, by name.
  """

  def place(model, params):
    return mesh_lib.put_params(
      params, model.logical_axes(), mesh, mesh_config.rules
    )

  # A copy, because the step donates its state and the caller keeps the
  # parameters.
  params = jax.tree.map(lambda x: jnp.array(x, copy=True), params)
  params = place(model, params)
  given = given or {}
  others = {name: place(*given[name]) for name in loss.needs if name in given}
  init = functools.partial(
    step_lib.init_state, loss=loss, optimizer=optimizer.direction()
  )
  shapes = abstract_state(loss, optimizer, params, others, mesh)
  shardings = jax.tree.map(lambda shape: shape.sharding, shapes)
  state = jax.jit(init, out_shardings=shardings)(params, given=others)
  return state, {name: others[name] for name in loss.reads}


def abstract_state(
  loss: base.Loss,
  optimizer: optimizers.OptimizerConfig,
  params: Any,
  given: Mapping[str, Any],
  mesh: jax.sharding.Mesh,
) -> step_lib.TrainState:
  """Returns shapes, types and shardings of the initial state of training.

  Args:
    params: arrays, or shapes with shardings.
    given: parameters of the models that the loss needs, in the same form.
  """
  init = functools.partial(
    step_lib.init_state, loss=loss, optimizer=optimizer.direction()
  )
  by_name = {
    (jax.tree_util.keystr(path), leaf.shape): leaf.sharding
    for tree in (params, *given.values())
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }

  def sharding_of(path, leaf):
    # Adam's moments, lagged policies and the like are trees with the
    # parameters' names and shapes; everything else is replicated.
    for start in range(len(path)):
      name = jax.tree_util.keystr(path[start:])
      if (name, leaf.shape) in by_name:
        return by_name[name, leaf.shape]
    return mesh_lib.replicated(mesh)

  def placed(path, leaf):
    return jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding_of(path, leaf)
    )

  shapes = jax.eval_shape(init, params, given=given)
  return jax.tree_util.tree_map_with_path(placed, shapes)
