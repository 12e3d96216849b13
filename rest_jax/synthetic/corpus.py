"""The built-in task: pairs of a German-like language, judge and ratings.

A grammar generates the sentences (see the package `grammar`), so that the
quality of any text is known exactly. Training references contain errors, like
references from the web. The judge simulates people; no training uses it.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import itertools
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

# Split -> share of all sources, in percent. The hash of a source decides.
_SPLITS = {'train': 70, 'validation': 15, 'test': 15}
_RATING_SPLITS = {'train': 80, 'dev': 10, 'test': 10}
# (number of errors in a reference with errors, weight).
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
  """Returns the split of a source: 'train', 'validation' or 'test'."""
  return _split(source, _SPLITS, 'pairs')


def _source_dice(split: str, seed: int) -> dice_lib.Dice:
  return dice_lib.Dice(f'sources {split} {seed}')


def _sources(
  split: str, dice: dice_lib.Dice
) -> Iterator[tuple[str, meaning.Sentence]]:
  """Yields distinct sources of a split and their meanings, endlessly."""
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

  No source occurs twice, or in two splits with any seeds. The sources of a seed
  do not depend on the noise, and the first n sources not on the size.

  Attributes:
    split: 'train', 'validation' or 'test'.
    size: number of pairs.
    seed: seed of all random choices.
    noise: share of training references with at least one error, in [0, 1];
      those of other splits have none.
    variety: probability of a less common synonym or word order, at each choice
      in a reference.
  """

  split: str
  size: int
  seed: int = 0
  noise: float = 0.45
  variety: float = 0.1
  # Spaces before punctuation are part of the language: no warning.
  is_tokenised: ClassVar[bool] = True

  def __post_init__(self):
    settings.one_of(self, _SPLITS, 'split')
    settings.at_least(self, 1, 'size')
    settings.inside(self, '[0, 1]', 'noise', 'variety')

  def read(self) -> Iterator[sources.Pair]:
    """Yields the pairs, the same on each call."""
    drawn = _sources(self.split, _source_dice(self.split, self.seed))
    dice = dice_lib.Dice(f'references {self.split} {self.seed}')
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
class SyntheticSources:
  """Sources of `SyntheticPairs` without references.

  Attributes:
    split: 'train', 'validation' or 'test'.
    size: number of sources.
    first: number of the split's sources to leave out; with the size of D, none
      of D's sources is among them.
    seed: seed of the sources.
  """

  split: str
  size: int
  first: int = 0
  seed: int = 0
  is_tokenised: ClassVar[bool] = True

  def __post_init__(self):
    settings.one_of(self, _SPLITS, 'split')
    settings.at_least(self, 1, 'size')
    settings.at_least(self, 0, 'first')

  def read(self) -> Iterator[sources.Pair]:
    """Yields pairs without reference, the same on each call."""
    drawn = _sources(self.split, _source_dice(self.split, self.seed))
    for source, _ in itertools.islice(
      drawn, self.first, self.first + self.size
    ):
      yield sources.Pair(source, None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticJudge:
  """The exact quality of translations of the built-in task's sources.

  1 for every acceptable translation and for no other text; see
  `grammar.quality` for the costs of errors. It simulates people who judge the
  results, so no training may use it.
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
    """Returns the quality of each text for its source, float64 [n].

    Raises:
      ValueError: if a source does not belong to the built-in task, or the
        numbers of sources and hypotheses differ.
    """
    del references
    if len(sources) != len(hypotheses):
      raise ValueError(
        'sources and hypotheses must have the same length; got '
        f'{len(sources)} and {len(hypotheses)}.'
      )
    pairs = list(zip(sources, hypotheses, strict=True))
    by_pair = {pair: quality.score(*pair) for pair in dict.fromkeys(pairs)}
    return np.array([by_pair[pair] for pair in pairs], np.float64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticRaters:
  """Simulated people who rate any text.

  A score is the mean over annotators of quality + rater_noise * normal, the
  same scale as in `SyntheticRatings`. Equal texts get equal scores.

  Attributes:
    seed: seed of the annotators' errors.
    rater_noise: standard deviation of one annotator's error.
    num_annotators: number of annotators per text.
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
      ValueError: if a source does not belong to the built-in task.
    """
    error = self.rater_noise / self.num_annotators**0.5
    scores = [
      quality.score(*pair)
      + error * dice_lib.Dice(f'rater {self.seed} {pair}').normal()
      for pair in zip(sources, hypotheses, strict=True)
    ]
    annotators = np.full(len(scores), self.num_annotators, np.int64)
    return np.array(scores, np.float64), annotators


# (system whose outputs are rated, weight).
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
  """Returns the translation of a sentence by a system."""
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
  """Simulated human ratings of outputs of good to very bad systems.

  A rating is the mean over its annotators of quality + rater_noise * normal,
  which may be outside [0, 1], like standardised ratings. The sources belong to
  the training split of `SyntheticPairs`.

  Attributes:
    size: number of ratings.
    seed: seed of all random choices.
    rater_noise: standard deviation of one annotator's error.
    hypotheses_per_source: number of distinct rated outputs per source.
    variety: see `SyntheticPairs`.
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
    """Returns the ratings, the same on each call."""
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
    """Yields sources, each with distinct outputs, endlessly."""
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
