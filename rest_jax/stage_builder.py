"""Construction of the stages of an experiment, with folders and inputs."""

import dataclasses
import pathlib
from typing import Any, TypeVar

from rest_jax import experiment as experiment_lib
from rest_jax.data import task as task_lib
from rest_jax.rewards import base as rewards_base
from rest_jax.stages import (
  base,
  bc_trained_on,
  equal_entropy,
  run_reward,
  seeds,
  train_reward,
)
from rest_jax.stages import bc as bc_stage
from rest_jax.stages import evaluate as evaluate_stage
from rest_jax.stages import evidence as evidence_stage
from rest_jax.stages import grow as grow_stage
from rest_jax.stages import improve as improve_stage
from rest_jax.stages import online as online_stage
from rest_jax.stages import prepare as prepare_stage
from rest_jax.stages import probe as probe_stage
from rest_jax.stages import refresh as refresh_stage
from rest_jax.stages import selection as selection_lib
from rest_jax.stages import value as value_stage
from rest_jax.storage import paths

_Made = TypeVar('_Made', bound=base.Stage)


def variant_dir(
  experiment: experiment_lib.Experiment, model_dir: pathlib.Path
) -> pathlib.Path:
  """Returns the folder of the stages that variants of a run do not share."""
  return model_dir / 'variants' / experiment.variant_name


