"""Sizes and checksums of the files of a finished folder.

Excluded are files that no later stage reads and that can be recreated
(TensorBoard's events), hidden files (work in progress), and the manifest that
contains the inventory.
"""

from collections.abc import Collection, Mapping
import os
import pathlib
from typing import Any, Literal, NamedTuple

from rest_jax.storage import files, paths

Verify = Literal['fast', 'full']
# By relative path: number of bytes, SHA-256.
Inventory = dict[str, tuple[int, str]]

_DERIVED = 'events.out.tfevents.'


class Damage(NamedTuple):
  """A file that has changed since its folder was finished.

  Attributes:
    path: the file.
    what: description of the damage.
  """

  path: pathlib.Path
  what: str

  def __str__(self) -> str:
    return f'{self.path} {self.what}'


def take(
  directory: str | os.PathLike[str],
  *,
  without: Collection[str] = (),
  known: Mapping[str, str] | None = None,
) -> Inventory:
  """Lists the files of a folder.

  Args:
    directory: the folder.
    without: names of top-level files to exclude.
    known: known checksums by name.

  Returns:
    Its files, sorted by name.
  """
  directory, known = paths.of(directory), known or {}
  return {
    name: (size, known.get(name) or files.sha256(directory / name))
    for name, size in sorted(paths.sizes(directory).items())
    if name not in without and not _is_derived(name)
  }


def is_one(value: Any) -> bool:
  """Returns whether JSON values are an inventory."""
  return isinstance(value, dict) and all(
    isinstance(entry, list | tuple)
    and [type(part) for part in entry] == [int, str]
    for entry in value.values()
  )


def check(
  directory: str | os.PathLike[str],
  inventory: Mapping[str, tuple[int, str]],
  verify: Verify,
) -> list[Damage]:
  """Compares the files of a folder with its inventory.

  New files are not damage.

  Args:
    directory: the folder.
    inventory: result of `take`.
    verify: 'fast' compares sizes, 'full' also checksums.

  Returns:
    The files that differ.
  """
  damages, directory = [], paths.of(directory)
  sizes = paths.sizes(directory)
  for name, (size, checksum) in inventory.items():
    path, found = directory / name, sizes.get(name)
    if found is None:
      damages.append(Damage(path, 'is missing'))
    elif found != size:
      damages.append(Damage(path, f'has {found} bytes in place of {size}'))
    elif verify == 'full' and files.sha256(path) != checksum:
      damages.append(Damage(path, 'does not have its checksum'))
  return damages


def _is_derived(name: str) -> bool:
  return any(part.startswith(_DERIVED) for part in name.split('/'))
