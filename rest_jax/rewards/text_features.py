"""Features of a source and a hypothesis for a linear reward.

Numbers that D's pairs tell: do the words translate each other, and are the
words, bigrams and trigrams of the hypothesis known? Others compare lengths,
numbers and marks.

Source: the features of Specia et al., QuEst (2013), for estimating the quality
of a translation without a reference.
"""

import collections
from collections.abc import Sequence
import itertools
import math
import re

from jaxtyping import Float
import numpy as np

from rest_jax.data import words as words_lib
from rest_jax.rewards import word_translation

_ORDERS = (1, 2, 3)
_MARKS = ',.?!:;-'
_STEM = 6  # Characters of a word that translation reads: fewer rare words.
_UNSEEN = 0.1  # Added to a count, for its logarithm.
_DIGIT = re.compile(r'\d')

NAMES = (
  *(f'forward_{name}' for name in word_translation.MEASURES),
  *(f'backward_{name}' for name in word_translation.MEASURES),
  *(f'known_{n}' for n in _ORDERS),
  *(f'log_count_{n}' for n in _ORDERS),
  'words',
  'characters',
  'numbers_missing',
  'numbers_added',
  'untranslated',
  'repeated',
  *(f'mark_{mark}' for mark in _MARKS),
  'final_mark',
)


class TextFeatures:
  """Computes features with what it knows from pairs of texts."""

  def __init__(self, sources: Sequence[str], references: Sequence[str]):
    """Learns word translation in both directions, and counts n-grams."""
    source_words = [split(text) for text in sources]
    target_words = [split(text) for text in references]
    stems = list(map(_stems, source_words)), list(map(_stems, target_words))
    self._forward = word_translation.WordTranslation(*stems)
    self._backward = word_translation.WordTranslation(*reversed(stems))
    self._counts = collections.Counter(
      gram for words in target_words for gram in ngrams(words)
    )

  def __call__(
    self, sources: Sequence[str], hypotheses: Sequence[str]
  ) -> Float[np.ndarray, 'n k']:
    """Returns the features of each pair, in the order of `NAMES`."""
    rows = zip(sources, hypotheses, strict=True)
    features = [self._of_pair(*row) for row in rows]
    return np.array(features, np.float64).reshape(-1, len(NAMES))

  def _of_pair(self, source: str, hypothesis: str) -> list[float]:
    x, y = split(source), split(hypothesis)
    x_stems, y_stems = _stems(x), _stems(y)
    x_numbers, y_numbers = _numbers(x), _numbers(y)
    bigrams = list(itertools.pairwise(y))
    copied = set(x) & {word for word in y if (word,) not in self._counts}
    return [
      *self._forward.measure(x_stems, y_stems),
      *self._backward.measure(y_stems, x_stems),
      *self._known(y),
      math.log((len(y) + 1) / (len(x) + 1)),
      math.log((len(hypothesis) + 1) / (len(source) + 1)),
      len(x_numbers - y_numbers),
      len(y_numbers - x_numbers),
      sum(word in copied for word in y) / (len(y) + 1),
      1 - len(set(bigrams)) / max(len(bigrams), 1),
      *(hypothesis.count(mark) - source.count(mark) for mark in _MARKS),
      float(hypothesis[-1:] == source[-1:]),
    ]

  def _known(self, words: Sequence[str]) -> list[float]:
    """Returns the share of known n-grams, and the mean log count, by order."""
    counts_of = {n: [] for n in _ORDERS}
    for gram in ngrams(words):
      counts_of[len(gram)].append(self._counts[gram])
    shares, logs = [], []
    for counts in counts_of.values():
      counts = counts or [0]
      shares.append(sum(count > 0 for count in counts) / len(counts))
      logs.append(
        sum(math.log(count + _UNSEEN) for count in counts) / len(counts)
      )
    return shares + logs


def split(text: str) -> list[str]:
  """Splits a text into lower-case words and marks."""
  return words_lib.split_tokens(text.lower())


def ngrams(words: Sequence[str]) -> list[tuple[str, ...]]:
  """Returns all n-grams of 1 to 3 words, with the ends of the text as words."""
  padded = ['<s>', *words, '</s>']
  return [
    tuple(padded[at : at + n])
    for n in _ORDERS
    for at in range(len(padded) - n + 1)
  ]


def _stems(words: Sequence[str]) -> list[str]:
  return [word[:_STEM] for word in words]


def _numbers(words: Sequence[str]) -> set[str]:
  return {word for word in words if _DIGIT.search(word)}
