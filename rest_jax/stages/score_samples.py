"""Rewards of the samples of a store, scored shard by shard.

A shard that is scored is not scored again.
"""

from collections.abc import Iterable, Mapping, Sequence
import contextlib
import dataclasses
import pathlib
import zipfile

import numpy as np

from rest_jax.data import pair_store, sample_rewards, sample_store, vocabularies
from rest_jax.parallel import processes
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import normalize
from rest_jax.rewards import peers as peers_lib
from rest_jax.runtime import progress as progress_lib
from rest_jax.storage import files, paths

Columns = Mapping[str, np.ndarray]

_RAW = 'raw'
# numpy's errors for a file that is missing, cut off or damaged.
_UNREADABLE = (
  FileNotFoundError,
  zipfile.BadZipFile,
  EOFError,
  KeyError,
  ValueError,
)


def texts(
  shard: sample_store.Shard,
  pairs: pair_store.PairStore,
  vocabulary: vocabularies.Vocabulary,
) -> tuple[list[str], list[str]]:
  """Returns the source and the hypothesis of each row of a shard."""
  hypotheses = vocabulary.decode_batch(list(shard.tokens))
  sources = [pairs.source_text(int(row)) for row in shard.source_id]
  for index in np.flatnonzero(
    shard.sample_id == sample_store.REFERENCE_SAMPLE_ID
  ):
    # The text as it was written, which its tokens need not give back.
    hypotheses[index] = pairs.reference_text(int(shard.source_id[index]))
  return sources, hypotheses


def check_references(
  reward: rewards_base.Reward, pairs: pair_store.PairStore, split: str
) -> None:
  """Raises ValueError if a reward needs references that a split lacks."""
  if reward.needs_references and not pairs.has_references:
    raise ValueError(
      f'reward {reward.name!r} compares with references, and the {split} '
      'split has none. Use pairs with references there (Task.grow for the '
      'Grow steps), or a reward without references.'
    )


@dataclasses.dataclass(frozen=True)
class Store:
  """Samples to score.

  Attributes:
    directory: folder of the samples; the shards are complete.
    rewards_in: folder of the rewards; None for `directory`.
  """

  directory: pathlib.Path
  num_shards: int
  pairs: pair_store.PairStore
  vocabulary: vocabularies.Vocabulary
  rewards_in: pathlib.Path | None = None

  @property
  def output(self) -> pathlib.Path:
    return self.rewards_in or self.directory

  def shard(self, number: int) -> sample_store.Shard:
    """Opens a shard of the samples."""
    return sample_store.Shard(
      sample_store.shard_path(self.directory, number, self.num_shards)
    )


def score(
  store: Store,
  *,
  reward: rewards_base.Reward,
  normalizer: normalize.Normalizer | None,
  description: str,
  evidence: peers_lib.Evidence | None = None,
) -> normalize.Normalizer:
  """Scores a store, writes its reward files and returns the normaliser.

  Each process scores and writes the shards of its share, and reads the raw
  rewards of all shards for the normaliser. A reward composed of others also has
  a file for each of them.

  Args:
    reward: scores each distinct (source, text) once.
    normalizer: the run's normaliser; None to fit one to the raw rewards of this
      store, without vetoed rows.
    evidence: see `score_raw`.
  """
  name, scales = reward.name, rewards_base.scales(reward)
  num_shards = store.num_shards
  done = _done(store, (name, *scales))
  scratch = _scratch(store.output, name)
  if normalizer is not None and len(done) == num_shards:
    if processes.is_main():  # A program that was killed may have left it.
      paths.remove_tree(scratch, missing_ok=True)
    return normalizer
  share = processes.share()
  score_raw(
    store,
    reward=reward,
    shards=[
      shard
      for shard in range(num_shards)
      if shard in share and shard not in done
    ],
    description=description,
    evidence=evidence,
  )
  processes.barrier(description)
  raws = [
    _scored(store, (name, *scales), shard)
    if shard in done
    else _read_raw(_raw_path(store.output, name, shard))
    for shard in range(num_shards)
  ]
  if normalizer is None:
    normalizer = _normalizer(
      np.concatenate([raw[name] for raw in raws]), rewards_base.floor(reward)
    )
  for shard, raw in enumerate(raws):
    if shard in share:
      _write(store, shard, raw, {name: normalizer, **scales})
  processes.barrier(f'{description}: written')
  processes.by_main(
    f'{description}: done',
    lambda: paths.remove_tree(scratch, missing_ok=True),
  )
  return normalizer


