"""IWSLT 2014 German-English, from the files of the official TED archive.

The split is the customary one, so that results can be put beside others':
talks' titles and descriptions are text; a pair stays if both sides have 1 to 175
tokens of Moses' tokeniser and neither has more than 1.5 times those of the other;
every 23rd of these is for validation, the others are for training; five sets of
earlier years are the test set. Which pairs stay is decided by the text as the
files have it; then `&amp;`, `&lt;`, `&gt;`, `&quot;`, `&apos;` and character
references become characters, and ’ becomes ', in all splits alike.

Note: the customary script leaves entities as they are, in all files, and replaces
’ in the test files alone.

Source: the steps of `examples/translation/prepare-iwslt14.sh` of fairseq and of
`clean-corpus-n.perl` of Moses.
"""

from collections.abc import Iterator
import dataclasses
import functools
import html
import os
import pathlib
import re
import tarfile
from typing import Any
import zlib

from absl import logging
import numpy as np

from rest_jax import settings
from rest_jax.data import sources, text_files

SPLITS = ('train', 'validation', 'test')
# Segments of the official test files, and pairs of the customary split.
TEST_SEGMENTS = {
  'TED.dev2010': 887,
  'TEDX.dev2012': 1165,
  'TED.tst2010': 1565,
  'TED.tst2011': 1433,
  'TED.tst2012': 1700,
}
CUSTOMARY_PAIRS = {'train': 160_239, 'validation': 7_283, 'test': 6_750}

_LANGUAGES = ('de', 'en')
_FOLDER = 'de-en'
_VALIDATION_EVERY = 23
_MAX_TOKENS = 175
_MAX_RATIO = 1.5
_MAX_TOKEN_CHARACTERS = 1000

# Lines about a talk that are none of its text; titles and descriptions are.
_ABOUT = re.compile(
  r'\s*</?(url|talkid|keywords|speaker|reviewer|translator|doc)\b'
)
_TITLE = re.compile(r'</?(title|description)>')
_DOCUMENT = re.compile(r'\s*<doc\b')
_SEGMENT = re.compile(r'\s*<seg id="(\d+)">(.*)</seg>\s*')
# No others: nothing that a file declares is ever looked up.
_ENTITY = re.compile(r'&(amp|lt|gt|quot|apos|#\d{1,7}|#x[0-9a-fA-F]{1,6});')


@dataclasses.dataclass(frozen=True, kw_only=True)
class IwsltArchive:
  """Pairs of one split of the archive `de-en.tgz` of WIT3, 2014-01.

  Note: the paper evaluates on 7,466 segments; this split has 7,283 for
  validation and 6,750 for test.

  Attributes:
    path: the archive, or the folder that it was unpacked to.
    split: 'train', 'validation' or 'test'.
    lowercase: whether text is in lower case, as is customary where BLEU of
      tokenised text is reported; by default it is as it was written.
    tokenized: whether text is that of Moses' tokeniser, `&` and quotes escaped,
      likewise; by default it is plain text, which rewards read.
  """

  path: text_files.PathLike
  split: str
  lowercase: bool = False
  tokenized: bool = False

  def __post_init__(self):
    object.__setattr__(self, 'path', text_files.as_paths('path', self.path)[0])
    settings.one_of(self, SPLITS, 'split')

  def read(self) -> Iterator[sources.Pair]:
    """Yields the pairs of the split.

    All of the archive is read and counted once in a process; the counts are
    logged, and said to deviate where they do from those of the official files.

    Raises:
      FileNotFoundError: if the archive, or a file in it, is missing.
      ImportError: if sacremoses is needed and not installed.
      ValueError: if a file is damaged, or the sides do not correspond.
    """
    archive = _Archive(self.path)
    if self.split == 'test':
      for name in TEST_SEGMENTS:
        for pair in archive.segments(name):
          yield self._as_written(pair)
      return
    wants_validation = self.split == 'validation'
    for number, pair in enumerate(archive.clean_pairs(), 1):
      if (number % _VALIDATION_EVERY == 0) == wants_validation:
        yield self._as_written(pair)

  def _as_written(self, texts: tuple[str, str]) -> sources.Pair:
    source, reference = map(self._text, _LANGUAGES, texts)
    return sources.Pair(source, reference)

  def _text(self, language: str, text: str) -> str:
    if self.tokenized:
      text = tokenizer(language).tokenize(text, return_str=True)
    return text.lower() if self.lowercase else text


