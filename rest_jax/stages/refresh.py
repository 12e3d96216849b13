"""Stage `refresh`: fine-tunes the reward model on ratings of the latest policy.

It runs between two Grow steps: samples of the policy are chosen and rated, the
reward model is fine-tuned on old and new ratings, and the reward's scale is
fitted again.

A policy that is trained on a reward moves to texts that the reward overrates,
which are unlike the texts it was trained on. ReST (arXiv 2308.08998) names this
over-optimisation and leaves a refreshed reward model as future work; the recipe
is ours.
"""

from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

from rest_jax import settings
from rest_jax.data import annotations
from rest_jax.data import ratings as ratings_lib
from rest_jax.rewards import (
  acquisition,
  learned_rows,
)
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import reward_agreement as agreement_lib
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import (
  base,
  draw_samples,
  policies,
  rated_samples,
  refresh_samples,
  refresh_targets,
  run_reward,
  score_samples,
)
from rest_jax.stages import context as context_lib
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import reward as reward_stage
from rest_jax.storage import files, paths
from rest_jax.training import trainer as trainer_lib

TO_RATE, RATED = annotations.TO_RATE, annotations.RATED
REWARD = 'reward'
RESCORED = 'rescored'


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefreshConfig:
  """Settings of the refresh of the reward model.

  Attributes:
    decode: sampling settings of the latest policy.
    choose: which samples are rated.
    finetune: training on old and new ratings, from the present reward model and
      with its loss. The checkpoint that agrees best with old and new dev
      ratings is kept, as in the first training.
    raters: programs that rate, such as `SyntheticRaters`; None for people: the
      stage then writes `to_rate.tsv` and continues once `rated.tsv` exists
      beside it.
    num_sources: number of training sources to sample for, evenly spread.
    new_weight: weight of a new rating relative to an old one with as many
      annotators; above 0.
    max_selection_rows: number of dev ratings for choosing the checkpoint.
    num_resamples: number of resamples for bootstrap intervals.
  """

  decode: sampler_lib.DecodeConfig
  choose: acquisition.Acquisition = dataclasses.field(
    default_factory=acquisition.Acquisition
  )
  finetune: trainer_lib.TrainerConfig
  raters: annotations.Raters | None = None
  num_sources: int = 1_000
  new_weight: float = 1.0
  max_selection_rows: int = 2_000
  num_resamples: int = 1_000

  def __post_init__(self):
    settings.at_least(
      self, 1, 'num_sources', 'max_selection_rows', 'num_resamples'
    )
    settings.positive(self, 'new_weight')
    if self.decode.temperature <= 0:
      raise ValueError(
        'decode must draw different samples, at a temperature above 0; got '
        f'{self.decode.temperature}.'
      )
    rated_samples.check_raters(self.raters)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Refresh(base.Stage):
  """Refreshes the reward after Grow step g and its Improve steps.

  The scale. The normaliser maps the 0.5 and 99.5 percentiles of the raw rewards
  of D_1, q_0 and q_1, to 0 and 1. The refreshed model gives other raw rewards,
  so D_1 is scored again, and the same two percentiles of its new raw rewards,
  q'_0 and q'_1, become the new scale:

    R'(x, y) = (r'(x, y) - q'_0) / (q'_1 - q'_0).

  This is the only increasing affine map of r' that keeps the 0.5 and 99.5
  percentiles of D_1 at 0 and 1. A fixed threshold or a mean of R thus says
  where a text stands among D_1, before and after. The order is the new model's:
  thresholds keep their place on the scale, but select other rows.

  Subfolder `reward` is like the folder of stage `reward`. The manifest has the
  new normaliser, the numbers of rated samples by reason, and the agreement with
  ratings before and after. `make` raises FileNotFoundError, with what to do, if
  people have not rated yet, and ValueError, naming the row, for invalid
  ratings.

  Attributes:
    policy: the last policy of Grow step g.
    reward: the reward that the policy was trained on.
    reward_config: settings of the reward.
    ratings: the ratings of the task.
    rated: folder of stage `reward`, which may hold ratings of samples.
    earlier: the refreshes before this one.
    grows: finished Grow steps 1 ... g. The refreshed model scores them into
      subfolder `rescored`; the first fixes the scale.
    seed: seed for sampling, choice and training.
  """

  config: RefreshConfig
  policy: base.PolicyStage
  reward: run_reward.RunReward
  reward_config: rewards_base.RewardConfig
  ratings: ratings_lib.RatingsSource
  rated: pathlib.Path
  earlier: Sequence[base.Stage]
  grows: Sequence[base.Stage]
  data: base.Stage
  seed: int

  run_mode = 'refresh'
  help = 'Fine-tunes the reward model on ratings of the latest policy.'
  pattern = r'refresh_(?P<grow_step>\d+)(?:/reward)?'
  alone = (
    'the reward is refreshed by one process; got {count}. Run the stages one by '
    'one, --run_mode=refresh without --distributed.'
  )
  missing = (
    'Experiment.refresh must say how the reward is refreshed; got None. Add '
    '--gin_file=gin_configs/rewards/refreshed.gin.'
  )

  @property
  def reward_folder(self) -> pathlib.Path:
    """Folder of the refreshed model, like one of stage `reward`."""
    return self.folder / REWARD

  @property
  def inputs(self) -> dict[str, base.Stage]:
    return {
      'data': self.data,
      'policy': self.policy,
      **self.reward.inputs,
      **{stage.name: stage for stage in (*self.grows, *self.earlier)},
    }

  def settings(self, context: context_lib.Context) -> dict[str, Any]:
    return {
      'refresh': self.config,
      'grow_step': self.grow_step,
      'seed': self.seed,
      'network': self.policy.network(context).config,
      'policy': policies.digest(self.policy.policy_folder),
      'data': context.data.digest,
      'reward': self.reward.described(context),
      'normalizer': self.reward.normalizer().to_json(),
      'grow': {
        str(stage.grow_step): folder_lib.content_digest(stage.manifest())
        for stage in self.grows
      },
    }

  def origins(self, settings: dict[str, Any]) -> dict[str, pathlib.Path]:
    return {
      **super().origins(settings),
      'reward.digest': self.reward.trained,
      **{f'grow.{stage.grow_step}': stage.folder for stage in self.grows},
    }

  def check_finished(self, context: context_lib.Context) -> None:
    _check_unchanged(self.folder)

  def make(
    self, context: context_lib.Context, output: folder_lib.StageFolder
  ) -> dict[str, Any]:
    config, data, present = self.config, context.data, self._present(context)
    if not refresh_samples.is_chosen(output.path):
      refresh_samples.choose(
        config.choose,
        draw_samples.Drawer(
          loaded=draw_samples.LoadedPolicy.of_stage(self.policy, context),
          decode=config.decode,
          seed=self.seed,
          grow_step=self.grow_step,
        ),
        num_sources=config.num_sources,
        directory=output.path,
        present=present,
      )
    new = annotations.collect(
      config.raters, refresh_samples.items(output.path), output.path
    )
    trained = self._finetune(context, output, present, new)
    manifest = folder_lib.read_manifest(trained)
    for message in manifest.get(folder_lib.WARNINGS, ()):
      output.warn(message)
    reward = context.load_reward(trained)
    normalizer = None
    for stage in self.grows:
      normalizer = score_samples.score(
        score_samples.Store(
          stage.folder,
          len(stage.manifest()['shards']),
          data.pairs(stage.manifest()['split']),
          data.vocabulary,
          rewards_in=output.path / RESCORED / stage.name,
        ),
        reward=reward,
        normalizer=normalizer,
        description=f'refresh: score {stage.title}',
      )
    if normalizer is None:
      raise ValueError('grows must have Grow step 1; got none.')
    return {
      'normalizer': normalizer.to_json(),
      'rated': {
        'file': RATED,
        'sha256': files.sha256(output.path / RATED),
        'rows': len(new),
      },
      'annotated': refresh_samples.by_reason(output.path, new),
      'reward': rewards_base.describe(reward),
    }

  def _finetune(
    self,
    context: context_lib.Context,
    folder: folder_lib.StageFolder,
    present: refresh_samples.Present,
    new: ratings_lib.Ratings,
  ) -> pathlib.Path:
    """Fits the trained part to old and new ratings; returns its folder."""
    config = self.config
    before = folder_lib.read_manifest(present.directory)
    trainer = dataclasses.replace(config.finetune, seed=self.seed)
    inner = folder_lib.begin(
      folder.path / REWARD,
      {
        'refresh': folder.settings,
        'trainer': trainer,
        'before': before['params_digest'],
        'rated': files.sha256(folder.path / RATED),
        'num_old': len(present.ratings),
      },
      overwrite=context.overwrite,
    )
    if inner.is_finished:
      return inner.path
    fitter, params = reward_stage.restore(
      present.directory, context.data.vocabulary, context.mesh
    )
    part = reward_stage.trained(present.config)
    assert part is not None  # `Experiment` refuses other rewards.
    targets = refresh_targets.Targets.of(
      present.ratings,
      new,
      new_weight=config.new_weight,
      reward=present.reward,
      whole=refresh_targets.Whole.of(present.config, part),
      scale=learned_rows.Scale(**before['rating_scale']),
    )
    refreshed, summary = fitter.fit(
      trainer,
      params=params,
      fitted=targets.fitted(),
      chosen_by=targets.held_out(
        config.max_selection_rows, within_source=part.choose_within_source
      ),
      loss=part.loss,
      directory=inner.path,
      description='refresh: ratings',
      warn=inner.warn,
    )
    agreement_before, agreement = (
      targets.agreement(fitter, of, num_resamples=config.num_resamples)
      for of in (params, refreshed)
    )
    for message in agreement_lib.warnings(agreement):
      inner.warn(message)
    kept = {'rating_scale', 'network', 'num_params', 'scoring', 'vocabulary'}
    kept |= before.keys() & {'pooling'}  # Earlier versions have none.
    inner.finish(
      {
        **{name: before[name] for name in kept},
        'agreement_before': agreement_before,
        'agreement': agreement,
        'params_digest': summary['params_digest'],
        'training': summary,
        'trained_on': targets.counts(ratings_lib.TRAIN),
        'policy_digest': folder.settings['policy'],
      }
    )
    return inner.path

  def _present(self, context: context_lib.Context) -> refresh_samples.Present:
    """Returns the reward before the refresh."""
    return refresh_samples.Present(
      config=self.reward_config,
      reward=self.reward.load(context),
      directory=self.reward.trained,
      normalizer=self.reward.normalizer(),
      read_ratings=lambda: ratings_lib.join(
        [
          *reward_stage.read_ratings(self.ratings, self.rated).values(),
          *(ratings_of(stage.folder) for stage in self.earlier),
        ]
      ),
    )

  def lines(self) -> list[str]:
    raters = self.config.raters
    by = 'people' if raters is None else type(raters).__name__
    return [
      f'  refresh   {self.config.choose.size} samples a Grow step, rated by '
      f'{by}'
    ]


def ratings_of(directory: str | pathlib.Path) -> ratings_lib.Ratings:
  """Returns the new ratings of a finished refresh."""
  path = paths.of(directory)
  return annotations.read(path / RATED, refresh_samples.items(path))


def _check_unchanged(folder: pathlib.Path) -> None:
  """Raises ValueError if ratings were changed after training on them."""
  path, rated = folder / RATED, folder_lib.read_manifest(folder)['rated']
  if files.sha256(path) != rated['sha256']:
    raise ValueError(
      f'{path} must be unchanged since the reward model was trained on it; it '
      f'was changed. Restore it. To train on it as it is, keep a copy, remove '
      f'{folder}, and put the copy back when it is asked for: the same rows will '
      'be chosen.'
    )
