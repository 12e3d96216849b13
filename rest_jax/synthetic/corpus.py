"""The built-in task: a German-like language, its judge and its ratings.

Sentences come from a grammar (see the package `grammar`), so that a text's
quality is known exactly. References for training hold errors, as those found
on the web do; the judge never sees training, and stands for people.
"""

from collections.abc import Iterator, Sequence
import dataclasses
from typing import ClassVar
import zlib

import numpy as np

from rest_jax import settings
from rest_jax.data import ratings, sources
from rest_jax.synthetic.grammar import dice as dice_lib
from rest_jax.synthetic.grammar import (
  english,
  errors,
  lattice,
  meaning,
  quality,
  sentences,
)

# Split -> share of all sources, in percent; the hash of a source decides.
_SPLITS = {'train': 70, 'validation': 15, 'test': 15}
_RATING_SPLITS = {'train': 80, 'dev': 10, 'test': 10}
# Number of errors in a reference that has any, with weights.
_ERROR_COUNTS = ((1, 0.5), (2, 0.28), (3, 0.14), (4, 0.08))
_MAX_ANNOTATORS = 5


def _split(source: str, shares: dict[str, int], salt: str) -> str:
  """Returns the split of a source, the same in every process."""
  point = zlib.crc32(f'{salt} {source}'.encode()) % 100
  for name, share in shares.items():
    point -= share
    if point < 0:
      return name
  raise AssertionError(f'shares must sum to 100; got {shares}')


def split_of(source: str) -> str:
  """Returns 'train', 'validation' or 'test': where a source may be drawn."""
  return _split(source, _SPLITS, 'pairs')


