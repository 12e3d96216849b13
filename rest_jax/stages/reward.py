"""Stage `reward`: the learned reward R(x, y), fitted to ratings."""

import dataclasses
import functools
import pathlib
from typing import Any

from absl import logging
import jax

from rest_jax import settings as settings_lib
from rest_jax import types
from rest_jax.data import ratings as ratings_lib
from rest_jax.data import vocabularies
from rest_jax.losses import regression
from rest_jax.models import network as network_lib
from rest_jax.models import policy as policy_lib
from rest_jax.models import scalar
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import (
  blocks,
  learned,
  learned_references,
  learned_rows,
  learned_texts,
  learned_training,
)
from rest_jax.rewards import corruptions as corruptions_lib
from rest_jax.rewards import reward_agreement as agreement_lib
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import base, draw_samples, policies, prepare
from rest_jax.stages import context as context_lib
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import rated_samples as rated_samples_lib
from rest_jax.training import checkpoints
from rest_jax.training import trainer as trainer_lib

TRAIN, DEV, TEST = 'train', 'dev', 'test'
PRETRAIN = 'pretrain'
# Before the name of a split: its ratings of samples of the policy.
SAMPLED = 'sampled '


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardStage:
  """How the reward model is trained.

  Attributes:
    finetune: training on ratings; the checkpoint that agrees best with the dev
      ratings is kept.
    pretrain: training on corruptions before it, None for none; the checkpoint
      that agrees best with chrF on validation pairs is kept.
    corruptions: how references are made worse.
    num_corruptions: hypotheses to pre-train on, spread over the references.
    samples: draws hypotheses of the BC policy to pre-train on as well, scored
      by chrF like the corruptions; None for none.
    num_sampled_sources: training sources that are sampled for.
    rated_samples: samples of the BC policy that are rated and learned from
      beside the task's ratings; None for none.
    references: how the references in the ratings are learned from, where there
      are any; None for not at all.
    loss: what both trainings minimise: `Regression`, or `WithinSource` for the
      order of the hypotheses of one source beside it.
    max_selection_rows: dev ratings, and corruptions of validation references,
      by which checkpoints are chosen; about so many, of whole sources. The
      report is on all ratings.
    dropout_rate: of the network in both trainings; None for the policy's.
    pooling: what the reward is made of: 'last', 'mean' or 'likelihood', see
      `ScalarModel`.
    scoring: maximum lengths, and shapes in which texts are scored.
    num_resamples: of the bootstrap intervals.
    choose_within_source: whether checkpoints are chosen by pairs of one source
      that are ordered as scored, where there are enough; by Pearson elsewhere.
    must_agree: whether a run stops at a reward that is not above chance on the
      dev ratings. It may be changed after the training.
  """

  finetune: trainer_lib.TrainerConfig
  pretrain: trainer_lib.TrainerConfig | None = None
  corruptions: corruptions_lib.CorruptionConfig = dataclasses.field(
    default_factory=corruptions_lib.CorruptionConfig
  )
  num_corruptions: int = 100_000
  samples: sampler_lib.DecodeConfig | None = None
  num_sampled_sources: int = 2_000
  rated_samples: rated_samples_lib.RatedSamples | None = None
  references: learned_references.RatedReferences | None = None
  loss: regression.Regression = dataclasses.field(
    default_factory=regression.Regression
  )
  max_selection_rows: int = 2_000
  dropout_rate: float | None = None
  pooling: str = 'last'
  scoring: blocks.ScoringConfig = dataclasses.field(
    default_factory=blocks.ScoringConfig
  )
  num_resamples: int = 1_000
  choose_within_source: bool = True
  must_agree: bool = settings_lib.recorded(default=True)

  def __post_init__(self):
    settings_lib.at_least(
      self,
      1,
      'num_corruptions',
      'num_sampled_sources',
      'max_selection_rows',
      'num_resamples',
    )
    settings_lib.one_of(self, scalar.POOLINGS, 'pooling')
    longest = max(
      self.scoring.max_source_length, self.scoring.max_target_length
    )
    for name in ('pretrain', 'finetune'):
      trainer = getattr(self, name)
      if trainer is None or isinstance(trainer.buckets, int):
        continue  # A number of buckets is chosen to hold the longest row.
      if max(trainer.buckets) < longest:
        raise ValueError(
          f'{name}.buckets must hold the {longest} tokens that scoring reads; '
          f'got {trainer.buckets}.'
        )
    if self.samples is not None and self.pretrain is None:
      raise ValueError(
        'samples are for pre-training; got samples without pretrain. Set '
        'pretrain, or leave samples out.'
      )
    if (
      self.references is not None
      and self.references.pretrain
      and self.pretrain is None
    ):
      raise ValueError(
        'references.pretrain is for pre-training; got it without pretrain. Set '
        'pretrain, or references.pretrain = False.'
      )

  @property
  def name(self) -> str:
    return 'learned'

  @property
  def needs_references(self) -> bool:
    return False

  @property
  def parts(self) -> tuple[rewards_base.RewardConfig, ...]:
    return ()

  def check(self) -> str:
    return f'learned from ratings, {self.finetune.max_steps} steps'

  def load(self, resources: rewards_base.Resources) -> learned.LearnedReward:
    """Loads what the finished stage trained."""
    return load(resources.trained, resources.vocabulary, resources.mesh)


