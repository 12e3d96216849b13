"""Sizes and checksums of the files of a finished folder.

Excluded are files that no later stage reads and that can be recreated
(TensorBoard's events), hidden files (work in progress), and the manifest that
contains the inventory.
"""

from collections.abc import Collection, Iterator, Mapping
import os
import pathlib
from typing import Any, Literal, NamedTuple

from rest_jax.storage import files

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
  directory, known = pathlib.Path(directory), known or {}
  found: Inventory = {}
  for path in _files(directory):
    name = path.relative_to(directory).as_posix()
    if name not in without:
      checksum = known.get(name) or files.sha256(path)
      found[name] = (path.stat().st_size, checksum)
  return dict(sorted(found.items()))


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
  damages = []
  for name, (size, checksum) in inventory.items():
    path = pathlib.Path(directory) / name
    if not path.is_file():
      damages.append(Damage(path, 'is missing'))
    elif path.stat().st_size != size:
      damages.append(
        Damage(path, f'has {path.stat().st_size} bytes in place of {size}')
      )
    elif verify == 'full' and files.sha256(path) != checksum:
      damages.append(Damage(path, 'does not have its checksum'))
  return damages


def _files(directory: pathlib.Path) -> Iterator[pathlib.Path]:
  for entry in directory.iterdir():
    if entry.name.startswith('.') or entry.name.startswith(_DERIVED):
      continue
    if entry.is_dir():
      yield from _files(entry)
    else:
      yield entry
