"""The data set of a Grow step: samples, log-probabilities, rewards.

Arrow files with one row per sample: `source_id` int64, `sample_id` int32 (-1:
the reference), `tokens` list<uint16|uint32>, `log_prob` float32 (nats, of the
untempered model, summed over tokens), `finished` bool (ends with EOS).

A shard is a contiguous range of sources, independent of hosts and devices,
sorted by (source_id, sample_id). Rewards are in parallel files, one per shard
and reward. The manifest is written last: a folder without one is not finished.
All files are written atomically, and opening a store checks them.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import os
import pathlib
from typing import Any, Literal

from jaxtyping import Bool, Float32, Int32, Int64
import numpy as np

from rest_jax.data import ragged, sample_rewards, sample_shards
from rest_jax.storage import files, paths

SCHEMA_VERSION = 1
MANIFEST = 'manifest.json'

REFERENCE_SAMPLE_ID = sample_shards.REFERENCE_SAMPLE_ID
SampleRows = sample_shards.SampleRows
Shard = sample_shards.Shard
ShardInfo = sample_shards.ShardInfo
finished_rewards = sample_rewards.finished_rewards
finished_shards = sample_shards.finished_shards
rewards_path = sample_rewards.rewards_path
shard_info = sample_shards.shard_info
shard_path = sample_shards.shard_path
write_rewards = sample_rewards.write_rewards
write_shard = sample_shards.write_shard

Verify = Literal['fast', 'full']
_PathLike = str | os.PathLike[str]
_REQUIRED = ('num_sources', 'num_rows', 'shards')
_SHARD_KEYS = ('file', 'rows', 'sha256')


def shard_ranges(
  num_sources: int, sources_per_shard: int
) -> tuple[tuple[int, int], ...]:
  """Splits sources 0..num_sources-1 into contiguous (start, stop) ranges."""
  for name, value in (
    ('num_sources', num_sources),
    ('sources_per_shard', sources_per_shard),
  ):
    if value < 1:
      raise ValueError(f'{name} must be at least 1; got {value}.')
  return tuple(
    (start, min(start + sources_per_shard, num_sources))
    for start in range(0, num_sources, sources_per_shard)
  )


def shard_entries(
  directory: _PathLike, num_shards: int
) -> list[dict[str, Any]]:
  """Returns the manifest's `shards` for the existing files.

  Raises:
    FileNotFoundError: if a shard is missing.
    ValueError: if one is damaged.
  """
  return [
    dataclasses.asdict(shard_info(shard_path(directory, shard, num_shards)))
    for shard in range(num_shards)
  ]


def write_manifest(directory: _PathLike, manifest: Mapping[str, Any]) -> None:
  """Writes `manifest.json`, which finishes the store.

  Args:
    manifest: `num_sources`, `num_rows`, `shards` (a list of `file`, `rows`,
      `sha256`, or of ShardInfo, in order) and other values; `schema_version` is
      added.

  Raises:
    ValueError: if a field is missing, a shard has another number of rows, their
      sum is not `num_rows`, or the rows of all shards are not in order.
  """
  missing = [name for name in _REQUIRED if name not in manifest]
  if missing:
    raise ValueError(
      f'manifest must have {", ".join(_REQUIRED)}; {missing} is missing.'
    )
  entries = [
    dataclasses.asdict(shard) if isinstance(shard, ShardInfo) else dict(shard)
    for shard in manifest['shards']
  ]
  content = {
    'schema_version': SCHEMA_VERSION,
    **manifest,
    'shards': entries,
  }
  path = paths.of(directory) / MANIFEST
  _check_manifest(path, content)
  shards = _open_shards(path, content, verify='fast')
  SampleStore(directory, content, shards).check_order()
  files.write_json(path, content, sealed=True)


def read_rewards(
  directory: _PathLike,
  name: str,
  entries: Sequence[Mapping[str, Any]],
  shard: int,
) -> tuple[Float32[np.ndarray, ' n'], Float32[np.ndarray, ' n']]:
  """Returns the raw and the normalised rewards of one shard.

  Args:
    entries: all shards of the store, see `shard_entries`.
  """
  return sample_rewards.read_rewards(
    rewards_path(directory, name, shard, len(entries)),
    rows=entries[shard]['rows'],
    samples_sha256=entries[shard]['sha256'],
  )


class SampleStore:
  """A finished store. Tokens stay on disk; other columns load on access.

  Rows are numbered across shards: shard k holds rows
  `shard_bounds[k]` to `shard_bounds[k + 1]`.
  """

  def __init__(
    self, directory: _PathLike, manifest: dict[str, Any], shards: list[Shard]
  ):
    """Joins opened shards; use `open`."""
    self.directory = paths.of(directory)
    self.manifest = manifest
    self._shards = shards
    self.shard_bounds = np.cumsum([0, *map(len, shards)])

  @classmethod
  def open(cls, directory: _PathLike, verify: Verify = 'fast') -> 'SampleStore':
    """Opens a store and checks its files.

    Args:
      verify: 'fast' compares each shard's number of rows with the manifest;
        'full' also checksums, and the order of all rows.

    Raises:
      FileNotFoundError: if the store is not finished or a file is missing.
      ValueError: if a file differs from the manifest; the message names it.
    """
    if verify not in ('fast', 'full'):
      raise ValueError(f"verify must be 'fast' or 'full'; got {verify!r}.")
    path = paths.of(directory) / MANIFEST
    if not path.is_file():
      raise FileNotFoundError(
        f'directory must hold a finished sample store; {directory} has no '
        f'{MANIFEST}. Run the Grow step that writes it to its end.'
      )
    manifest = files.read_json(path, must_be_sealed=verify == 'full')
    _check_manifest(path, manifest)
    store = cls(directory, manifest, _open_shards(path, manifest, verify))
    if verify == 'full':
      store.check_order()
    return store

  @classmethod
  def unfinished(
    cls, directory: _PathLike, entries: Sequence[Mapping[str, Any]]
  ) -> 'SampleStore':
    """Opens shards of a store that has no manifest yet."""
    directory = paths.of(directory)
    shards = [Shard(directory / entry['file']) for entry in entries]
    return cls(directory, {'shards': list(entries)}, shards)

  def __len__(self) -> int:
    return int(self.shard_bounds[-1])

  @functools.cached_property
  def source_id(self) -> Int64[np.ndarray, ' n']:
    """Id of each row's source, ascending."""
    return self._join(lambda shard: shard.source_id)

  @functools.cached_property
  def sample_id(self) -> Int32[np.ndarray, ' n']:
    """Index of each row's sample, ascending within a source."""
    return self._join(lambda shard: shard.sample_id)

  @functools.cached_property
  def log_prob(self) -> Float32[np.ndarray, ' n']:
    """Log-probability of each row under the untempered model, in nats."""
    return self._join(lambda shard: shard.log_prob)

  @functools.cached_property
  def finished(self) -> Bool[np.ndarray, ' n']:
    """Whether each row ends with EOS."""
    return self._join(lambda shard: shard.finished)

  @functools.cached_property
  def tokens(self) -> ragged.Ragged:
    """Token ids of each row."""
    return ragged.Ragged.concatenate([shard.tokens for shard in self._shards])

  def rewards(
    self, name: str
  ) -> tuple[Float32[np.ndarray, ' n'], Float32[np.ndarray, ' n']]:
    """Returns the raw and the normalised reward of each row.

    Raises:
      FileNotFoundError: if a shard was not scored by this reward.
      ValueError: if a file is damaged, scores other rows, or contains NaN.
    """
    raws, rewards = [], []
    entries = self.manifest['shards']
    for shard in range(len(entries)):
      path = rewards_path(self.directory, name, shard, len(entries))
      if not path.is_file():
        raise FileNotFoundError(
          f'name must be a reward that scored all of {self.directory}; there '
          f'is no {path.name} for {name!r}. Scored: '
          f'{", ".join(self.reward_names()) or "none"}.'
        )
      raw, reward = read_rewards(self.directory, name, entries, shard)
      raws.append(raw)
      rewards.append(reward)
    return np.concatenate(raws), np.concatenate(rewards)

  def reward_names(self) -> list[str]:
    """Returns the names of the rewards with files for this store."""
    ending = f'-of-{len(self._shards):05d}.arrow'
    return sorted(
      {
        path.name[: -len('-00000') - len(ending)]
        for path in (self.directory / 'rewards').glob(f'*{ending}')
        if not path.name.startswith('.')
      }
    )

  def check_order(self) -> None:
    """Raises ValueError, naming the shard, unless all rows are in order."""
    last = -1
    for shard in self._shards:
      source_id = shard.source_id
      sample_shards.check_order(
        source_id, shard.sample_id, f'the rows of {shard.path}'
      )
      if not len(source_id):
        continue
      if source_id[0] <= last:
        raise ValueError(
          f'the rows of {shard.path} must be of sources after {last}, the last '
          f'one of the shards before it; they begin with {source_id[0]}. Write '
          'the store again with ranges of shard_ranges.'
        )
      last = int(source_id[-1])
    if last >= self.manifest['num_sources']:
      raise ValueError(
        f'{self.directory} must hold sources below num_sources '
        f'{self.manifest["num_sources"]}; got {last}. Write it again.'
      )

  def _join(self, column: Callable[[Shard], np.ndarray]) -> np.ndarray:
    return np.concatenate([column(shard) for shard in self._shards])


