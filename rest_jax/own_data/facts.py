"""What is measured of a user's text, ratings and machine."""

import collections
from collections.abc import Iterator, Sequence
import dataclasses
import itertools
import pathlib
import random
import tempfile
import unicodedata

import numpy as np

from rest_jax.data import ratings as ratings_lib
from rest_jax.data import sources, vocabularies
from rest_jax.own_data import choices

# Training pairs that are tokenised, and held-out pairs of each split.
_MAX_TRAIN, _MAX_HELDOUT = 20_000, 2_000
# Fewer pairs train nothing, and measure nothing.
_MIN_TRAIN, _MIN_HELDOUT = 200, 20
# Characters beyond these are the rarest, and may be left to UNK.
_COVERAGE = 0.9995


@dataclasses.dataclass(frozen=True, kw_only=True)
class Files:
  """The files of a task.

  Attributes:
    train: the source file and the reference file of the training pairs.
    validation: likewise.
    test: likewise; None evaluates on `validation` alone.
    ratings: a TSV file, see `RatingsFile`; None for none.
    lang_pair: the language pair to read of it; None where it has one.
    score_type: the type of score to read of it; None where it has one.
  """

  train: tuple[str, str]
  validation: tuple[str, str]
  test: tuple[str, str] | None = None
  ratings: str | None = None
  lang_pair: str | None = None
  score_type: str | None = None

  def __post_init__(self):
    for name, pair in self.splits().items():
      if isinstance(pair, str) or len(pair) != 2:
        raise ValueError(
          f'{name} must be two files, sources and references, whose lines '
          f'correspond; got {pair!r}.'
        )

  def splits(self) -> dict[str, tuple[str, str]]:
    """Returns the two files of each split that is there."""
    found = {'train': self.train, 'validation': self.validation}
    return found if self.test is None else {**found, 'test': self.test}

  def rated(self) -> ratings_lib.RatingsFile | None:
    """Returns where the ratings are read."""
    if self.ratings is None:
      return None
    return ratings_lib.RatingsFile(
      path=self.ratings, lang_pair=self.lang_pair, score_type=self.score_type
    )


def measure(files: Files) -> choices.Facts:
  """Reads all files, and tokenises some of their text.

  Args:
    files: the files of a task.

  Returns:
    What settings depend on.

  Raises:
    FileNotFoundError: for a missing file.
    ValueError: for files that do not correspond, are empty or too short, or are
      not UTF-8; for ratings that nothing can be learned from.
  """
  counts, samples = {}, {}
  for split, (source, reference) in files.splits().items():
    most = _MAX_TRAIN if split == 'train' else _MAX_HELDOUT
    pairs = sources.ParallelText(
      source_files=(source,), reference_files=(reference,)
    )
    counts[split], samples[split] = _sample(pairs.read(), most)
    least = _MIN_TRAIN if split == 'train' else _MIN_HELDOUT
    if counts[split] < least:
      raise ValueError(
        f'{split} must have at least {least} pairs with text on both sides; '
        f'{source} and {reference} have {counts[split]}. Add pairs.'
      )
  rated = files.rated()
  ratings = None if rated is None else rated.read()
  if ratings is not None:
    ratings_lib.check_splits(ratings, str(files.ratings))
  return _tokenised(counts, samples, ratings)


def _sample(
  pairs: Iterator[sources.Pair], most: int
) -> tuple[int, list[sources.Pair]]:
  """Counts the pairs with text on both sides, and draws at most so many."""
  draw = random.Random(0)
  chosen: list[sources.Pair] = []
  count = 0
  for pair in pairs:
    if not (pair.source.strip() and (pair.reference or '').strip()):
      continue
    # Reservoir sampling: every pair so far stays with the same chance.
    if count < most:
      chosen.append(pair)
    elif (place := draw.randrange(count + 1)) < most:
      chosen[place] = pair
    count += 1
  return count, chosen


def _tokenised(
  counts: dict[str, int],
  samples: dict[str, list[sources.Pair]],
  ratings: ratings_lib.Ratings | None,
) -> choices.Facts:
  """Makes a vocabulary of the sample, and measures lengths with it."""
  texts = [text for pair in samples['train'] for text in pair if text]
  characters = collections.Counter(itertools.chain.from_iterable(texts))
  folds = _folds_share([pair.reference or '' for pair in samples['train']])
  wanted = choices.vocabulary_size(
    counts['train'], choices.num_frequent(characters, _COVERAGE)
  )
  with tempfile.TemporaryDirectory() as folder:
    vocabulary = _vocabulary(
      wanted,
      character_coverage=choices.character_coverage(len(characters)),
      normalization_rule=choices.normalization_rule(folds),
      texts=texts,
      path=pathlib.Path(folder) / 'vocab.model',
    )
    every = list(itertools.chain.from_iterable(samples.values()))
    source = _lengths(vocabulary, [pair.source for pair in every])
    target = _lengths(vocabulary, [pair.reference or '' for pair in every])
    rated = None
    if ratings is not None:
      rated = np.maximum(
        _lengths(vocabulary, ratings.source),
        _lengths(vocabulary, ratings.hypothesis),
      )
  return choices.Facts(
    num_train=counts['train'],
    num_validation=counts['validation'],
    num_characters=len(characters),
    vocabulary_size=vocabulary.size,
    folded=folds,
    source=choices.Lengths.of(source),
    target=choices.Lengths.of(target),
    longer=choices.Lengths.of(np.maximum(source, target)),
    num_ratings=0 if ratings is None else len(ratings),
    rated=None if rated is None else choices.Lengths.of(rated),
  )


def _vocabulary(
  size: int, *, texts: Sequence[str], path: pathlib.Path, **settings
) -> vocabularies.Vocabulary:
  """Makes a vocabulary of a size, or of the nearest that the text allows."""
  try:
    config = vocabularies.VocabularyConfig(size=size, **settings)
    return vocabularies.train(config, texts, path)
  except vocabularies.SizeError as error:
    # A tenth off: with other threads or text the bound is slightly another.
    nearest = error.bound if error.bound > size else error.bound * 9 // 10
    config = vocabularies.VocabularyConfig(size=nearest, **settings)
    return vocabularies.train(config, texts, path)


def _lengths(
  vocabulary: vocabularies.Vocabulary, texts: Sequence[str]
) -> np.ndarray:
  """Returns the tokens of each text, EOS included."""
  return np.array([len(ids) + 1 for ids in vocabulary.encode_batch(texts)])


def _folds_share(texts: Sequence[str]) -> float:
  """Returns the share of texts that Unicode's NFKC changes."""
  changed = sum(unicodedata.normalize('NFKC', text) != text for text in texts)
  return changed / max(1, len(texts))
