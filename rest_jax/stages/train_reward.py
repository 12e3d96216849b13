"""Stage `reward`: fits the learned reward R(x, y) to ratings."""

from collections.abc import Iterator
import dataclasses
import functools
import pathlib
from typing import Any

from absl import logging
import jax

from rest_jax import settings as settings_lib
from rest_jax import types
from rest_jax.data import ratings as ratings_lib
from rest_jax.losses import regression
from rest_jax.models import policy as policy_lib
from rest_jax.models import scalar
from rest_jax.rewards import corruptions as corruptions_lib
from rest_jax.rewards import (
  learned_references,
  learned_rows,
  learned_texts,
  learned_training,
)
from rest_jax.rewards import reward_agreement as agreement_lib
from rest_jax.stages import base, draw_samples, policies, prepare
from rest_jax.stages import context as context_lib
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import rated_samples as rated_samples_lib
from rest_jax.stages import reward as reward_stage

PRETRAIN = 'pretrain'


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TrainReward(base.Stage):
  """Trains a reference-free reward model and measures its agreement.

  The policy's weights with a scalar head learn to tell graded corruptions of
  references apart, then ratings. Ratings are standardised by their train split
  and weighted by their number of annotators.

  Source: ReST (arXiv 2308.08998), A.4, for a learned, reference-free reward of
  the whole translation.

  Note: how the paper's reward model was trained is not published. This recipe
  is ours, after BLEURT (arXiv 2004.04696).

  The manifest has agreement with the ratings of dev and test under 'agreement',
  and with those of samples by 'sampled dev' and 'sampled test'; see
  `agreement.agreement`. Ratings without a train or dev split, or that do not
  vary, are a ValueError.

  Attributes:
    config: see `RewardStage`.
    ratings: the ratings, with the splits train and dev, and test if there is
      one; None only for a folder of another run.
    bc: finished BC, whose policy it starts from.
    data: the prepared data.
    seed: seed for the new head, corruptions and samples.
  """

  config: reward_stage.RewardStage
  ratings: ratings_lib.RatingsSource | None
  bc: base.PolicyStage
  data: base.Stage
  seed: int

  run_mode = 'reward'
  help = 'Trains the reward model on ratings, if the reward is learned.'
  pattern = 'reward'
  own_name = 'reward'
  given_as = 'reward'

  @property
  def inputs(self) -> dict[str, base.Stage]:
    return {'data': self.data, 'policy': self.bc}

  def check(self, context: context_lib.Context) -> None:
    if self.is_given:
      reward_stage.check_agreement(self.config, self.folder)

  def check_finished(self, context: context_lib.Context) -> None:
    reward_stage.check_agreement(self.config, self.folder)

  def settings(self, context: context_lib.Context) -> dict[str, Any]:
    return {
      'reward': self.config,
      'network': context.policy.config,
      'policy': policies.digest(self.bc.folder),
      'data': context.data.digest,
      'ratings': self.ratings,
      'seed': self.seed,
    }

  def make(
    self, context: context_lib.Context, output: folder_lib.StageFolder
  ) -> dict[str, Any]:
    if self.ratings is None:  # `Experiment` refuses it; for type checkers.
      raise ValueError('task.ratings must name ratings; got None')
    return _train(self, self.ratings, context, output)

  def trainings(self, policy: policy_lib.Policy) -> Iterator[base.Training]:
    config = self.config
    model = scalar.ScalarModel(
      reward_stage.trained_network(config, policy.config),
      pooling=config.pooling,
    )
    for name, trainer in (
      ('reward pre-training', config.pretrain),
      ('reward ratings', config.finetune),
    ):
      if trainer is not None:
        yield base.Training(
          name=name,
          trainer=trainer,
          model=model,
          loss=regression.Regression(),
          columns=learned_rows.COLUMNS,
        )


def _train(
  stage: TrainReward,
  ratings: ratings_lib.RatingsSource,
  context: context_lib.Context,
  folder: folder_lib.StageFolder,
) -> dict[str, Any]:
  """Trains and measures; returns the manifest."""
  config, policy, data = stage.config, context.policy, context.data
  policy_params = policies.load(stage.bc.folder, policy, context.mesh)
  parts = _parts(stage, ratings, context, folder.path, policy_params)
  rated = ratings_lib.join(list(parts.values()))
  train = rated.select(reward_stage.TRAIN)
  scale = learned_rows.Scale.of('the ratings of split train', train.score)
  targets, by_chrf = learned_texts.rated(train), None
  if config.references is not None:
    targets, by_chrf = learned_references.teach(
      config.references, train, chrf_beta=config.corruptions.chrf_beta
    )
  covered = learned_rows.coverage(
    data.vocabulary, rated.source + rated.hypothesis, warn=folder.warn
  )
  network = reward_stage.trained_network(config, policy.config)
  model = scalar.ScalarModel(network, pooling=config.pooling)
  fitter = learned_training.Fitter(
    model, data.vocabulary, config.scoring, context.mesh
  )
  params = model.init_from_policy(policy_params, jax.random.key(stage.seed))
  pretraining = None
  if config.pretrain is not None:
    texts = _pretraining_texts(stage, context, policy_params)
    if by_chrf is not None:
      texts += by_chrf
    params, pretraining = _pretrain(
      stage, context, fitter, params, texts, folder.path / PRETRAIN
    )
  params, summary = fitter.fit(
    config.finetune,
    params=params,
    texts=targets,
    weights=train.weight,
    scale=scale,
    loss=config.loss,
    chosen_by=learned_texts.spread(
      learned_texts.rated(rated.select(reward_stage.DEV)),
      config.max_selection_rows,
    ),
    within_source=config.choose_within_source,
    directory=folder.path,
    description='reward: ratings',
    warn=folder.warn,
  )
  found = _agreements(fitter, params, parts, config.num_resamples)
  for message in agreement_lib.warnings(found):
    folder.warn(message)
  return {
    'agreement': found,
    'params_digest': summary['params_digest'],
    'training': summary,
    'rating_scale': dataclasses.asdict(scale),
    'ratings': {
      name + reward_stage.TRAIN: part.split.count(reward_stage.TRAIN)
      for name, part in parts.items()
    },
    'pretraining': pretraining,
    'corruptions': learned_texts.probe(
      functools.partial(fitter.score, params),
      _corruptor(config, data, prepare.VALIDATION, stage.seed),
      config.max_selection_rows,
    ),
    'network': settings_lib.describe(model.config),
    'pooling': model.pooling,
    'num_params': policy_lib.num_params(params),
    'scoring': settings_lib.describe(config.scoring),
    'vocabulary': {'digest': data.vocabulary.digest, **covered},
    'policy_digest': policies.digest(stage.bc.folder),
  }