@functools.cache
def tokenizer(language: str) -> Any:
  """Moses' tokeniser of a language, as sacremoses has it."""
  try:
    import sacremoses
  except ImportError as error:
    raise ImportError(
      'the split of IWSLT 2014 is made with the tokeniser of sacremoses, which '
      'is not installed. Run: pip install sacremoses'
    ) from error
  return sacremoses.MosesTokenizer(language)


def unfit(texts: tuple[str, str]) -> str:
  """Says why a pair does not stay: 'empty', 'long', 'ratio', or '' if it does.

  Source: `clean-corpus-n.perl -ratio 1.5 ... 1 175` of Moses.
  """
  tokens = [
    tokenizer(language).tokenize(text, escape=False)
    for language, text in zip(_LANGUAGES, texts, strict=True)
  ]
  shorter, longer = sorted(map(len, tokens))
  if not shorter:
    return 'empty'
  if longer > _MAX_TOKENS:
    return 'long'
  if longer / shorter > _MAX_RATIO:
    return 'ratio'
  if max(len(token) for side in tokens for token in side) > (
    _MAX_TOKEN_CHARACTERS
  ):
    return 'long'
  return ''


def _plain(text: str) -> str:
  """Text of any of the files, as rewards and people read it."""
  text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
  return ' '.join(text.replace('’', "'").split())


# Which pairs of an archive stay: to find out takes minutes, and three splits
# and a vocabulary ask.
_stays: dict[Any, np.ndarray] = {}


