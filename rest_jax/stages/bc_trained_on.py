"""Stage `bc_trained_on`: BC trained further, for as long as all Improve steps.

This control shows the gain of more training on references alone: of Grow's
sources, if the task has their references, else of D.
"""

from collections.abc import Sequence
import dataclasses

from rest_jax.data import task as task_lib
from rest_jax.evaluation import policy_names
from rest_jax.models import policy as policy_lib
from rest_jax.stages import base
from rest_jax.stages import bc as bc_stage
from rest_jax.stages import context as context_lib
from rest_jax.stages import improve as improve_stage


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TrainedOn(bc_stage.BC):
  """Trains BC for as many steps as lie between BC and the last policy.

  The trainer is that of the first Improve step, without a choice of checkpoint:
  the policy is that of the last step.

  Attributes:
    bc: finished BC, the initial policy.
    improved: the Improve steps between BC and the last policy.
  """

  bc: base.PolicyStage
  improve: improve_stage.ImproveConfig
  improved: Sequence[base.Stage]
  after: Sequence[base.Stage] = ()

  run_mode = 'evaluate'
  pattern = 'bc_trained_on'
  own_name = 'bc_trained_on'
  control = policy_names.TRAINED_ON

  @property
  def inputs(self) -> dict[str, base.Stage]:
    return {
      'data': self.data,
      'init': self.bc,
      **{stage.name: stage for stage in (*self.improved, *self.after)},
    }

  def training(self) -> bc_stage.BCConfig:
    steps = sum(
      stage.manifest()['training']['steps'] for stage in self.improved
    )
    trainer = dataclasses.replace(
      self.improve.trainer_at(1, self.seed),
      max_steps=steps,
      evaluate_every=steps,
      evaluate_first=False,
      patience=None,
      average=None,
    )
    return dataclasses.replace(
      self.config, trainer=trainer, init_dir=str(self.bc.policy_folder)
    )

  def split(self, context: context_lib.Context) -> str:
    grown = context.data.grow_split
    has_references = context.data.pairs(grown).has_references
    return grown if has_references else task_lib.TRAIN

  def trainings(self, policy: policy_lib.Policy) -> tuple[base.Training, ...]:
    del policy
    return ()  # The number of steps is only known after the Improve steps.

  def lines(self) -> list[str]:
    return [
      '  control   BC, trained on for as many steps as the last policy',
    ]