def _sources(
  split: str, dice: dice_lib.Dice
) -> Iterator[tuple[str, meaning.Sentence]]:
  """Yields distinct sources of a split, and what they mean, without end."""
  seen = set()
  while True:
    source, sentence = sentences.draw_sentence(
      dice, lambda text: text not in seen and split_of(text) == split
    )
    seen.add(source)
    yield source, sentence


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticPairs:
  """Pairs of the built-in task.

  No source occurs twice, nor in two splits under any seeds. The sources of a
  seed do not depend on the noise, and the first n not on the size.

  Attributes:
    split: 'train', 'validation' or 'test'.
    size: number of pairs.
    seed: of all choices.
    noise: share of training references with at least one error; the references
      of the other splits have none.
    variety: probability of a less usual synonym or word order, at each choice
      in a reference.
  """

  split: str
  size: int
  seed: int = 0
  noise: float = 0.45
  variety: float = 0.1
  # Its language has spaces before its marks: nothing to be warned of.
  is_tokenised: ClassVar[bool] = True

  def __post_init__(self):
    settings.one_of(self, _SPLITS, 'split')
    settings.at_least(self, 1, 'size')
    settings.inside(self, '[0, 1]', 'noise', 'variety')

  def read(self) -> Iterator[sources.Pair]:
    """Yields the pairs, the same ones each time."""
    name = f'{self.split} {self.seed}'
    drawn = _sources(self.split, dice_lib.Dice(f'sources {name}'))
    dice = dice_lib.Dice(f'references {name}')
    noise = self.noise if self.split == 'train' else 0.0
    for _ in range(self.size):
      source, sentence = next(drawn)
      if dice.chance(noise):
        count = dice.pick_weighted(_ERROR_COUNTS)
        words = errors.corrupt_by(source, sentence, count, dice, self.variety)
      else:
        words = lattice.draw(
          english.translations(sentence),
          dice_lib.usual_with(dice, self.variety),
        )
      yield sources.Pair(source, ' '.join(words))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticJudge:
  """The exact quality of translations of the built-in task's sources.

  1 for every acceptable translation and for nothing else; see
  `grammar.quality` for what errors cost. It stands for people who judge the
  results: no training may see it.
  """

  name: str = 'oracle'

  digest = ''
  needs_references = False
  parts = ()

  def check(self) -> str:
    return 'exact'

  def load(self, resources: object) -> 'SyntheticJudge':
    del resources
    return self

  def score(
    self,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[str | None] | None = None,
  ) -> np.ndarray:
    """Returns the quality (float64 [n]) of the i-th text for the i-th source.

    Raises:
      ValueError: a source is not one of the built-in task, or there are not as
        many sources as hypotheses.
    """
    del references
    if len(sources) != len(hypotheses):
      raise ValueError(
        'sources and hypotheses must correspond; got '
        f'{len(sources)} and {len(hypotheses)}.'
      )
    known: dict[tuple[str, str], float] = {}
    for pair in zip(sources, hypotheses, strict=True):
      if pair not in known:
        known[pair] = quality.score(*pair)
    pairs = zip(sources, hypotheses, strict=True)
    return np.array([known[pair] for pair in pairs], np.float64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticRaters:
  """Simulated people who rate whatever text they are shown.

  As in `SyntheticRatings` a score is the mean over annotators of quality +
  rater_noise * normal, so that both are of one scale. One text gets the same
  score each time it is shown.

  Attributes:
    seed: of their errors.
    rater_noise: standard deviation of one annotator's error.
    num_annotators: who rate each text.
  """

  seed: int = 0
  rater_noise: float = 0.15
  num_annotators: int = 3

  def __post_init__(self):
    settings.at_least(self, 0, 'rater_noise')
    settings.at_least(self, 1, 'num_annotators')

  def rate(
    self, sources: Sequence[str], hypotheses: Sequence[str]
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns scores (float64 [n]) and numbers of annotators (int64 [n]).

    Raises:
      ValueError: a source is not one of the built-in task.
    """
    error = self.rater_noise / self.num_annotators**0.5
    scores = [
      quality.score(*pair)
      + error * dice_lib.Dice(f'rater {self.seed} {pair}').normal()
      for pair in zip(sources, hypotheses, strict=True)
    ]
    annotators = np.full(len(scores), self.num_annotators, np.int64)
    return np.array(scores, np.float64), annotators


# Systems whose outputs are rated, with weights.
_SYSTEMS = (
  ('clean', 18),
  ('one error', 24),
  ('two errors', 16),
  ('three errors', 8),
  ('five errors', 7),
  ('word salad', 5),
  ('part in a loop', 4),
  ('said twice', 3),
  ('beginning only', 4),
  ('end only', 2),
  ('one word', 1),
  ('source copied', 3),
  ('another sentence', 5),
)
_ERRORS_OF_SYSTEMS = {
  'one error': 1,
  'two errors': 2,
  'three errors': 3,
  'five errors': 5,
}


def _translate_with(
  system: str,
  source: str,
  sentence: meaning.Sentence,
  other: meaning.Sentence,
  dice: dice_lib.Dice,
  variety: float,
) -> str:
  """Returns what a system makes of a sentence."""
  if system in _ERRORS_OF_SYSTEMS:
    count = _ERRORS_OF_SYSTEMS[system]
    words = errors.corrupt_by(source, sentence, count, dice, variety)
    return ' '.join(words)
  if system == 'source copied':
    return source
  said = other if system == 'another sentence' else sentence
  words = lattice.draw(
    english.translations(said), dice_lib.usual_with(dice, variety)
  )
  cut = 1 + dice.pick(range(len(words) - 1))
  if system == 'word salad':
    words = [word for _, word in sorted((dice.uniform(), w) for w in words)]
  elif system == 'part in a loop':
    start = dice.pick(range(cut))
    loop = words[start:cut] * 30
    words = words[:start] + loop[: 8 + dice.pick(range(20))]
  elif system == 'said twice':
    words = words * 2
  elif system == 'beginning only':
    words = words[:cut]
  elif system == 'end only':
    words = words[cut:]
  elif system == 'one word':
    words = [dice.pick(words)]
  return ' '.join(words)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticRatings:
  """Simulated human ratings of systems from good to hopeless.

  A rating is the mean over its annotators of quality + rater_noise * normal:
  it may leave [0, 1], as standardised ratings do. The sources are of the kind
  that `SyntheticPairs` draws for training, never one of validation or test.

  Attributes:
    size: number of ratings.
    seed: of all choices.
    rater_noise: standard deviation of one annotator's error.
    hypotheses_per_source: distinct outputs that are rated for each source.
    variety: as in `SyntheticPairs`.
  """

  size: int
  seed: int = 0
  rater_noise: float = 0.15
  hypotheses_per_source: int = 4
  variety: float = 0.1

  def __post_init__(self):
    settings.at_least(self, 1, 'size')
    settings.inside(self, '[0, 1]', 'variety')
    settings.at_least(self, 0, 'rater_noise')
    settings.inside(self, '[1, 20]', 'hypotheses_per_source')

  def read(self) -> ratings.Ratings:
    """Returns the ratings, the same ones each time."""
    dice = dice_lib.Dice(f'ratings {self.seed}')
    rated: list[tuple[str, str]] = []
    for source, hypotheses in self._outputs(dice):
      rated += [(source, hypothesis) for hypothesis in hypotheses]
      if len(rated) >= self.size:
        break
    rated = rated[: self.size]
    annotators = [1 + dice.pick(range(_MAX_ANNOTATORS)) for _ in rated]
    noise = [self.rater_noise * dice.normal() for _ in rated]
    scores = [
      quality.score(*pair) + error / count**0.5
      for pair, error, count in zip(rated, noise, annotators, strict=True)
    ]
    return ratings.Ratings(
      source=[source for source, _ in rated],
      hypothesis=[hypothesis for _, hypothesis in rated],
      score=np.array(scores, np.float32),
      weight=np.array(annotators, np.float32),
      split=[_split(s, _RATING_SPLITS, 'ratings') for s, _ in rated],
    )

  def _outputs(self, dice: dice_lib.Dice) -> Iterator[tuple[str, list[str]]]:
    """Yields a source and distinct outputs for it, without end."""
    drawn = _sources('train', dice_lib.Dice(f'rated sources {self.seed}'))
    _, other = next(drawn)
    for source, sentence in drawn:
      outputs: dict[str, None] = {}
      while len(outputs) < self.hypotheses_per_source:
        system = dice.pick_weighted(_SYSTEMS)
        output = _translate_with(
          system, source, sentence, other, dice, self.variety
        )
        outputs[output] = None
      yield source, list(outputs)
      other = sentence
