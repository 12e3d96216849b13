"""Checkpoints by Orbax: the latest to resume from and the best to use."""

from collections.abc import Mapping, Sequence
import dataclasses
import errno
import math
import os
import pathlib
from typing import Any

from absl import logging
import jax
import numpy as np
import optax
import orbax.checkpoint as ocp

from rest_jax import types
from rest_jax.losses import bc
from rest_jax.parallel import processes
from rest_jax.runtime import time_spent
from rest_jax.storage import files, lease, paths
from rest_jax.training import digests, uploaded_steps
from rest_jax.training import step as step_lib

OBJECTIVE = 'objective'

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# What the train state holds, and how its steps are taken. 2: states of the
# optimiser apart for parameters and what the loss learns; gradients divided by
# the expected normaliser. 3: without the models that the loss only reads; digests
# of blocks. Those of 2 are still read.
_FORMAT = 3
_DIGESTS = {2: digests.of_bytes, 3: digests.digest}
# Characters of Orbax's errors, which can be pages.
_SHOWN = 300


class FormatError(ValueError):
  """A train state of another version cannot be trained on from."""


def _kept_steps(record: Mapping[str, Any]) -> set[int]:
  """The checkpoints that a training needs at its end, by its bookkeeping."""
  best = record.get('best_step')
  averaged = {int(step) for step, _ in record.get('averaged', ())}
  return averaged if best is None else averaged | {best}


class _LatestAndBest:
  """Keeps the newest checkpoint and those that the trainer names.

  Orbax's own `BestN` forgets, in a new process, the metrics of checkpoints that
  an earlier one saved, and drops the best of them.
  """

  def __init__(self):
    self.steps: set[int] = set()

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any):
    """Says for each checkpoint whether it stays."""
    del context
    latest = max(info.step for info in checkpoints)
    kept = {latest, *self.steps}
    return [info.step in kept for info in checkpoints]


