"""Handling of steps whose loss or gradient is not finite."""

from collections.abc import Mapping
import math
import pathlib
from typing import Any

import numpy as np

from rest_jax.parallel import processes
from rest_jax.storage import files, paths
from rest_jax.training import loader

CHECKED = ('loss', 'gradient_norm')
_SHOWN = 8


def is_bad(metrics: Mapping[str, float]) -> bool:
  """Returns whether loss or gradient are not finite."""
  return not all(math.isfinite(metrics[name]) for name in CHECKED)


def error(
  directory: str | pathlib.Path,
  step: int,
  metrics: Mapping[str, float],
  batches: loader.BucketedBatches,
  where: str = '',
) -> FloatingPointError:
  """Saves the batch of a step that stops a training, and returns the error.

  Args:
    directory: folder of the stage; gets `bad_step_<step>.npz` with the batch's
      arrays and `rows`, the indices of its rows in the training data.
    step: number of the step, from 1.
  """
  rows = batches.rows(step - 1)
  stem = f'bad_step_{step}'
  if processes.count() > 1:  # Each process has its own rows.
    stem += f'_process_{processes.index()}'
  path = paths.of(directory) / f'{stem}.npz'
  with files.atomic_write(path) as temporary, temporary.open('wb') as opened:
    arrays: dict[str, Any] = {**batches[step - 1], 'rows': rows}
    np.savez_compressed(opened, **arrays)
  name = next(name for name in CHECKED if not math.isfinite(metrics[name]))
  more = ', ...' if len(rows) > _SHOWN else ''
  shown = ', '.join(map(str, rows[:_SHOWN].tolist()))
  return FloatingPointError(
    f'{name} is {metrics[name]} at step {step}{where}, on {len(rows)} rows '
    f'({shown}{more}). The batch is in {path}; the latest checkpoint is intact. Lower the '
    'learning rate, look at the batch, or allow some such steps: '
    'max_bad_steps.'
  )
