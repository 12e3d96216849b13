"""Measures a user's text and ratings."""

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

# Maximum numbers of pairs to tokenise, of train and of each held-out split.
_MAX_TRAIN, _MAX_HELDOUT = 20_000, 2_000
# Minimum numbers of pairs, of train and of each held-out split.
_MIN_TRAIN, _MIN_HELDOUT = 200, 20
# Share of the text whose characters must have a piece; the rest may be UNK.
_COVERAGE = 0.9995


@dataclasses.dataclass(frozen=True, kw_only=True)
class Files:
  """The files of a task.

  Attributes:
    train: source file and reference file of the training pairs.
    test: source file and reference file of the test pairs; None to evaluate
      only on `validation`.
    grow: file of sources without references for Grow; None for those of
      `train`.
    ratings: TSV file, see `RatingsFile`; None for none.
    lang_pair: language pair of the ratings to read; None if there is only one.
    score_type: score type of the ratings to read; None if there is only one.
  """

  train: tuple[str, str]
  validation: tuple[str, str]
  test: tuple[str, str] | None = None
  grow: str | None = None
  ratings: str | None = None
  lang_pair: str | None = None
  score_type: str | None = None

  def __post_init__(self):
    for name, pair in self.splits().items():
      if isinstance(pair, str) or len(pair) != 2:
        raise ValueError(
          f'{name} must be two files, sources and references, line by line; '
          f'got {pair!r}.'
        )

  def splits(self) -> dict[str, tuple[str, str]]:
    """Returns the source file and reference file of each split."""
    splits = {'train': self.train, 'validation': self.validation}
    return splits if self.test is None else {**splits, 'test': self.test}

  def rated(self) -> ratings_lib.RatingsFile | None:
    """Returns the ratings to read; None for none."""
    if self.ratings is None:
      return None
    return ratings_lib.RatingsFile(
      path=self.ratings, lang_pair=self.lang_pair, score_type=self.score_type
    )


def measure(files: Files) -> choices.Facts:
  """Reads all files, and tokenises a sample of their text.

  Raises:
    FileNotFoundError: if a file is missing.
    ValueError: if two files differ in their number of lines, are empty, too
      short or not UTF-8, or if a reward model cannot be trained on the ratings.
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
  grow = None if files.grow is None else _sources(files.grow)
  rated = files.rated()
  ratings = None if rated is None else rated.read()
  if ratings is not None:
    ratings_lib.check_splits(ratings, str(files.ratings))
  return _tokenised(counts, samples, grow, ratings)


def _sources(path: str) -> tuple[int, list[str]]:
  """Counts the sources of a file, and draws some."""
  texts = sources.SourceText(files=(path,))
  count, chosen = _sample(texts.read(), _MAX_HELDOUT, with_reference=False)
  if not count:
    raise ValueError(f'grow must have sources; {path} has no text.')
  return count, [pair.source for pair in chosen]


def _sample(
  pairs: Iterator[sources.Pair], most: int, with_reference: bool = True
) -> tuple[int, list[sources.Pair]]:
  """Counts the pairs that have text, and draws at most `most` of them."""
  draw = random.Random(0)
  chosen: list[sources.Pair] = []
  count = 0
  for pair in pairs:
    texts = (
      [pair.source, pair.reference or ''] if with_reference else [pair.source]
    )
    if not all(text.strip() for text in texts):
      continue
    # Reservoir sampling: all pairs have the same probability.
    if count < most:
      chosen.append(pair)
    elif (index := draw.randrange(count + 1)) < most:
      chosen[index] = pair
    count += 1
  return count, chosen


def _tokenised(
  counts: dict[str, int],
  samples: dict[str, list[sources.Pair]],
  grow: tuple[int, list[str]] | None,
  ratings: ratings_lib.Ratings | None,
) -> choices.Facts:
  """Trains a vocabulary on the sample, and measures lengths with it."""
  texts = [
    text
    for pair in samples['train']
    for text in (pair.source, pair.reference)
    if text
  ]
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
    longer = np.maximum(source, target)
    if grow is not None:
      unlabelled = _lengths(vocabulary, grow[1])
      source = np.concatenate([source, unlabelled])
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
    longer=choices.Lengths.of(longer),
    num_grow=None if grow is None else grow[0],
    num_ratings=0 if ratings is None else len(ratings),
    rated=None if rated is None else choices.Lengths.of(rated),
    rated_within=ratings is not None and _orders_hypotheses(ratings),
  )


def _orders_hypotheses(ratings: ratings_lib.Ratings) -> bool:
  """Returns whether a source has hypotheses with different ratings."""
  rated = set(zip(ratings.source, ratings.score.tolist(), strict=True))
  return len(rated) > len(set(ratings.source))


def _vocabulary(
  size: int, *, texts: Sequence[str], path: pathlib.Path, **settings
) -> vocabularies.Vocabulary:
  """Trains a vocabulary of a size, or of the nearest possible size."""
  try:
    config = vocabularies.VocabularyConfig(size=size, **settings)
    return vocabularies.train(config, texts, path)
  except vocabularies.SizeError as error:
    # A margin of a tenth: the bound varies slightly with threads and text.
    nearest = error.bound if error.bound > size else error.bound * 9 // 10
    config = vocabularies.VocabularyConfig(size=nearest, **settings)
    return vocabularies.train(config, texts, path)


def _lengths(
  vocabulary: vocabularies.Vocabulary, texts: Sequence[str]
) -> np.ndarray:
  """Returns the number of tokens of each text, including EOS."""
  return np.array([len(ids) + 1 for ids in vocabulary.encode_batch(texts)])


def _folds_share(texts: Sequence[str]) -> float:
  """Returns the share of texts that Unicode NFKC normalisation changes."""
  changed = sum(unicodedata.normalize('NFKC', text) != text for text in texts)
  return changed / max(1, len(texts))
