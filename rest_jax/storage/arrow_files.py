"""Arrow IPC files: written atomically, read by memory map.

Those of a bucket are mapped from local copies; see `cache`.

Large files are never made into a table, since `Table.take` and `combine_chunks`
copy. Readers view the buffers of each record batch with numpy.
"""

from collections.abc import Collection, Iterable, Mapping
import os

import pyarrow as pa

from rest_jax.storage import cache, files

# Rows per record batch: few enough for 32-bit offsets, and for a batch of
# training rows to touch few pages.
BATCH_ROWS = 65_536

# Storage type of rows of token ids.
TOKENS = (pa.list_(pa.uint16()), pa.list_(pa.uint32()))

PathLike = str | os.PathLike[str]


def write(
  path: PathLike, schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> int:
  """Writes record batches atomically.

  Args:
    path: the file to write.
    schema: schema of all batches; its metadata is kept.
    batches: the record batches, taken one at a time.

  Returns:
    The number of rows written.
  """
  rows = 0
  with (
    files.atomic_write(path) as temporary,
    pa.ipc.new_file(str(temporary), schema) as writer,
  ):
    for batch in batches:
      writer.write_batch(batch)
      rows += batch.num_rows
  return rows


def read(
  path: PathLike, sha256: str | None = None
) -> tuple[pa.Schema, list[pa.RecordBatch]]:
  """Maps a file into memory and returns its schema and record batches.

  The file is closed before this returns, so thousands of files can be mapped at
  once; the batches keep the map alive.

  Args:
    path: the file.
    sha256: checksum that a manifest lists, for a download; see `cache.local`.

  Raises:
    FileNotFoundError: if the file does not exist.
    ValueError: if it is not a complete Arrow file.
  """
  try:
    local = cache.local(path, sha256)
  except FileNotFoundError:
    local = None
  if local is None or not local.is_file():
    raise FileNotFoundError(
      f'there is no file {path}; run the stage that writes it first.'
    )
  try:
    with pa.memory_map(str(local)) as mapped:
      reader = pa.ipc.open_file(mapped)
      batches = [
        reader.get_batch(index) for index in range(reader.num_record_batches)
      ]
      for batch in batches:
        batch.validate()  # Checks sizes only: arrays end inside the file.
      _ = reader.schema.names  # Decoded on access.
      return reader.schema, batches
  except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
    raise ValueError(
      f'{path} must be a whole Arrow file; it is cut off or damaged ({error}). '
      'Remove it and run its stage again.'
    ) from error


def check_columns(
  path: PathLike,
  found: pa.Schema,
  columns: Iterable[str],
  kinds: Mapping[str, Collection[pa.DataType]] | None = None,
):
  """Raises ValueError unless a file has exactly the given columns, in order.

  Args:
    path: the file.
    found: its schema.
    columns: names of the columns.
    kinds: allowed types by column name; others may have any type.
  """
  columns = list(columns)
  if found.names != columns:
    raise ValueError(
      f'{path} must have the columns {columns}; it has {found.names}. It was '
      'written by another version or for another purpose: run its stage again.'
    )
  for name, allowed in (kinds or {}).items():
    if name in columns and found.field(name).type not in allowed:
      raise ValueError(
        f'{path} must have a column {name} of {" or ".join(map(str, allowed))}; '
        f'it is of {found.field(name).type}. Remove it and run its stage again.'
      )
