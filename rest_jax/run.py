"""A run: the stages of one experiment, with their folders.

`Run` knows where each stage's folder is, what feeds it and which seed it has;
`rest.rest` is the order in which Algorithm 1 goes through them.
"""

from collections.abc import Sequence
import dataclasses
import functools
import itertools
import pathlib
from typing import Any

from absl import logging
import numpy as np

from rest_jax import experiment as experiment_lib
from rest_jax.data import pair_store, vocabularies
from rest_jax.data import ratings as ratings_lib
from rest_jax.evaluation import results as results_lib
from rest_jax.models import policy as policy_lib
from rest_jax.online import ppo
from rest_jax.parallel import processes
from rest_jax.report import summary
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import normalize, sampled_reward
from rest_jax.stages import answers as sample_stage
from rest_jax.stages import bc as bc_stage
from rest_jax.stages import (
  draw_samples,
  equal_entropy,
  prepare,
  rated_samples,
  refresh_samples,
  seeds,
  vocabulary_record,
)
from rest_jax.stages import evaluate as evaluate_stage
from rest_jax.stages import evidence as evidence_stage
from rest_jax.stages import export as export_stage
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import grow as grow_stage
from rest_jax.stages import improve as improve_stage
from rest_jax.stages import online as online_stage
from rest_jax.stages import probe as probe_stage
from rest_jax.stages import refresh as refresh_stage
from rest_jax.stages import reward as reward_stage
from rest_jax.stages import value as value_stage
from rest_jax.storage import files


@dataclasses.dataclass(frozen=True)
class PolicyStep:
  """One policy of a run.

  Attributes:
    grow: number of Grow steps behind it.
    improve: number of Improve steps since the last.
    directory: its stage's folder.
    is_online: whether it is the online baseline, which has no such steps.
    control: which control it is, see `results.CONTROLS`; '' for none.
    temperature_directory: the folder that has the temperature of its samples;
      None for that of the evaluation.
  """

  grow: int
  improve: int
  directory: pathlib.Path
  is_online: bool = False
  control: str = ''
  temperature_directory: pathlib.Path | None = None

  @property
  def is_bc(self) -> bool:
    return self.grow == 0 and not self.is_online and not self.control

  @property
  def is_finished(self) -> bool:
    made = [self.directory, self.temperature_directory]
    return all((d / folder_lib.MANIFEST).exists() for d in made if d)

  @property
  def name(self) -> str:
    if self.temperature_directory is not None:
      return f'bc_{self.temperature_directory.name}'
    return 'bc' if self.is_bc else self.directory.name


