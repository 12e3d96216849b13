"""A run's stored data as examples for other trainers.

An example is a dict of numpy arrays and texts. For a prepared pair:

    inputs, targets             int32 [S], [T]: token ids of the run, with EOS
    inputs_pretokenized, targets_pretokenized   the texts

For a row of D_g also `REWARD_FEATURES`, float32 numbers with which a loss can
apply F of Eq. 2.
"""

from collections.abc import Callable, Mapping
import dataclasses
import math
import os
import pathlib
from typing import Any

import numpy as np

from rest_jax.data import (
  pair_store,
  prepared_digest,
  sample_store,
  vocabularies,
)
from rest_jax.storage import files, paths

REWARD_FEATURES = ('rewards', 'thresholds', 'row_weights')

PathLike = str | os.PathLike[str]

_DATA_FOLDER = 'data'
# `data/` is beside grow_1, and two folders further up for a variant's Grow
# step.
_DEPTH = 3


@dataclasses.dataclass(frozen=True)
class Rows:
  """The examples of a split, by an index below `count`."""

  count: int
  example: Callable[[int], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class StoredRows:
  """The splits of a folder.

  Attributes:
    data_directory: the `data/` folder with the vocabulary of the tokens.
  """

  data_directory: pathlib.Path
  splits: Mapping[str, Rows]


def vocabulary_path(data_directory: PathLike) -> pathlib.Path:
  """Returns the path of the vocabulary of a `data/` folder."""
  return vocabularies.stored(paths.of(data_directory).resolve())


def of_pairs(data_directory: PathLike) -> StoredRows:
  """Returns all splits of prepared pairs; without targets for sources only.

  Raises:
    FileNotFoundError: if the folder is not finished.
  """
  directory = _finished([paths.of(data_directory).resolve()])
  counts = files.read_json(directory / sample_store.MANIFEST)['splits']
  splits = {split: _pairs(directory, split) for split in counts}
  return StoredRows(directory, splits)


def of_store(
  grow_directory: PathLike,
  *,
  threshold: float = -math.inf,
  reward_name: str | None = None,
  data_directory: PathLike | None = None,
  include_references: bool = True,
  include_unfinished: bool = False,
  reference_weight: float = 1.0,
) -> StoredRows:
  """Returns the split 'train': the rows of D_g above a threshold.

  `rewards` are normalised, `thresholds` equal `threshold`, and `row_weights`
  are the weights of references; samples have weight 1.

  Source: ReST (arXiv 2308.08998), Eq. 2.

  Args:
    threshold: tau; rows with a normalised reward R <= tau are left out.
    reward_name: name of the reward; None for the reward that scored the Grow
      step.
    data_directory: its `data/` folder; None for that of its run.
    include_references: whether to include D's own pairs, scored like samples.
    include_unfinished: whether to include samples without EOS.
    reference_weight: weight of references, at least 0.

  Raises:
    ValueError: for an invalid number, if a reward must be named, if no row is
      left, or if the data does not belong to the store.
  """
  if math.isnan(threshold):
    raise ValueError('threshold must be a number, or -inf for all; got nan.')
  if not reference_weight >= 0:
    raise ValueError(
      f'reference_weight must be at least 0; got {reference_weight}.'
    )
  store = sample_store.SampleStore.open(grow_directory)
  directory = _data_of(store, data_directory)
  vocabulary = vocabularies.Vocabulary(vocabulary_path(directory))
  prepared = files.read_json(directory / sample_store.MANIFEST)
  if not prepared_digest.is_of(
    store.manifest,
    data=prepared_digest.of_data(prepared),
    vocabulary=vocabulary.digest,
  ):
    raise ValueError(
      f'data_directory must be what {store.directory} was grown from; the text '
      f'or vocabulary of {directory} is another one.'
    )
  name = reward_name or _main_reward(store)
  raw, rewards = store.rewards(name)
  is_reference = store.sample_id == sample_store.REFERENCE_SAMPLE_ID
  keep = rewards > np.float32(threshold)
  if not include_references:
    keep &= ~is_reference
  if not include_unfinished:
    keep &= store.finished
  floor = store.manifest.get('rewards', {}).get(name, {}).get('floor')
  if floor is not None:  # Vetoed samples are excluded.
    keep &= raw > np.float32(floor)
  kept = np.flatnonzero(keep)
  if not kept.size:
    raise ValueError(
      f'threshold must leave some rows of {store.directory}; {threshold} leaves '
      f'none of {len(store)}, whose rewards go up to {rewards.max():.3f}.'
    )
  pairs = pair_store.PairStore.open(directory, store.manifest['split'])

  def example(number: int) -> dict[str, Any]:
    row = kept[number]
    source = int(store.source_id[row])
    tokens = store.tokens[row]
    weight = reference_weight if is_reference[row] else 1.0
    return {
      'inputs': pairs.source_tokens[source].astype(np.int32),
      'targets': tokens.astype(np.int32),
      'rewards': rewards[row],
      'thresholds': np.float32(threshold),
      'row_weights': np.float32(weight),
      'inputs_pretokenized': pairs.source_text(source),
      'targets_pretokenized': vocabulary.decode(tokens),
    }

  return StoredRows(directory, {'train': Rows(len(kept), example)})


def _pairs(directory: pathlib.Path, split: str) -> Rows:
  pairs = pair_store.PairStore.open(directory, split)
  references = pairs.reference_tokens

  def example(row: int) -> dict[str, Any]:
    tokens, text = np.zeros(0, np.int32), ''
    if references is not None:
      tokens, text = references[row], pairs.reference_text(row)
    return {
      'inputs': pairs.source_tokens[row].astype(np.int32),
      'targets': tokens.astype(np.int32),
      'inputs_pretokenized': pairs.source_text(row),
      'targets_pretokenized': text,
    }

  return Rows(len(pairs), example)


def _data_of(
  store: sample_store.SampleStore, data_directory: PathLike | None
) -> pathlib.Path:
  """Returns the `data/` folder of a Grow step: given, or that of its run."""
  if data_directory is not None:
    return _finished([paths.of(data_directory).resolve()])
  parents = store.directory.resolve().parents[:_DEPTH]
  return _finished([parent / _DATA_FOLDER for parent in parents])


def _finished(directories: list[pathlib.Path]) -> pathlib.Path:
  for directory in directories:
    if (directory / sample_store.MANIFEST).is_file():
      return directory
  raise FileNotFoundError(
    'data_directory must be a finished data folder of a run; none of '
    f'{", ".join(map(str, directories))} is one. Name it, or run '
    '--run_mode=prepare to its end.'
  )


def _main_reward(store: sample_store.SampleStore) -> str:
  """Returns the reward that scored a Grow step, not a part of it."""
  described = store.manifest.get('rewards', {})
  names = [name for name, of in described.items() if 'digest' in of]
  if len(names) != 1:
    raise ValueError(
      f'reward_name must name a reward of {store.directory}; it has '
      f'{", ".join(store.reward_names()) or "none"}.'
    )
  return names[0]
