"""One tiny run of everything, shared by the tests of what it leaves."""

import fcntl
import functools
import os
import pathlib
import shutil

from rest_jax import experiment
from rest_jax import experiment_run as run_lib
from rest_jax.config import gin_files as gin_lib
from rest_jax.config import registry
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import outputs
from rest_jax.storage import files

ROOT = pathlib.Path(__file__).resolve().parents[1]
GIN_FILE = 'gin_configs/experiments/smoke.gin'


def settings(
  *overrides: str, gin_files: tuple[str, ...] = ()
) -> experiment.Experiment:
  registry.register()
  return gin_lib.parse_and_build(
    [GIN_FILE, *gin_files], overrides, root=registry.ROOT
  )


@functools.cache
def finished(folder: pathlib.Path) -> run_lib.Run:
  """A finished run in `folder`, made once in a session. Do not change it.

  The first of xdist's workers makes it for all; each has a copy.
  """
  run = run_lib.Run(settings(), folder / 'smoke')
  if 'PYTEST_XDIST_WORKER' not in os.environ:
    run.rest()
    return run
  made = run_lib.Run(run.experiment, folder.parent / 'smoke')
  with open(folder.parent / 'smoke.lock', 'w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    mark = folder.parent / 'smoke.made'
    if not mark.exists():
      made.rest()
      mark.touch()
    shutil.copytree(made.model_dir, run.model_dir)
  return run


def copied(run: run_lib.Run, folder: pathlib.Path) -> run_lib.Run:
  """A copy of a run that a test may change."""
  shutil.copytree(run.model_dir, folder / 'copy')
  return run_lib.Run(run.experiment, folder / 'copy')


def without_judge(directory: pathlib.Path) -> None:
  """Makes an evaluation one of a task that has no judge."""
  manifest = folder_lib.read_manifest(directory)
  measured = manifest['measured']
  for fields in (measured, *measured['outputs'].values()):
    del fields['human']
  del measured['best_of_n_human']
  files.write_json(directory / folder_lib.MANIFEST, manifest, sealed=True)
  scores = outputs.read(directory)
  outputs.write(
    directory,
    {name: found._replace(human=None) for name, found in scores.items()},
  )
