"""Writes the gin file of a run on a user's files, and builds its experiment."""

from collections.abc import Sequence
import pathlib
from typing import NamedTuple

import jax

from rest_jax import experiment as experiment_lib
from rest_jax.config import gin_files, registry
from rest_jax.own_data import choices as choices_lib
from rest_jax.own_data import facts as facts_lib
from rest_jax.own_data import gin_text
from rest_jax.storage import files as storage_files


class Written(NamedTuple):
  """The contents of a gin file that was written."""

  facts: choices_lib.Facts
  choices: choices_lib.Choices
  experiment: experiment_lib.Experiment


def write(
  path: pathlib.Path,
  files: facts_lib.Files,
  *,
  size: str | None = None,
  reward: str | None = None,
  overrides: Sequence[str] = (),
) -> Written:
  """Writes a gin file with settings for the files and this machine.

  Args:
    path: the gin file; an existing one is replaced.
    files: files with text and ratings.
    size: network size, one of `choices.SIZES`; None for what fits.
    reward: one of `choices.REWARDS`; None for what fits.
    overrides: gin overrides of the returned experiment, `NAME=VALUE` each; not
      written to the file.

  Raises:
    ValueError: if text, ratings or settings cannot work.
  """
  facts = facts_lib.measure(files)
  machine = choices_lib.Machine(
    platform=jax.default_backend(), num_devices=jax.device_count()
  )
  chosen = choices_lib.choose(facts, machine, size=size, reward=reward)
  text = gin_text.render(gin_text.task_name(path), files, facts, chosen)
  registry.register()
  with storage_files.atomic_write(path) as temporary:
    temporary.write_text(text, encoding='utf-8')
    # Must succeed before an existing file is replaced.
    experiment = gin_files.parse_and_build(
      [str(temporary)], overrides, root=registry.ROOT
    )
  return Written(facts, chosen, experiment)
