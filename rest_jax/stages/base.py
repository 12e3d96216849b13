"""A stage of a run: its folder, its settings, and how it is made.

Each kind of stage is a frozen dataclass in a file of its own. `rest.stages`
puts them in order; everything that processes a run walks that list.
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
  """A training of a stage, for `--run_mode=plan`.

  Attributes:
    name: name of the training, the same for all stages of a kind.
    model: the trained `Policy` or `ScalarModel`.
    columns: names of the columns with one number per hypothesis, in addition to
      those of the loss.
  """

  name: str
  trainer: trainer_lib.TrainerConfig
  model: Any
  loss: losses_base.Loss
  columns: Sequence[str] = ()

  @property
  def trained(self) -> Any:
    """The part that the optimiser changes: the model, or its adapters."""
    lora = self.trainer.lora
    return self.model if lora is None else lora_lib.Adapters(self.model, lora)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
  """One stage of a run.

  Attributes:
    folder: the folder of the stage; complete once it has a manifest.
    is_given: whether it is a finished folder of another run, which is used as
      it is and never made.
    grow_step: g, from 1; 0 for stages of no Grow step.
    improve_step: i, from 1; 0 for other stages than Improve steps.

  Many kinds also have `config`, the settings of the stage; `data`, the stage of
  the prepared data; and `bc`, the stage of BC.
  """

  folder: pathlib.Path
  is_given: bool = False
  grow_step: int = 0
  improve_step: int = 0

  # The `--run_mode` that makes stages of this kind, and its line of --help. Both
  # are literals: the command line reads them without importing this package.
  run_mode: ClassVar[str] = ''
  help: ClassVar[str] = ''
  # Whether --profile has something to trace: training or sampling.
  is_profiled: ClassVar[bool] = True
  # Error if several processes make it together; '' if they can.
  alone: ClassVar[str] = ''
  # Error if a run has no stage of this kind; '' if that is no error.
  missing: ClassVar[str] = ''
  # Regular expression of the path below the folder of the run or the variant,
  # with groups for the step numbers.
  pattern: ClassVar[str] = ''
  # Name in the run, if it differs from the name of the folder.
  own_name: ClassVar[str] = ''
  # Name of a given folder in the log.
  given_as: ClassVar[str] = ''
  # Whether it is made just before the first stage that reads it.
  is_on_demand: ClassVar[bool] = False
  # Whether only its own mode makes it, and --run_mode=rest does not.
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
    """The display name, such as 'improve 1.2'."""
    return folder_lib.in_words(self.name).replace('_', ' ')

  @property
  def inputs(self) -> Mapping[str, 'Stage']:
    """The stages whose finished folders are read, by role."""
    return {}

  @property
  def is_finished(self) -> bool:
    return folder_lib.is_finished(self.folder)

  def manifest(self) -> dict[str, Any]:
    """Returns the manifest of the finished folder."""
    return folder_lib.read_manifest(self.folder)

  def settings(self, context: 'context_lib.Context') -> dict[str, Any]:
    """Returns the settings; a finished folder with other settings is refused."""
    raise NotImplementedError

  def origins(self, settings: dict[str, Any]) -> dict[str, pathlib.Path]:
    """Returns the folders of the digests in `settings`; see `folder.begin`.

    These are the inputs whose role is the name of a digest.
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

    Returns:
      The manifest; None if other workers have to add to the folder first.
    """
    raise NotImplementedError

  def check(self, context: 'context_lib.Context') -> None:
    """Raises ValueError if the stage cannot be made or used; is called first."""

  def check_finished(self, context: 'context_lib.Context') -> None:
    """Raises ValueError if the finished folder cannot be used."""

  def lines(self) -> Iterable[str]:
    """Yields lines for `--dry_run` on the settings of the stage."""
    return ()

  def trainings(self, policy: policy_lib.Policy) -> Iterable[Training]:
    """Yields the trainings of the stage."""
    del policy
    return ()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Given(Stage):
  """A finished folder of another run, of any kind."""

  is_given: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PolicyStage(Stage):
  """A stage that makes a policy to evaluate."""

  is_online: ClassVar[bool] = False
  # Name of the control, see `policy_names.CONTROLS`; '' for other policies.
  control: ClassVar[str] = ''

  @property
  def policy_name(self) -> str:
    """The name of the policy, such as 'bc' or 'improve_1_2'."""
    return self.name

  @property
  def policy_folder(self) -> pathlib.Path:
    """The folder with the parameters."""
    return self.folder

  @property
  def is_bc(self) -> bool:
    """Whether this is the first policy of the run."""
    return not (self.grow_step or self.is_online or self.control)

  def network(self, context: 'context_lib.Context') -> policy_lib.Policy:
    """Returns the network of this policy."""
    return context.policy

  def temperature(self) -> float | None:
    """Returns the policy's own sampling temperature; None for the run's."""
    return None


def kinds(of: type[Stage] = Stage) -> list[type[Stage]]:
  """Returns all imported subclasses."""
  subclasses = []
  for kind in of.__subclasses__():
    subclasses += [kind, *kinds(kind)]
  return subclasses


def run_stage(stage: Stage, context: 'context_lib.Context') -> pathlib.Path:
  """Makes a stage, unless its folder is finished.

  Args:
    stage: the stage; its inputs are finished, or made here if they are made on
      demand.

  Returns:
    The folder; finished, unless other workers have to add to it.

  Raises:
    FileNotFoundError: an input is not finished.
    SettingsChangedError: the folder was made with other settings.
    ValueError: the stage cannot be made or used.
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
