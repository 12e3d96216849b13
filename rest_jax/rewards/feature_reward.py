"""A linear reward of text features, fitted to ratings within sources.

R(x, y) = w . phi(x, y), where phi has the numbers of `text_features`, and the
words, bigrams and trigrams of y. w is fitted by least squares to ratings, each
minus the mean of its source, from features minus those of the same source's
mean, with a penalty on |w|^2. It thus learns which of several hypotheses of one
source is better, not which sources are hard.

It reads no reference, needs no accelerator, and is fitted when it is loaded.
"""

import collections
from collections.abc import Sequence
import dataclasses
from typing import TYPE_CHECKING

from absl import logging
from jaxtyping import Float32
import numpy as np

from rest_jax import settings
from rest_jax.data import pair_store
from rest_jax.data import ratings as ratings_lib
from rest_jax.evaluation import within_source
from rest_jax.rewards import base, held_out, text_features
from rest_jax.rewards import reward_agreement as agreement_lib

if TYPE_CHECKING:  # It takes half a second to import.
  from scipy import sparse

_MIN_COUNT = 3  # Rated hypotheses that an n-gram must occur in.
# Scale of the numbers beside the n-grams: the penalty is meant for the latter.
_SCALE = 0.3
# Relative error of the least squares.
_TOLERANCE = 1e-12
_MAX_ITERATIONS = 10_000
# Resamples for the interval that `must_agree` reads; it is made at every load.
_RESAMPLES = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureReward(base.NeedsOfParts):
  """Settings of a linear reward of text features.

  Attributes:
    ratings: the ratings to learn from, those of split train.
    max_pairs: number of training pairs of D, evenly spread, from which words,
      their translations and frequent n-grams are known; None for all.
    penalty: penalty on the squared weights of n-grams, above 0.
    must_agree: stop the run if the reward is not above chance on the dev
      ratings.
    name: name of the reward.
  """

  ratings: ratings_lib.RatingsSource
  max_pairs: int | None = 100_000
  penalty: float = 3.0
  must_agree: bool = settings.recorded(default=True)
  name: str = 'features'

  def __post_init__(self):
    settings.positive(self, 'penalty')
    settings.at_least(self, 1, 'max_pairs', none='all pairs')

  def check(self) -> str:
    train = self._read().select(ratings_lib.TRAIN)
    _check_varies(self.name, train)
    return f'linear in text features, from {len(train):,} ratings'

  def _read(self) -> ratings_lib.Ratings:
    rated = self.ratings.read()
    ratings_lib.check_splits(rated, ratings_lib.place(self.ratings))
    return rated

  def load(self, resources: base.Resources) -> 'LinearReward':
    """Fits the reward; takes seconds to minutes of one core."""
    rated, pairs = self._read(), resources.pairs
    train = rated.select(ratings_lib.TRAIN)
    texts = pair_store.texts_of(
      pairs, pair_store.spread_rows(len(pairs), self.max_pairs)
    )
    # Repeated pairs say nothing new.
    sources, references = zip(
      *dict.fromkeys(zip(*texts, strict=True)), strict=True
    )
    logging.info(
      'reward %s: learns from %d pairs and %d ratings',
      self.name,
      len(sources),
      len(train),
    )
    features = text_features.TextFeatures(sources, references)
    described = [self.penalty, sources, references, train.source]
    described += [train.hypothesis, train.score.tolist(), train.weight.tolist()]
    reward = LinearReward(
      self.name,
      features,
      train,
      penalty=self.penalty,
      digest=base.digest_of(described),
    )
    reward.refusal = self._refusal(reward, rated)
    return reward

  def _refusal(
    self, reward: 'LinearReward', rated: ratings_lib.Ratings
  ) -> str | None:
    """Returns why the reward must not be followed; None if it may."""
    if not self.must_agree:
      return None
    agreement = held_out.agreement(
      lambda dev: reward.score(dev.source, dev.hypothesis),
      {'': rated},
      name=f'reward {self.name}',
      num_resamples=_RESAMPLES,
      splits=(ratings_lib.DEV,),
    )
    for message in agreement_lib.warnings(agreement):
      logging.warning('reward %s: %s', self.name, message)
    return agreement_lib.refusal(
      agreement,
      what=f'the reward {self.name!r}',
      remedy='or raise FeatureReward.penalty. To use the reward as it is: '
      'FeatureReward.must_agree = False (--gin.FeatureReward.must_agree=False).',
    )


