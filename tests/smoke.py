"""One tiny run of everything, shared by the tests of what it leaves."""

import functools
import pathlib
import shutil

from rest_jax import configurables, experiment, gin_utils, rest
from rest_jax import run as run_lib

GIN_FILE = 'gin_configs/experiments/smoke.gin'


def settings(
  *overrides: str, gin_files: tuple[str, ...] = ()
) -> experiment.Experiment:
  configurables.register()
  return gin_utils.parse_and_build(
    [GIN_FILE, *gin_files], overrides, root=configurables.ROOT
  )


@functools.cache
def finished(folder: pathlib.Path) -> run_lib.Run:
  """A finished run in `folder`, made once in a session. Do not change it."""
  run = run_lib.Run(settings(), folder / 'smoke')
  rest.rest(run)
  return run


def copied(run: run_lib.Run, folder: pathlib.Path) -> run_lib.Run:
  """A copy of a run that a test may change."""
  shutil.copytree(run.model_dir, folder / 'copy')
  return run_lib.Run(run.experiment, folder / 'copy')