def trained(config: rewards_base.RewardConfig) -> RewardStage | None:
  """The part of a reward that has to be trained first; None if none has.

  Raises:
    ValueError: if there are several; a run has one folder for them.
  """
  found: list[RewardStage] = []
  for part in rewards_base.all_parts(config):
    if isinstance(part, RewardStage) and part not in found:
      found.append(part)
  if len(found) > 1:
    raise ValueError(
      f'reward must have at most one part that is trained; got {len(found)} '
      'RewardStage. Train the others in runs of their own.'
    )
  return found[0] if found else None


def trained_network(
  config: RewardStage, network: network_lib.NetworkConfig
) -> network_lib.NetworkConfig:
  """The policy's network with the dropout of this stage."""
  if config.dropout_rate is None:
    return network
  return dataclasses.replace(network, dropout_rate=config.dropout_rate)


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

  config: RewardStage
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
      check_agreement(self.config, self.folder)

  def check_finished(self, context: context_lib.Context) -> None:
    check_agreement(self.config, self.folder)

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


def _train(
  stage: TrainReward,
  ratings: ratings_lib.RatingsSource,
  context: context_lib.Context,
  folder: folder_lib.StageFolder,
) -> dict[str, Any]:
  """Trains and measures; returns the manifest."""
  config, seed, policy_directory = stage.config, stage.seed, stage.bc.folder
  policy, data, mesh_config = context.policy, context.data, context.mesh
  policy_params = policies.load(policy_directory, policy, mesh_config)
  parts = {'': ratings.read()}
  # Before hours of pre-training, not after.
  ratings_lib.check_splits(parts[''], ratings_lib.place(ratings))
  if config.rated_samples is not None:
    parts[SAMPLED] = rated_samples_lib.collect_ratings(
      config.rated_samples,
      directory=folder.path,
      policy=policy,
      params=policy_params,
      data=data,
      known=dict(zip(parts[''].source, parts[''].split, strict=True)),
      mesh_config=mesh_config,
      seed=seed,
    )
  rated = ratings_lib.join(list(parts.values()))
  train, dev = rated.select(TRAIN), rated.select(DEV)
  scale = learned_rows.Scale.of('the ratings of split train', train.score)
  targets, by_chrf = learned_texts.rated(train), None
  if config.references is not None:
    targets, by_chrf = learned_references.teach(
      config.references, train, chrf_beta=config.corruptions.chrf_beta
    )
  covered = learned_rows.coverage(
    data.vocabulary, rated.source + rated.hypothesis, warn=folder.warn
  )
  fitter = learned_training.Fitter(
    scalar.ScalarModel(
      trained_network(config, policy.config), pooling=config.pooling
    ),
    data.vocabulary,
    config.scoring,
    mesh_config,
  )
  params = fitter.model.init_from_policy(policy_params, jax.random.key(seed))
  pretraining = None
  if config.pretrain is not None:
    texts = _pretraining_texts(
      config, data, policy, policy_params, mesh_config, seed
    )
    if by_chrf is not None:
      texts += by_chrf
    params, pretraining = _pretrain(
      fitter, config.pretrain, params, texts, config, data, folder.path, seed
    )
  params, summary = fitter.fit(
    config.finetune,
    params=params,
    texts=targets,
    weights=train.weight,
    scale=scale,
    loss=config.loss,
    chosen_by=learned_texts.spread(
      learned_texts.rated(dev), config.max_selection_rows
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
      name + TRAIN: part.split.count(TRAIN) for name, part in parts.items()
    },
    'pretraining': pretraining,
    'corruptions': learned_texts.probe(
      functools.partial(fitter.score, params),
      _corruptor(config, data, prepare.VALIDATION, seed),
      config.max_selection_rows,
    ),
    'network': settings_lib.describe(fitter.model.config),
    'pooling': fitter.model.pooling,
    'num_params': policy_lib.num_params(params),
    'scoring': settings_lib.describe(config.scoring),
    'vocabulary': {'digest': data.vocabulary.digest, **covered},
    'policy_digest': policies.digest(policy_directory),
  }


def read_ratings(
  ratings: ratings_lib.RatingsSource, directory: pathlib.Path
) -> dict[str, ratings_lib.Ratings]:
  """Reads the task's ratings, and those of samples in a folder of this stage.

  Returns:
    Ratings by what is written before the names of their splits.
  """
  found = {'': ratings.read()}
  sampled_ratings = rated_samples_lib.read(directory)
  if sampled_ratings is not None:
    found[SAMPLED] = sampled_ratings
  return found


