"""Arrow IPC files: written whole, read by memory map.

No table is ever built of a large file: `Table.take` and `combine_chunks` copy.
Readers view the buffers of each record batch with numpy.
"""

from collections.abc import Collection, Iterable, Mapping
import os
import pathlib

import pyarrow as pa

from rest_jax.storage import files

# Rows of one record batch: 32-bit offsets are then enough by far, and a batch
# of training rows touches few pages.
BATCH_ROWS = 65_536

# How rows of token ids are stored.
TOKENS = (pa.list_(pa.uint16()), pa.list_(pa.uint32()))

PathLike = str | os.PathLike[str]


def write(
  path: PathLike, schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> int:
  """Writes record batches; the file appears whole or not at all.

  Args:
    path: the file to be.
    schema: the schema of all batches; its metadata are kept.
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


def read(path: PathLike) -> tuple[pa.Schema, list[pa.RecordBatch]]:
  """Maps a file into memory and returns its schema and record batches.

  The file is closed before this returns, so that thousands may be read at once;
  the batches keep the map alive.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if it is not a whole Arrow file.
  """
  if not pathlib.Path(path).is_file():
    raise FileNotFoundError(
      f'there is no file {path}; run the stage that writes it first.'
    )
  try:
    with pa.memory_map(str(path)) as mapped:
      reader = pa.ipc.open_file(mapped)
      batches = [
        reader.get_batch(index) for index in range(reader.num_record_batches)
      ]
      for batch in batches:
        batch.validate()  # Sizes alone: arrays end inside of the file.
      _ = reader.schema.names  # They are decoded when asked for.
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
  """Raises ValueError unless a file has just the given columns, in order.

  Args:
    path: the file.
    found: its schema.
    columns: the names.
    kinds: the types that a column may have, by name; others may have any.
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
