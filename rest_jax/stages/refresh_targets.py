"""Targets of a reward's trained part, so that the whole fits ratings."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from rest_jax import types
from rest_jax.data import ratings as ratings_lib
from rest_jax.rewards import (
  base,
  composed,
  corruptions,
  guards,
  learned_rows,
  learned_texts,
  learned_training,
)
from rest_jax.rewards import reward_agreement as agreement_lib

# Minimum number of ratings for a meaningful correlation.
_MIN_REPORTED = 20


@dataclasses.dataclass(frozen=True)
class Whole:
  """A reward that is affine in its trained part, R = slope * t + rest.

  Guards are ignored: texts that they veto are not rated.

  Attributes:
    name: column of R.
    part: column of t.
    slope: dR/dt, above 0; 1 if R is the trained model itself.
  """

  name: str
  part: str
  slope: float

  @classmethod
  def of(cls, config: base.RewardConfig, part: base.RewardConfig) -> 'Whole':
    """Computes the slope from settings.

    Raises:
      ValueError: the reward is not affine in the part.
    """
    while isinstance(config, guards.Guarded):
      config = config.reward
    return cls(config.name, part.name, _slope(config, part))

  def residuals(
    self,
    reward: base.Reward,
    sources: Sequence[str],
    hypotheses: Sequence[str],
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns t and rest / slope of each text, float64 [n] each."""
    columns = base.columns(reward, sources, hypotheses)
    trained = np.asarray(columns[self.part], np.float64)
    if self.name == self.part:
      return trained, np.zeros(len(trained))
    whole = np.asarray(columns[self.name], np.float64)
    return trained, whole / self.slope - trained


def adjusted(
  rated: ratings_lib.Ratings, others: np.ndarray, *, centre: float, std: float
) -> np.ndarray:
  """Returns the targets of the trained part.

  With z the standardised rating, R = slope * t + rest is slope * z + constant
  if t = z - (rest - mean rest) / slope: the trained part corrects the errors of
  the other parts. For a reward without other parts, t = z.

  Args:
    rated: n ratings.
    others: rest / slope of each rated text, float [n].
    centre: mean of `others` over the training ratings.
    std: standard deviation of the ratings, in the definition of z.

  Returns:
    float32 [n], in the unit of the ratings.
  """
  return (rated.score - std * (others - centre)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Targets:
  """Targets of the trained part for old and new ratings, one row per rating.

  Attributes:
    rated: the old ratings, then the new ones.
    num_old: number of old ratings.
    others: float64 [n], contribution of the reward's other parts, in the unit
      of the trained part.
    scores: float32 [n], targets in the unit of the ratings.
    weights: float [n].
    scale: scale of the ratings in the first training.
  """

  rated: ratings_lib.Ratings
  num_old: int
  others: np.ndarray
  scores: np.ndarray
  weights: np.ndarray
  scale: learned_rows.Scale

  @classmethod
  def of(
    cls,
    old: ratings_lib.Ratings,
    new: ratings_lib.Ratings,
    *,
    new_weight: float,
    reward: base.Reward,
    whole: Whole,
    scale: learned_rows.Scale,
  ) -> 'Targets':
    """Computes the targets."""
    rated = ratings_lib.join([old, new])
    _, others = whole.residuals(reward, rated.source, rated.hypothesis)
    is_train = np.array([split == ratings_lib.TRAIN for split in rated.split])
    is_new = np.arange(len(rated)) >= len(old)
    return cls(
      rated=rated,
      num_old=len(old),
      others=others,
      scores=adjusted(
        rated, others, centre=float(others[is_train].mean()), std=scale.std
      ),
      weights=rated.weight * np.where(is_new, new_weight, 1.0),
      scale=scale,
    )

  def rows(self, split: str) -> np.ndarray:
    """Returns the indices of a split's rows, old and new."""
    return np.flatnonzero(np.asarray(self.rated.split) == split)

  def texts(self, rows: np.ndarray) -> corruptions.ScoredTexts:
    """Returns rows with the targets of the trained part."""
    return corruptions.ScoredTexts(
      [self.rated.source[row] for row in rows],
      [self.rated.hypothesis[row] for row in rows],
      self.scores[rows],
    )

  def fitted(self) -> learned_training.FitTexts:
    """Returns the training rows."""
    rows = self.rows(ratings_lib.TRAIN)
    return learned_training.FitTexts(
      self.texts(rows), self.scale, self.weights[rows]
    )

  def held_out(
    self, max_rows: int, *, within_source: bool
  ) -> learned_training.HeldOutTexts:
    """Returns about `max_rows` of the dev rows, as whole sources."""
    rows = self.rows(ratings_lib.DEV)
    sources = [self.rated.source[row] for row in rows]
    rows = rows[learned_texts.spread_rows(sources, max_rows)]
    return learned_training.HeldOutTexts(
      self.texts(rows), within_source, self.others[rows]
    )

  def counts(self, split: str) -> dict[str, int]:
    """Returns the numbers of old and new rows of a split."""
    rows = self.rows(split)
    return {
      'old': int(np.sum(rows < self.num_old)),
      'new': int(np.sum(rows >= self.num_old)),
    }

  def agreement(
    self,
    fitter: learned_training.Fitter,
    params: types.Params,
    *,
    num_resamples: int,
  ) -> dict[str, Any]:
    """Measures the agreement of the whole reward with ratings of dev and test.

    Returns:
      Results of `reward_agreement.agreement` by 'dev' and 'test' for old
      ratings, 'new dev' and 'new test' for new ones; only for splits with
      enough ratings.
    """
    agreement = {}
    for name, is_new in (('', False), ('new ', True)):
      for split in (ratings_lib.DEV, ratings_lib.TEST):
        rows = self.rows(split)
        rows = rows[(rows >= self.num_old) == is_new]
        ratings = self.rated.score[rows]
        if len(rows) < _MIN_REPORTED or np.ptp(ratings) == 0:
          continue
        trained = fitter.score(params, self.texts(rows))
        agreement[name + split] = agreement_lib.agreement(
          trained + self.others[rows],
          ratings,
          [self.rated.source[row] for row in rows],
          num_resamples=num_resamples,
        )
    return agreement


def _slope(config: base.RewardConfig, part: base.RewardConfig) -> float:
  if config == part:
    return 1.0
  if part not in base.all_parts(config):
    return 0.0
  if isinstance(config, composed.Ensemble):
    total = sum(component.weight for component in config.components)
    return sum(
      component.weight
      / (total * (component.high - component.low))
      * _slope(component.reward, part)
      for component in config.components
    )
  raise ValueError(
    'refresh needs a reward that is affine in its trained part; got the '
    f'{type(config).__name__} {config.name!r}. Use the trained reward itself, '
    'an Ensemble with it, or either of them inside Guarded.'
  )
