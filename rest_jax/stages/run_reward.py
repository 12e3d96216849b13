"""R as one Grow step has it: its trained part, and the scale of the run."""

import dataclasses
import pathlib
from typing import Any

from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import normalize
from rest_jax.stages import base
from rest_jax.stages import context as context_lib
from rest_jax.stages import reward as reward_stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunReward:
  """The reward of a run, from one refresh to the next.

  Attributes:
    trained: the folder of its trained part; not read if nothing is trained.
    source: the stage that makes that folder, or holds it; None if none does.
    scale: the stage whose manifest has the normaliser: the first Grow, or the
      latest refresh.
    part: settings of the trained part; None for none.
  """

  trained: pathlib.Path
  source: base.Stage | None
  scale: base.Stage | None
  part: reward_stage.RewardStage | None

  @property
  def inputs(self) -> dict[str, base.Stage]:
    """The stages that it is loaded from, by their role."""
    found = {'trained': self.source, 'scale': self.scale}
    return {role: stage for role, stage in found.items() if stage is not None}

  def load(self, context: context_lib.Context) -> rewards_base.Reward:
    return context.load_reward(self.trained)

  def normalizer(self) -> normalize.Normalizer:
    """Returns the scale, whose stage is finished."""
    if self.scale is None:
      raise ValueError('scale must be the stage that fixes it; got None')
    manifest = self.scale.manifest()
    return normalize.Normalizer.from_json(manifest['normalizer'])

  def check_agreement(self) -> None:
    """Raises ValueError if the trained part is at chance on dev ratings."""
    if self.part is not None:
      reward_stage.check_agreement(self.part, self.trained)

  def described(self, context: context_lib.Context) -> dict[str, Any]:
    """Name and digest, for the settings of what it scores."""
    reward = self.load(context)
    return {'name': reward.name, 'digest': reward.digest}