def _check_manifest(path: pathlib.Path, manifest: Any) -> None:
  """Raises ValueError unless a manifest is that of a sample store."""
  if not isinstance(manifest, dict):
    raise ValueError(
      f'{path} must hold an object; it holds {str(manifest)[:80]}. Grow again.'
    )
  version = manifest.get('schema_version')
  if version != SCHEMA_VERSION:
    raise ValueError(
      f'{path} must have schema_version {SCHEMA_VERSION}; got {version!r}. It '
      'was written by another version, or is no sample store: grow it again.'
    )
  shards = manifest.get('shards')
  if not shards or not isinstance(shards, list):
    raise ValueError(f'{path} must list at least one shard; got {shards!r}.')
  if not isinstance(manifest.get('num_sources'), int):
    raise ValueError(
      f'{path} must have num_sources, a number; got '
      f'{manifest.get("num_sources")!r}.'
    )
  for index, shard in enumerate(shards):
    expected = shard_path('', index, len(shards)).name
    if not _is_entry(shard) or shard['file'] != expected:
      raise ValueError(
        f'{path} must give {", ".join(_SHARD_KEYS)} of shard {index}, '
        f'{expected}; got {shard}.'
      )
  total = sum(shard['rows'] for shard in shards)
  if manifest.get('num_rows') != total:
    raise ValueError(
      f'{path} must have num_rows {total}, the rows of its shards; '
      f'got {manifest.get("num_rows")!r}.'
    )


def _is_entry(shard: Any) -> bool:
  kinds = dict(zip(_SHARD_KEYS, (str, int, str), strict=True))
  return isinstance(shard, dict) and all(
    isinstance(shard.get(key), kind) for key, kind in kinds.items()
  )


def _open_shards(
  path: pathlib.Path, manifest: dict[str, Any], verify: Verify
) -> list[Shard]:
  """Opens the shards of a manifest, comparing them with it."""
  shards = []
  for entry in manifest['shards']:
    shard_file = path.parent / entry['file']
    if verify == 'full' and shard_file.is_file():
      found = files.sha256(shard_file)
      if found != entry['sha256']:
        raise ValueError(
          f'{shard_file} must have the checksum of {MANIFEST}, '
          f'{entry["sha256"]}; got {found}. The shard is damaged: remove it and '
          f'{MANIFEST}, and run the Grow step again; it makes this shard alone.'
        )
    shard = Shard(shard_file, entry['sha256'])
    if len(shard) != entry['rows']:
      raise ValueError(
        f'{shard_file} must have the rows of {MANIFEST}, {entry["rows"]}; got '
        f'{len(shard)}. Remove it and {MANIFEST}, and run the Grow step again.'
      )
    shards.append(shard)
  return shards
