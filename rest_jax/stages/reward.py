"""The learned reward R(x, y): its settings, and loading of the trained model.

`train_reward` has the stage that trains it.
"""

import dataclasses
import pathlib

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
from rest_jax.training import trainer as trainer_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardStage(rewards_base.NeedsOfParts):
  """Settings of the learned reward and its training.

  Attributes:
    finetune: training on ratings; the checkpoint that agrees best with the dev
      ratings is kept.
    pretrain: training on corruptions before `finetune`; the checkpoint that
      agrees best with chrF on validation pairs is kept. None for no
      pre-training.
    corruptions: how references are made worse.
    num_corruptions: number of corruptions for pre-training, spread over the
      references.
    samples: sampling settings for samples of BC to pre-train on as well, scored
      by chrF like the corruptions; None for none.
    num_sampled_sources: number of training sources for `samples`.
    rated_samples: samples of BC that are rated and trained on, in addition to
      the task's ratings; None for none.
    references: how references in the ratings are trained on, if there are any;
      None for not at all.
    loss: loss of both trainings: `Regression`, or `WithinSource`, which also
      learns the order of the hypotheses of one source.
    max_selection_rows: approximate number of dev ratings, and of corruptions of
      validation references, for choosing checkpoints, as whole sources. The
      report uses all ratings.
    dropout_rate: dropout rate of both trainings; None for the policy's.
    pooling: 'last', 'mean' or 'likelihood', see `ScalarModel`.
    scoring: maximum lengths, and shapes of scoring batches.
    num_resamples: number of resamples for bootstrap intervals.
    choose_within_source: choose checkpoints by the share of pairs of one source
      that are ordered as rated, if there are enough pairs; else by Pearson's
      correlation.
    must_agree: stop the run if the reward is not above chance on the dev
      ratings. It may be changed after the training.
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
        continue  # Buckets that are only counted will hold the longest row.
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

  def check(self) -> str:
    return f'learned from ratings, {self.finetune.max_steps} steps'

  def load(self, resources: rewards_base.Resources) -> learned.LearnedReward:
    """Loads the model of the finished stage."""
    reward = load(resources.trained, resources.vocabulary, resources.mesh)
    reward.refusal = refusal(self, resources.trained)
    return reward


def trained(config: rewards_base.RewardConfig) -> RewardStage | None:
  """Returns the part of a reward that is trained; None if no part is.

  Raises:
    ValueError: several parts are trained; a run has one folder for them.
  """
  parts: list[RewardStage] = []
  for part in rewards_base.all_parts(config):
    if isinstance(part, RewardStage) and part not in parts:
      parts.append(part)
  if len(parts) > 1:
    raise ValueError(
      f'reward must have at most one part that is trained; got {len(parts)} '
      'RewardStage. Train the others in separate runs.'
    )
  return parts[0] if parts else None


def trained_network(
  config: RewardStage, network: network_lib.NetworkConfig
) -> network_lib.NetworkConfig:
  """Returns the policy's network with the dropout rate of this stage."""
  if config.dropout_rate is None:
    return network
  return dataclasses.replace(network, dropout_rate=config.dropout_rate)


def read_ratings(
  ratings: ratings_lib.RatingsSource, directory: pathlib.Path
) -> dict[str, ratings_lib.Ratings]:
  """Reads the task's ratings, and the ratings of samples in a stage's folder.

  Returns:
    The ratings by the prefix of their splits: '' and, if any,
    `reward_agreement.SAMPLED`.
  """
  parts = {'': ratings.read()}
  sampled = rated_samples_lib.read(directory)
  if sampled is not None:
    parts[agreement_lib.SAMPLED] = sampled
  return parts


def refusal(config: RewardStage, directory: pathlib.Path) -> str | None:
  """Returns why a trained reward must not be followed; None if it may.

  Args:
    config: settings; nothing is refused without `must_agree`.
    directory: finished folder of this stage, or of a refreshed model.
  """
  if not config.must_agree:
    return None
  return agreement_lib.refusal(
    folder_lib.read_manifest(directory).get('agreement', {}),
    what=f'the reward of {directory}',
    remedy='(RewardStage.rated_samples), or train longer. To use the reward as '
    'it is, without another training: RewardStage.must_agree = False '
    '(--gin.REWARD_MUST_AGREE=False).',
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
    vocabulary: vocabulary of the policy, with which the model was trained.
    scoring: shapes of scoring batches; None for those of the training.

  Returns:
    The reward, in standard deviations of the ratings it was trained on.

  Raises:
    FileNotFoundError: the stage is not finished.
    ValueError: the vocabulary is another one, or the arrays are damaged.
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
  """Loads a trained reward model as `load` does, also to train it further."""
  manifest = folder_lib.read_manifest(directory)
  if vocabulary.digest != manifest['vocabulary']['digest']:
    raise ValueError(
      f'the reward model of {directory} was trained with another vocabulary '
      f'({manifest["vocabulary"]["digest"][:12]}) than the given one '
      f'({vocabulary.digest[:12]}): token ids mean other pieces. Use the '
      'data_dir it was trained with, or train a reward model on these data.'
    )
  model = scalar.ScalarModel(
    network_config.from_described(manifest['network']),
    # Earlier versions only had 'last'.
    pooling=manifest.get('pooling', 'last'),
  )
  described = manifest['scoring']
  scoring = scoring_plan.ScoringConfig(
    **{key: value for key, value in described.items() if key != 'is'}
  )
  fitter = learned_training.Fitter(model, vocabulary, scoring, mesh_config)
  return fitter, policies.load(directory, model, mesh_config)