class _Archive:
  """The files of an archive or of its folder."""

  def __init__(self, path: text_files.PathLike):
    self.path = pathlib.Path(path)
    self._is_folder = self.path.is_dir()
    if self._is_folder:
      if (self.path / _FOLDER).is_dir():
        self.path = self.path / _FOLDER
    elif not self.path.is_file():
      raise FileNotFoundError(
        f'path must be the archive {_FOLDER}.tgz or its folder; there is no '
        f'{self.path} (looked from {pathlib.Path.cwd()}).'
      )

  def clean_pairs(self) -> Iterator[tuple[str, str]]:
    """Yields the pairs of the train files that stay."""
    names = [f'train.tags.de-en.{language}' for language in _LANGUAGES]
    sides = [list(self._talks(name)) for name in names]
    if len(sides[0]) != len(sides[1]):
      raise ValueError(
        f'{self._named(names[0])} and {names[1]} must have as many lines of '
        f'text; got {len(sides[0]):,} and {len(sides[1]):,}. One of them was '
        'altered or cut off: unpack the archive again.'
      )
    pairs = zip(*sides, strict=True)
    key = self._key(names)
    if key in _stays:
      for pair, stays in zip(pairs, _stays[key], strict=True):
        if stays:
          yield _plain(pair[0]), _plain(pair[1])
      return
    counts = {'': 0, 'empty': 0, 'long': 0, 'ratio': 0}
    found = np.zeros(len(sides[0]), bool)
    for row, pair in enumerate(pairs):
      reason = unfit(pair)
      counts[reason] += 1
      if not reason:
        found[row] = True
        yield _plain(pair[0]), _plain(pair[1])
    _stays[key] = found
    self._report(counts)

  def segments(self, name: str) -> list[tuple[str, str]]:
    """Returns the pairs of a test set, such as 'TED.tst2010'."""
    names = [f'IWSLT14.{name}.de-en.{side}.xml' for side in _LANGUAGES]
    sides = [list(self._segments(file)) for file in names]
    ids = [[place for place, _ in side] for side in sides]
    if ids[0] != ids[1]:
      both = zip(*ids, strict=False)
      at = next(
        (i for i, (a, b) in enumerate(both) if a != b), min(map(len, ids))
      )
      raise ValueError(
        f'{self._named(names[0])} and {names[1]} must have the same segments; '
        f'got {len(ids[0]):,} and {len(ids[1]):,}, which differ from segment '
        f'{at + 1} on. One of them was altered: unpack the archive again.'
      )
    texts = [[text for _, text in side] for side in sides]
    return list(zip(*texts, strict=True))

  def _talks(self, name: str) -> Iterator[str]:
    for line in self._lines(name):
      if not _ABOUT.match(line):
        yield ' '.join(_TITLE.sub('', line).split())

  def _segments(self, name: str) -> Iterator[tuple[tuple[int, int], str]]:
    """Yields number of the document and id, and text, of each segment."""
    document = 0
    for number, line in enumerate(self._lines(name), 1):
      if _DOCUMENT.match(line):
        document += 1
      if '<seg' not in line:
        continue
      match = _SEGMENT.fullmatch(line)
      if not match or '<seg' in match[2]:
        raise ValueError(
          f'{self._named(name)}, line {number}: expected one whole segment, '
          f'<seg id="1"> text </seg>; got {line[:80]!r}. The file was altered: '
          'unpack the archive again.'
        )
      yield (document, int(match[1])), _plain(match[2])

  def _lines(self, name: str) -> Iterator[str]:
    if self._is_folder:
      if not (self.path / name).is_file():
        raise self._missing(name)
      yield from text_files.read_lines(self.path / name)
      return
    try:
      with tarfile.open(self.path) as opened:
        member = next(
          (
            member
            for member in opened
            if member.isfile() and pathlib.PurePath(member.name).name == name
          ),
          None,
        )
        file = member and opened.extractfile(member)
        if not file:
          raise self._missing(name)
        yield from text_files.decode_lines(file, self._named(name), 'file')
    except (tarfile.TarError, EOFError, zlib.error) as error:
      raise ValueError(
        f'{self.path} must be a whole .tgz archive; it is cut off or damaged '
        f'({error}). Copy or download it again.'
      ) from error

  def _missing(self, name: str) -> FileNotFoundError:
    return FileNotFoundError(
      f'{self.path} must hold {name}, as the archive {_FOLDER}.tgz of WIT3 '
      '(2014-01) does; it is not there. Give the archive, or the folder '
      f'{_FOLDER} that it unpacks to, as path.'
    )

  def _named(self, name: str) -> str:
    return f'{name} of {self.path}'

  def _key(self, names: list[str]) -> Any:
    """Changes with the files."""
    paths = (
      [self.path / name for name in names] if self._is_folder else [self.path]
    )
    states = [os.stat(path) for path in paths]
    return (
      str(self.path.resolve()),
      tuple((state.st_size, state.st_mtime_ns) for state in states),
    )

  def _report(self, counts: dict[str, int]) -> None:
    """Logs all counts, and how they differ from those of the official files."""
    validation = counts[''] // _VALIDATION_EVERY
    segments = {name: len(self.segments(name)) for name in TEST_SEGMENTS}
    found = {
      'train': counts[''] - validation,
      'validation': validation,
      'test': sum(segments.values()),
    }
    logging.info(
      'iwslt14: %d pairs of talks, %d stay (dropped: %d empty, %d long, %d by '
      'ratio); %d for training, %d for validation, %d for test',
      sum(counts.values()),
      counts[''],
      counts['empty'],
      counts['long'],
      counts['ratio'],
      *found.values(),
    )
    for name, expected in TEST_SEGMENTS.items():
      if segments[name] != expected:
        logging.warning(
          'iwslt14: IWSLT14.%s.de-en has %d segments, the official one %d',
          name,
          segments[name],
          expected,
        )
    if segments != TEST_SEGMENTS:
      return
    # The official files, then.
    for split, expected in CUSTOMARY_PAIRS.items():
      if found[split] != expected:
        logging.warning(
          'iwslt14: %d pairs for %s, where %d are customary: the train files '
          'were altered, or sacremoses cuts otherwise than the tokeniser of '
          'Moses',
          found[split],
          split,
          expected,
        )