class Checkpoints:
  """The checkpoints of one training, in `directory`/checkpoints.

  Each has three items: `params`, `rest` (what else the train state holds) and
  `record` (plain values: the trainer's own bookkeeping and the digests of the
  other two). The newest is always kept, and the one of the highest objective.
  """

  def __init__(self, directory: str | pathlib.Path, *, read_only: bool = False):
    self.directory = paths.of(directory)
    path = self.directory.absolute() / 'checkpoints'
    if not read_only:
      path.mkdir(parents=True, exist_ok=True)
    elif not path.exists():
      raise FileNotFoundError(
        f'{path} does not exist: no checkpoint was saved in {directory}'
      )
    self._path, self._uploaded = path, None
    if not paths.is_for_orbax(path):
      self._uploaded = uploaded_steps.UploadedSteps(path)
      path = self._uploaded.local
    elif paths.is_remote(path) and not read_only and processes.is_main():
      # A folder of a bucket ends with its last object, and Orbax lists it while
      # it removes what is left of a save.
      (path / '.folder').write_bytes(b'')
    self._kept = _LatestAndBest()
    self._manager = ocp.CheckpointManager(
      os.fspath(path),
      item_names=('params', 'rest', 'record'),
      options=ocp.CheckpointManagerOptions(
        preservation_policy=self._kept,
        enable_async_checkpointing=False,
        cleanup_tmp_directories=not read_only,
        read_only=read_only,
      ),
    )

  def save(
    self,
    state: step_lib.TrainState,
    *,
    record: Mapping[str, Any],
    objective: float | None = None,
  ) -> None:
    """Saves a state; returns when it is on disk.

    Args:
      record: JSON values to keep with it; `best_step` and the pairs of step
        and objective in `averaged` name the checkpoints to keep beside the
        newest.
      objective: the higher the better; None if it was not evaluated.

    Raises:
      ValueError: if the objective is not finite. Such a checkpoint would be
        kept and push a good one out.
      DiskError: if there is no room for it; those before are kept.
    """
    if objective is not None and not math.isfinite(objective):
      raise ValueError(
        f'the objective at step {int(state.step)} is {objective}; it must be '
        'finite. Nothing was saved.'
      )
    self._kept.steps = _kept_steps(record)
    rest = {'auxiliary': state.auxiliary, 'optimizer': state.optimizer}
    self._write(
      int(state.step),
      args=ocp.args.Composite(
        params=ocp.args.StandardSave(state.params),
        rest=ocp.args.StandardSave(rest),
        record=ocp.args.JsonSave(
          {
            **record,
            'format': _FORMAT,
            'params_digest': digests.digest(state.params),
            'rest_digest': digests.digest(rest),
          }
        ),
      ),
      metrics=None if objective is None else {OBJECTIVE: objective},
    )

  def _write(self, step: int, **what: Any) -> None:
    lease.check()
    try:
      with time_spent.waiting():
        self._manager.save(step, **what)
        self._manager.wait_until_finished()
        self._publish()
    except (OSError, ValueError) as error:
      # TensorStore raises ValueError, with pages around the system's own words.
      number = next((n for n in _DISK if os.strerror(n) in str(error)), None)
      if number is None:
        raise
      path = f'{self._path}/{step}'
      raise files.disk_error(path, number, _num_bytes(what['args'])) from error

  def _publish(self) -> None:
    if self._uploaded is not None:
      self._uploaded.publish()

  def _read(self, step: int, **items: Any) -> Any:
    with time_spent.waiting():
      return self._manager.restore(step, args=ocp.args.Composite(**items))

  @property
  def latest_step(self) -> int | None:
    return self._manager.latest_step()

  def restore(
    self,
    step: int,
    like: step_lib.TrainState,
    given: Mapping[str, types.Params] | None = None,
  ) -> tuple[step_lib.TrainState, dict[str, Any]]:
    """Restores a whole train state.

    Args:
      like: a state of the same structure; gives shapes and shardings.
      given: parameters of the models that the loss reads, which earlier versions
        saved as part of the state.

    Raises:
      FormatError: if another version saved it.
    """
    auxiliary, found = like.auxiliary, self._format(step)
    if given and found == 2:
      auxiliary = dataclasses.replace(
        auxiliary, carried={**auxiliary.carried, **given}
      )
    rest = {'auxiliary': auxiliary, 'optimizer': like.optimizer}
    restored = self._read(
      step,
      params=ocp.args.StandardRestore(_abstract(like.params)),
      rest=ocp.args.StandardRestore(_abstract(rest)),
      record=ocp.args.JsonRestore(),
    )
    for item in ('params', 'rest'):
      _check(item, restored, step, self._path)
    auxiliary = restored['rest']['auxiliary']
    for name in given or ():
      auxiliary.carried.pop(name, None)
    state = step_lib.TrainState(
      step=processes.place(np.int32(step), like.step.sharding),
      params=restored['params'],
      auxiliary=auxiliary,
      optimizer=restored['rest']['optimizer'],
    )
    return state, restored['record']

  def restore_latest(
    self,
    like: step_lib.TrainState,
    given: Mapping[str, types.Params] | None = None,
  ) -> tuple[step_lib.TrainState, dict[str, Any]] | None:
    """Restores the newest state that is whole; None if nothing was saved.

    Damaged ones are removed, with a warning.

    Raises:
      FormatError: another version saved them.
      ValueError: all that were saved are damaged.
    """
    steps = sorted(self._manager.all_steps(), reverse=True)
    for step in steps:
      try:
        found = self.restore(step, like, given)
        kept = _kept_steps(found[1]) - {step}
        for other in sorted(kept):
          # Now rather than at the end of the training, which needs them.
          self.restore_params(other, found[0].params)
      except FormatError:
        raise
      # What Orbax, TensorStore and our digests say of damage. Whatever else goes
      # wrong, such as a lack of memory or of rights, is no reason to remove it.
      except (ValueError, FileNotFoundError, KeyError) as error:
        logging.warning(
          'checkpoint %d of %s is damaged, the one before is used: %s',
          step,
          self.directory,
          str(error)[:_SHOWN],
        )
        continue
      # Damaged ones, and what was being removed when the program was killed.
      for other in steps:
        if other != step and other not in kept:
          self._manager.delete(other)
      self._publish()
      return found
    if steps:
      raise ValueError(
        f'every checkpoint of {self.directory} is damaged: {steps}. Remove that '
        'folder to have the stage made again.'
      )
    return None

  def _format(self, step: int) -> int:
    """Returns the format of a checkpoint; raises if it is of no use here."""
    restored = self._read(step, record=ocp.args.JsonRestore())
    found = restored['record'].get('format', 1)
    if found not in _DIGESTS:
      raise FormatError(
        f'{self.directory} has a training that another version of rest_jax began '
        f'(format {found} of its checkpoints; this version has {_FORMAT}) and did '
        'not finish: steps are taken differently now, so it is not continued. '
        'Remove that folder to have the stage trained anew, or finish it with '
        'the version that began it.'
      )
    return found

  def restore_params(self, step: int, like: types.Params) -> types.Params:
    """Restores the parameters alone; `like` gives shapes and shardings."""
    if step not in self._manager.all_steps():
      raise FileNotFoundError(
        f'{self._path} has no checkpoint of step {step}, only of '
        f'{sorted(self._manager.all_steps())}'
      )
    restored = self._read(
      step,
      params=ocp.args.StandardRestore(_abstract(like)),
      record=ocp.args.JsonRestore(),
    )
    _check('params', restored, step, self._path)
    return restored['params']

  def close(self) -> None:
    self._manager.close()
    if self._uploaded is not None:
      self._uploaded.close()


