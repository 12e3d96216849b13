"""Stages that are made on their own, without a run around them."""

import pathlib
from typing import Any

from rest_jax.data import task as task_lib
from rest_jax.stages import base, bc, prepare
from rest_jax.stages import context as context_lib


def prepared(task: task_lib.Task, folder: pathlib.Path) -> prepare.PreparedData:
  """Prepares a task's text in a folder."""
  context = context_lib.Context(data_folder=folder)
  base.run_stage(prepare.Prepare(task=task, folder=folder), context)
  return context.data


def trained(
  config: bc.BCConfig, context: context_lib.Context, **fields: Any
) -> bc.BC:
  """Trains BC on prepared data.

  Args:
    config: how.
    context: says the data, the network and the folder.
    **fields: other fields of `BC`, such as `seed`.
  """
  stage = bc.BC(
    config=config,
    data=base.Given(folder=context.data_folder),
    folder=context.bc_folder,
    **{'seed': 0, **fields},
  )
  base.run_stage(stage, context)
  return stage
