"""Lines and tab-separated rows of UTF-8 files, plain or .gz.

Text is read as it is: only a newline ends a line (other Unicode line separators
are text), a byte order mark and the carriage return of CRLF are removed, and a
NUL byte, which tools treat differently, becomes a space.
"""

from collections.abc import Iterable, Iterator, Sequence
import gzip
import itertools
import os
import pathlib
import re
import sys
import zlib

from rest_jax.storage import files

PathLike = str | os.PathLike[str]

_GZIP_MAGIC = b'\x1f\x8b'
_ENDS = re.compile(r'[\t\n\r\0]')
_UTF16_MARKS = (b'\xff\xfe', b'\xfe\xff')


def as_paths(
  name: str, paths: PathLike | Sequence[PathLike], folder: PathLike = ''
) -> tuple[str, ...]:
  """Returns a tuple of paths for one path or several.

  Args:
    name: name of the argument, for the error.
    folder: folder of relative paths.

  Raises:
    TypeError: for anything except paths.
    ValueError: for an empty sequence.
  """
  if isinstance(paths, str | os.PathLike):
    paths = (paths,)
  paths = tuple(paths)
  if not paths:
    raise ValueError(f'{name} must name at least one file; got none.')
  for path in paths:
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
      raise TypeError(f'{name} must hold paths of files; got {path!r}.')
    _check_name(name, os.fspath(path))
  return tuple(os.path.join(folder, path) for path in paths)


def _check_name(name: str, path: str) -> None:
  """Raises ValueError for a path that cannot be recorded or opened."""
  try:
    path.encode()
    os.fsencode(path)
  except UnicodeEncodeError as error:
    raise ValueError(
      f'{name} must name files in UTF-8, and Python must run in it; got '
      f'{path!a}, and {sys.getfilesystemencoding()} for names of files. Rename '
      'the file, or start with PYTHONUTF8=1.'
    ) from error


def check_files(name: str, paths: Sequence[PathLike]) -> None:
  """Raises FileNotFoundError if any of the files does not exist."""
  for path in paths:
    files.check_local(name, path)
  missing = [str(path) for path in paths if not pathlib.Path(path).is_file()]
  if missing:
    raise FileNotFoundError(
      f'{name} must name existing files; there is no file '
      f'{", ".join(missing)} (looked from {pathlib.Path.cwd()}). '
      'Correct the path, or give it in full.'
    )


def read_lines(path: PathLike) -> Iterator[str]:
  """Yields the lines of a file, without their line ends.

  Raises:
    FileNotFoundError: if the file does not exist.
    ValueError: for invalid UTF-8 (with line and byte), and for a truncated or
      damaged .gz.
  """
  check_files('path', [path])
  yield from decode_lines(_read_raw(path), path, _size_words(path))


def read_parallel(
  source_path: PathLike, reference_path: PathLike
) -> Iterator[tuple[str, str]]:
  """Yields the lines of two files, which must have the same number of lines.

  Blank lines at the end of either file are ignored.

  Raises:
    ValueError: for unequal numbers of lines, invalid UTF-8, or a damaged .gz.
  """
  sources, references = read_lines(source_path), read_lines(reference_path)
  lines = itertools.zip_longest(sources, references)
  blank: list[tuple[str, str]] = []
  for count, (source, reference) in enumerate(lines):
    if source is None or reference is None:
      more = [source or reference or '', *sources, *references]
      if any(line.strip() for line in more):
        counts = (count, count + len(more))
        if source is not None:
          counts = counts[::-1]
        raise ValueError(
          f'{source_path} and {reference_path} must have as many lines; got '
          f'{counts[0]} and {counts[1]}. From some line on they do not '
          'correspond: restore the missing lines (an empty line is enough).'
        )
      return
    blank.append((source, reference))
    if source.strip() or reference.strip():
      yield from blank
      blank.clear()


def one_line(text: str) -> str:
  """Returns a text without what ends a line or a column: spaces instead."""
  return _ENDS.sub(' ', text)


def decode_lines(
  raw_lines: Iterable[bytes], name: PathLike, whole: str
) -> Iterator[str]:
  """Yields lines of text, without their line ends.

  Args:
    raw_lines: lines with their line ends.
    name: name of their origin, for errors.
    whole: word for the whole of it, for errors.

  Raises:
    ValueError: for invalid UTF-8, with line and byte.
  """
  offset = 0
  for number, raw in enumerate(raw_lines, 1):
    try:
      line = raw.decode('utf-8')
    except UnicodeDecodeError as error:
      raise ValueError(
        f'{name} must be UTF-8; line {number} holds '
        f'{_describe_byte(raw, error)} at byte {offset + error.start} '
        f'(from 0) of the {whole}. {_remedy(raw, number)}'
      ) from error
    offset += len(raw)
    if number == 1:
      line = line.removeprefix('\ufeff')
    line = line.removesuffix('\n').removesuffix('\r')
    yield line.replace('\0', ' ') if '\0' in line else line


