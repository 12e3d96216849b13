"""Shards of a sample store; see `sample_store`.

Shards are written and read independently, so that hosts can work separately and
a killed run resumes where it stopped.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import os
import pathlib

from jaxtyping import Bool, Float32, Int32, Int64
import numpy as np
import pyarrow as pa

from rest_jax.data import ragged, special_ids
from rest_jax.storage import arrow_files, cache, files, paths

# The sample_id of a reference among the samples of its source.
REFERENCE_SAMPLE_ID = -1

_KINDS = {
  'source_id': (pa.int64(),),
  'sample_id': (pa.int32(),),
  'tokens': arrow_files.TOKENS,
  'log_prob': (pa.float32(),),
  'finished': (pa.bool_(),),
}
_COLUMNS = tuple(_KINDS)

_PathLike = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class SampleRows:
  """Samples to write.

  Attributes:
    source_id: id of each row's source; int64 [n].
    sample_id: index of the sample of its source, or REFERENCE_SAMPLE_ID; int32
      [n].
    tokens: n rows of token ids, ending with EOS if finished.
    log_prob: log-probability under the untempered model, summed over tokens, in
      nats; float32 [n].
    finished: whether the row ends with EOS; bool [n].
  """

  source_id: np.ndarray
  sample_id: np.ndarray
  tokens: Sequence[np.ndarray]
  log_prob: np.ndarray
  finished: np.ndarray


@dataclasses.dataclass(frozen=True)
class ShardInfo:
  """A manifest's entry of a file."""

  file: str
  rows: int
  sha256: str


class Shard:
  """The rows of one finished shard, read by memory map."""

  def __init__(self, path: _PathLike, sha256: str | None = None):
    """Opens a shard.

    Args:
      sha256: its checksum, if known; see `arrow_files.read`.

    Raises:
      ValueError: if it is damaged.
    """
    self.path = paths.of(path)
    schema, self._batches = arrow_files.read(path, sha256)
    arrow_files.check_columns(path, schema, _COLUMNS, _KINDS)

  def __len__(self) -> int:
    return sum(batch.num_rows for batch in self._batches)

  @property
  def source_id(self) -> Int64[np.ndarray, ' n']:
    """Id of each row's source."""
    return self._column('source_id')

  @property
  def sample_id(self) -> Int32[np.ndarray, ' n']:
    """Index of each row's sample, or REFERENCE_SAMPLE_ID."""
    return self._column('sample_id')

  @property
  def log_prob(self) -> Float32[np.ndarray, ' n']:
    """Log-probability of each row's tokens, in nats."""
    return self._column('log_prob')

  @property
  def finished(self) -> Bool[np.ndarray, ' n']:
    """Whether each row ends with EOS."""
    return self._column('finished')

  @functools.cached_property
  def tokens(self) -> ragged.Ragged:
    """Token ids of each row."""
    return ragged.Ragged.from_arrays(
      [batch.column('tokens') for batch in self._batches]
    )

  def _column(self, name: str) -> np.ndarray:
    return join_column(self._batches, name)


def shard_path(
  directory: _PathLike, shard: int, num_shards: int
) -> pathlib.Path:
  """Returns the path of a shard's samples."""
  check_shard(shard, num_shards)
  return paths.of(directory) / file_name('samples', shard, num_shards)


def write_shard(
  directory: _PathLike,
  shard: int,
  num_shards: int,
  rows: SampleRows,
  vocab_size: int,
  ids: special_ids.SpecialIds = special_ids.T5,
) -> ShardInfo:
  """Writes a shard, sorted by (source_id, sample_id).

  Args:
    shard: index of the shard, in [0, num_shards).
    num_shards: number of shards of the store.
    rows: all rows of the shard, in any order.
    vocab_size: number of token ids; determines their storage type.
    ids: of the vocabulary.

  Raises:
    ValueError: for repeated (source_id, sample_id), log-probabilities that are
      NaN, token ids out of range, PAD among the tokens, or EOS anywhere except
      at the end of finished rows.
  """
  path = shard_path(directory, shard, num_shards)
  source_id, sample_id, log_prob, finished = _check_rows(rows)
  order = np.lexsort((sample_id, source_id))
  tokens = rows.tokens
  if not np.array_equal(order, np.arange(len(order))):
    source_id, sample_id = source_id[order], sample_id[order]
    log_prob, finished = log_prob[order], finished[order]
    tokens = [tokens[row] for row in order]
  check_order(source_id, sample_id, 'rows')
  values, offsets = ragged.flatten(tokens)
  row_names = _RowNames(offsets, source_id, sample_id)
  _check_tokens(values, row_names, finished, vocab_size, ids)
  dtype = ragged.token_dtype(vocab_size)
  types_ = (
    pa.int64(),
    pa.int32(),
    pa.list_(pa.from_numpy_dtype(dtype)),
    pa.float32(),
    pa.bool_(),
  )
  schema = pa.schema(list(zip(_COLUMNS, types_, strict=True)))

  def batch(start: int, stop: int) -> pa.RecordBatch:
    here = slice(start, stop)
    columns = [
      pa.array(source_id[here]),
      pa.array(sample_id[here]),
      ragged.to_arrow(values, offsets[start : stop + 1], dtype),
      pa.array(log_prob[here]),
      pa.array(finished[here]),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)

  return write_rows(path, schema, batch, len(source_id))


def shard_info(path: _PathLike) -> ShardInfo:
  """Returns a finished file's name, rows and checksum."""
  _, batches = arrow_files.read(path)
  return ShardInfo(
    file=paths.of(path).name,
    rows=sum(batch.num_rows for batch in batches),
    sha256=files.sha256(cache.local(path)),
  )


