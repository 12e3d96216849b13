"""Rewards of a sample store, in files parallel to its shards."""

import hashlib
import os
import pathlib
import re

from jaxtyping import Float32
import numpy as np
import pyarrow as pa

from rest_jax.data import sample_shards
from rest_jax.storage import arrow_files, cache, files, paths

_COLUMNS = ('raw', 'reward')
_SCHEMA = pa.schema([pa.field(name, pa.float32()) for name in _COLUMNS])
# Metadata of a file: checksums of the scored shard and of its own columns. No
# manifest lists these files, since scoring may come later.
_SCORED_SHARD = b'samples_sha256'
_OWN_VALUES = b'values_sha256'

_PathLike = str | os.PathLike[str]


def rewards_path(
  directory: _PathLike, name: str, shard: int, num_shards: int
) -> pathlib.Path:
  """Returns the path of a shard's rewards by the reward called `name`."""
  sample_shards.check_shard(shard, num_shards)
  if not re.fullmatch(r'\w[\w.-]*', name):
    raise ValueError(
      f'name must be letters, digits, and _ . - after those; got {name!r}.'
    )
  return (
    paths.of(directory)
    / 'rewards'
    / sample_shards.file_name(name, shard, num_shards)
  )


def write_rewards(
  directory: _PathLike,
  name: str,
  shard: int,
  num_shards: int,
  raw: np.ndarray,
  reward: np.ndarray,
  *,
  samples_in: _PathLike | None = None,
) -> sample_shards.ShardInfo:
  """Writes the rewards of a shard's rows, in order.

  The file contains the checksum of the shard, so that rewards of other rows are
  never used.

  Args:
    shard: index of the shard, in [0, num_shards).
    num_shards: number of shards of the store.
    raw: raw rewards, higher is better; [n].
    reward: normalised rewards; [n].
    samples_in: folder of the store that has the shard; None for `directory`.

  Raises:
    ValueError: if a reward is missing or not finite.
  """
  path = rewards_path(directory, name, shard, num_shards)
  samples = sample_shards.shard_path(
    directory if samples_in is None else samples_in, shard, num_shards
  )
  num_rows = len(sample_shards.Shard(samples))
  columns = {}
  for label, given in (('raw', raw), ('reward', reward)):
    columns[label] = np.asarray(given, np.float32)
    if columns[label].shape != (num_rows,):
      raise ValueError(
        f'{label} must have one number for each of the {num_rows} rows of '
        f'{samples}; got shape {columns[label].shape}.'
      )
    sample_shards.check_finite(label, columns[label])
  schema = _SCHEMA.with_metadata(
    {
      _SCORED_SHARD: files.sha256(cache.local(samples)),
      _OWN_VALUES: _checksum(columns['raw'], columns['reward']),
    }
  )

  def batch(start: int, stop: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
      [pa.array(columns[label][start:stop]) for label in _COLUMNS],
      schema=schema,
    )

  return sample_shards.write_rows(path, schema, batch, num_rows)


def read_rewards(
  path: _PathLike, *, rows: int, samples_sha256: str
) -> tuple[Float32[np.ndarray, ' n'], Float32[np.ndarray, ' n']]:
  """Returns raw and normalised rewards of a shard.

  Args:
    samples_sha256: checksum of the shard.

  Raises:
    ValueError: if it is damaged, belongs to other rows, or contains NaN.
  """
  schema, batches = arrow_files.read(path)
  kinds = {name: (pa.float32(),) for name in _COLUMNS}
  arrow_files.check_columns(path, schema, _COLUMNS, kinds)
  raw, reward = (sample_shards.join_column(batches, name) for name in _COLUMNS)
  metadata = schema.metadata or {}
  scored = metadata.get(_SCORED_SHARD, b'').decode(errors='replace')
  if len(raw) != rows or scored != samples_sha256:
    raise ValueError(
      f'{path} must score the {rows} rows of its shard as they are now; it has '
      f'{len(raw)} rewards, of the samples with checksum {scored or "unknown"}, '
      f'not {samples_sha256}. Remove it and score the samples again.'
    )
  for label, values in (('raw', raw), ('reward', reward)):
    sample_shards.check_finite(f'{label} of {path}', values)
  if metadata.get(_OWN_VALUES, b'') != _checksum(raw, reward).encode():
    raise ValueError(
      f'{path} must have the checksum that it was written with; its rewards '
      'have another. It is damaged: remove it and score the samples again.'
    )
  return raw, reward


def finished_rewards(
  directory: _PathLike,
  name: str,
  num_shards: int,
  *,
  samples_in: _PathLike | None = None,
) -> set[int]:
  """Returns the shards with complete rewards of these samples."""
  if paths.is_remote(directory):
    # They appear whole, and a store compares them with its shards.
    names = paths.sizes(paths.of(directory) / 'rewards')
    return {
      shard
      for shard in range(num_shards)
      if sample_shards.file_name(name, shard, num_shards) in names
    }
  done, store = set(), directory if samples_in is None else samples_in
  for shard in sample_shards.finished_shards(store, num_shards):
    info = sample_shards.shard_info(
      sample_shards.shard_path(store, shard, num_shards)
    )
    path = rewards_path(directory, name, shard, num_shards)
    try:
      read_rewards(path, rows=info.rows, samples_sha256=info.sha256)
    except (FileNotFoundError, ValueError):
      continue
    done.add(shard)
  return done


def _checksum(raw: np.ndarray, reward: np.ndarray) -> str:
  """Returns the SHA-256 of both columns, in hexadecimal."""
  return hashlib.sha256(raw.tobytes() + reward.tobytes()).hexdigest()
