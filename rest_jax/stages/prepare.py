"""Stage `prepare`: text to a vocabulary and tokenised pairs, stored once."""

from collections.abc import Iterator
import dataclasses
import hashlib
import pathlib
from typing import Any

from absl import logging

from rest_jax.data import files, pair_store, sources, vocabularies
from rest_jax.data import task as task_lib
from rest_jax.parallel import processes
from rest_jax.stages import folder as folder_lib

VOCABULARY_FILE = 'vocab.model'
TRAIN, VALIDATION, TEST, GROW = 'train', 'validation', 'test', 'grow'


@dataclasses.dataclass(frozen=True)
class PreparedData:
  """A finished `data/` folder.

  Attributes:
    directory: the folder.
    vocabulary: its sentencepiece model.
    digest: of vocabulary and pairs; it feeds every later stage.
  """

  directory: pathlib.Path
  vocabulary: vocabularies.Vocabulary
  digest: str

  def pairs(self, split: str) -> pair_store.PairStore:
    """Opens the pairs of 'train', 'validation', 'test' or 'grow'."""
    return pair_store.PairStore.open(self.directory, split)

  @property
  def grow_split(self) -> str:
    """The split whose sources a Grow samples for: D's own unless others are."""
    counts = folder_lib.read_manifest(self.directory)['splits']
    return GROW if GROW in counts else TRAIN


def run(
  task: task_lib.Task, *, directory: str | pathlib.Path, overwrite: bool = False
) -> PreparedData:
  """Reads the task's text, makes the vocabulary and stores tokenised pairs.

  Args:
    task: what to read, and the limits on pairs.
    directory: the folder to write, `data/` of a run.
    overwrite: see `folder.begin`.

  Returns:
    The prepared data.

  Raises:
    ValueError: for unreadable or misaligned input; see `data.sources`.
  """
  # Ratings and judge feed later stages only.
  feeding = dataclasses.replace(task, ratings=None, judge=None)
  folder = folder_lib.begin(directory, {'task': feeding}, overwrite=overwrite)
  if folder.is_finished:
    return load(folder.path)
  counts = processes.by_main('prepare', lambda: _make(task, folder.path))
  vocabulary = vocabularies.Vocabulary(folder.path / VOCABULARY_FILE)
  written = sorted(folder.path.glob('pairs-*'))
  folder.finish(
    {
      'splits': counts,
      'vocabulary': {'size': vocabulary.size, 'digest': vocabulary.digest},
      'files': {file.name: files.sha256(file) for file in written},
    }
  )
  return load(folder.path)


def _make(task: task_lib.Task, directory: pathlib.Path) -> dict[str, Any]:
  """Makes vocabulary and pairs; returns what was read of each split."""
  splits = {TRAIN: task.train, VALIDATION: task.validation, TEST: task.test}
  if task.grow is not None:
    splits[GROW] = task.grow
  path = directory / VOCABULARY_FILE
  vocabularies.train(task.vocabulary, _texts([task.train, task.grow]), path)
  vocabulary = vocabularies.Vocabulary(path)
  counts = {}
  for split, source in splits.items():
    counts[split] = pair_store.build(
      directory,
      split,
      source,
      vocabulary,
      max_source_length=task.max_source_length,
      max_target_length=task.max_target_length,
      max_length_ratio=task.max_length_ratio,
    )
    _report(split, counts[split])
  return counts


def load(directory: str | pathlib.Path) -> PreparedData:
  """Opens a finished folder; an unfinished one is an error."""
  directory = pathlib.Path(directory)
  manifest = folder_lib.read_manifest(directory)
  hashed = hashlib.sha256(manifest['vocabulary']['digest'].encode())
  for name, checksum in sorted(manifest['files'].items()):
    hashed.update(f'{name} {checksum}'.encode())
  vocabulary = vocabularies.Vocabulary(directory / VOCABULARY_FILE)
  return PreparedData(directory, vocabulary, hashed.hexdigest())


def _texts(
  pair_sources: list[sources.PairSource | None],
) -> Iterator[str]:
  for source in pair_sources:
    if source is None:
      continue
    for pair in source.read():
      yield pair.source
      if pair.reference is not None:
        yield pair.reference


def _report(split: str, counts: dict) -> None:
  dropped = counts['read'] - counts['kept']
  message = '%s: %d pairs read, %d kept, %d dropped (%s)'
  reasons = ', '.join(
    f'{name.removeprefix("dropped_")} {count}'
    for name, count in counts.items()
    if name.startswith('dropped_') and isinstance(count, int)
  )
  write = logging.info
  if dropped and split in (VALIDATION, TEST):
    # Scores are then of fewer segments than the benchmark has.
    write = logging.warning
  write(message, split, counts['read'], counts['kept'], dropped, reasons)