def finished_shards(directory: _PathLike, num_shards: int) -> set[int]:
  """Returns the complete shards; of a bucket, where none is incomplete, all."""
  if paths.is_remote(directory):
    names = paths.sizes(directory)
    return {
      shard
      for shard in range(num_shards)
      if file_name('samples', shard, num_shards) in names
    }
  return {
    shard
    for shard in range(num_shards)
    if _is_whole(shard_path(directory, shard, num_shards))
  }


def check_order(source_id: np.ndarray, sample_id: np.ndarray, what: str):
  """Raises ValueError unless (source_id, sample_id) strictly ascend.

  Args:
    what: name of the rows, for the error.
  """
  rises = np.diff(source_id)
  wrong = (rises < 0) | ((rises == 0) & (np.diff(sample_id) <= 0))
  if not wrong.any():
    return
  row = int(wrong.argmax())
  pairs = [(int(source_id[at]), int(sample_id[at])) for at in (row, row + 1)]
  fault = 'twice' if pairs[0] == pairs[1] else 'out of order'
  raise ValueError(
    f'{what} must be sorted by (source_id, sample_id) without repeats; row '
    f'{row + 1} is {fault}: {pairs[1]} after {pairs[0]}.'
  )


def _check_rows(rows: SampleRows) -> tuple[np.ndarray, ...]:
  """Returns the columns except tokens, with their storage types."""
  num_rows = len(rows.tokens)
  columns = {}
  for name, dtype, kinds in (
    ('source_id', np.int64, 'iu'),
    ('sample_id', np.int32, 'iu'),
    ('log_prob', np.float32, 'f'),
    ('finished', np.bool_, 'b'),
  ):
    column = np.asarray(getattr(rows, name))
    if column.shape != (num_rows,) or (
      num_rows and column.dtype.kind not in kinds
    ):
      raise ValueError(
        f'{name} must be a vector of {np.dtype(dtype)} for the {num_rows} rows '
        f'of tokens; got shape {column.shape} of {column.dtype}.'
      )
    columns[name] = column.astype(dtype)
  for name, least in (('source_id', 0), ('sample_id', REFERENCE_SAMPLE_ID)):
    if num_rows and columns[name].min() < least:
      raise ValueError(
        f'{name} must be at least {least}; got {columns[name].min()}.'
      )
  check_finite('log_prob', columns['log_prob'])
  return tuple(columns.values())


@dataclasses.dataclass(frozen=True)
class _RowNames:
  """Names of rows, for errors."""

  offsets: np.ndarray
  source_id: np.ndarray
  sample_id: np.ndarray

  def of_row(self, row: int) -> str:
    return f'source {self.source_id[row]}, sample {self.sample_id[row]}'

  def at(self, position: int) -> str:
    row = int(np.searchsorted(self.offsets, position, side='right')) - 1
    return self.of_row(row)


def _check_tokens(
  values: np.ndarray,
  rows: _RowNames,
  finished: np.ndarray,
  vocab_size: int,
  ids: special_ids.SpecialIds,
) -> None:
  """Raises ValueError for invalid token ids."""
  outside = (values < 0) | (values >= vocab_size) | (values == ids.pad)
  if outside.any():
    at = int(outside.argmax())
    raise ValueError(
      f'tokens must be in [0, {vocab_size}), without PAD; '
      f'got {values[at]} in {rows.at(at)}.'
    )
  # EOS is at the end of finished rows and nowhere else. An empty row ends where
  # the previous one does, so it cannot be finished.
  ends = rows.offsets[1:] - 1
  empty = finished & (np.diff(rows.offsets) == 0)
  if empty.any():
    raise ValueError(
      'finished must be False for a row without tokens; got True for '
      f'{rows.of_row(int(empty.argmax()))}.'
    )
  expected = np.zeros(len(values), bool)
  expected[ends[finished]] = True
  wrong = expected != (values == ids.eos)
  if wrong.any():
    at = int(wrong.argmax())
    fault = 'no EOS at its end' if expected[at] else 'an EOS too many'
    raise ValueError(
      'tokens must end with EOS where finished, and hold no other; '
      f'{rows.at(at)} has {fault}.'
    )


def check_finite(name: str, values: np.ndarray) -> None:
  wrong = ~np.isfinite(values)
  if wrong.any():
    row = int(wrong.argmax())
    raise ValueError(
      f'{name} must be finite; got {values[row]} in row {row} '
      f'({int(wrong.sum())} such rows). It is never replaced by a number: find '
      'out where it comes from.'
    )


def check_shard(shard: int, num_shards: int) -> None:
  if not 0 <= shard < num_shards:
    raise ValueError(f'shard must be in [0, {num_shards}); got {shard}.')


def file_name(name: str, shard: int, num_shards: int) -> str:
  return f'{name}-{shard:05d}-of-{num_shards:05d}.arrow'


def _is_whole(path: pathlib.Path) -> bool:
  try:
    Shard(path)
  except (FileNotFoundError, ValueError):
    return False
  return True


def join_column(batches: list[pa.RecordBatch], name: str) -> np.ndarray:
  """Returns a column as one array; a view if there is one batch."""
  arrays = [
    batch.column(name).to_numpy(zero_copy_only=False) for batch in batches
  ]
  return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def write_rows(
  path: pathlib.Path,
  schema: pa.Schema,
  batch: Callable[[int, int], pa.RecordBatch],
  num_rows: int,
) -> ShardInfo:
  """Writes rows in record batches; one empty batch if there are no rows."""
  step = arrow_files.BATCH_ROWS
  bounds = range(0, max(num_rows, 1), step)
  arrow_files.write(
    path, schema, (batch(at, min(at + step, num_rows)) for at in bounds)
  )
  return ShardInfo(
    file=path.name, rows=num_rows, sha256=files.sha256(cache.local(path))
  )
