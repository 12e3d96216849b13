"""Whether the finished stages of a run are still as they were made.

A finished folder lists its files with sizes and checksums. What is damaged is
named. Samples, rewards, tokenised pairs and outputs are made again, alone; of a
training, the checkpoints from the damaged one on are removed, so that it goes on
from the one before, or from its start. What nothing can make again, and folders
of other runs, end the program.

Reports, TensorBoard's events and compiled programs are made from other files and
read by no stage; they are not looked at. Of a table that people alone read once its
stage is finished, damage is a warning. A stage that was cut off checks what it
finds as it goes on.
"""

from collections.abc import Collection, Sequence
import pathlib

from absl import logging

from rest_jax import experiment_run as run_lib
from rest_jax.evaluation import results
from rest_jax.report import summary
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import imported, refresh
from rest_jax.storage import inventory, paths
from rest_jax.training import journal

_CHECKPOINTS = 'checkpoints'
# What the stages that write them make again if they are missing.
_MADE_AGAIN = ('.arrow', '.txt', '.npz', '.model')
# No stage reads them once their own is finished. Of the metrics, a report draws
# what it can read.
_FOR_PEOPLE = (journal.METRICS_FILE, refresh.TO_RATE, imported.NETWORK_GIN)


class DamagedError(ValueError):
  """Files of a run are damaged that it does not make again by itself."""


def check(
  run: run_lib.Run,
  verify: inventory.Verify,
  *,
  only: Collection[pathlib.Path] | None = None,
  repairs: bool = True,
) -> None:
  """Checks what the run would use, and has damaged files made again.

  Args:
    run: whose folders; those that are not finished are left alone.
    verify: 'fast' compares the presence and size of files, 'full' checksums.
    only: the folders to look at; None for all.
    repairs: whether files may be removed, which their stages then make again.
      No other process may be writing to the run's folder.

  Raises:
    DamagedError: for damage that is not repaired, with all of the files.
    ValueError: a manifest or a file of results is damaged.
  """
  if repairs and only is None:
    folder_lib.clear(run.model_dir)
  lost: list[inventory.Damage] = []
  for directory, is_own in run.folders().items():
    if only is not None and directory not in only:
      continue
    if not folder_lib.is_finished(directory):
      continue
    damages = []
    for damage in folder_lib.damages(directory, verify):
      if damage.path.name in _FOR_PEOPLE:
        logging.warning('%s; no stage reads it, so the run goes on', damage)
      else:
        damages.append(damage)
    kept = [
      d for d in damages if not (repairs and is_own and _is_made_again(d))
    ]
    lost += kept
    if damages and not kept:
      _repair(directory, damages)
  if lost:
    raise DamagedError(
      'these files are damaged:\n  '
      + '\n  '.join(map(str, lost))
      + '\nRestore them, or remove the folder of each to have its stage made '
      'again.'
    )
  path = run.model_dir / summary.RESULTS_FILE
  if verify == 'full' and only is None and path.exists():
    results.read(path, must_be_sealed=True)


def _is_made_again(damage: inventory.Damage) -> bool:
  return _CHECKPOINTS in damage.path.parts or damage.path.suffix in _MADE_AGAIN


def _repair(
  directory: pathlib.Path, damages: Sequence[inventory.Damage]
) -> None:
  """Makes a folder unfinished, without what is damaged in it."""
  for damage in damages:
    logging.warning('%s; its stage makes it again', damage)
  for damage in damages:
    parts = damage.path.relative_to(directory).parts
    if _CHECKPOINTS not in parts:
      continue
    place = parts.index(_CHECKPOINTS) + 1
    _remove_from(directory.joinpath(*parts[:place]), parts[place])
  folder_lib.reopen(directory, damages)


def _remove_from(checkpoints: pathlib.Path, damaged: str) -> None:
  """Removes the checkpoints that came after a damaged one, then itself.

  Those after it may name it as their best.
  """
  steps = [
    int(path.name) for path in checkpoints.iterdir() if path.name.isdigit()
  ]
  first = int(damaged) if damaged.isdigit() else 0
  for step in sorted(steps, reverse=True):
    if step >= first:
      logging.warning('%s: removed', checkpoints / str(step))
      paths.remove_tree(checkpoints / str(step))
