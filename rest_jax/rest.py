"""Algorithm 1 of Reinforced Self-Training as a list of stages.

Source: Gulcehre et al., Reinforced Self-Training (ReST) for Language Modeling,
arXiv 2308.08998.
"""

import pathlib
from typing import TypeVar

from rest_jax import experiment as experiment_lib
from rest_jax import stage_builder
from rest_jax.rewards import base as rewards_base
from rest_jax.stages import base, bc, evaluate, prepare, run_reward
from rest_jax.stages import context as context_lib
from rest_jax.storage import paths

_Kind = TypeVar('_Kind', bound=base.Stage)


def stages(
  experiment: experiment_lib.Experiment, model_dir: str | pathlib.Path
) -> list[base.Stage]:
  """Returns the stages of Algorithm 1 and those of other modes, in order."""
  new = stage_builder.StageBuilder(experiment, paths.of(model_dir))
  new.prepare()
  policy = new.bc()  # pi_theta, trained on D by Eq. 1
  new.reward()  # R(x, y)
  new.evidence()  # samples to compare with, if R compares samples of a source

  for g in range(1, experiment.num_grow_steps + 1):
    d_g = new.grow(g, policy)  # samples of pi_theta and D, scored once
    v = new.value(g, d_g) if experiment.needs_value else None  # V(x, y_<t)
    for i in range(1, experiment.improve_steps(g) + 1):
      # Optimises J(theta) of Eq. 2 at tau_i while reward on D_eval improves.
      policy = new.improve(g, i, d_g, policy, v)
    if experiment.refresh is not None and g < experiment.num_grow_steps:
      new.refresh(g, policy)  # R(x, y) is trained on ratings of pi_theta

  if experiment.online is not None:
    new.online(experiment.online)  # a baseline, not part of Algorithm 1
  new.evaluations(new.policies)
  if experiment.controls:
    new.evaluations(new.controls(policy))
  new.probe()
  return new.made


class Layout:
  """The stages of one experiment in the folder of a run."""

  def __init__(
    self,
    experiment: experiment_lib.Experiment,
    model_dir: str | pathlib.Path,
    *,
    overwrite: bool = False,
  ):
    """Makes the list of stages; reads and writes no file.

    Args:
      overwrite: make stages with changed settings again, instead of refusing.

    Raises:
      ValueError: `model_dir` is a URL with an unknown scheme.
    """
    self.experiment = experiment
    self.model_dir = paths.of(model_dir)
    self.variant_dir = stage_builder.variant_dir(experiment, self.model_dir)
    self.stages = stages(experiment, self.model_dir)
    self.context = context_lib.Context(
      data_folder=self.of_kind(prepare.Prepare)[0].folder,
      bc_folder=self.of_kind(bc.BC)[0].folder,
      network=experiment.network,
      mesh=experiment.mesh,
      reward=experiment.reward,
      loss=experiment.improve.loss,
      vocabulary=experiment.task.vocabulary,
      languages=experiment.task.languages,
      given=experiment.given_folders,
      overwrite=overwrite,
    )

  def stage(self, name: str) -> base.Stage:
    """Returns a stage by its name, such as 'improve_1_2'.

    Raises:
      ValueError: the run has no such stage.
    """
    for stage in self.stages:
      if stage.name == name:
        return stage
    raise ValueError(
      f'the stage must be one of {", ".join(s.name for s in self.stages)}; got '
      f'{name!r}.'
    )

  def folder(self, name: str) -> pathlib.Path:
    """Returns the folder of a stage by its name."""
    return self.stage(name).folder

  def policies(self) -> list[base.PolicyStage]:
    """Returns all policies except controls, in the order they are made."""
    return [p for p in self._policy_stages() if not p.control]

  def controls(self) -> list[base.PolicyStage]:
    """Returns the controls."""
    return [p for p in self._policy_stages() if p.control]

  def _policy_stages(self) -> list[base.PolicyStage]:
    return [s for s in self.stages if isinstance(s, base.PolicyStage)]

  def reported(self) -> list[base.PolicyStage]:
    """Returns all policies, then the finished controls."""
    controls = [policy for policy in self.controls() if policy.is_finished]
    return [*self.policies(), *controls]

  def policy_named(self, name: str = '') -> base.PolicyStage:
    """Returns a policy by its name, such as 'bc' or 'improve_1_3'.

    Args:
      name: name of the policy, or of the control that has weights of its own,
        'bc_trained_on'; '' for the last finished policy, without the online
        baseline.

    Raises:
      ValueError: the policy is unknown.
    """
    if not name:
      offline = [p for p in self.policies() if not p.is_online]
      finished = [policy for policy in offline if policy.is_finished]
      return (finished or offline[:1])[-1]
    stages = self._policy_stages()
    policies = [p for p in stages if p.policy_folder == p.folder]
    for policy in policies:
      if policy.policy_name == name:
        return policy
    names = ', '.join(policy.policy_name for policy in policies)
    raise ValueError(
      f'policy must be one of {names}; got {name!r}. Each variant has its own '
      'policies: --gin.VARIANT=...'
    )

  def folders(self) -> dict[pathlib.Path, bool]:
    """Returns the folders of all stages, and whether this run may make them."""
    folders: dict[pathlib.Path, bool] = {}
    for stage in self.stages:
      for each in (*stage.inputs.values(), stage):
        folders.setdefault(each.folder, not each.is_given)
    return folders

  def of_kind(self, kind: type[_Kind]) -> list[_Kind]:
    """Returns the stages of a class, in order."""
    return [stage for stage in self.stages if isinstance(stage, kind)]

  def evaluation(
    self, policy: base.PolicyStage, split: str
  ) -> evaluate.Evaluate:
    """Returns the evaluation of a policy on a split."""
    for stage in self.of_kind(evaluate.Evaluate):
      if stage.policy.name == policy.name and stage.split == split:
        return stage
    raise ValueError(
      f'{policy.name} must be evaluated on one of the splits '
      f'{self.experiment.evaluate.splits}; got {split!r}.'
    )

  @property
  def data(self) -> prepare.PreparedData:
    """The prepared data."""
    return self.context.data

  @property
  def reward(self) -> run_reward.RunReward:
    """The reward of the last Grow step and of all evaluations."""
    return self.of_kind(evaluate.Evaluate)[0].reward

  @property
  def reward_model(self) -> rewards_base.Reward:
    """The loaded `reward`."""
    return self.reward.load(self.context)