def _parts(
  stage: TrainReward,
  ratings: ratings_lib.RatingsSource,
  context: context_lib.Context,
  directory: pathlib.Path,
  policy_params: types.Params,
) -> dict[str, ratings_lib.Ratings]:
  """The ratings by what stands before their splits, see `read_ratings`."""
  parts = {'': ratings.read()}
  # Before hours of pre-training, not after.
  ratings_lib.check_splits(parts[''], ratings_lib.place(ratings))
  if stage.config.rated_samples is not None:
    parts[reward_stage.SAMPLED] = rated_samples_lib.collect_ratings(
      stage.config.rated_samples,
      directory=directory,
      policy=context.policy,
      params=policy_params,
      data=context.data,
      known=dict(zip(parts[''].source, parts[''].split, strict=True)),
      mesh_config=context.mesh,
      seed=stage.seed,
    )
  return parts


def _corruptor(
  config: reward_stage.RewardStage,
  data: prepare.PreparedData,
  split: str,
  seed: int,
) -> corruptions_lib.Corruptor:
  """Makes a corruptor over the references of a split."""
  is_train = split == prepare.TRAIN
  return learned_texts.corruptor(
    config.corruptions,
    data.pairs(split),
    config.num_corruptions if is_train else config.max_selection_rows,
    per_reference=config.loss.hypotheses_per_row,
    seed=seed,
  )


def _pretraining_texts(
  stage: TrainReward, context: context_lib.Context, policy_params: types.Params
) -> corruptions_lib.ScoredTexts:
  """Corruptions of the train split's references, and samples for its sources."""
  config, data = stage.config, context.data
  texts = _corruptor(config, data, prepare.TRAIN, stage.seed).scored(
    config.num_corruptions
  )
  if config.samples is None:
    return texts
  return texts + learned_texts.samples(
    draw_samples.policy_sampler(
      context.policy, config.samples, context.mesh, data
    ),
    policy_params,
    data.pairs(prepare.TRAIN),
    data.vocabulary,
    config.num_sampled_sources,
    chrf_beta=config.corruptions.chrf_beta,
    seed=stage.seed,
  )


def _pretrain(
  stage: TrainReward,
  context: context_lib.Context,
  fitter: learned_training.Fitter,
  params: types.Params,
  texts: corruptions_lib.ScoredTexts,
  directory: pathlib.Path,
) -> tuple[types.Params, dict[str, Any]]:
  """Fits chrF; returns parameters and the manifest's entry."""
  config = stage.config
  assert config.pretrain is not None
  scale = learned_rows.Scale.of('corruptions', texts.scores)
  validation = _corruptor(
    config, context.data, prepare.VALIDATION, stage.seed
  ).scored(config.max_selection_rows)
  params, summary = fitter.fit(
    config.pretrain,
    params=params,
    texts=texts,
    weights=None,
    scale=scale,
    loss=config.loss,
    chosen_by=validation,
    within_source=config.choose_within_source,
    directory=directory,
    description='reward: pre-training',
  )
  return params, {**summary, 'scale': dataclasses.asdict(scale)}


def _agreements(
  fitter: learned_training.Fitter,
  params: types.Params,
  parts: dict[str, ratings_lib.Ratings],
  num_resamples: int,
) -> dict[str, dict[str, Any]]:
  """Compares rewards with the ratings of dev and test, by part and split."""
  found = {}
  for name, part in parts.items():
    for split in (reward_stage.DEV, reward_stage.TEST):
      if split not in part.split:
        continue
      rated = part.select(split)
      result = agreement_lib.agreement(
        fitter.score(params, learned_texts.rated(rated)),
        rated.score,
        rated.source,
        num_resamples=num_resamples,
      )
      found[name + split] = result
      logging.info('reward: %s%s, %s', name, split, agreement_lib.line(result))
  return found
