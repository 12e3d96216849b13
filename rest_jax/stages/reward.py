"""The learned reward R(x, y): its settings, and what a finished one can do.

It is trained by the stage of `train_reward`.
"""

import dataclasses
import pathlib
from typing import Any

from rest_jax import settings as settings_lib
from rest_jax import types
from rest_jax.data import ratings as ratings_lib
from rest_jax.data import vocabularies
from rest_jax.losses import regression
from rest_jax.models import network as network_lib
from rest_jax.models import network_config, scalar
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import corruptions as corruptions_lib
from rest_jax.rewards import (
  learned,
  learned_references,
  learned_training,
  scoring_plan,
)
from rest_jax.rewards import reward_agreement as agreement_lib
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import policies
from rest_jax.stages import rated_samples as rated_samples_lib
from rest_jax.training import checkpoints
from rest_jax.training import trainer as trainer_lib

TRAIN, DEV, TEST = 'train', 'dev', 'test'
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
  scoring: scoring_plan.ScoringConfig = dataclasses.field(
    default_factory=scoring_plan.ScoringConfig
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
  scoring: scoring_plan.ScoringConfig | None = None,
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
    network_config.from_described(manifest['network']),
    # Versions before had the one way.
    pooling=manifest.get('pooling', 'last'),
  )
  params = checkpoints.load_params(
    directory,
    manifest['training']['best_step'],
    policies.abstract_params(model, mesh_config),
  )
  scoring = scoring_plan.ScoringConfig(**_fields(manifest['scoring']))
  return (
    learned_training.Fitter(model, vocabulary, scoring, mesh_config),
    params,
  )


def _fields(described: dict[str, Any]) -> dict[str, Any]:
  """The fields of a dataclass that `settings.describe` described."""
  return {key: value for key, value in described.items() if key != 'is'}