class Run:
  """The stages of one experiment in one `model_dir`.

  Every method runs its stage unless its folder is finished.
  """

  def __init__(
    self,
    experiment: experiment_lib.Experiment,
    model_dir: str | pathlib.Path,
    *,
    overwrite: bool = False,
  ):
    """Names the folders.

    Args:
      experiment: the settings.
      model_dir: the folder of the run.
      overwrite: make a stage again whose settings changed, instead of refusing.

    Raises:
      ValueError: `model_dir` is an address, or a refresh would write rewards into
        another run's Grow step.
    """
    files.check_local('model_dir', model_dir)
    self.experiment = experiment
    self.model_dir = pathlib.Path(model_dir)
    self._overwrite = overwrite
    self._check_refreshed_grow()

  def _check_refreshed_grow(self) -> None:
    """Raises ValueError if a refresh is to be made on a Grow step not its own."""
    if self.experiment.refresh is None:
      return
    refreshed = self.refresh_directory(1) / folder_lib.MANIFEST
    if refreshed.exists() and not self._overwrite:
      return
    grow = self.grow_directory(1)
    if not grow.resolve().is_relative_to(self.model_dir.resolve()):
      raise ValueError(
        f'refresh writes rewards into the first Grow step, which must be of this '
        f'run, below {self.model_dir}; got GROW_DIR = {grow}. Copy that folder to '
        f'{self.model_dir / "grow_1"} and leave GROW_DIR out, or leave the '
        'refresh out.'
      )

  @property
  def variant_dir(self) -> pathlib.Path:
    return self.model_dir / 'variants' / self.experiment.variant_name

  def directory(self, stage: str) -> pathlib.Path:
    """Returns the folder of 'data', 'bc' or 'reward'."""
    given = getattr(self.experiment, f'{stage}_dir')
    return pathlib.Path(given) if given else self.model_dir / stage

  @property
  def vocabulary_size(self) -> int:
    """Pieces of the vocabulary: as prepared, or as the task asks for."""
    if (self.directory('data') / folder_lib.MANIFEST).exists():
      return self.data.vocabulary.size
    config = self.experiment.task.vocabulary
    if config.model_file is not None:
      return vocabularies.Vocabulary(config.model_file).size
    return config.size

  def check_vocabularies(self) -> None:
    """Checks that folders of other runs have the vocabulary of this one.

    Raises:
      ValueError: one has another; the message says which, and what to do.
    """
    given = self.experiment.task.vocabulary.model_file
    directory = self.directory('data')
    is_prepared = (directory / folder_lib.MANIFEST).exists()
    if given is not None:
      # What is prepared may be of an earlier setting.
      digest, used = vocabularies.Vocabulary(given).digest, str(given)
    elif is_prepared:
      digest = vocabulary_record.digest(directory)
      used = str(directory / prepare.VOCABULARY_FILE)
    else:
      digest, used = None, 'one that it trains'
    self._check_vocabularies(digest, used)

  def _check_vocabularies(
    self, digest: str | None, used: str, data: str | None = None
  ) -> None:
    experiment = self.experiment
    for name, directory in (
      ('BC_DIR', experiment.bc_dir),
      ('BC_INIT_DIR', None if experiment.bc_dir else experiment.bc.init_dir),
      ('REWARD_DIR', experiment.reward_dir),
      ('GROW_DIR', experiment.grow_dir),
      ('DATA_DIR', experiment.data_dir),
    ):
      if directory is not None:
        vocabulary_record.check(name, directory, digest, used, data)

  def grow_directory(self, grow_step: int) -> pathlib.Path:
    if grow_step == 1:
      given = self.experiment.grow_dir
      return pathlib.Path(given) if given else self.model_dir / 'grow_1'
    return self.variant_dir / f'grow_{grow_step}'

  def value_directory(self, grow_step: int) -> pathlib.Path:
    """Returns the folder of the value function of D_g."""
    parent = self.model_dir if grow_step == 1 else self.variant_dir
    return parent / f'value_{grow_step}'

  def improve_directory(
    self, grow_step: int, improve_step: int
  ) -> pathlib.Path:
    return self.variant_dir / f'improve_{grow_step}_{improve_step}'

  def refresh_directory(self, grow_step: int) -> pathlib.Path:
    """Returns the folder of the refresh that follows Grow step g."""
    return self.variant_dir / f'refresh_{grow_step}'

  def reward_directory(self, grow_step: int) -> pathlib.Path:
    """Returns the folder of the trained reward that Grow step g is scored by."""
    if grow_step == 1 or self.experiment.refresh is None:
      return self.directory('reward')
    return self.refresh_directory(grow_step - 1) / refresh_stage.REWARD

  def probe_directory(self) -> pathlib.Path:
    """Returns the folder of the reward's probes."""
    if self.experiment.refresh is None:
      return self.model_dir / 'probe'
    return self.variant_dir / 'probe'

  def evidence_directory(self, split: str) -> pathlib.Path:
    """Returns the folder of the samples that policies are judged by."""
    return self.model_dir / 'evidence' / split

  def online_directory(self) -> pathlib.Path:
    return self.variant_dir / f'online_{self._online_config().name}'

  def _online_config(self) -> ppo.PPOConfig:
    config = self.experiment.online
    if config is None:
      raise ValueError(
        'Experiment.online must say how to train online; got None. Add '
        '--gin_file=gin_configs/online/ppo.gin.'
      )
    return config

  def policies(self) -> list[PolicyStep]:
    """Returns all policies of the run, in the order they are made."""
    experiment = self.experiment
    steps = [PolicyStep(0, 0, self.directory('bc'))]
    for g in range(1, experiment.num_grow_steps + 1):
      for i in range(1, experiment.improve_steps(g) + 1):
        steps.append(PolicyStep(g, i, self.improve_directory(g, i)))
    if experiment.online is not None:
      steps.append(PolicyStep(0, 0, self.online_directory(), is_online=True))
    return steps

  def controls(self) -> list[PolicyStep]:
    """Returns the controls that are evaluated beside the policies."""
    if not self.experiment.controls:
      return []
    found = [
      PolicyStep(
        0, 0, self.variant_dir / 'bc_trained_on', control=results_lib.TRAINED_ON
      )
    ]
    if self.experiment.evaluate.decode.temperature > 0:
      found.append(
        PolicyStep(
          0,
          0,
          self.directory('bc'),
          control=results_lib.EQUAL_ENTROPY,
          temperature_directory=self.variant_dir / 'equal_entropy',
        )
      )
    return found

  def reported(self) -> list[PolicyStep]:
    """Returns all policies, and after them the controls that are there."""
    controls = [step for step in self.controls() if step.is_finished]
    return [*self.policies(), *controls]

  def policy_before(self, grow_step: int, improve_step: int) -> pathlib.Path:
    """Returns the folder of the policy that an Improve step starts from."""
    steps = self.policies()
    for before, step in itertools.pairwise(steps):
      if (step.grow, step.improve) == (grow_step, improve_step):
        return before.directory
    raise ValueError(
      f'grow_step {grow_step}, improve_step {improve_step} is not part of this '
      f'experiment, which has G={self.experiment.num_grow_steps} and '
      f'I={self.experiment.num_improve_steps}'
    )

  def last_policy_of(self, grow_step: int) -> pathlib.Path:
    """Returns the folder of the last policy of a Grow step."""
    return self.improve_directory(
      grow_step, self.experiment.improve_steps(grow_step)
    )

  def is_refreshed_after(self, step: PolicyStep) -> bool:
    """Whether the reward is refreshed from samples of a policy."""
    experiment = self.experiment
    if experiment.refresh is None:
      return False
    is_between = 0 < step.grow < experiment.num_grow_steps
    return is_between and step.improve == experiment.improve_steps(step.grow)

  def policy_named(self, name: str = '') -> PolicyStep:
    """Returns a policy by its name, such as 'bc' or 'improve_1_3'.

    Args:
      name: '' for the last finished one, but for the online baseline.

    Raises:
      ValueError: for a name that this experiment has not.
    """
    steps = self.policies()
    if not name:
      offline = [step for step in steps if not step.is_online]
      return next(filter(_is_finished, reversed(offline)), offline[0])
    for step in steps:
      if step.name == name:
        return step
    raise ValueError(
      f'policy must be one of {", ".join(step.name for step in steps)}; got '
      f'{name!r}. Variants have policies of their own: --gin.VARIANT=...'
    )

  def folders(self) -> dict[pathlib.Path, bool]:
    """Returns all stages' folders, and whether this run may make each again."""
    experiment = self.experiment
    found = {
      self.directory(stage): getattr(experiment, f'{stage}_dir') is None
      for stage in ('data', 'bc', 'reward')
    }
    if experiment.bc.init_dir is not None:
      found[pathlib.Path(experiment.bc.init_dir)] = False
    found[self.probe_directory()] = True
    for g in range(1, experiment.num_grow_steps + 1):
      found[self.grow_directory(g)] = g > 1 or experiment.grow_dir is None
      found[self.value_directory(g)] = True
      if g > 1 and experiment.refresh is not None:
        found[self.refresh_directory(g - 1)] = True
    if rewards_base.needs_samples(experiment.reward):
      for split in {
        prepare.VALIDATION, experiment.probe.split, *experiment.evaluate.splits,
      }:  # fmt: skip
        found[self.evidence_directory(split)] = True
    for step in [*self.policies(), *self.controls()]:
      found.setdefault(step.directory, True)
      if step.temperature_directory is not None:
        found[step.temperature_directory] = True
      for split in experiment.evaluate.splits:
        found[self.evaluation_directory(step, split)] = True
    return found

  @functools.cached_property
  def data(self) -> prepare.PreparedData:
    return prepare.load(self.directory('data'))

  @functools.cached_property
  def policy(self) -> policy_lib.Policy:
    data, network = self.data, self.experiment.network
    self._check_vocabularies(
      data.vocabulary.digest,
      str(data.directory / prepare.VOCABULARY_FILE),
      data.digest,
    )
    return policy_lib.Policy(network.with_vocab(data.vocabulary.size))

  @functools.cached_property
  def improved_policy(self) -> policy_lib.Policy:
    """The network as the loss of the Improve steps has it used."""
    config = self.policy.config
    start = self.experiment.improve.loss.decoder_start(config.vocab_size)
    return policy_lib.Policy(config, decoder_start=start)

  def policy_of(self, step: PolicyStep) -> policy_lib.Policy:
    """Returns the network as a policy of the run uses it."""
    return self.improved_policy if step.grow else self.policy

  @functools.cached_property
  def reward_model(self) -> rewards_base.Reward:
    """The reward of the last Grow step and of all evaluations."""
    return self._load_reward(
      self.reward_directory(self.experiment.num_grow_steps)
    )

  def reward_model_at(self, grow_step: int) -> rewards_base.Reward:
    """Returns the reward that Grow step g is scored by."""
    if self.reward_directory(grow_step) == self.reward_directory(
      self.experiment.num_grow_steps
    ):
      return self.reward_model
    return self._load_reward(self.reward_directory(grow_step))

  def _load_reward(self, trained: pathlib.Path) -> rewards_base.Reward:
    return self.experiment.reward.load(self.resources(trained))

  def resources(self, trained: pathlib.Path) -> rewards_base.Resources:
    """Returns what rewards may load, with a folder of stage `reward`."""
    return rewards_base.Resources(
      mesh=self.experiment.mesh,
      vocabulary=self.data.vocabulary,
      pairs=self.data.pairs(prepare.TRAIN),
      network=self.policy.config,
      policy=self.directory('bc'),
      trained=trained,
    )

  def normalizer(self, grow_step: int | None = None) -> normalize.Normalizer:
    """Returns the run's normaliser, which the first Grow fixed.

    Args:
      grow_step: whose; refreshes of the reward make it anew. None for the last.
    """
    g = self.experiment.num_grow_steps if grow_step is None else grow_step
    directory = self.grow_directory(1)
    if g > 1 and self.experiment.refresh is not None:
      directory = self.refresh_directory(g - 1)
    manifest = folder_lib.read_manifest(directory)
    return normalize.Normalizer.from_json(manifest['normalizer'])

  def _seed(self, purpose: seeds.Purpose, *numbers: int) -> int:
    return seeds.seed_for(self.experiment.seed, purpose, *numbers)

  def prepare(self) -> None:
    """Reads the text, makes the vocabulary, stores tokenised pairs."""
    self.check_vocabularies()
    if self.experiment.data_dir is not None:
      _use('data', self.data.directory)
      return
    prepare.run(
      self.experiment.task,
      directory=self.directory('data'),
      overwrite=self._overwrite,
    )

  def bc(self) -> pathlib.Path:
    """Trains pi_theta on D; returns its folder."""
    if self.experiment.bc_dir is not None:
      return _use('policy', self.directory('bc'))
    return bc_stage.run(
      self.experiment.bc,
      policy=self.policy,
      data=self.data,
      mesh_config=self.experiment.mesh,
      directory=self.directory('bc'),
      seed=self._seed(seeds.Purpose.INITIALISATION),
      overwrite=self._overwrite,
    )

  def reward(self) -> pathlib.Path | None:
    """Trains R(x, y); returns its folder, None if nothing is to be trained."""
    config = self.experiment.trained_reward
    if config is None:
      logging.info('reward: %s is not trained', self.experiment.reward.name)
      return None
    if self.experiment.reward_dir is not None:
      self._check_agreement(1)
      return _use('reward', self.directory('reward'))
    ratings = self.experiment.task.ratings
    if ratings is None:  # `Experiment` refuses it; for type checkers.
      raise ValueError('task.ratings must name ratings; got None')
    return reward_stage.run(
      config,
      policy=self.policy,
      policy_directory=self.directory('bc'),
      data=self.data,
      ratings=ratings,
      mesh_config=self.experiment.mesh,
      directory=self.directory('reward'),
      seed=self._seed(seeds.Purpose.REWARD),
      overwrite=self._overwrite,
    )

  def _ratings(
    self, ratings: ratings_lib.RatingsSource
  ) -> dict[str, ratings_lib.Ratings]:
    """Reads all ratings, by what is written before the names of splits."""
    found = {'': ratings.read()}
    sampled_ratings = rated_samples.read(self.directory('reward'))
    if sampled_ratings is not None:
      found[reward_stage.SAMPLED] = sampled_ratings
    return found

  def _check_agreement(self, grow_step: int) -> None:
    """Raises ValueError if the trained reward of Grow step g is at chance."""
    config = self.experiment.trained_reward
    if config is not None:
      reward_stage.check_agreement(config, self.reward_directory(grow_step))

  def test_reward(self) -> bool:
    """Puts R to the test; whether it met the minimum that is asked of probes."""
    config, ratings = self.experiment.probe, self.experiment.task.ratings
    report = probe_stage.run(
      config,
      data=self.data,
      reward=self.reward_model,
      reward_config=self.experiment.reward,
      ratings={} if ratings is None else self._ratings(ratings),
      directory=self.probe_directory(),
      seed=self._seed(seeds.Purpose.PROBE),
      evidence=self.evidence(config.split),
      overwrite=self._overwrite,
    )
    return summary.write_probes(self, report)

  def grow(
    self, grow_step: int, policy_directory: pathlib.Path
  ) -> pathlib.Path:
    """Samples and scores D_g from a policy; returns its folder."""
    self._check_agreement(grow_step)
    if grow_step == 1 and self.experiment.grow_dir is not None:
      return _use('grow', self.grow_directory(1))
    return grow_stage.run(
      self.experiment.grow,
      grow_step=grow_step,
      policy=self.policy if grow_step == 1 else self.improved_policy,
      policy_directory=policy_directory,
      data=self.data,
      reward=self.reward_model_at(grow_step),
      normalizer=None if grow_step == 1 else self.normalizer(grow_step),
      mesh_config=self.experiment.mesh,
      directory=self.grow_directory(grow_step),
      seed=self._seed(seeds.Purpose.GROW),
      overwrite=self._overwrite,
    )

  def value(
    self, grow_step: int, grow_directory: pathlib.Path
  ) -> pathlib.Path | None:
    """Trains V(x, y_<t) of D_g, if the loss needs it; returns its folder."""
    config = self.experiment.value
    if config is None or not self.experiment.needs_value:
      return None
    return value_stage.run(
      config,
      policy=self.policy,
      bc_directory=self.directory('bc'),
      reward_directory=self.reward_directory(grow_step),
      grow_directory=grow_directory,
      reward_name=self.experiment.reward.name,
      data=self.data,
      mesh_config=self.experiment.mesh,
      directory=self.value_directory(grow_step),
      seed=self._seed(seeds.Purpose.VALUE, grow_step),
      overwrite=self._overwrite,
    )

  def improve(
    self,
    grow_step: int,
    improve_step: int,
    grow_directory: pathlib.Path,
    previous: pathlib.Path,
  ) -> pathlib.Path:
    """Fine-tunes on the rows of D_g that pass F; returns its folder."""
    experiment = self.experiment
    is_initial = experiment.improve.init == 'initial'
    evaluate_fn, evaluation_settings = self._selection(
      self.improved_policy, grow_step
    )
    return improve_stage.run(
      experiment.improve,
      grow_step=grow_step,
      improve_step=improve_step,
      policy=self.improved_policy,
      init_directory=self.directory('bc') if is_initial else previous,
      bc_directory=self.directory('bc'),
      value_directory=(
        self.value_directory(grow_step) if experiment.needs_value else None
      ),
      grow_directory=grow_directory,
      reward_name=experiment.reward.name,
      data=self.data,
      evaluate_fn=evaluate_fn,
      evaluation_settings=evaluation_settings,
      mesh_config=experiment.mesh,
      directory=self.improve_directory(grow_step, improve_step),
      seed=self._seed(seeds.Purpose.IMPROVE, grow_step, improve_step),
      overwrite=self._overwrite,
    )

  def refresh(
    self, grow_step: int, policy_directory: pathlib.Path
  ) -> pathlib.Path:
    """Fine-tunes R on ratings of a policy's samples; returns its folder.

    Args:
      grow_step: g, before the last.
      policy_directory: of the last policy of Grow step g.
    """
    experiment = self.experiment
    config, ratings = experiment.refresh, experiment.task.ratings
    if config is None or ratings is None:
      raise ValueError(
        'Experiment.refresh must say how the reward is refreshed; got None. Add '
        '--gin_file=gin_configs/rewards/refreshed.gin.'
      )
    if grow_step >= experiment.num_grow_steps:
      raise ValueError(
        f'grow_step must be below G={experiment.num_grow_steps}, since a '
        f'refresh comes between Grow steps; got {grow_step}.'
      )
    earlier = [self.refresh_directory(g) for g in range(1, grow_step)]
    return refresh_stage.run(
      config,
      grow_step=grow_step,
      policy=self.improved_policy,
      policy_directory=policy_directory,
      data=self.data,
      present=refresh_samples.Present(
        config=experiment.reward,
        reward=self.reward_model_at(grow_step),
        directory=self.reward_directory(grow_step),
        normalizer=self.normalizer(grow_step),
        read_ratings=lambda: ratings_lib.join(
          [
            *self._ratings(ratings).values(),
            *map(refresh_stage.ratings_of, earlier),
          ]
        ),
      ),
      load=self._load_reward,
      grow_directories={
        g: self.grow_directory(g) for g in range(1, grow_step + 1)
      },
      mesh_config=experiment.mesh,
      directory=self.refresh_directory(grow_step),
      seed=self._seed(seeds.Purpose.REFRESH, grow_step),
      overwrite=self._overwrite,
    )

  def online(self) -> pathlib.Path:
    """Trains the online baseline from the BC policy; returns its folder."""
    config = self._online_config()
    self._check_agreement(1)
    evaluate_fn, evaluation_settings = self._selection(self.policy, 1)
    return online_stage.run(
      config,
      policy=self.policy,
      bc_directory=self.directory('bc'),
      grow_directory=self.grow_directory(1),
      data=self.data,
      reward=self.reward_model_at(1),
      normalizer=self.normalizer(1),
      evaluate_fn=evaluate_fn,
      evaluation_settings=evaluation_settings,
      mesh_config=self.experiment.mesh,
      directory=self.online_directory(),
      seed=self._seed(seeds.Purpose.ONLINE),
      overwrite=self._overwrite,
    )

  def make_controls(self) -> list[PolicyStep]:
    """Makes the controls of the last policy, and returns them."""
    for step in self.controls():
      if step.control == results_lib.TRAINED_ON:
        self._train_on(step.directory)
      elif step.temperature_directory is not None:
        self._match_entropy(step.temperature_directory)
    return self.controls()

  def _train_on(self, directory: pathlib.Path) -> None:
    """Trains BC on D for as many steps as lie between BC and the last policy.

    With the trainer of the first Improve step, and its way to keep a checkpoint.
    """
    experiment = self.experiment
    made = [step.directory for step in self.policies() if step.grow]
    if experiment.improve.init == 'initial':
      made = made[-1:]  # It started from BC.
    steps = [folder_lib.read_manifest(d)['training']['steps'] for d in made]
    trainer = experiment.improve.trainer_at(
      1, self._seed(seeds.Purpose.TRAINED_ON)
    )
    evaluate_fn, evaluation_settings = self._selection(
      self.policy, experiment.num_grow_steps
    )
    bc_stage.run(
      dataclasses.replace(
        experiment.bc,
        trainer=dataclasses.replace(
          trainer, max_steps=sum(steps), patience=None
        ),
        init_dir=str(self.directory('bc')),
      ),
      policy=self.policy,
      data=self.data,
      mesh_config=experiment.mesh,
      directory=directory,
      seed=self._seed(seeds.Purpose.TRAINED_ON),
      overwrite=self._overwrite,
      evaluate_fn=evaluate_fn,
      evaluation_settings=evaluation_settings,
      description='bc trained on',
    )

  def _match_entropy(self, directory: pathlib.Path) -> None:
    """Finds the temperature at which BC is as sure as the last policy."""
    experiment = self.experiment
    equal_entropy.run(
      experiment.evaluate.decode,
      policy=self.improved_policy,
      policy_directory=self.last_policy_of(experiment.num_grow_steps),
      bc_policy=self.policy,
      bc_directory=self.directory('bc'),
      data=self.data,
      max_sources=experiment.evaluate.max_diagnostic_sources,
      mesh_config=experiment.mesh,
      directory=directory,
      seed=self._seed(seeds.Purpose.ENTROPY),
      overwrite=self._overwrite,
    )

  def temperature_of(self, step: PolicyStep) -> float:
    """Returns the temperature at which a policy is sampled in evaluations."""
    if step.temperature_directory is None:
      return self.experiment.evaluate.decode.temperature
    return equal_entropy.temperature(step.temperature_directory)

  def _evaluation_of(self, step: PolicyStep) -> evaluate_stage.EvaluateConfig:
    config = self.experiment.evaluate
    decode = dataclasses.replace(
      config.decode, temperature=self.temperature_of(step)
    )
    return dataclasses.replace(config, decode=decode)

  def _selection(
    self, policy: policy_lib.Policy, grow_step: int
  ) -> tuple[sampled_reward.SampledReward, dict[str, Any]]:
    """Sampled validation reward, which chooses checkpoints, and its settings."""
    config = self.experiment.evaluate
    pairs = self.data.pairs(prepare.VALIDATION)
    seed = self._seed(seeds.Purpose.SELECTION)
    reward = self.reward_model_at(grow_step)
    normalizer = self.normalizer(grow_step)
    evidence = self.evidence(prepare.VALIDATION)
    evaluate_fn = sampled_reward.SampledReward(
      sampler=draw_samples.policy_sampler(
        policy,
        config.selection,
        self.experiment.mesh,
        self.data.vocabulary,
      ),
      pairs=pairs,
      rows=pair_store.spread_rows(len(pairs), config.max_selection_sources),
      vocabulary=self.data.vocabulary,
      reward=reward,
      normalizer=normalizer,
      seed=seed,
      evidence=evidence,
    )
    return evaluate_fn, {
      **evidence_stage.described(evidence),
      'decode': config.selection,
      'max_sources': config.max_selection_sources,
      'reward': reward.digest,
      'normalizer': normalizer.to_json(),
      'seed': seed,
    }

  def evidence(self, split: str) -> evidence_stage.StoredEvidence | None:
    """Draws what all policies are judged by on a split, if R needs samples."""
    experiment = self.experiment
    if not rewards_base.needs_samples(experiment.reward):
      return None
    number = len(self.data.pairs(split))
    limits = [experiment.evaluate.max_sources]
    if split == prepare.VALIDATION:
      limits.append(experiment.evaluate.max_selection_sources)
    if split == experiment.probe.split:
      limits.append(experiment.probe.max_sources)
    return evidence_stage.run(
      experiment.evidence,
      split=split,
      rows=np.unique(
        np.concatenate([pair_store.spread_rows(number, n) for n in limits])
      ),
      policy=self.policy,
      policy_directory=self.directory('bc'),
      data=self.data,
      mesh_config=experiment.mesh,
      directory=self.evidence_directory(split),
      seed=self._seed(seeds.Purpose.EVIDENCE),
      overwrite=self._overwrite,
    )

  def evaluate(self, policies: Sequence[PolicyStep] | None = None) -> None:
    """Measures policies on every split; writes results and figures.

    Args:
      policies: which of them; None for all, and then the controls.
    """
    self._measure(self.policies() if policies is None else policies)
    # Once the policies are measured: folders of other settings are refused first.
    if policies is None:
      self._measure(self.make_controls())
    self.report()

  def _measure(self, policies: Sequence[PolicyStep]) -> None:
    experiment = self.experiment
    for split in experiment.evaluate.splits:
      evidence = self.evidence(split)
      for step in policies:
        evaluate_stage.run(
          self._evaluation_of(step),
          split=split,
          policy=self.policy_of(step),
          policy_directory=step.directory,
          bc_directory=self.directory('bc'),
          data=self.data,
          reward=self.reward_model,
          normalizer=self.normalizer(),
          judge=experiment.task.judge,
          mesh_config=experiment.mesh,
          directory=self.evaluation_directory(step, split),
          seed=self._seed(seeds.Purpose.EVALUATION),
          evidence=evidence,
          overwrite=self._overwrite,
        )

  def evaluate_finished(self) -> None:
    """Measures the policies that are there, and controls once all are.

    Raises:
      FileNotFoundError: none is.
    """
    finished = [step for step in self.policies() if step.is_finished]
    if not finished:
      raise FileNotFoundError(
        f'{self.model_dir} must hold a finished policy to be evaluated; it has '
        f'none of {", ".join(step.name for step in self.policies())}. Train one '
        'first: --run_mode=bc, or --run_mode=rest for all stages.'
      )
    self.evaluate(None if finished == self.policies() else finished)

  def answerer(
    self, policy: str = '', *, at_once: bool = False
  ) -> sample_stage.Answerer:
    """Returns what answers text with the best of N; see `sample.of_run`."""
    return sample_stage.of_run(self, policy, at_once=at_once)

  def export(self, grow_step: int, directory: pathlib.Path) -> None:
    """Writes D_g and its rewards as Parquet files to a new folder."""
    num_rows = export_stage.run(
      grow_directory=self.grow_directory(grow_step),
      reward_name=self.experiment.reward.name,
      data=self.data,
      directory=directory,
    )
    logging.info('export: %d rows to %s', num_rows, directory)

  def report(self) -> None:
    """Writes results and figures of the evaluations that are there."""
    processes.by_main('report', lambda: summary.write(self))

  def evaluation_directory(self, step: PolicyStep, split: str) -> pathlib.Path:
    # All variants have this policy, and without a refresh this reward.
    if step.is_bc and self.experiment.refresh is None:
      return self.model_dir / 'evaluate' / f'bc-{split}'
    return self.variant_dir / 'evaluate' / f'{step.name}-{split}'


def _is_finished(step: PolicyStep) -> bool:
  return step.is_finished


def _use(what: str, directory: pathlib.Path) -> pathlib.Path:
  folder_lib.read_manifest(directory)
  logging.info('%s: uses the finished %s', what, directory)
  return directory
