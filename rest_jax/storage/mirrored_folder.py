"""The local side of a mirror: the files of a run's folder, and its marker.

The marker `mirror.json` in the folder has the address and the last commit that
both sides had.
"""

from collections.abc import Iterable, Iterator
import dataclasses
import hashlib
import os
import pathlib
from typing import Any

from rest_jax.storage import files, inventory, lock

# Not hidden, so that removing all files of the folder removes it too.
MARKER_FILE = 'mirror.json'

_CHUNK_BYTES = 4 << 20
# Made on each machine separately.
_OWN = ('.jax_cache', 'wandb', MARKER_FILE)
# In the names of incomplete files.
_HALF_ENDS = ('.tmp', '.removed')
_HALF_OF_ORBAX = 'orbax-checkpoint-tmp'

# Size, mtime, ctime, inode.
_Stamp = tuple[int, ...]


@dataclasses.dataclass
class Marker:
  """The state of a folder's mirror.

  Attributes:
    address: address of the mirror.
    commit: id of the last commit that the folder had or made; None during a
      download, and before the first.
    attempted: id of a commit that may have been made.
    files: files of `commit`.
    stamps: stat values and checksum of files when the checksum was computed.
  """

  address: str
  commit: str | None = None
  attempted: str | None = None
  files: inventory.Inventory = dataclasses.field(default_factory=dict)
  stamps: dict[str, tuple[_Stamp, str]] = dataclasses.field(
    default_factory=dict
  )


class Folder:
  """The folder of a run, without incomplete and local-only files."""

  def __init__(self, path: str | os.PathLike[str]):
    self.path = pathlib.Path(path)
    self._stamps: dict[str, tuple[_Stamp, str]] = {}

  def read_marker(self) -> Marker | None:
    """Returns the marker; None if the folder was never mirrored."""
    path = self.path / MARKER_FILE
    if not path.exists():
      return None
    content = files.read_json(path, must_be_sealed=True)
    marker = Marker(**content)
    marker.files = as_inventory(marker.files)
    marker.stamps = self._stamps = {
      name: (tuple(stamp), digest)
      for name, (stamp, digest) in marker.stamps.items()
    }
    return marker

  def write_marker(self, marker: Marker) -> None:
    """Writes the marker."""
    marker.stamps = self._stamps
    files.write_json(
      self.path / MARKER_FILE, dataclasses.asdict(marker), sealed=True
    )

  def entries(self) -> inventory.Inventory:
    """Returns its files with size and checksum.

    A file whose stat values did not change is not read again.
    """
    stamps, found = {}, {}
    for name in sorted(_names(self.path)):
      path = self.path / name
      stamp = _stamp(path)
      known = self._stamps.get(name)
      if known is None or known[0] != stamp:
        known = (stamp, _sha256(path, stamp[0]))
      stamps[name] = known
      found[name] = (stamp[0], known[1])
    self._stamps = stamps
    return found

  def know(self, name: str, digest: str) -> None:
    """Stores the checksum of a file in its current state."""
    self._stamps[name] = (_stamp(self.path / name), digest)

  def remove(self, names: Iterable[str]) -> None:
    """Removes files, and folders that become empty."""
    for name in names:
      (self.path / name).unlink(missing_ok=True)
      self._prune(name)

  def set_aside(self, names: Iterable[str]) -> pathlib.Path:
    """Moves files to a new folder beside this one, and returns it."""
    number = 1
    while (
      aside := self.path.with_name(f'{self.path.name}.kept_{number}')
    ).exists():
      number += 1
    for name in names:
      (aside / name).parent.mkdir(parents=True, exist_ok=True)
      os.replace(self.path / name, aside / name)
      self._prune(name)
    return aside

  def _prune(self, name: str) -> None:
    """Removes the folders of a file that are empty.

    An empty folder might be taken for a checkpoint, for example.
    """
    for parent in pathlib.PurePosixPath(name).parents:
      if parent.name:
        try:
          (self.path / parent).rmdir()
        except OSError:
          return


def as_inventory(value: Any) -> inventory.Inventory:
  """Returns JSON values as an inventory of files below a folder.

  Raises:
    ValueError: they are not an inventory, or a path leads out of the folder.
  """
  if not inventory.is_one(value):
    raise ValueError('files must be listed with size and checksum')
  for name in value:
    path = pathlib.PurePosixPath(name)
    if path.is_absolute() or '..' in path.parts or path.as_posix() != name:
      raise ValueError(f'{name!r} is no path of a file inside of a folder')
  return {name: (size, digest) for name, (size, digest) in value.items()}


def _names(root: pathlib.Path) -> Iterator[str]:
  """Yields the relative paths of all mirrored files."""
  if not root.exists():
    return
  for directory, folders, names in os.walk(root):
    folders[:] = filter(_counts, folders)
    for name in filter(_counts, names):
      yield (pathlib.Path(directory) / name).relative_to(root).as_posix()


def _counts(name: str) -> bool:
  return not (
    name in _OWN
    or name.startswith(lock.LOCK_FILE)
    or name.endswith(_HALF_ENDS)
    or _HALF_OF_ORBAX in name
  )


def _stamp(path: pathlib.Path) -> _Stamp:
  found = path.stat()
  return (
    found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino,
  )  # fmt: skip


def _sha256(path: pathlib.Path, size: int) -> str:
  """Returns the checksum of the first `size` bytes: a file may be growing."""
  hashed = hashlib.sha256()
  with open(path, 'rb') as opened:
    while chunk := opened.read(min(size, _CHUNK_BYTES)):
      hashed.update(chunk)
      size -= len(chunk)
  return hashed.hexdigest()
