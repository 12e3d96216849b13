"""Fitting a scalar model to scored texts, and scoring texts with it."""

from collections.abc import Callable
import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from rest_jax import types
from rest_jax.data import vocabularies
from rest_jax.evaluation import correlations
from rest_jax.evaluation import within_source as ranking_lib
from rest_jax.losses import regression
from rest_jax.models import scalar
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.rewards import (
  base,
  corruptions,
  learned,
  learned_rows,
  scoring_plan,
)
from rest_jax.rewards import reward_agreement as agreement_lib
from rest_jax.training import loader
from rest_jax.training import trainer as trainer_lib

# Rows per device in a pass with dropout.
_UNCERTAINTY_ROWS = 64


@dataclasses.dataclass(frozen=True)
class FitTexts:
  """What a model is fitted to.

  Attributes:
    texts: n texts and their scores.
    scale: scale of the scores; the model predicts standardised ones.
    weights: float [n], one per text; None for equal weights.
  """

  texts: corruptions.ScoredTexts
  scale: learned_rows.Scale
  weights: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class HeldOutTexts:
  """What checkpoints are chosen by: agreement with the scores of m texts.

  Attributes:
    texts: held-out texts and their scores.
    within_source: measure agreement by pairs of one source, if enough sources
      have such pairs; otherwise by Pearson's correlation.
    beside: float [m], other parts of the reward, in standard deviations of the
      scale: added to prediction and score before agreement is measured. None
      for 0.
  """

  texts: corruptions.ScoredTexts
  within_source: bool
  beside: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Fitter:
  """Trains a scalar model and scores texts with it.

  Attributes:
    model: the model.
    vocabulary: its vocabulary.
    scoring: maximum lengths, and shapes of scoring.
    mesh_config: devices and sharding rules.
  """

  model: scalar.ScalarModel
  vocabulary: vocabularies.Vocabulary
  scoring: scoring_plan.ScoringConfig
  mesh_config: mesh_lib.MeshConfig

  def fit(
    self,
    trainer: trainer_lib.TrainerConfig,
    *,
    params: types.Params,
    fitted: FitTexts,
    chosen_by: HeldOutTexts,
    loss: regression.Regression,
    directory: pathlib.Path,
    description: str,
    warn: Callable[[str], None] | None = None,
  ) -> trainer_lib.TrainResult:
    """Trains the model to predict standardised scores.

    Args:
      trainer: number of steps, optimiser, batches.
      params: initial parameters.
      fitted: texts and scores to fit.
      chosen_by: texts that choose the checkpoint that is kept.
      loss: weighted least squares, alone or with order within a source.
      directory: folder of the training.
      description: label of the progress bar.
      warn: called if many rows were truncated; None logs it.

    Returns:
      The parameters of the best checkpoint, and a summary with the number of
      `truncated` rows.
    """
    texts = fitted.texts
    rows = learned_rows.RewardRows.of_texts(
      description,
      texts._replace(scores=fitted.scale(texts.scores)),
      vocabulary=self.vocabulary,
      scoring=self.scoring,
      weights=fitted.weights,
      hypotheses_per_row=loss.hypotheses_per_row,
      ids=self.model.config.special_ids,
      warn=warn,
    )
    # A batch of rows of N hypotheses has as many target tokens as one of N = 1.
    tokens_per_batch = trainer.tokens_per_batch // rows.members.shape[1]
    trainer = dataclasses.replace(
      trainer, tokens_per_batch=max(tokens_per_batch, 1)
    )
    result = trainer_lib.train(
      trainer,
      trainer_lib.Learner(model=self.model, params=params, loss=loss),
      batches=self._batches(trainer, loss, rows),
      mesh_config=self.mesh_config,
      directory=directory,
      evaluate_fn=self._agreement(fitted.scale, chosen_by),
      description=description,
    )
    return result._replace(
      summary={**result.summary, 'truncated': rows.truncated}
    )

  def _batches(
    self,
    trainer: trainer_lib.TrainerConfig,
    loss: regression.Regression,
    rows: learned_rows.RewardRows,
  ) -> loader.BucketedBatches:
    normalizers = loss.row_normalizers(
      lengths=rows.of_members(rows.target_tokens.lengths),
      weights=rows.of_members(rows.weights),
      rewards=rows.of_members(rows.scores),
    )
    return trainer.batches(
      loader.Rows(
        source_lengths=rows.source_lengths,
        target_lengths=rows.target_lengths,
        load=rows.load,
        normalizers=normalizers,
        pad=self.model.config.special_ids.pad,
      ),
      self.mesh_config.build(),
    )

  def score(
    self, params: types.Params, texts: corruptions.ScoredTexts
  ) -> np.ndarray:
    """Returns the reward of each text, float32 [n]."""
    scorer = learned.Scorer(self.model, self.mesh_config)
    return self._score(scorer, params, self._plan(texts), texts)

  def uncertainty(
    self,
    params: types.Params,
    texts: corruptions.ScoredTexts,
    *,
    dropout_rate: float,
    num_draws: int,
    seed: int,
  ) -> np.ndarray:
    """Returns the standard deviation of each text's reward under dropout.

    Source: Gal and Ghahramani, Dropout as a Bayesian Approximation (arXiv
    1506.02142), section 4.

    Args:
      params: parameters of the model.
      texts: n texts; their scores are ignored.
      dropout_rate: in (0, 1).
      num_draws: number of passes, at least 2.
      seed: seed of the passes.

    Returns:
      float32 [n], in the unit of the reward.
    """
    config = dataclasses.replace(self.model.config, dropout_rate=dropout_rate)
    draw = _spread_of_draws(
      dataclasses.replace(self.model, config=config), num_draws
    )
    rows = learned_rows.RewardRows.of_texts(
      'uncertainty',
      texts,
      vocabulary=self.vocabulary,
      scoring=self.scoring,
      ids=self.model.config.special_ids,
    )
    mesh = self.mesh_config.build()
    num_rows = _UNCERTAINTY_ROWS * mesh_lib.num_parts(mesh)
    lengths = (rows.source_tokens.lengths, rows.target_tokens.lengths)
    length = int(np.max(lengths))
    count = len(texts.sources)

    deviations = np.empty(count, np.float32)
    with mesh_lib.use(mesh, self.mesh_config.rules):
      for number, start in enumerate(range(0, count, num_rows)):
        chosen = np.arange(start, min(start + num_rows, count))
        batch = rows.load(np.resize(chosen, num_rows), length, length)
        key = jax.random.fold_in(jax.random.key(seed), number)
        spread = draw(params, mesh_lib.put_batch(batch, mesh), key)
        deviations[chosen] = np.asarray(spread)[: len(chosen)]
    base.check_finite(
      'uncertainty', texts.sources, texts.hypotheses, deviations
    )
    return deviations

  def _agreement(
    self,
    scale: learned_rows.Scale,
    held_out: HeldOutTexts,
  ) -> trainer_lib.EvaluateFn:
    """Measures the agreement of parameters with the scores of texts."""
    texts = held_out.texts
    added = 0.0 if held_out.beside is None else held_out.beside
    scorer = learned.Scorer(self.model, self.mesh_config)
    plan = self._plan(texts)
    expected = scale(texts.scores)
    groups = agreement_lib.grouped(texts.sources)

    def evaluate(params: types.Params, step: int) -> dict[str, float]:
      del step
      rewards = self._score(scorer, params, plan, texts)
      pearson = correlations.pearson(rewards + added, expected + added)
      result = {
        'objective': pearson,
        'pearson': pearson,
        'squared_error': float(np.mean(np.square(rewards - expected))),
      }
      ranking = ranking_lib.rank(rewards + added, expected + added, groups)
      if ranking.num_sources >= agreement_lib.MIN_PAIRED_SOURCES:
        accuracy = ranking.pairwise_accuracy.value
        result['pairwise_accuracy'] = accuracy
        if held_out.within_source:
          result['objective'] = accuracy
      return result

    return evaluate

  def _plan(self, texts: corruptions.ScoredTexts) -> scoring_plan.Plan:
    return scoring_plan.plan(
      self.scoring, self.vocabulary, texts.sources, texts.hypotheses
    )

  def _score(self, scorer, params, plan, texts) -> np.ndarray:
    rewards, _ = scorer.score(scorer.place(params), plan)
    base.check_finite('learned', texts.sources, texts.hypotheses, rewards)
    return rewards


def _spread_of_draws(model: scalar.ScalarModel, num_draws: int):
  """Returns a function to the standard deviation of a batch's rewards, [R]."""

  @jax.jit
  def draw(params, batch, key):
    rewards = jax.lax.map(
      lambda of_draw: model.rewards(params, batch, dropout_key=of_draw),
      jax.random.split(key, num_draws),
    )  # [num_draws, R]
    return jnp.std(rewards, axis=0, ddof=1)

  return draw
