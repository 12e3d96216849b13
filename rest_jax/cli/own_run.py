"""From a user's files to a gin file that builds, for command line and Python."""

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
  """A gin file that was written.

  Attributes:
    facts: what was measured of the files.
    choices: the settings that follow from them.
    experiment: what the gin file builds.
  """

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
  """Writes a gin file whose settings fit the files and this machine.

  Args:
    path: the gin file; one that is there is replaced.
    files: text and ratings.
    size: of the network, see `choices.SIZES`; None for what fits.
    reward: see `choices.REWARDS`; None for what fits.
    overrides: `NAME=VALUE` of gin that the experiment is built with besides.

  Returns:
    What was measured and chosen, and the experiment.

  Raises:
    ValueError: for text, ratings or settings that cannot work.
    FileNotFoundError: for a file that is not there.
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
    # Before it replaces another.
    experiment = gin_files.parse_and_build(
      [str(temporary)], overrides, root=registry.ROOT
    )
  return Written(facts, chosen, experiment)
