"""Corruptions of references, scored by chrF, to pre-train reward models.

Human ratings are few and noisy. A reward model therefore first learns from
references with zero or more corruptions; the score is the similarity to the
original reference. As in BLEURT, samples of a policy can be scored in the same
way and added.

Source: Sellam et al., BLEURT (arXiv 2004.04696), section 4, for pre-training on
perturbed sentences with automatic scores; the kinds follow the "unit tests" of
ReST (arXiv 2308.08998), A.4. The ReST paper does not say how its reward model
was trained.
"""

from collections.abc import Iterable, Sequence
import dataclasses
import random
from typing import NamedTuple

from jaxtyping import Float32
import numpy as np
from sacrebleu import metrics as sacrebleu_metrics

from rest_jax import settings
from rest_jax.data import words as words_lib
from rest_jax.rewards import corruption_kinds


class ScoredTexts(NamedTuple):
  """Hypotheses with the scores that a reward model should learn.

  Attributes:
    sources: n texts.
    hypotheses: n texts.
    scores: n numbers in [0, 1], higher is better.
  """

  sources: list[str]
  hypotheses: list[str]
  scores: Float32[np.ndarray, ' n']

  def __add__(self, other: 'ScoredTexts') -> 'ScoredTexts':
    return ScoredTexts(
      self.sources + other.sources,
      self.hypotheses + other.hypotheses,
      np.concatenate([self.scores, other.scores]),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorruptionConfig:
  """How references are made worse, and how that is scored.

  Attributes:
    max_corruptions: maximum number of corruptions; the number is drawn
      uniformly from 0 to this.
    unrelated_share: share of hypotheses, in [0, 1], that are not translations:
      another source's reference, the source, the reference twice, or the empty
      text. The reference twice scores 0, where chrF would give 0.67: a reward
      model that accepts it rewards repetition.
    negations: words that negate a sentence, in the references' language; empty
      for none.
    chrf_beta: weight of recall against precision in chrF. At 1 superfluous text
      costs as much as missing text; at 2, sacrebleu's default, less.
  """

  max_corruptions: int = 6
  unrelated_share: float = 0.1
  negations: tuple[str, ...] = ('not', 'no', 'never')
  chrf_beta: int = 1

  def __post_init__(self):
    settings.make_tuples(self, 'negations')
    settings.at_least(self, 1, 'max_corruptions', 'chrf_beta')
    settings.inside(self, '[0, 1]', 'unrelated_share')


@dataclasses.dataclass(frozen=True, kw_only=True)
class SevereCorruptionConfig(CorruptionConfig):
  """Corruptions that include severe ones, which chrF underrates.

  A severe corruption is a single change: another number, a negation more or
  less, another name, all words in another order, or an added sentence. chrF
  penalises these little, readers do not. Probes (`probes.py`) make the same
  changes, and a reward that learned from them passes those probes more easily
  than it deserves, so look at other probes as well.

  Attributes:
    severe_share: share of hypotheses, in [0, 1], with a severe corruption.
    severe_factor: factor on their chrF, in [0, 1].
    number_words: numbers written as words, in the references' language.
  """

  severe_share: float = 0.3
  severe_factor: float = 0.5
  number_words: tuple[str, ...] = (
    *('two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten'),
  )

  def __post_init__(self):
    super().__post_init__()
    settings.make_tuples(self, 'number_words')
    settings.inside(self, '[0, 1]', 'severe_share', 'severe_factor')
    if self.unrelated_share + self.severe_share > 1.0:
      raise ValueError(
        'severe_share + unrelated_share must be at most 1; got '
        f'{self.severe_share} + {self.unrelated_share}.'
      )


class Chrf:
  """Sentence chrF on the scale [0, 1]."""

  def __init__(self, beta: int):
    self._metric = sacrebleu_metrics.CHRF(beta=beta)

  def __call__(self, hypothesis: str, reference: str) -> float:
    """Returns chrF of character n-grams up to 6; 1 for equal texts."""
    if hypothesis == reference and reference.strip():
      return 1.0
    score = self._metric.sentence_score(hypothesis, [reference]).score
    return min(score / 100.0, 1.0)


class Corruptor:
  """Makes hypotheses of graded quality, which depend on (seed, index) only."""

  def __init__(
    self,
    config: CorruptionConfig,
    sources: Sequence[str],
    references: Sequence[str],
    *,
    seed: int,
  ):
    """Prepares the references.

    Args:
      config: see `CorruptionConfig`.
      sources: n texts.
      references: n texts, none of them empty.
      seed: seed of all corruptions.

    Raises:
      ValueError: if there are fewer than two pairs, the lists differ in length,
        or a reference is empty.
    """
    if len(sources) != len(references) or len(references) < 2:
      raise ValueError(
        'sources and references must be two or more pairs; got '
        f'{len(sources)} sources and {len(references)} references.'
      )
    for row, reference in enumerate(references):
      if not reference.strip():
        raise ValueError(
          f'references must hold text; that of row {row} is empty. Pairs with '
          'an empty side are dropped when the pair store is built.'
        )
    self._config = config
    self._severe = None
    if isinstance(config, SevereCorruptionConfig):
      self._severe = config
    self._sources = sources
    self._references = references
    self._seed = seed
    # Any number of hypotheses is spread over the whole corpus.
    self._order = np.random.default_rng((seed, 0)).permutation(len(references))
    self._chrf = Chrf(config.chrf_beta)

  def row(self, index: int) -> int:
    """Returns the row of the reference that hypothesis `index` is made from."""
    return int(self._order[index % len(self._order)])

  def reference(self, index: int) -> str:
    """Returns the reference that hypothesis `index` is made from."""
    return self._references[self.row(index)]

  def hypothesis(self, index: int) -> str:
    """Returns hypothesis `index`, at least 0, without upper limit."""
    row = self.row(index)
    draw = random.Random(f'{self._seed}/{index}')
    point = draw.random()
    if point < self._config.unrelated_share:
      return self._unrelated(row, draw)
    if self._is_severe(point):
      return self._severely_wrong(row, draw)
    return self.corrupt(
      row, draw.randint(0, self._config.max_corruptions), draw
    )

  def corrupt(self, row: int, number: int, draw: random.Random) -> str:
    """Returns the reference of a row after `number` random corruptions."""
    if number == 0:
      return self._references[row]
    context = self.context(row, draw)
    words = words_lib.split_words(self._references[row])
    for kind in draw.choices(corruption_kinds.KINDS, k=number):
      words = kind(words, draw, context)
    return words_lib.join_words(words)

  def context(self, row: int, draw: random.Random) -> corruption_kinds.Context:
    """Returns where corruptions of a row's reference may take words from."""
    return corruption_kinds.Context(
      source=words_lib.split_words(self._sources[row]),
      draw_reference=lambda: words_lib.split_words(self._another(row, draw)),
      negations=self._config.negations,
      number_words=self._severe.number_words if self._severe else (),
    )

  def scored(self, count: int) -> ScoredTexts:
    """Returns hypotheses 0 ... count - 1 with their scores."""
    hypotheses = [self.hypothesis(index) for index in range(count)]
    scores = [
      self._score(index, hypothesis)
      for index, hypothesis in enumerate(hypotheses)
    ]
    return ScoredTexts(
      [self._sources[self.row(index)] for index in range(count)],
      hypotheses,
      np.asarray(scores, np.float32),
    )

  def _score(self, index: int, hypothesis: str) -> float:
    reference = self.reference(index)
    if hypothesis == twice(reference):
      return 0.0
    score = self._chrf(hypothesis, reference)
    point = random.Random(f'{self._seed}/{index}').random()
    # If no kind applies, the reference stays as it is.
    if self._severe and self._is_severe(point) and hypothesis != reference:
      score *= self._severe.severe_factor
    return score

  def _is_severe(self, point: float) -> bool:
    """Returns whether a hypothesis gets a severe corruption."""
    start = self._config.unrelated_share
    share = self._severe.severe_share if self._severe else 0.0
    return start <= point < start + share

  def _severely_wrong(self, row: int, draw: random.Random) -> str:
    """Returns the reference after one severe change that applies to it."""
    context = self.context(row, draw)
    words = words_lib.split_words(self._references[row])
    kinds = corruption_kinds.SEVERE_KINDS
    for kind in draw.sample(kinds, len(kinds)):
      if (changed := kind(words, draw, context)) != words:
        return words_lib.join_words(changed)
    return self._references[row]

  def _another(self, row: int, draw: random.Random) -> str:
    """Returns the reference of a random row other than `row`."""
    other = corruption_kinds.another_row(row, len(self._references), draw)
    return self._references[other]

  def _unrelated(self, row: int, draw: random.Random) -> str:
    kind = draw.randrange(4)
    if kind == 0:
      return self._another(row, draw)
    if kind == 1:
      return self._sources[row]
    if kind == 2:
      return twice(self._references[row])
    return ''


def twice(text: str) -> str:
  """Returns the text twice."""
  return words_lib.join_words([text, text])


def score_samples(
  samples: Iterable[tuple[str, str, str]], *, chrf_beta: int
) -> ScoredTexts:
  """Scores sampled hypotheses by chrF to their references.

  Args:
    samples: (source, hypothesis, reference) per sample.
    chrf_beta: see `CorruptionConfig`.

  Returns:
    The hypotheses with their scores, in order.
  """
  chrf = Chrf(chrf_beta)
  sources, hypotheses, scores = [], [], []
  for source, hypothesis, reference in samples:
    sources.append(source)
    hypotheses.append(hypothesis)
    scores.append(chrf(hypothesis, reference))
  return ScoredTexts(sources, hypotheses, np.asarray(scores, np.float32))