def read_rows(path: PathLike) -> Iterator[tuple[int, list[str]]]:
  """Yields line number and tab-separated fields of each line; quotes are text.

  Blank lines at the end of a file with several columns are ignored.

  Raises:
    FileNotFoundError: if the file does not exist.
    ValueError: for a line with another number of fields than the first, and the
      errors of `read_lines`.
  """
  width = None
  blank: list[tuple[int, list[str]]] = []
  for number, line in enumerate(read_lines(path), 1):
    fields = line.split('\t')
    if width is None:
      width = len(fields)
    if width > 1 and not line.strip():
      blank.append((number, fields))
      continue
    for row in (*blank, (number, fields)):
      _check_width(path, *row, width)
      yield row
    blank.clear()


def _check_width(
  path: PathLike, number: int, fields: list[str], width: int
) -> None:
  if len(fields) == width:
    return
  if not ''.join(fields).strip():
    raise ValueError(
      f'{path}, line {number}: expected {width} tab-separated fields, as in '
      'line 1; the line is blank, and more rows follow. Remove it.'
    )
  raise ValueError(
    f'{path}, line {number}: expected {width} tab-separated fields, as in '
    f'line 1; got {len(fields)}. Quotes do not protect a tab: replace tabs '
    'and newlines inside the text.'
  )


def read_table(
  path: PathLike, columns: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
  """Yields line number and named fields of each row after the header line.

  Args:
    columns: required names in the header line.
    optional: optional names; absent ones are not among the fields.

  Raises:
    ValueError: for a missing or repeated column, and the errors of `read_rows`.
  """
  rows = read_rows(path)
  _, header = next(rows, (0, None))
  if header is None:
    raise ValueError(
      f'{path} must begin with a header line with the columns '
      f'{", ".join(columns)}; the file is empty.'
    )
  positions = _find_columns(path, columns, optional, header)
  for number, fields in rows:
    yield number, {name: fields[at] for name, at in positions.items()}


def _find_columns(
  path: PathLike,
  columns: Sequence[str],
  optional: Sequence[str],
  header: list[str],
) -> dict[str, int]:
  """Returns the position of each column in a header."""
  for name in columns:
    if name not in header:
      raise ValueError(
        f'{path} must have the column {name!r}; its header line has '
        f'{", ".join(map(repr, header))[:500]}. Name one of these, or add a '
        'header line.'
      )
  wanted = [name for name in (*columns, *optional) if name in header]
  for name in wanted:
    if header.count(name) > 1:
      raise ValueError(
        f'{path} must have one column {name!r}; its header line has '
        f'{header.count(name)}. Rename the others.'
      )
  return {name: header.index(name) for name in wanted}


def _read_raw(path: PathLike) -> Iterator[bytes]:
  """Yields the lines of a file as bytes, with their line ends."""
  if not _is_gzip(path):
    with open(path, 'rb') as opened:
      yield from opened
    return
  # The gzip module reads an empty file as empty text; it is a truncated one.
  if os.path.getsize(path) == 0:
    raise ValueError(
      f'{path} must be a gzip file; it is empty. Copy or download it again.'
    )
  with gzip.open(path, 'rb') as opened:
    yield from _guarded(path, opened)


def _guarded(path: PathLike, opened: gzip.GzipFile) -> Iterator[bytes]:
  """Yields lines; a damaged gzip stream becomes a ValueError."""
  try:
    yield from opened
  except (EOFError, zlib.error, gzip.BadGzipFile) as error:
    raise ValueError(
      f'{path} must be a whole gzip file; it is cut off or damaged ({error}). '
      'Copy or download it again; if it is plain text, drop the .gz.'
    ) from error


def _is_gzip(path: PathLike) -> bool:
  return os.fspath(path).endswith('.gz')


def _size_words(path: PathLike) -> str:
  return 'decompressed text' if _is_gzip(path) else 'file'


def _describe_byte(raw: bytes, error: UnicodeDecodeError) -> str:
  """Describes the bytes that do not decode."""
  what = raw[error.start : max(error.end, error.start + 1)].hex(' ')
  return f'{what} ({error.reason})'


def _remedy(raw: bytes, number: int) -> str:
  """Returns advice for a file that is not UTF-8, by its first bytes."""
  if number == 1 and raw.startswith(_GZIP_MAGIC):
    return 'It is a gzip file: name it .gz.'
  if number == 1 and raw.startswith(_UTF16_MARKS):
    return 'It is UTF-16: convert it with iconv -f UTF-16 -t UTF-8.'
  return 'Convert it with iconv, or remove the line.'