def check_agreement(config: RewardStage, directory: str | pathlib.Path) -> None:
  """Raises ValueError if a trained reward is not above chance on dev ratings.

  Args:
    config: nothing is checked unless its `must_agree`.
    directory: a finished folder of this stage, or that in a refresh.
  """
  if not config.must_agree:
    return
  found = folder_lib.read_manifest(directory).get('agreement', {})
  for split in (DEV, SAMPLED + DEV):
    failure = agreement_lib.failure(found.get(split, {}))
    if failure is not None:
      raise ValueError(
        f'the reward of {directory} must agree with held-out ratings; of split '
        f'{split} it has {failure}. Improve steps keep what the reward puts '
        'first, and would follow noise. Rate more hypotheses per source, of '
        'systems near the policy (RewardStage.rated_samples), or train longer. '
        'To use it as it is, without another training: '
        'RewardStage.must_agree = False (--gin.REWARD_MUST_AGREE=False).'
      )


def load(
  directory: str | pathlib.Path,
  vocabulary: vocabularies.Vocabulary,
  mesh_config: mesh_lib.MeshConfig,
  *,
  scoring: blocks.ScoringConfig | None = None,
  name: str = 'learned',
) -> learned.LearnedReward:
  """Loads a trained reward model onto the mesh.

  Args:
    directory: a finished folder of this stage.
    vocabulary: that of the policy, with which the model was trained.
    mesh_config: devices and rules.
    scoring: shapes for this machine; None for those of the training.
    name: of the reward, in files and results.

  Returns:
    The reward, in standard deviations of the ratings it was trained on.

  Raises:
    FileNotFoundError: if the stage has not finished.
    ValueError: if the vocabulary is another one, or the arrays are damaged.
  """
  fitter, params = restore(directory, vocabulary, mesh_config)
  return learned.LearnedReward(
    fitter.model,
    params,
    vocabulary,
    mesh_config,
    config=scoring or fitter.scoring,
    name=name,
    digest=folder_lib.read_manifest(directory)['params_digest'],
  )


def restore(
  directory: str | pathlib.Path,
  vocabulary: vocabularies.Vocabulary,
  mesh_config: mesh_lib.MeshConfig,
) -> tuple[learned_training.Fitter, types.Params]:
  """Loads what a finished folder of this stage can be trained on from.

  Returns:
    The model with its lengths and shapes, and its parameters on the mesh.

  Raises:
    As `load`.
  """
  manifest = folder_lib.read_manifest(directory)
  if vocabulary.digest != manifest['vocabulary']['digest']:
    raise ValueError(
      f'the reward model of {directory} was trained with another vocabulary '
      f'({manifest["vocabulary"]["digest"][:12]}) than that given '
      f'({vocabulary.digest[:12]}): token ids mean other pieces. Give the '
      'data_dir it was trained with, or train a reward model on these data.'
    )
  model = scalar.ScalarModel(
    network_lib.NetworkConfig(**_fields(manifest['network'])),
    # Versions before had the one way.
    pooling=manifest.get('pooling', 'last'),
  )
  params = checkpoints.load_params(
    directory,
    manifest['training']['best_step'],
    policies.abstract_params(model, mesh_config),
  )
  scoring = blocks.ScoringConfig(**_fields(manifest['scoring']))
  return (
    learned_training.Fitter(model, vocabulary, scoring, mesh_config),
    params,
  )


def _fields(described: dict[str, Any]) -> dict[str, Any]:
  """The fields of a dataclass that `settings.describe` described."""
  return {key: value for key, value in described.items() if key != 'is'}


def _corruptor(
  config: RewardStage, data: prepare.PreparedData, split: str, seed: int
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
  config: RewardStage,
  data: prepare.PreparedData,
  policy: policy_lib.Policy,
  policy_params: types.Params,
  mesh_config: mesh_lib.MeshConfig,
  seed: int,
) -> corruptions_lib.ScoredTexts:
  """Corruptions of the train split's references, and samples for its sources."""
  texts = _corruptor(config, data, prepare.TRAIN, seed).scored(
    config.num_corruptions
  )
  if config.samples is None:
    return texts
  return texts + learned_texts.samples(
    draw_samples.policy_sampler(
      policy, config.samples, mesh_config, data.vocabulary
    ),
    policy_params,
    data.pairs(prepare.TRAIN),
    data.vocabulary,
    config.num_sampled_sources,
    chrf_beta=config.corruptions.chrf_beta,
    seed=seed,
  )


def _pretrain(
  fitter: learned_training.Fitter,
  trainer: trainer_lib.TrainerConfig,
  params: types.Params,
  texts: corruptions_lib.ScoredTexts,
  config: RewardStage,
  data: prepare.PreparedData,
  directory: pathlib.Path,
  seed: int,
) -> tuple[types.Params, dict[str, Any]]:
  """Fits chrF; returns parameters and the manifest's entry."""
  scale = learned_rows.Scale.of('corruptions', texts.scores)
  validation = _corruptor(config, data, prepare.VALIDATION, seed)
  params, summary = fitter.fit(
    trainer,
    params=params,
    texts=texts,
    weights=None,
    scale=scale,
    loss=config.loss,
    chosen_by=validation.scored(config.max_selection_rows),
    within_source=config.choose_within_source,
    directory=directory / PRETRAIN,
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
    for split in (DEV, TEST):
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
