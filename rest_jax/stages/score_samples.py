"""Rewards of the samples of a store, scored shard by shard.

A shard that is scored is never scored again.
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
from rest_jax.runtime import progress as progress_lib
from rest_jax.storage import files, paths

Columns = Mapping[str, np.ndarray]

_RAW = 'raw'
# What numpy says of a file that is not there, cut off or damaged.
_UNREADABLE = (
  FileNotFoundError,
  zipfile.BadZipFile,
  EOFError,
  KeyError,
  ValueError,
)


def texts(
  directory: pathlib.Path,
  shard: int,
  num_shards: int,
  pairs: pair_store.PairStore,
  vocabulary: vocabularies.Vocabulary,
) -> tuple[list[str], list[str]]:
  """Returns source and hypothesis text of each row of a shard."""
  opened = sample_store.Shard(
    sample_store.shard_path(directory, shard, num_shards)
  )
  hypotheses = vocabulary.decode_batch(list(opened.tokens))
  sources = [pairs.source_text(int(row)) for row in opened.source_id]
  for index in np.flatnonzero(
    opened.sample_id == sample_store.REFERENCE_SAMPLE_ID
  ):
    # As written, not as its tokens decode.
    hypotheses[index] = pairs.reference_text(int(opened.source_id[index]))
  return sources, hypotheses


def reference_texts(
  directory: pathlib.Path,
  shard: int,
  num_shards: int,
  pairs: pair_store.PairStore,
) -> list[str]:
  """Returns the reference of the source of each row of a shard."""
  opened = sample_store.Shard(
    sample_store.shard_path(directory, shard, num_shards)
  )
  return [pairs.reference_text(int(row)) for row in opened.source_id]


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
  """Where samples are, and where their rewards go.

  Attributes:
    directory: the store's folder; its shards are complete.
    num_shards: number of shards.
    rewards_in: the folder that receives the rewards; None for that of the
      samples.
  """

  directory: pathlib.Path
  num_shards: int
  rewards_in: pathlib.Path | None = None

  @property
  def output(self) -> pathlib.Path:
    return self.rewards_in or self.directory


def score(
  store: Store,
  *,
  reward: rewards_base.Reward,
  pairs: pair_store.PairStore,
  vocabulary: vocabularies.Vocabulary,
  normalizer: normalize.Normalizer | None,
  description: str,
  evidence: rewards_base.Evidence | None = None,
) -> normalize.Normalizer:
  """Scores every row of a store and writes its row-aligned reward files.

  Several processes score and write the shards of their shares; each reads the
  raw rewards of all, of which the normaliser is made.

  A reward that is made of others has a file for each of them as well.

  Args:
    store: the samples.
    reward: scores each distinct (source, text) once.
    pairs: the sources.
    vocabulary: to turn tokens into text.
    normalizer: the run's; None makes it from all raw rewards of this store but
      those of vetoed rows.
    description: the words before the progress bar.
    evidence: see `score_raw`.

  Returns:
    The normaliser.
  """
  name, scales = reward.name, rewards_base.scales(reward)
  directory, num_shards = store.directory, store.num_shards
  done = set.intersection(
    *(
      sample_store.finished_rewards(
        store.output, column, num_shards, samples_in=directory
      )
      for column in (name, *scales)
    )
  )
  if normalizer is not None and len(done) == num_shards:
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
    pairs=pairs,
    vocabulary=vocabulary,
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
    if shard not in share:
      continue
    for column, scale in {name: normalizer, **scales}.items():
      sample_store.write_rewards(
        store.output,
        column,
        shard,
        num_shards,
        raw[column],
        scale(raw[column]),
        samples_in=directory,
      )
  processes.barrier(f'{description}: written')
  processes.by_main(
    f'{description}: done',
    lambda: paths.remove_tree(_scratch(store.output, name), missing_ok=True),
  )
  return normalizer


def score_raw(
  store: Store,
  *,
  reward: rewards_base.Reward,
  shards: Sequence[int],
  pairs: pair_store.PairStore,
  vocabulary: vocabularies.Vocabulary,
  description: str,
  evidence: rewards_base.Evidence | None = None,
) -> None:
  """Scores some shards of a store, whose raw rewards wait for the others'.

  Args:
    store: the samples; only `shards` have to be complete.
    reward: scores each distinct (source, text) once.
    shards: which shards.
    pairs: the sources.
    vocabulary: to turn tokens into text.
    description: the words before the progress bar.
    evidence: gives the samples of a source to a reward that needs them. None
      for those of the store itself, all of which lie in one shard; a reference
      is judged by them and is not one of them.
  """
  directory, num_shards = store.directory, store.num_shards
  with progress_lib.Progress(description, len(shards), 'shard') as progress:
    for shard in shards:
      path = _raw_path(store.output, reward.name, shard)
      if not _is_raw(path):
        sources, hypotheses = texts(
          directory, shard, num_shards, pairs, vocabulary
        )
        references = None
        if reward.needs_references:
          references = reference_texts(directory, shard, num_shards, pairs)
        peers = None
        if rewards_base.needs_samples(reward):
          peers = _peers(directory, shard, num_shards, hypotheses, evidence)
        columns = rewards_base.columns(
          reward, sources, hypotheses, references, peers
        )
        _write_raw(path, columns)
      progress.advance(1)


def _peers(
  directory: pathlib.Path,
  shard: int,
  num_shards: int,
  hypotheses: Sequence[str],
  evidence: rewards_base.Evidence | None,
) -> rewards_base.Peers:
  """The samples by which each row of a shard is judged."""
  opened = sample_store.Shard(
    sample_store.shard_path(directory, shard, num_shards)
  )
  if evidence is not None:
    return rewards_base.Peers.fixed(opened.source_id, evidence)
  return rewards_base.Peers.own(
    opened.source_id,
    hypotheses,
    np.asarray(opened.sample_id) != sample_store.REFERENCE_SAMPLE_ID,
  )


def is_scored_raw(directory: pathlib.Path, name: str, num_shards: int) -> bool:
  """Whether the raw rewards of all shards are there."""
  return all(
    _raw_path(directory, name, shard).exists() for shard in range(num_shards)
  )


def _normalizer(raw: np.ndarray, floor: float | None) -> normalize.Normalizer:
  if floor is not None:
    # The floor is no reward of any text, and would stretch the scale.
    raw = raw[raw > np.float32(floor)]
  return normalize.Normalizer.from_raw(raw)


def _scored(store: Store, names: Iterable[str], shard: int) -> Columns:
  """Raw rewards of a shard whose reward files are there and whole."""
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
  """Where raw rewards are kept until the normaliser is known."""
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
  # Opened here, so that it is closed if its content is damaged.
  with path.open('rb') as opened, np.load(opened) as stored:
    return dict(zip(stored['names'].tolist(), stored['columns'], strict=True))


def _is_raw(path: pathlib.Path) -> bool:
  """Whether raw rewards are there, neither cut off nor damaged."""
  with contextlib.suppress(*_UNREADABLE):
    _read_raw(path)
    return True
  return False
