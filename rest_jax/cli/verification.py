"""Detects damaged files in finished stages, and has them made again.

The manifest of a finished folder lists its files with sizes and checksums.
Damaged samples, rewards, tokenised pairs and outputs are made again
individually. From a damaged checkpoint on, the checkpoints of a training are
removed, so that it resumes from the one before, or from its start. Other
damage, and damage in folders of other runs, is an error.

Reports, TensorBoard events and compiled programs are derived from other files
and read by no stage; they are not checked. Damage in a file that only people
read is a warning. An unfinished stage checks its own files when it resumes.
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
# Suffixes of files that stages make again if they are missing.
_MADE_AGAIN = ('.arrow', '.txt', '.npz', '.model')
# Files that no stage reads after its own is finished. A report draws the
# readable lines of the metrics.
_FOR_PEOPLE = (journal.METRICS_FILE, refresh.TO_RATE, imported.NETWORK_GIN)


class DamagedError(ValueError):
  """Files of a run are damaged and cannot be made again automatically."""


def check(
  run: run_lib.Run,
  verify: inventory.Verify,
  *,
  only: Collection[pathlib.Path] | None = None,
  repairs: bool = True,
) -> None:
  """Checks the finished folders of a run, and repairs damaged ones.

  Args:
    run: the run; unfinished folders are not checked.
    verify: 'fast' compares presence and size of files, 'full' checksums.
    only: folders to check; None for all.
    repairs: whether damaged files may be removed, so that their stages make
      them again. No other process may be writing to the folder of the run.

  Raises:
    DamagedError: if damage is not repaired; lists all such files.
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
        logging.warning('%s; no stage reads it, so the run continues', damage)
      else:
        damages.append(damage)
    final = [
      d for d in damages if not (repairs and is_own and _is_made_again(d))
    ]
    lost += final
    if damages and not final:
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
  """Removes damaged files from a folder and marks it as unfinished."""
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
  """Removes a damaged checkpoint and all later ones, the last first.

  Later checkpoints may refer to it as the best one.
  """
  steps = [
    int(path.name) for path in checkpoints.iterdir() if path.name.isdigit()
  ]
  first = int(damaged) if damaged.isdigit() else 0
  for step in sorted(steps, reverse=True):
    if step >= first:
      logging.warning('%s: removed', checkpoints / str(step))
      paths.remove_tree(checkpoints / str(step))