class LinearReward(base.NeedsOfParts):
  """The fitted reward; see `base.Reward`.

  Attributes:
    weights: weights of the numbers, by their names, per standard deviation
      within a source.
    refusal: see `base.check_agreement`.
  """

  refusal: str | None = None

  def __init__(
    self,
    name: str,
    features: text_features.TextFeatures,
    train: ratings_lib.Ratings,
    *,
    penalty: float,
    digest: str = '',
  ):
    """Fits the reward.

    Args:
      name: name of the reward.
      features: computes the numbers.
      train: ratings to learn from.
      penalty: see `FeatureReward`.
      digest: digest of all that it is fitted to.

    Raises:
      ValueError: no source has hypotheses with different ratings.
    """
    self.name = name
    self.digest = digest
    self._features = features
    self._columns = _frequent(train.hypothesis)
    _check_varies(name, train)
    within = _within_sources(train)
    ratings = within @ train.score.astype(np.float64)
    numbers = features(train.source, train.hypothesis)
    spread = (within @ numbers).std(axis=0)
    self._scale = np.where(spread > 1e-9, _SCALE / np.maximum(spread, 1e-9), 0)
    matrix = self._matrix(numbers, train.hypothesis)
    self._weights = _ridge(within, matrix, ratings / ratings.std(), penalty)
    fitted = self._weights[: len(text_features.NAMES)] * _SCALE
    self.weights = dict(zip(text_features.NAMES, fitted.tolist(), strict=True))

  def _matrix(
    self, numbers: np.ndarray, hypotheses: Sequence[str]
  ) -> 'sparse.csr_array':
    """Returns scaled numbers and n-grams, [n, columns]."""
    from scipy import sparse

    rows, columns, values = [], [], []
    for row, text in enumerate(hypotheses):
      grams = _distinct(text)
      known = [self._columns[gram] for gram in grams if gram in self._columns]
      rows += [row] * len(known)
      columns += known
      values += [len(grams) ** -0.5] * len(known)
    shape = len(hypotheses), len(self._columns)
    grams = sparse.csr_array((values, (rows, columns)), shape=shape)
    scaled = sparse.csr_array(numbers * self._scale)
    return sparse.csr_array(sparse.hstack([scaled, grams]))

  def score(
    self,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: base.References = None,
  ) -> Float32[np.ndarray, ' n']:
    """Scores each hypothesis; see `base.Reward.score`.

    The unit is the standard deviation of ratings within a source.
    """
    del references
    base.check_texts(sources, hypotheses)
    if not len(sources):
      return np.zeros(0, np.float32)
    # Each distinct pair once: samples of a source are often equal.
    pairs = list(zip(sources, hypotheses, strict=True))
    place = {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}
    x, y = zip(*place, strict=True)
    rewards = self._matrix(self._features(x, y), y) @ self._weights
    rewards = rewards[[place[pair] for pair in pairs]].astype(np.float32)
    base.check_finite(self.name, sources, hypotheses, rewards)
    return rewards


def _check_varies(name: str, train: ratings_lib.Ratings) -> None:
  """Raises ValueError if no source has hypotheses with different ratings."""
  groups = agreement_lib.grouped(train.source)
  if not within_source.centred(train.score, groups).any():
    raise ValueError(
      f'reward {name!r} learns the order of hypotheses of one source; got no '
      f'source with different ratings among {len(train)} ratings. Rate '
      'several hypotheses per source.'
    )


def _within_sources(rated: ratings_lib.Ratings) -> 'sparse.csr_array':
  """Returns the matrix that subtracts the mean of a row's source.

  Means are weighted by annotators, and rows are multiplied by the root of their
  weight, as least squares needs.
  """
  from scipy import sparse

  group = agreement_lib.grouped(rated.source)
  rows = np.arange(len(group))
  weight = (rated.weight / rated.weight.mean()).astype(np.float64)
  share = weight / np.bincount(group, weight)[group]
  mean = sparse.csr_array((share, (group, rows)))
  spread = sparse.csr_array((np.ones(len(group)), (rows, group)))
  root = sparse.diags_array(np.sqrt(weight))
  return sparse.csr_array(root @ (sparse.eye_array(len(group)) - spread @ mean))


def _ridge(
  within: 'sparse.csr_array',
  matrix: 'sparse.csr_array',
  target: np.ndarray,
  penalty: float,
) -> np.ndarray:
  """Minimises |within matrix w - target|^2 + penalty |w|^2 over w.

  Raises:
    FloatingPointError: the minimum is not found.
  """
  from scipy.sparse import linalg

  weights, reason, iterations, *_ = linalg.lsqr(
    linalg.aslinearoperator(within) @ linalg.aslinearoperator(matrix),
    target,
    damp=penalty**0.5,
    atol=_TOLERANCE,
    btol=_TOLERANCE,
    conlim=0,
    iter_lim=_MAX_ITERATIONS,
  )
  if reason > 2:  # 1 and 2: solved, exactly and as least squares.
    raise FloatingPointError(
      f'the least squares of a FeatureReward must converge; got no solution in '
      f'{iterations:,} iterations. Raise FeatureReward.penalty.'
    )
  return weights


def _frequent(hypotheses: Sequence[str]) -> dict[tuple[str, ...], int]:
  """Numbers the n-grams that occur in several hypotheses."""
  counts = collections.Counter(
    gram for text in hypotheses for gram in _distinct(text)
  )
  kept = [gram for gram, count in counts.items() if count >= _MIN_COUNT]
  return {gram: column for column, gram in enumerate(kept)}


def _distinct(text: str) -> dict[tuple[str, ...], None]:
  """Returns the distinct n-grams of a text, in order of appearance."""
  return dict.fromkeys(text_features.ngrams(text_features.split(text)))
