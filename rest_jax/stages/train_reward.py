"""Stage `reward`: fits the learned reward R(x, y) to ratings."""

from collections.abc import Iterator
import dataclasses
import functools
import pathlib
from typing import Any

import jax

from rest_jax import settings as settings_lib
from rest_jax import types
from rest_jax.data import ratings as ratings_lib
from rest_jax.data import task as task_lib
from rest_jax.losses import regression
from rest_jax.models import policy as policy_lib
from rest_jax.models import scalar
from rest_jax.parallel import processes
from rest_jax.rewards import corruptions as corruptions_lib
from rest_jax.rewards import (
  held_out,
  learned_references,
  learned_rows,
  learned_texts,
  learned_training,
)
from rest_jax.rewards import reward_agreement as agreement_lib
from rest_jax.stages import base, draw_samples, policies, prepare, text_record
from rest_jax.stages import context as context_lib
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import rated_samples as rated_samples_lib
from rest_jax.stages import reward as reward_stage

PRETRAIN = 'pretrain'


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TrainReward(base.Stage):
  """Trains a reference-free reward model and measures its agreement.

  The model is BC with a scalar head. It is trained on graded corruptions of
  references, then on ratings. Ratings are standardised by their train split and
  weighted by their number of annotators.

  Source: ReST (arXiv 2308.08998), A.4, for a learned, reference-free reward of
  the whole translation.

  Note: the training of the paper's reward model is not published. This recipe
  is ours, after BLEURT (arXiv 2004.04696).

  The manifest has, under 'agreement', the agreement with the ratings of 'dev'
  and 'test', and with the ratings of samples, 'sampled dev' and 'sampled test';
  see `reward_agreement.agreement`. `make` raises ValueError for ratings without
  a train or dev split, or without variation.

  Attributes:
    ratings: the ratings, with the splits train and dev, and optionally test;
      None only for the folder of another run.
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
      self.check_finished(context)

  def check_finished(self, context: context_lib.Context) -> None:
    text_record.warn_of_changes(self.folder)
    if message := reward_stage.refusal(self.config, self.folder):
      raise ValueError(message)

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
    config, data = self.config, context.data
    bc = draw_samples.LoadedPolicy.of_stage(self.bc, context)
    parts = self._ratings(bc, output.path)
    rated = ratings_lib.join(list(parts.values()))
    train = rated.select(ratings_lib.TRAIN)
    scale = learned_rows.Scale.of('the ratings of split train', train.score)
    targets, by_chrf = learned_texts.rated(train), None
    if config.references is not None:
      targets, by_chrf = learned_references.teach(
        config.references, train, chrf_beta=config.corruptions.chrf_beta
      )
    unknown_pieces = learned_rows.coverage(
      data.vocabulary, rated.source + rated.hypothesis, warn=output.warn
    )
    network = reward_stage.trained_network(config, bc.network.config)
    model = scalar.ScalarModel(network, pooling=config.pooling)
    fitter = learned_training.Fitter(
      model, data.vocabulary, config.scoring, context.mesh
    )
    params = model.init_from_policy(bc.params, jax.random.key(self.seed))
    params, pretraining = self._pretrained(
      fitter, params, bc, by_chrf, output.path / PRETRAIN
    )
    params, summary = fitter.fit(
      config.finetune,
      params=params,
      fitted=learned_training.FitTexts(targets, scale, train.weight),
      chosen_by=learned_training.HeldOutTexts(
        learned_texts.spread(
          learned_texts.rated(rated.select(ratings_lib.DEV)),
          config.max_selection_rows,
        ),
        config.choose_within_source,
      ),
      loss=config.loss,
      directory=output.path,
      description='reward: ratings',
      warn=output.warn,
    )
    agreement = held_out.agreement(
      lambda rated: fitter.score(params, learned_texts.rated(rated)),
      parts,
      name='reward',
      num_resamples=config.num_resamples,
    )
    for message in agreement_lib.warnings(agreement):
      output.warn(message)
    return {
      'agreement': agreement,
      'params_digest': summary['params_digest'],
      'training': summary,
      'rating_scale': dataclasses.asdict(scale),
      'ratings': {
        name + ratings_lib.TRAIN: part.split.count(ratings_lib.TRAIN)
        for name, part in parts.items()
      },
      text_record.FIELD: processes.by_main(
        'ratings', lambda: text_record.of_files(_files(self.ratings))
      ),
      'pretraining': pretraining,
      'corruptions': learned_texts.probe(
        functools.partial(fitter.score, params),
        self._corruptor(data, task_lib.VALIDATION),
        config.max_selection_rows,
      ),
      'network': settings_lib.describe(model.config),
      'pooling': model.pooling,
      'num_params': policy_lib.num_params(params),
      'scoring': settings_lib.describe(config.scoring),
      'vocabulary': {'digest': data.vocabulary.digest, **unknown_pieces},
      'policy_digest': policies.digest(self.bc.folder),
    }

  def _ratings(
    self, bc: draw_samples.LoadedPolicy, directory: pathlib.Path
  ) -> dict[str, ratings_lib.Ratings]:
    """Returns the ratings by the prefix of their splits, see `read_ratings`."""
    assert self.ratings is not None  # `Experiment` refuses it.
    parts = {'': self.ratings.read()}
    # Refuses wrong splits now, not after hours of pre-training.
    ratings_lib.check_splits(parts[''], ratings_lib.place(self.ratings))
    if self.config.rated_samples is not None:
      parts[agreement_lib.SAMPLED] = rated_samples_lib.collect_ratings(
        self.config.rated_samples,
        directory=directory,
        loaded=bc,
        known=dict(zip(parts[''].source, parts[''].split, strict=True)),
        seed=self.seed,
      )
    return parts

  def _corruptor(
    self, data: prepare.PreparedData, split: str
  ) -> corruptions_lib.Corruptor:
    """Makes a corruptor of the references of a split."""
    config, is_train = self.config, split == task_lib.TRAIN
    return learned_texts.corruptor(
      config.corruptions,
      data.pairs(split),
      config.num_corruptions if is_train else config.max_selection_rows,
      per_reference=config.loss.hypotheses_per_row,
      seed=self.seed,
    )

  def _pretraining_texts(
    self, bc: draw_samples.LoadedPolicy
  ) -> corruptions_lib.ScoredTexts:
    """Returns corruptions of training references, and samples of BC if set."""
    config, data = self.config, bc.data
    texts = self._corruptor(data, task_lib.TRAIN).scored(config.num_corruptions)
    if config.samples is None:
      return texts
    return texts + learned_texts.samples(
      draw_samples.policy_sampler(
        bc.network, config.samples, bc.mesh_config, data
      ),
      bc.params,
      data.pairs(task_lib.TRAIN),
      data.vocabulary,
      config.num_sampled_sources,
      chrf_beta=config.corruptions.chrf_beta,
      seed=self.seed,
    )

  def _pretrained(
    self,
    fitter: learned_training.Fitter,
    params: types.Params,
    bc: draw_samples.LoadedPolicy,
    by_chrf: corruptions_lib.ScoredTexts | None,
    directory: pathlib.Path,
  ) -> tuple[types.Params, dict[str, Any] | None]:
    """Fits chrF, if set; returns the parameters and the manifest's entry."""
    config = self.config
    if config.pretrain is None:
      return params, None
    texts = self._pretraining_texts(bc)
    if by_chrf is not None:
      texts += by_chrf
    scale = learned_rows.Scale.of('corruptions', texts.scores)
    params, summary = fitter.fit(
      config.pretrain,
      params=params,
      fitted=learned_training.FitTexts(texts, scale),
      chosen_by=learned_training.HeldOutTexts(
        self._corruptor(bc.data, task_lib.VALIDATION).scored(
          config.max_selection_rows
        ),
        config.choose_within_source,
      ),
      loss=config.loss,
      directory=directory,
      description='reward: pre-training',
    )
    return params, {**summary, 'scale': dataclasses.asdict(scale)}

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


def _files(ratings: ratings_lib.RatingsSource | None) -> list[str]:
  path = getattr(ratings, 'path', None)
  return [] if path is None else [str(path)]