def _done(store: Store, columns: Iterable[str]) -> set[int]:
  """Returns the shards that have the files of all columns."""
  return set.intersection(
    *(
      sample_store.finished_rewards(
        store.output, column, store.num_shards, samples_in=store.directory
      )
      for column in columns
    )
  )


def _write(
  store: Store,
  shard: int,
  raw: Columns,
  scales: Mapping[str, normalize.Normalizer],
) -> None:
  """Writes the reward files of a shard."""
  for column, scale in scales.items():
    sample_store.write_rewards(
      store.output,
      column,
      shard,
      store.num_shards,
      raw[column],
      scale(raw[column]),
      samples_in=store.directory,
    )


def score_raw(
  store: Store,
  *,
  reward: rewards_base.Reward,
  shards: Sequence[int],
  description: str,
  evidence: peers_lib.Evidence | None = None,
) -> None:
  """Scores some shards of a store; `score` normalises the rewards of all.

  Args:
    store: the samples; only `shards` have to be complete.
    evidence: gives the samples of a source to a reward that compares them. None
      for the samples of the store itself, which lie in one shard per source;
      references are compared with them, but are not among them.
  """
  with progress_lib.Progress(description, len(shards), 'shard') as progress:
    for number in shards:
      path = _raw_path(store.output, reward.name, number)
      if not _is_raw(path):
        shard, pairs = store.shard(number), store.pairs
        sources, hypotheses = texts(shard, pairs, store.vocabulary)
        references = peers = None
        if reward.needs_references:
          references = [pairs.reference_text(int(r)) for r in shard.source_id]
        if rewards_base.needs_samples(reward):
          peers = _peers(shard, hypotheses, evidence)
        columns = rewards_base.columns(
          reward, sources, hypotheses, references, peers
        )
        _write_raw(path, columns)
      progress.advance(1)


def _peers(
  shard: sample_store.Shard,
  hypotheses: Sequence[str],
  evidence: peers_lib.Evidence | None,
) -> peers_lib.Peers:
  """Returns the samples that each row of a shard is compared with."""
  if evidence is not None:
    return peers_lib.Peers.fixed(shard.source_id, evidence)
  return peers_lib.Peers.own(
    shard.source_id,
    hypotheses,
    np.asarray(shard.sample_id) != sample_store.REFERENCE_SAMPLE_ID,
  )


def is_scored_raw(directory: pathlib.Path, name: str, num_shards: int) -> bool:
  """Whether the raw rewards of all shards exist."""
  return all(
    _raw_path(directory, name, shard).exists() for shard in range(num_shards)
  )


def _normalizer(raw: np.ndarray, floor: float | None) -> normalize.Normalizer:
  if floor is not None:
    # The floor marks vetoed rows; it would stretch the scale.
    raw = raw[raw > np.float32(floor)]
  return normalize.Normalizer.from_raw(raw)


def _scored(store: Store, names: Iterable[str], shard: int) -> Columns:
  """Returns the raw rewards of a shard from its complete reward files."""
  num_shards = store.num_shards
  info = sample_store.shard_info(
    sample_store.shard_path(store.directory, shard, num_shards)
  )
  return {
    name: sample_rewards.read_rewards(
      sample_store.rewards_path(store.output, name, shard, num_shards),
      rows=info.rows,
      samples_sha256=info.sha256,
    )[0]
    for name in names
  }


def _scratch(directory: pathlib.Path, name: str) -> pathlib.Path:
  """Returns the folder of raw rewards, used until the normaliser is known."""
  return directory / f'.{_RAW}-{name}'


def _raw_path(directory: pathlib.Path, name: str, shard: int) -> pathlib.Path:
  return _scratch(directory, name) / f'{shard:05d}.npz'


def _write_raw(path: pathlib.Path, raw: Columns) -> None:
  with files.atomic_write(path) as temporary, temporary.open('wb') as opened:
    np.savez(
      opened,
      names=np.asarray(list(raw)),
      columns=np.asarray(list(raw.values()), np.float32),
    )


def _read_raw(path: pathlib.Path) -> Columns:
  # numpy would leave a damaged file open.
  with path.open('rb') as opened, np.load(opened) as stored:
    return dict(zip(stored['names'].tolist(), stored['columns'], strict=True))


def _is_raw(path: pathlib.Path) -> bool:
  """Whether a file of raw rewards exists and is complete."""
  with contextlib.suppress(*_UNREADABLE):
    _read_raw(path)
    return True
  return False
