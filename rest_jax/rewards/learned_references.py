"""References of ratings as a teacher for a reward model that reads none.

One rater's judgement of a sentence is noisy. If ratings come with references,
chrF to the reference is a second judgement of the same hypothesis. The model
learns from it, and needs no references when it scores: learning with privileged
information (Lopez-Paz et al., arXiv 1511.03643).
"""

import dataclasses

import numpy as np

from rest_jax import settings
from rest_jax.data import ratings as ratings_lib
from rest_jax.rewards import corruptions, learned_rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatedReferences:
  """How a reward model learns from the references of its ratings.

  Attributes:
    pretrain: whether pre-training includes the rated hypotheses of the train
      split, scored by chrF to their references, besides the corruptions.
    weight: w, at least 0, in the fitted score
      standardise(standardise(rating) + w * standardise(chrF)); 0 fits the
      ratings.
  """

  pretrain: bool = True
  weight: float = 1.0

  def __post_init__(self):
    settings.inside(self, '[0, inf)', 'weight')
    if not self.pretrain and self.weight == 0.0:
      raise ValueError(
        'references must be used in pretrain or have a weight above 0; got '
        'neither. Leave references out.'
      )


def teach(
  config: RatedReferences, rated: ratings_lib.Ratings, *, chrf_beta: int
) -> tuple[corruptions.ScoredTexts, corruptions.ScoredTexts | None]:
  """Returns the texts that a reward model is fitted to, with references.

  Args:
    config: how to use the references.
    rated: n ratings of the train split.
    chrf_beta: see `CorruptionConfig`.

  Returns:
    The rated hypotheses with the scores to fit, and with chrF in [0, 1] for
    pre-training, or None without `config.pretrain`.

  Raises:
    ValueError: if a row has no reference, or ratings or chrF do not vary.
  """
  check(rated)
  texts = zip(
    rated.source, rated.hypothesis, rated.reference or [], strict=True
  )
  chrf = corruptions.score_samples(texts, chrf_beta=chrf_beta)
  targets = chrf._replace(
    scores=blended(rated.score, chrf.scores, weight=config.weight)
  )
  return targets, chrf if config.pretrain else None


def check(rated: ratings_lib.Ratings, where: str = 'the ratings') -> None:
  """Raises ValueError if a rating of the train split has no reference."""
  references = rated.reference or [''] * len(rated)
  missing = [row for row, text in enumerate(references) if not text]
  if missing:
    raise ValueError(
      'to learn from references each rating of split train must have one; '
      f'{len(missing)} of {len(rated)} of {where} have none, such as that of '
      f'{rated.source[missing[0]][:80]!r}. Fill in the column `reference`, or '
      'set RewardStage.references = None.'
    )


def blended(
  ratings: np.ndarray, chrf: np.ndarray, *, weight: float
) -> np.ndarray:
  """Combines ratings and chrF, keeping the ratings' mean and deviation.

  Args:
    ratings: float [n].
    chrf: float [n], chrF of the same hypotheses.
    weight: weight of chrF, see `RatedReferences`.

  Returns:
    float32 [n].

  Raises:
    ValueError: if either does not vary.
  """
  scale = learned_rows.Scale.of('the ratings of split train', ratings)
  if weight == 0.0:
    return np.asarray(ratings, np.float32)
  other = learned_rows.Scale.of("chrF to the ratings' references", chrf)
  mixed = scale(ratings).astype(np.float64) + weight * other(chrf)
  mixed = learned_rows.Scale.of('ratings and chrF together', mixed)(mixed)
  return (scale.mean + scale.std * mixed).astype(np.float32)
