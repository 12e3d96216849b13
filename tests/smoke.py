"""One tiny run of everything, shared by the tests of what it leaves."""

from collections.abc import Iterator
import contextlib
import functools
import pathlib
import shutil
from typing import Any

from absl import flags
from absl.testing import flagsaver
import pytest

from rest_jax import experiment
from rest_jax import experiment_run as run_lib
from rest_jax.cli import main
from rest_jax.config import gin_files as gin_lib
from rest_jax.config import registry
from rest_jax.report.render import drawing, figures
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import outputs
from rest_jax.storage import files
from rest_jax.training import checkpoints
from tests import once

ROOT = pathlib.Path(__file__).resolve().parents[1]
GIN_FILE = 'gin_configs/experiments/smoke.gin'


@functools.cache
def settings(
  *overrides: str, gin_files: tuple[str, ...] = ()
) -> experiment.Experiment:
  """The smoke experiment with some settings, read once."""
  registry.register()
  return gin_lib.parse_and_build(
    [GIN_FILE, *gin_files], overrides, root=registry.ROOT
  )


def given(run: run_lib.Run, *stages: str) -> list[str]:
  """Overrides by which another run uses finished stages of this one."""
  return [
    f'{name.split("_")[0].upper()}_DIR={run.folder(name)}' for name in stages
  ]


def command(*overrides: str, **flag_values: Any) -> int:
  """Calls `rest-jax run` on the smoke experiment; returns the exit status."""
  if not flags.FLAGS.is_parsed():
    flags.FLAGS(['rest_jax'])
  with flagsaver.flagsaver(**{'gin_file': [GIN_FILE], **flag_values}):
    return main.main(['rest_jax'], list(overrides))


@contextlib.contextmanager
def killed_at_checkpoint(number: int) -> Iterator[None]:
  """Ends what is inside as a kill would, before a training's n-th checkpoint."""
  save, saved = checkpoints.Checkpoints.save, []

  def save_or_end(self, state, **kwargs):
    saved.append(state)
    if len(saved) == number:
      raise KeyboardInterrupt
    return save(self, state, **kwargs)

  with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(checkpoints.Checkpoints, 'save', save_or_end)
    yield


@functools.cache
def finished(folder: pathlib.Path) -> run_lib.Run:
  """A finished run, made once in a session. Do not change it.

  Each of xdist's workers has a copy in its `folder`.
  """
  run = run_lib.Run(settings(), folder / 'smoke')
  made = once.made(
    folder, 'smoke', lambda path: run_lib.Run(run.experiment, path).rest()
  )
  if made != run.model_dir:
    shutil.copytree(made, run.model_dir)
  return run


def copied(run: run_lib.Run, folder: pathlib.Path) -> run_lib.Run:
  """A copy of a run that a test may change."""
  shutil.copytree(run.model_dir, folder / 'copy')
  return run_lib.Run(run.experiment, folder / 'copy')


@contextlib.contextmanager
def without_pictures() -> Iterator[None]:
  """Lets reports be numbers alone: pictures take most of their time."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(drawing, 'svg', lambda figure: b'<svg/>')
    patch.setattr(drawing, 'save', lambda figure, path: None)
    patch.setattr(figures, 'write_all', lambda results, folder: None)
    yield


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
