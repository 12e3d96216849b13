"""Sources of text pairs.

A source is a small frozen object with `read()`, which streams the same pairs in
the same order each time. `text_files` reads the lines.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import hashlib
import itertools
import json
from typing import Any, NamedTuple, Protocol, runtime_checkable

from rest_jax import settings
from rest_jax.data import text_files


class Pair(NamedTuple):
  """A source text and its human translation, or None."""

  source: str
  reference: str | None


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
  """

  source_files: tuple[text_files.PathLike, ...]
  reference_files: tuple[text_files.PathLike, ...]
  folder: text_files.PathLike = settings.recorded(default='')
  limit: int | None = None

  def __post_init__(self):
    _set_paths(self, 'source_files')
    _set_paths(self, 'reference_files')
    object.__setattr__(self, 'folder', '')  # It is part of the paths now.
    _check_limit(self.limit)
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
    left = self.limit
    for source_file, reference_file in zip(
      self.source_files, self.reference_files, strict=True
    ):
      for pair in _read_parallel(source_file, reference_file):
        if left is None:
          yield pair
        elif left > 0:
          left -= 1
          yield pair
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
  """

  files: tuple[text_files.PathLike, ...]
  source_column: str | int
  reference_column: str | int | None = None
  folder: text_files.PathLike = settings.recorded(default='')
  limit: int | None = None

  def __post_init__(self):
    _set_paths(self, 'files')
    object.__setattr__(self, 'folder', '')  # It is part of the paths now.
    _check_limit(self.limit)
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
        'header line) or both be positions (files without one); got '
        f'{self.source_column!r} and {self.reference_column!r}.'
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

  def _columns(self) -> list[str | int]:
    if self.reference_column is None:
      return [self.source_column]
    return [self.source_column, self.reference_column]

  def _read_file(self, path: text_files.PathLike) -> Iterator[Pair]:
    columns = self._columns()
    names = [column for column in columns if isinstance(column, str)]
    if names:
      for _, named in text_files.read_table(path, names):
        yield _as_pair([named[name] for name in names])
      return
    positions = [column for column in columns if isinstance(column, int)]
    for number, fields in text_files.read_rows(path):
      if number == 1 and max(positions) >= len(fields):
        raise ValueError(
          f'{path} must have a column at position {max(positions)} (from 0); '
          f'line 1 has {len(fields)} tab-separated fields.'
        )
      yield _as_pair([fields[at] for at in positions])


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceText:
  """Source text without references, plain or .gz, UTF-8, for Grow steps.

  Attributes:
    files: the files, one segment per line.
    folder: folder of relative paths; empty for the current folder.
    limit: read at most this many lines; None reads all.
  """

  files: tuple[text_files.PathLike, ...]
  folder: text_files.PathLike = settings.recorded(default='')
  limit: int | None = None

  def __post_init__(self):
    _set_paths(self, 'files')
    object.__setattr__(self, 'folder', '')  # It is part of the paths now.
    _check_limit(self.limit)

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
      yield Pair(line, None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextPairs:
  """Pairs in memory.

  Attributes:
    sources: source texts.
    references: one reference per source; None for sources only.
    digest: digest of all texts, to tell settings apart.
  """

  sources: Sequence[str] = settings.recorded()
  references: Sequence[str] | None = settings.recorded(default=None)
  digest: str = dataclasses.field(init=False)

  def __post_init__(self):
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
    yield from itertools.starmap(
      Pair, zip(self.sources, references, strict=True)
    )


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


def _as_pair(fields: list[str]) -> Pair:
  """Makes a pair from a source and an optional reference."""
  return Pair(fields[0], fields[1] if len(fields) == 2 else None)


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


def _read_parallel(
  source_file: text_files.PathLike, reference_file: text_files.PathLike
) -> Iterator[Pair]:
  """Yields the pairs of two files, which must have the same number of lines.

  Blank lines at the end of either file are ignored.
  """
  sources = text_files.read_lines(source_file)
  references = text_files.read_lines(reference_file)
  lines = itertools.zip_longest(sources, references)
  blank: list[Pair] = []
  for count, (source, reference) in enumerate(lines):
    if source is None or reference is None:
      more = [source or reference or '', *sources, *references]
      if any(line.strip() for line in more):
        _raise_unequal(source_file, reference_file, source, count, len(more))
      return
    blank.append(Pair(source, reference))
    if source.strip() or reference.strip():
      yield from blank
      blank.clear()


def _raise_unequal(
  source_file: text_files.PathLike,
  reference_file: text_files.PathLike,
  source: str | None,
  count: int,
  more: int,
) -> None:
  counts = (count, count + more) if source is None else (count + more, count)
  raise ValueError(
    f'{source_file} and {reference_file} must have as many lines; got '
    f'{counts[0]} and {counts[1]}. From some line on they do not '
    'correspond: restore the missing lines (an empty line is enough).'
  )