class StageBuilder:
  """Constructs the stages of an experiment, each with its folder and inputs."""

  def __init__(
    self, experiment: experiment_lib.Experiment, model_dir: pathlib.Path
  ):
    self.made: list[base.Stage] = []
    self.policies: list[base.PolicyStage] = []
    self._experiment = experiment
    self._model_dir = model_dir
    self._variant_dir = variant_dir(experiment, model_dir)
    self._grows: list[grow_stage.Grow] = []
    self._refreshes: list[refresh_stage.Refresh] = []
    self._evidence: dict[str, evidence_stage.Evidence] = {}

  def _add(self, stage: _Made) -> _Made:
    self.made.append(stage)
    if isinstance(stage, base.PolicyStage) and not stage.control:
      self.policies.append(stage)
    return stage

  def _seed(self, purpose: seeds.Purpose, *numbers: int) -> int:
    return seeds.seed_for(self._experiment.seed, purpose, *numbers)

  def _place(self, name: str, given: str | None) -> dict[str, Any]:
    """Returns the folder of a stage, or the given folder of another run."""
    folder = paths.of(given) if given else self._model_dir / name
    return {'folder': folder, 'is_given': given is not None}

  @property
  def _reward_dir(self) -> pathlib.Path:
    """Parent folder of stages that use the reward of the last Grow step."""
    # Variants share that reward, unless it is refreshed.
    is_shared = self._experiment.refresh is None
    return self._model_dir if is_shared else self._variant_dir

  def prepare(self) -> None:
    self._data = self._add(
      prepare_stage.Prepare(
        task=self._experiment.task,
        measured=(task_lib.VALIDATION, *self._experiment.evaluate.splits),
        **self._place('data', self._experiment.data_dir),
      )
    )

  def bc(self) -> bc_stage.BC:
    self._bc = self._add(
      bc_stage.BC(
        config=self._experiment.bc,
        data=self._data,
        seed=self._seed(seeds.Purpose.INITIALISATION),
        **self._place('bc', self._experiment.bc_dir),
      )
    )
    return self._bc

  def reward(self) -> None:
    experiment, trained = self._experiment, self._experiment.trained_reward
    place = self._place('reward', experiment.reward_dir)
    self._rated = place['folder']
    source = None
    if trained is not None:
      source = self._add(
        train_reward.TrainReward(
          config=trained,
          ratings=experiment.task.ratings,
          bc=self._bc,
          data=self._data,
          seed=self._seed(seeds.Purpose.REWARD),
          **place,
        )
      )
    self._reward = run_reward.RunReward(
      trained=place['folder'], source=source, scale=None
    )

  def evidence(self) -> None:
    experiment = self._experiment
    if not rewards_base.needs_samples(experiment.reward):
      return
    probed = experiment.probe.split
    for split in dict.fromkeys(
      (task_lib.VALIDATION, *experiment.evaluate.splits, probed)
    ):
      limits = [experiment.evaluate.max_sources]
      if split == task_lib.VALIDATION:
        limits.append(experiment.evaluate.max_selection_sources)
      if split == probed:
        limits.append(experiment.probe.max_sources)
      self._evidence[split] = self._add(
        evidence_stage.Evidence(
          config=experiment.evidence,
          split=split,
          limits=limits,
          bc=self._bc,
          data=self._data,
          seed=self._seed(seeds.Purpose.EVIDENCE),
          folder=self._model_dir / 'evidence' / split,
        )
      )

  def grow(self, g: int, policy: base.PolicyStage) -> grow_stage.Grow:
    place: dict[str, Any] = {'folder': self._variant_dir / f'grow_{g}'}
    if g == 1:  # All variants share it.
      place = self._place('grow_1', self._experiment.grow_dir)
    d_g = self._add(
      grow_stage.Grow(
        config=self._experiment.grow,
        grow_step=g,
        policy=policy,
        reward=self._reward,
        data=self._data,
        seed=self._seed(seeds.Purpose.GROW),
        **place,
      )
    )
    self._grows.append(d_g)
    if g == 1:
      self._reward = dataclasses.replace(self._reward, scale=d_g)
      self._first_reward = self._reward
    return d_g

  def value(self, g: int, d_g: grow_stage.Grow) -> value_stage.Value:
    config = self._experiment.value
    assert config is not None  # `Experiment` refuses it.
    parent = self._model_dir if g == 1 else self._variant_dir
    return self._add(
      value_stage.Value(
        config=config,
        grow_step=g,
        bc=self._bc,
        reward=self._reward,
        reward_name=self._experiment.reward.name,
        grow=d_g,
        seed=self._seed(seeds.Purpose.VALUE, g),
        folder=parent / f'value_{g}',
      )
    )

  def improve(
    self,
    g: int,
    i: int,
    d_g: grow_stage.Grow,
    policy: base.PolicyStage,
    v: value_stage.Value | None,
  ) -> improve_stage.Improve:
    config = self._experiment.improve
    return self._add(
      improve_stage.Improve(
        config=config,
        grow_step=g,
        improve_step=i,
        start=self._bc if config.init == 'initial' else policy,
        bc=self._bc,
        value=v,
        grow=d_g,
        reward_name=self._experiment.reward.name,
        selection=self._selection(),
        seed=self._seed(seeds.Purpose.IMPROVE, g, i),
        folder=self._variant_dir / f'improve_{g}_{i}',
      )
    )

  def refresh(self, g: int, policy: base.PolicyStage) -> None:
    experiment = self._experiment
    config, ratings = experiment.refresh, experiment.task.ratings
    assert config is not None and ratings is not None  # As `Experiment` checks.
    refreshed = self._add(
      refresh_stage.Refresh(
        config=config,
        grow_step=g,
        policy=policy,
        reward=self._reward,
        reward_config=experiment.reward,
        ratings=ratings,
        rated=self._rated,
        earlier=tuple(self._refreshes),
        grows=tuple(self._grows),
        data=self._data,
        seed=self._seed(seeds.Purpose.REFRESH, g),
        folder=self._variant_dir / f'refresh_{g}',
      )
    )
    self._refreshes.append(refreshed)
    self._reward = dataclasses.replace(
      self._reward,
      trained=refreshed.reward_folder,
      source=refreshed,
      scale=refreshed,
    )

  def online(self, config: online_stage.ppo.PPOConfig) -> None:
    self._add(
      online_stage.Online(
        config=config,
        bc=self._bc,
        data=self._data,
        grow=self._grows[0],
        reward=self._first_reward,
        selection=self._selection(self._first_reward),
        seed=self._seed(seeds.Purpose.ONLINE),
        folder=self._variant_dir / f'online_{config.name}',
      )
    )

  def controls(self, last: base.PolicyStage) -> list[base.PolicyStage]:
    """Adds BC trained further, and BC with the entropy of the last policy."""
    experiment = self._experiment
    improved = [
      p for p in self.policies if isinstance(p, improve_stage.Improve)
    ]
    if experiment.improve.init == 'initial':
      improved = improved[-1:]  # The last policy was trained from BC.
    controls: list[base.PolicyStage] = [
      bc_trained_on.TrainedOn(
        config=experiment.bc,
        data=self._data,
        seed=self._seed(seeds.Purpose.TRAINED_ON),
        bc=self._bc,
        improve=experiment.improve,
        improved=improved,
        after=tuple(self.policies),
        folder=self._variant_dir / 'bc_trained_on',
      )
    ]
    if experiment.evaluate.decode.temperature > 0:
      controls.append(
        equal_entropy.EqualEntropy(
          decode=experiment.evaluate.decode,
          policy=last,
          bc=self._bc,
          data=self._data,
          max_sources=experiment.evaluate.max_diagnostic_sources,
          seed=self._seed(seeds.Purpose.ENTROPY),
          after=tuple(self.policies),
          folder=self._variant_dir / 'equal_entropy',
        )
      )
    return [self._add(control) for control in controls]

  def _selection(
    self, scored_by: run_reward.RunReward | None = None
  ) -> selection_lib.Selection:
    config = self._experiment.evaluate
    return selection_lib.Selection(
      decode=config.selection,
      max_sources=config.max_selection_sources,
      reward=scored_by or self._reward,
      evidence=self._evidence.get(task_lib.VALIDATION),
      seed=self._seed(seeds.Purpose.SELECTION),
    )

  def evaluations(self, policies: list[base.PolicyStage]) -> None:
    """Adds the evaluations of policies on every split."""
    experiment = self._experiment
    for split in experiment.evaluate.splits:
      for policy in policies:
        parent = self._reward_dir if policy.is_bc else self._variant_dir
        self._add(
          evaluate_stage.Evaluate(
            config=experiment.evaluate,
            split=split,
            policy=policy,
            bc=self._bc,
            data=self._data,
            reward=self._reward,
            judge=experiment.task.judge,
            evidence=self._evidence.get(split),
            seed=self._seed(seeds.Purpose.EVALUATION),
            folder=parent / 'evaluate' / f'{policy.policy_name}-{split}',
          )
        )

  def probe(self) -> None:
    experiment = self._experiment
    self._add(
      probe_stage.Probe(
        config=experiment.probe,
        data=self._data,
        reward=self._reward,
        reward_config=experiment.reward,
        ratings=experiment.task.ratings,
        judge=experiment.task.judge,
        rated=self._rated,
        seed=self._seed(seeds.Purpose.PROBE),
        evidence=self._evidence.get(experiment.probe.split),
        folder=self._reward_dir / 'probe',
      )
    )