def save_params(
  directory: str | pathlib.Path, step: int, params: types.Params
) -> None:
  """Saves parameters alone, as a checkpoint of a finished stage.

  A training cannot be resumed from it: the optimiser has no state. Does nothing
  if the checkpoint exists.

  Args:
    step: the checkpoint's number, `best_step` of the manifest.
  """
  state = step_lib.init_state(params, bc.BC(), optax.identity(), {})
  saved = Checkpoints(directory)
  try:
    if saved.latest_step != step:
      state = dataclasses.replace(state, step=np.int32(step))
      saved.save(state, record={'best_step': step})
  finally:
    saved.close()


def load_params(
  directory: str | pathlib.Path, step: int, like: types.Params
) -> types.Params:
  """Loads the parameters of one checkpoint.

  Args:
    step: the step, usually the manifest's `best_step`.
    like: a tree of arrays or `jax.ShapeDtypeStruct` with shardings.

  Raises:
    ValueError: if shapes differ or the arrays are damaged.
  """
  checkpoints = Checkpoints(directory, read_only=True)
  try:
    return checkpoints.restore_params(step, like)
  finally:
    checkpoints.close()


def _num_bytes(args: ocp.args.Composite) -> int:
  leaves = jax.tree.leaves([args['params'].item, args['rest'].item])
  return sum(leaf.nbytes for leaf in leaves)


def _abstract(tree: Any) -> Any:
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=getattr(x, 'sharding', None)
    ),
    tree,
  )


def _check(
  item: str, restored: Mapping[str, Any], step: int, directory: Any
) -> None:
  """Raises unless an item's arrays are those that were saved."""
  record = restored['record']
  digest = _DIGESTS.get(record.get('format', 1), digests.of_bytes)
  if digest(restored[item]) != record[f'{item}_digest']:
    raise ValueError(
      f'{item} of checkpoint {step} in {directory} is damaged: its digest is not '
      'the one recorded when it was saved. Remove that checkpoint; training '
      'resumes from the one before.'
    )
