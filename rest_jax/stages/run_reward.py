"""The reward of one Grow step, with its trained part and scale; the judge."""

import dataclasses
import pathlib
from typing import Any

from rest_jax.data import task as task_lib
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import normalize
from rest_jax.stages import base
from rest_jax.stages import context as context_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunReward:
  """The reward of a run between two refreshes.

  Attributes:
    trained: folder of the trained part; not read if no part is trained.
    source: the stage that makes `trained`; None if no part is trained.
    scale: the stage whose manifest has the normaliser: the first Grow or the
      latest refresh; None before the first Grow.
  """

  trained: pathlib.Path
  source: base.Stage | None
  scale: base.Stage | None

  @property
  def inputs(self) -> dict[str, base.Stage]:
    """The stages that the reward is loaded from, by role."""
    stages = {'trained': self.source, 'scale': self.scale}
    return {role: stage for role, stage in stages.items() if stage is not None}

  def load(self, context: context_lib.Context) -> rewards_base.Reward:
    return context.load_reward(self.trained)

  def load_judge(
    self, judge: task_lib.Judge | None, context: context_lib.Context
  ) -> rewards_base.Reward | None:
    """Returns the loaded independent judge; None for none."""
    return None if judge is None else context.load_judge(judge, self.trained)

  def describe_judge(
    self, judge: task_lib.Judge | None, context: context_lib.Context
  ) -> str | None:
    """Returns the judge's name and digest, for the settings of a stage."""
    loaded = self.load_judge(judge, context)
    if loaded is None:
      return None
    return f'{loaded.name} {loaded.digest}'.strip()

  def normalizer(self) -> normalize.Normalizer:
    """Returns the normaliser of the finished `scale`."""
    if self.scale is None:
      raise ValueError('scale must be a stage with a normaliser; got None')
    manifest = self.scale.manifest()
    return normalize.Normalizer.from_json(manifest['normalizer'])

  def check_agreement(self, context: context_lib.Context) -> None:
    """Raises ValueError if a learned part is at chance on dev ratings."""
    rewards_base.check_agreement(self.load(context))

  def described(self, context: context_lib.Context) -> dict[str, Any]:
    """Returns name and digest, for settings of stages that use the reward."""
    reward = self.load(context)
    return {'name': reward.name, 'digest': reward.digest}
