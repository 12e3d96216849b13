"""Sources of text pairs.

A source is a small frozen object with `read()`, which streams the same pairs in
the same order each time. `text_files` reads the lines.

In a task with several language pairs, each pair of text has languages: those of
its source, or of columns of its line.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import hashlib
import itertools
import json
from typing import Any, NamedTuple, Protocol, runtime_checkable

from rest_jax import settings
from rest_jax.data import text_files
from rest_jax.data.tokenizers import base

Languages = base.Languages


class Pair(NamedTuple):
  """A source text and its human translation, or None.

  Attributes:
    languages: codes of the tokeniser; None for those of the vocabulary.
  """

  source: str
  reference: str | None
  languages: Languages | None = None


@runtime_checkable
class PairSource(Protocol):
  """Streams the same pairs in the same order each time."""

  def read(self) -> Iterator[Pair]:
    """Yields the pairs; raises for invalid input while reading."""
    ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParallelText:
  """Files with corresponding lines, plain or .gz, UTF-8.

  Attributes:
    source_files: files with source text, one segment per line.
    reference_files: the same number of files; the i-th belongs to the i-th
      source file and has the same number of lines. A file listed twice is read
      twice.
    folder: folder of relative paths; empty for the current folder.
    limit: read at most this many pairs; None reads all.
    languages: language codes of all sources and all references, such as
      ('deu_Latn', 'eng_Latn'), in a task with several language pairs; None for
      those of the vocabulary.
  """

  source_files: tuple[text_files.PathLike, ...]
  reference_files: tuple[text_files.PathLike, ...]
  folder: text_files.PathLike = settings.recorded(default='')
  limit: int | None = None
  languages: tuple[str, str] | None = settings.added(default=None)

  def __post_init__(self):
    _set_paths(self, 'source_files')
    _set_paths(self, 'reference_files')
    object.__setattr__(self, 'folder', '')  # It is part of the paths now.
    _check_limit(self.limit)
    _set_languages(self)
    if len(self.source_files) != len(self.reference_files):
      raise ValueError(
        'reference_files must name one file for each of source_files; got '
        f'{len(self.reference_files)} for {len(self.source_files)}: '
        f'{self.source_files} and {self.reference_files}.'
      )

  def read(self) -> Iterator[Pair]:
    """Yields the pairs, file by file.

    A file is read to its end even if `limit` stops earlier, so that unequal
    numbers of lines are always noticed; later files are not opened.

    Raises:
      FileNotFoundError: before the first pair, if any file is missing.
      ValueError: for unequal numbers of lines, invalid UTF-8, or a damaged .gz.
    """
    text_files.check_files('source_files', self.source_files)
    text_files.check_files('reference_files', self.reference_files)
    left, languages = self.limit, _languages(self.languages)
    for source_file, reference_file in zip(
      self.source_files, self.reference_files, strict=True
    ):
      for lines in text_files.read_parallel(source_file, reference_file):
        if left is None:
          yield Pair(*lines, languages)
        elif left > 0:
          left -= 1
          yield Pair(*lines, languages)
      if left == 0:
        return


@dataclasses.dataclass(frozen=True, kw_only=True)
class TsvText:
  """Two columns of tab-separated files, plain or .gz, UTF-8, without quoting.

  Attributes:
    files: the files; each has its own header line if columns have names.
    source_column: name of the column in the header line, or its index from 0 in
      files without a header.
    reference_column: the same for references; None for files without.
    folder: folder of relative paths; empty for the current folder.
    limit: read at most this many pairs; None reads all.
    languages: see `ParallelText`.
    source_language_column: column with the language of each source, in place of
      `languages`.
    target_language_column: likewise of the language to translate into.
  """

  files: tuple[text_files.PathLike, ...]
  source_column: str | int
  reference_column: str | int | None = None
  folder: text_files.PathLike = settings.recorded(default='')
  limit: int | None = None
  languages: tuple[str, str] | None = settings.added(default=None)
  source_language_column: str | int | None = settings.added(default=None)
  target_language_column: str | int | None = settings.added(default=None)

  def __post_init__(self):
    _set_paths(self, 'files')
    object.__setattr__(self, 'folder', '')  # It is part of the paths now.
    _check_limit(self.limit)
    _set_languages(self)
    self._check_language_columns()
    columns = self._columns()
    for column in columns:
      if isinstance(column, bool) or not isinstance(column, str | int):
        raise TypeError(
          'source_column and reference_column must be names or positions; '
          f'got {column!r}.'
        )
      if isinstance(column, int) and column < 0:
        raise ValueError(
          f'a column position counts from 0; got {column}. '
          'Name the column if the files have a header.'
        )
    if len({type(column) for column in columns}) != 1:
      raise TypeError(
        'source_column and reference_column must both be names (files with a '
        'header line) or both be positions (files without one), and so must '
        f'those of languages; got {" and ".join(map(repr, columns))}.'
      )
    if self.source_column == self.reference_column:
      raise ValueError(
        'source_column and reference_column must differ; '
        f'both are {self.source_column!r}.'
      )

  def read(self) -> Iterator[Pair]:
    """Yields the pairs, file by file.

    Raises:
      FileNotFoundError: before the first pair, if any file is missing.
      ValueError: for a missing column or field, invalid UTF-8, a damaged .gz.
    """
    text_files.check_files('files', self.files)
    pairs = itertools.chain.from_iterable(map(self._read_file, self.files))
    yield from itertools.islice(pairs, self.limit)

  def _check_language_columns(self) -> None:
    columns = self.source_language_column, self.target_language_column
    if (columns[0] is None) != (columns[1] is None):
      raise ValueError(
        'source_language_column and target_language_column must both name '
        f'columns, or neither; got {columns[0]!r} and {columns[1]!r}.'
      )
    if columns[0] is not None and columns[0] == columns[1]:
      raise ValueError(
        'source_language_column and target_language_column must differ; both '
        f'are {columns[0]!r}.'
      )
    if columns[0] is not None and self.languages is not None:
      raise ValueError(
        'languages must be None where columns name the languages; got '
        f'{self.languages}.'
      )

  def _columns(self) -> list[str | int]:
    others = (
      self.reference_column,
      self.source_language_column,
      self.target_language_column,
    )
    return [self.source_column, *(each for each in others if each is not None)]

  def _pair(
    self, path: text_files.PathLike, line: int, fields: list[str]
  ) -> Pair:
    """Makes a pair of the fields of `_columns`."""
    languages = _languages(self.languages)
    if self.source_language_column is not None:
      codes = [code.strip() for code in fields[-2:]]
      if not all(codes):
        raise ValueError(
          f'{path} must name the languages of every line; line {line} has '
          f'{fields[-2]!r} and {fields[-1]!r}. Fill in the codes of the '
          'tokeniser, or remove the line.'
        )
      languages = Languages(*codes)
    has_reference = self.reference_column is not None
    return Pair(fields[0], fields[1] if has_reference else None, languages)

  def _read_file(self, path: text_files.PathLike) -> Iterator[Pair]:
    columns = self._columns()
    names = [column for column in columns if isinstance(column, str)]
    if names:
      for number, named in text_files.read_table(path, names):
        yield self._pair(path, number, [named[name] for name in names])
      return
    positions = [column for column in columns if isinstance(column, int)]
    for number, fields in text_files.read_rows(path):
      if number == 1 and max(positions) >= len(fields):
        raise ValueError(
          f'{path} must have a column at position {max(positions)} (from 0); '
          f'line 1 has {len(fields)} tab-separated fields.'
        )
      yield self._pair(path, number, [fields[at] for at in positions])


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceText:
  """Source text without references, plain or .gz, UTF-8, for Grow steps.

  Attributes:
    files: the files, one segment per line.
    folder: folder of relative paths; empty for the current folder.
    limit: read at most this many lines; None reads all.
    languages: codes of the language of the text, and of that to translate into;
      see `ParallelText`.
  """

  files: tuple[text_files.PathLike, ...]
  folder: text_files.PathLike = settings.recorded(default='')
  limit: int | None = None
  languages: tuple[str, str] | None = settings.added(default=None)

  def __post_init__(self):
    _set_paths(self, 'files')
    object.__setattr__(self, 'folder', '')  # It is part of the paths now.
    _check_limit(self.limit)
    _set_languages(self)

  def read(self) -> Iterator[Pair]:
    """Yields pairs without reference.

    Raises:
      FileNotFoundError: before the first pair, if any file is missing.
      ValueError: for invalid UTF-8, a damaged .gz.
    """
    text_files.check_files('files', self.files)
    lines = itertools.chain.from_iterable(
      map(text_files.read_lines, self.files)
    )
    for line in itertools.islice(lines, self.limit):
      yield Pair(line, None, _languages(self.languages))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextPairs:
  """Pairs in memory.

  Attributes:
    sources: source texts.
    references: one reference per source; None for sources only.
    languages: see `ParallelText`.
    digest: digest of all texts, to tell settings apart.
  """

  sources: Sequence[str] = settings.recorded()
  references: Sequence[str] | None = settings.recorded(default=None)
  languages: tuple[str, str] | None = settings.added(default=None)
  digest: str = dataclasses.field(init=False)

  def __post_init__(self):
    _set_languages(self)
    object.__setattr__(self, 'sources', _as_texts('sources', self.sources))
    if self.references is not None:
      references = _as_texts('references', self.references)
      object.__setattr__(self, 'references', references)
    references = self.references
    if references is not None and len(references) != len(self.sources):
      raise ValueError(
        'references must have one text for each of sources; got '
        f'{len(references)} for {len(self.sources)}.'
      )
    text = json.dumps([self.sources, references])
    digest = hashlib.sha256(text.encode()).hexdigest()
    object.__setattr__(self, 'digest', digest)

  def read(self) -> Iterator[Pair]:
    """Yields the pairs."""
    references = self.references or (None,) * len(self.sources)
    languages = _languages(self.languages)
    for source, reference in zip(self.sources, references, strict=True):
      yield Pair(source, reference, languages)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Concatenation:
  """Several sources of pairs in sequence.

  Attributes:
    sources: the sources of pairs.
    repeats: number of times that each is read, to weight small clean sets
      against large ones; empty reads each once.
  """

  sources: tuple[PairSource, ...]
  repeats: tuple[int, ...] = ()

  def __post_init__(self):
    object.__setattr__(self, 'sources', tuple(self.sources))
    object.__setattr__(self, 'repeats', tuple(self.repeats))
    if not self.sources:
      raise ValueError('sources must name at least one source; got none.')
    for source in self.sources:
      if not isinstance(source, PairSource):
        raise TypeError(f'sources must have a read method; got {source!r}.')
    if self.repeats and len(self.repeats) != len(self.sources):
      raise ValueError(
        'repeats must give one number for each of sources; got '
        f'{len(self.repeats)} for {len(self.sources)}. '
        'Leave it out to read each once.'
      )
    if any(repeat < 1 for repeat in self.repeats):
      raise ValueError(
        f'repeats must be at least 1; got {self.repeats}. '
        'Leave a source out of sources to skip it.'
      )

  def read(self) -> Iterator[Pair]:
    """Yields the pairs of each source, repeated as set by `repeats`."""
    repeats = self.repeats or (1,) * len(self.sources)
    for source, repeat in zip(self.sources, repeats, strict=True):
      for _ in range(repeat):
        yield from source.read()


def parts(source: PairSource) -> Iterator[PairSource]:
  """Yields the concatenated sources of a source, or the source itself."""
  if not isinstance(source, Concatenation):
    yield source
    return
  for part in source.sources:
    yield from parts(part)


def names_languages(source: PairSource) -> bool:
  """Returns whether the pairs of a source, not concatenated, have languages.

  A source of another kind says so by an attribute `languages` other than None.
  """
  names = 'languages', 'source_language_column'
  return any(getattr(source, name, None) is not None for name in names)


def _languages(codes: tuple[str, str] | None) -> Languages | None:
  return None if codes is None else Languages(*codes)


def _set_languages(config: Any) -> None:
  """Makes a tuple of `languages`, which must be two codes or None."""
  if config.languages is None:
    return
  settings.make_tuples(config, 'languages')
  codes = config.languages
  if len(codes) != 2 or not all(
    isinstance(code, str) and code.strip() for code in codes
  ):
    raise ValueError(
      'languages must be the codes of the source and of the target, such as '
      f"('deu_Latn', 'eng_Latn'); got {codes!r}."
    )


def _set_paths(config: Any, name: str) -> None:
  """Replaces a field by a tuple of paths; a single path is accepted."""
  paths = text_files.as_paths(name, getattr(config, name), config.folder)
  object.__setattr__(config, name, paths)


def _as_texts(name: str, texts: Sequence[str] | None) -> tuple[str, ...]:
  """Returns texts as a tuple; a single string is refused."""
  if (
    texts is None
    or isinstance(texts, str)
    or not all(isinstance(text, str) for text in texts)
  ):
    raise TypeError(f'{name} must be a list of texts; got {texts!r:.80}.')
  return tuple(texts)


def _check_limit(limit: int | None) -> None:
  if limit is not None and limit < 1:
    raise ValueError(
      f'limit must be at least 1; got {limit}. Leave it out to read all.'
    )
