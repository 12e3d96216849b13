"""A stage: one finished folder of a run, what feeds it, and how it is made.

Each kind of stage is a frozen dataclass in a file of its own. `rest.stages` puts
them in order; whatever goes through a run walks that list.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any, ClassVar

from absl import logging

from rest_jax.losses import base as losses_base
from rest_jax.models import policy as policy_lib
from rest_jax.stages import folder as folder_lib
from rest_jax.training import lora as lora_lib
from rest_jax.training import trainer as trainer_lib

if TYPE_CHECKING:
  from rest_jax.stages import context as context_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
  """A training of a stage, as `--run_mode=plan` compiles it.

  Attributes:
    name: of it; the stages of a kind share the name.
    trainer: its settings.
    model: a `Policy` or `ScalarModel`.
    loss: any.
    columns: of one number a hypothesis, beside those of the loss.
  """

  name: str
  trainer: trainer_lib.TrainerConfig
  model: Any
  loss: losses_base.Loss
  columns: Sequence[str] = ()

  @property
  def trained(self) -> Any:
    """What the optimiser changes: the model, or its adapters."""
    lora = self.trainer.lora
    return self.model if lora is None else lora_lib.Adapters(self.model, lora)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
  """One stage of a run.

  Attributes:
    folder: the folder that it writes; complete once its manifest is there.
    is_given: whether it is a finished folder of another run, which is used as it
      is and never made.
    grow_step: g, from 1; 0 for what belongs to no Grow step.
    improve_step: i, from 1; 0 for what is no Improve step.
  """

  folder: pathlib.Path
  is_given: bool = False
  grow_step: int = 0
  improve_step: int = 0

  # The `--run_mode` that makes stages of this kind, and its line of --help. Both
  # are literals: the command line reads them without importing this package.
  run_mode: ClassVar[str] = ''
  help: ClassVar[str] = ''
  # What --profile traces in it: whether it trains or samples.
  is_profiled: ClassVar[bool] = True
  # Why several processes cannot make it together; '' if they can.
  alone: ClassVar[str] = ''
  # What a run needs that has no stage of this kind; '' if that is no error.
  missing: ClassVar[str] = ''
  # The folder below the run's or the variant's, with groups for its numbers.
  pattern: ClassVar[str] = ''
  # The name in a run, where it is not that of the folder.
  own_name: ClassVar[str] = ''
  # What the log calls a folder of another run.
  given_as: ClassVar[str] = ''
  # Whether it is made for the stages that read it, whenever they are made.
  is_on_demand: ClassVar[bool] = False
  # Whether Algorithm 1 leaves it out, so that only its own mode makes it.
  is_extra: ClassVar[bool] = False

  def __init_subclass__(cls, **kwargs: Any) -> None:
    super().__init_subclass__(**kwargs)
    if 'pattern' in cls.__dict__:
      folder_lib.register(cls.pattern, cls.run_mode)

  @property
  def name(self) -> str:
    """The name of the stage in its run, such as 'improve_1_2'."""
    return self.own_name or self.folder.name

  @property
  def title(self) -> str:
    """The name in words, such as 'improve 1.2'."""
    return folder_lib.in_words(self.name).replace('_', ' ')

  @property
  def inputs(self) -> Mapping[str, 'Stage']:
    """The stages whose finished folders it reads, by their role."""
    return {}

  @property
  def is_finished(self) -> bool:
    return folder_lib.is_finished(self.folder)

  def manifest(self) -> dict[str, Any]:
    """Returns the manifest of the finished folder."""
    return folder_lib.read_manifest(self.folder)

  def settings(self, context: 'context_lib.Context') -> dict[str, Any]:
    """Returns what feeds the stage; a difference refuses a finished folder."""
    raise NotImplementedError

  def origins(self, settings: dict[str, Any]) -> dict[str, pathlib.Path]:
    """Returns the folders that digests in `settings` are of; see `begin`.

    They are those of the inputs whose role is the name of a digest.
    """
    return {
      role: stage.policy_folder
      if isinstance(stage, PolicyStage)
      else stage.folder
      for role, stage in self.inputs.items()
      if isinstance(settings.get(role), str)
    }

  def make(
    self, context: 'context_lib.Context', output: folder_lib.StageFolder
  ) -> dict[str, Any] | None:
    """Writes the folder.

    Args:
      context: what the stages of a run share.
      output: the folder, new or half done.

    Returns:
      The manifest; None if others have to add to the folder first.
    """
    raise NotImplementedError

  def check(self, context: 'context_lib.Context') -> None:
    """Raises ValueError if the stage cannot be made or used; called first."""

  def check_finished(self, context: 'context_lib.Context') -> None:
    """Raises ValueError if the finished folder cannot be used."""

  def lines(self) -> Iterable[str]:
    """Yields what `--dry_run` says of its settings beside its folder."""
    return ()

  def trainings(self, policy: policy_lib.Policy) -> Iterable[Training]:
    """Yields the trainings of the stage, with the run's network."""
    del policy
    return ()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Given(Stage):
  """A finished folder of another run, whatever its kind."""

  is_given: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PolicyStage(Stage):
  """A stage after which there is one more policy to evaluate."""

  is_online: ClassVar[bool] = False
  # Which control it is, see `policy_names.CONTROLS`; '' for none.
  control: ClassVar[str] = ''

  @property
  def policy_name(self) -> str:
    """The name of the policy, such as 'bc' or 'improve_1_2'."""
    return self.name

  @property
  def policy_folder(self) -> pathlib.Path:
    """The folder that holds the parameters."""
    return self.folder

  @property
  def is_bc(self) -> bool:
    """Whether it is the first policy of the run."""
    return not (self.grow_step or self.is_online or self.control)

  def network(self, context: 'context_lib.Context') -> policy_lib.Policy:
    """Returns the network as this policy uses it."""
    return context.policy

  def temperature(self) -> float | None:
    """Returns the temperature of its evaluations; None for that of all."""
    return None


def kinds(of: type[Stage] = Stage) -> list[type[Stage]]:
  """Returns all kinds of stages that are imported."""
  found = []
  for kind in of.__subclasses__():
    found += [kind, *kinds(kind)]
  return found


def run_stage(stage: Stage, context: 'context_lib.Context') -> pathlib.Path:
  """Makes a stage, unless its folder is finished.

  Args:
    stage: the stage; the stages that it reads are finished, or made here if
      they are made on demand.
    context: what the stages of a run share.

  Returns:
    The folder; finished, unless `make` left something to others.

  Raises:
    FileNotFoundError: a stage that it reads is not finished.
    SettingsChangedError: the folder was made with other settings.
    ValueError: the stage cannot be made or used as it is.
  """
  for needed in stage.inputs.values():
    if needed.is_on_demand:
      run_stage(needed, context)
  stage.check(context)
  if stage.is_given:
    stage.manifest()
    logging.info('%s: uses the finished %s', stage.given_as, stage.folder)
    return stage.folder
  settings = stage.settings(context)
  output = folder_lib.begin(
    stage.folder,
    settings,
    overwrite=context.overwrite,
    origins=stage.origins(settings),
  )
  if not output.is_finished:
    with output.held:
      manifest = stage.make(context, output)
      if manifest is None:
        return output.path
      output.finish(manifest)
  stage.check_finished(context)
  return output.path
