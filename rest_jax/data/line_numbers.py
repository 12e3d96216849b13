"""Files and lines of pairs, for warnings."""

from collections.abc import Iterator, Sequence
import dataclasses

from rest_jax.data import sources

# Name of a file, lines before its first pair, and its number of pairs.
_Part = tuple[str, int, int]


def place(source: sources.PairSource, first: int, last: int) -> str:
  """Returns the location of a range of pairs; reads the files before it.

  Args:
    first: number of the first pair, from 1 in the order read.
    last: number of the last pair.

  Returns:
    For example 'lines 3 to 74 of a.de and a.en', or 'pairs 3 to 74'.
  """
  before, begins = 0, ''
  for name, header, count in _parts(source):
    if not name:
      break
    until = before + count
    start, end = first - before + header, last - before + header
    if begins and last <= until:
      return f'{begins} to line {end} of {name}'
    if before < first <= until:
      if last <= until:
        return f'lines {start} to {end} of {name}'
      begins = f'line {start} of {name}'
    before = until
  return f'pairs {first} to {last}'


def _parts(source: sources.PairSource) -> Iterator[_Part]:
  """Returns the files of a source in order; no names for other sources."""
  match source:
    case sources.Concatenation():
      repeats = source.repeats or (1,) * len(source.sources)
      for part, repeat in zip(source.sources, repeats, strict=True):
        for _ in range(repeat):
          yield from _parts(part)
    case sources.ParallelText():
      files = zip(source.source_files, source.reference_files, strict=True)
      parts = [
        (
          f'{side} and {other}',
          dataclasses.replace(
            source, source_files=side, reference_files=other, limit=None
          ),
        )
        for side, other in files
      ]
      yield from _counted(parts, 0, source.limit)
    case sources.TsvText():
      parts = [
        (str(path), dataclasses.replace(source, files=path, limit=None))
        for path in source.files
      ]
      header = int(isinstance(source.source_column, str))
      yield from _counted(parts, header, source.limit)
    case _:
      yield '', 0, 0


def _counted(
  parts: Sequence[tuple[str, sources.PairSource]],
  header: int,
  limit: int | None,
) -> Iterator[_Part]:
  left = limit
  for name, part in parts:
    if left == 0:
      return
    count = sum(1 for _ in part.read())
    if left is not None:
      count = min(count, left)
      left -= count
    yield name, header, count
