"""Text files that a stage has read: recorded, and compared when it is reused.

Settings name files, not their content: a finished stage is reused if a file has
changed since, and this says so.
"""

from collections.abc import Iterable, Mapping
import os
import pathlib
from typing import Any

from absl import logging

from rest_jax.data import sources
from rest_jax.parallel import processes
from rest_jax.stages import folder as folder_lib
from rest_jax.storage import files

FIELD = 'text_files'
_NAMES = 'source_files', 'reference_files', 'files'


def of_pairs(splits: Iterable[sources.PairSource]) -> dict[str, Any]:
  """Returns the record of the files of pairs, for a manifest."""
  return of_files(
    path
    for split in splits
    for part in sources.parts(split)
    for name in _NAMES
    for path in getattr(part, name, ())
  )


def of_files(paths: Iterable[str]) -> dict[str, Any]:
  """Returns size, time of change and checksum of files, by their paths."""
  return {
    path: {**_state(path), 'sha256': files.sha256(path)}
    for path in dict.fromkeys(paths)
  }


def warn_of_changes(folder: pathlib.Path) -> None:
  """Logs the files that have changed since a finished stage read them.

  Files that do not exist any more, such as on another machine, are left out.
  """
  if not processes.is_main():
    return
  recorded: Mapping[str, Any] = folder_lib.read_manifest(folder).get(FIELD, {})
  for path, before in recorded.items():
    if not os.path.isfile(path):
      continue
    now = _state(path)
    is_same = now.items() <= before.items()
    if not is_same and files.sha256(path) != before['sha256']:
      logging.warning(
        '%s: %s has changed since it was read, and is not read again. To use '
        'it as it is now, remove %s, or choose another --model_dir.',
        folder.name,
        path,
        folder,
      )


def _state(path: str) -> dict[str, int]:
  found = os.stat(path)
  return {'size': found.st_size, 'mtime_ns': found.st_mtime_ns}
