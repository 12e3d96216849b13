"""An experiment: the settings of all stages, the root object of gin files."""

import dataclasses

from rest_jax.data import sources, vocabularies
from rest_jax.data import task as task_lib
from rest_jax.models import network as network_lib
from rest_jax.online import ppo
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.rating import rating_config
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import guards, probes
from rest_jax.stages import answers as sample_stage
from rest_jax.stages import bc as bc_stage
from rest_jax.stages import context as context_lib
from rest_jax.stages import evaluate as evaluate_stage
from rest_jax.stages import evidence as evidence_stage
from rest_jax.stages import grow as grow_stage
from rest_jax.stages import improve as improve_stage
from rest_jax.stages import likelihood, refresh_targets
from rest_jax.stages import refresh as refresh_stage
from rest_jax.stages import reward as reward_stage
from rest_jax.stages import value as value_stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
  """The settings of one run.

  Attributes:
    task: D, D_eval, the vocabulary and the ratings.
    network: sizes of policy and reward model.
    mesh: devices and sharding rules.
    bc: training of the first policy.
    reward: R(x, y): a `RewardStage` to train on ratings, or any other settings
      of a reward, such as `MetricX` or `Ensemble`.
    grow: sampling of D_g.
    improve: loss, filter and training of the Improve steps.
    value: training of the value function, for losses that need one.
    refresh: refresh of the reward model between Grow steps; None for none.
      Evaluations use the last refreshed reward.
    evaluate: evaluation of the policies.
    evidence: samples of BC for rewards that compare the samples of a source.
    probe: tests of the reward.
    rating: settings of the rating page for people.
    online: the online baseline; None for none.
    sample: answers of `--run_mode=sample`.
    controls: whether to evaluate the controls: BC trained further for as many
      steps, and BC sampled at the temperature of equal entropy.
    num_grow_steps: G.
    num_improve_steps: I of each Grow step, or a tuple with one number per Grow
      step.
    seed: seed of all random numbers.
    variant: name of the folder of Improve steps and evaluations. Several
      variants share BC, the reward model and the first Grow. '' for the name of
      the loss.
    data_dir: finished folder to use instead of `model_dir`/data.
    bc_dir: likewise for bc: any finished policy to start from.
    reward_dir: likewise for reward.
    grow_dir: likewise for the first Grow.
  """

  task: task_lib.Task
  network: network_lib.NetworkConfig
  mesh: mesh_lib.MeshConfig = dataclasses.field(
    default_factory=mesh_lib.MeshConfig
  )
  bc: bc_stage.BCConfig
  reward: rewards_base.RewardConfig
  grow: grow_stage.GrowConfig
  improve: improve_stage.ImproveConfig
  value: value_stage.ValueStage | None = None
  refresh: refresh_stage.RefreshConfig | None = None
  evaluate: evaluate_stage.EvaluateConfig
  evidence: evidence_stage.EvidenceConfig = dataclasses.field(
    default_factory=evidence_stage.EvidenceConfig
  )
  probe: probes.ProbeConfig = dataclasses.field(
    default_factory=probes.ProbeConfig
  )
  rating: rating_config.RatingConfig = dataclasses.field(
    default_factory=rating_config.RatingConfig
  )
  online: ppo.PPOConfig | None = None
  sample: sample_stage.SampleConfig = dataclasses.field(
    default_factory=sample_stage.SampleConfig
  )
  controls: bool = True
  num_grow_steps: int = 1
  num_improve_steps: int | tuple[int, ...] = 1
  seed: int = 0
  variant: str = ''
  data_dir: str | None = None
  bc_dir: str | None = None
  reward_dir: str | None = None
  grow_dir: str | None = None

  def __post_init__(self):
    if self.num_grow_steps < 1:
      raise ValueError(
        f'num_grow_steps (G) must be at least 1; got {self.num_grow_steps}. '
        'For G=0 run only stage bc: --run_mode=bc.'
      )
    self._check_improve_steps()
    self._check_splits()
    # Refuses a missing value now, not after hours.
    for g in range(1, self.num_grow_steps + 1):
      self.improve.filter.at(self.improve_steps(g), g)
    if not isinstance(self.reward, rewards_base.RewardConfig):
      raise TypeError(
        'reward must be the settings of a reward, see gin_configs/rewards/; '
        f'got {self.reward!r}.'
      )
    rewards_base.check_names(self.reward)
    self._check_judge()
    for part in rewards_base.all_parts(self.reward):
      if part.name == evaluate_stage.HUMAN:
        raise ValueError(
          f'no reward may be named {part.name!r}, the name of the judge.'
        )
    if (
      self.trained_reward is not None
      and self.task.ratings is None
      and self.reward_dir is None
    ):
      raise ValueError(
        'task.ratings must name ratings for training the reward model, or '
        'reward_dir a finished reward; got neither. Or choose a reward that is '
        'not learned: gin_configs/rewards/.'
      )
    self._check_languages()
    if rewards_base.needs_samples(self.reward):
      self._check_samples()
    if self.needs_value:
      self._check_value()
    if self.refresh is not None:
      self._check_refresh()

  def _check_splits(self):
    known = [split for split in self.task.splits if split != task_lib.GROW]
    for split in self.evaluate.splits:
      if split not in known:
        raise ValueError(
          f'EvaluateConfig.splits must be some of {", ".join(known)}; got '
          f'{split!r}. Task.more_tests names further test sets.'
        )

  def _check_judge(self):
    if self.task.judge is None:
      return
    for part in rewards_base.all_parts(self.task.judge):
      if isinstance(part, reward_stage.RewardStage):
        raise ValueError(
          'Task.judge must be independent of the run; got RewardStage, which '
          'the run trains.'
        )
      if rewards_base.needs_samples(part):
        raise ValueError(
          'Task.judge must score one output by itself; got '
          f'{type(part).__name__}, which compares samples of a source.'
        )

  def _check_languages(self):
    if self.task.languages != vocabularies.OF_EACH_PAIR:
      return
    for part in rewards_base.all_parts(self.reward):
      if isinstance(part, reward_stage.RewardStage | likelihood.Likelihood):
        raise ValueError(
          f'reward {part.name!r} reads text by the tokeniser of the policy, '
          'without its languages, and the pairs of this task name their own. '
          'Choose another, such as gin_configs/rewards/chrf.gin or metricx.gin, '
          'or a task of one language pair.'
        )
      if isinstance(part, guards.Guarded) and _are_mixed(self.task.train):
        for guard in part.guards:
          if isinstance(guard, guards.Language):
            raise ValueError(
              f'guard {guard.name!r} of reward {part.name!r} tells the language '
              'of the sources from that of the references, and in this task '
              'one language is on both sides. Leave it out of Guarded.guards.'
            )

  def _check_improve_steps(self):
    if isinstance(self.num_improve_steps, list):  # gin may pass a list.
      object.__setattr__(
        self, 'num_improve_steps', tuple(self.num_improve_steps)
      )
    counts = self.num_improve_steps
    if isinstance(counts, tuple) and len(counts) != self.num_grow_steps:
      raise ValueError(
        'num_improve_steps (I) must be one number, or one per Grow step for '
        f'{self.num_grow_steps} Grow steps; got {counts}.'
      )
    if min(counts if isinstance(counts, tuple) else (counts,)) < 1:
      raise ValueError(
        'num_improve_steps (I) must be at least 1; got '
        f"{counts}. The paper's I=0 is one Improve step whose filter keeps all "
        'of D_g: gin_configs/filters/none.gin.'
      )

  def improve_steps(self, grow_step: int) -> int:
    """Returns I of a Grow step, counted from 1."""
    if isinstance(self.num_improve_steps, tuple):
      return self.num_improve_steps[grow_step - 1]
    return self.num_improve_steps

  def _check_refresh(self):
    part = self.trained_reward
    if part is None or self.task.ratings is None:
      raise ValueError(
        'refresh fine-tunes a reward model on old and new ratings; got '
        f'{"no task.ratings" if part else "a reward that is not learned"}. Use '
        'gin_configs/rewards/learned.gin and a task with ratings, or leave '
        'refresh out.'
      )
    if self.reward.needs_references:
      raise ValueError(
        f'refresh does not support the reward {self.reward.name!r}, which '
        'compares with references: ratings have none. Leave refresh out.'
      )
    refresh_targets.Whole.of(self.reward, part)  # Refuses unsuitable rewards.
    if self.num_grow_steps < 2:
      raise ValueError(
        'refresh comes between Grow steps, so num_grow_steps (G) must be at '
        f'least 2; got {self.num_grow_steps}. Set --gin.NUM_GROW_STEPS=2.'
      )

  def _check_samples(self):
    name = self.reward.name
    number = self.grow.decode.num_samples_per_source
    if number < 2:
      raise ValueError(
        f'reward {name!r} compares the samples of a source with each other, so '
        f'that a Grow must draw at least two; got {number}. Set '
        '--gin.NUM_SAMPLES_PER_SOURCE=8.'
      )
    reasons = {
      'refresh': 'ratings have no samples to compare with',
      'online': 'a policy that is trained to agree with itself collapses',
    }
    for setting, reason in reasons.items():
      if getattr(self, setting) is not None:
        raise ValueError(
          f'{setting} does not support the reward {name!r}, which compares the '
          f'samples of a source with each other: {reason}. Leave {setting} out, '
          'or choose a reward of single hypotheses.'
        )

  def _check_value(self):
    if self.value is None:
      raise ValueError(
        f'the loss {self.improve.loss.name} needs a value function, but value is '
        'None. Bind Experiment.value = @ValueStage(), as '
        'gin_configs/values/monte_carlo.gin does.'
      )
    has_model = self.trained_reward is not None or self.reward_dir is not None
    if self.value.init == 'reward' and not has_model:
      raise ValueError(
        "value.init = 'reward' starts from the reward model's weights, but the "
        'reward is not learned. Set --gin.ValueStage.init=policy.'
      )

  @property
  def needs_value(self) -> bool:
    """Whether the loss of the Improve steps needs a value function."""
    return 'value' in self.improve.loss.needs

  @property
  def trained_reward(self) -> reward_stage.RewardStage | None:
    """The part of the reward that stage `reward` trains; None without one."""
    return reward_stage.trained(self.reward)

  @property
  def given_folders(self) -> dict[str, str]:
    """Finished folders of other runs, by the names of their settings."""
    folders = {
      'BC_DIR': self.bc_dir,
      'BC_INIT_DIR': None if self.bc_dir else self.bc.init_dir,
      'REWARD_DIR': self.reward_dir,
      context_lib.GROW_DIR: self.grow_dir,
      'DATA_DIR': self.data_dir,
    }
    return {name: folder for name, folder in folders.items() if folder}

  @property
  def variant_name(self) -> str:
    return self.variant or self.improve.loss.name


def _are_mixed(train: sources.PairSource) -> bool:
  """Returns whether a language may be on both sides of the pairs."""
  from_, to = set(), set()
  for part in sources.parts(train):
    languages = getattr(part, 'languages', None)
    if languages is None:  # Columns name them.
      return True
    from_.add(languages[0])
    to.add(languages[1])
  return not from_.isdisjoint(to)
