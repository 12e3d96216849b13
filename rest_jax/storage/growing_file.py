"""Files that grow or change in place, which objects of a bucket cannot."""

import os
import pathlib
import shutil
import tempfile
from typing import Any
import weakref

from rest_jax.storage import files, paths


class GrowingFile:
  """A file to work on: itself, or a local copy of an object.

  Attributes:
    path: the file.
    local: the file to read and write.
  """

  def __init__(self, path: paths.PathLike):
    """Downloads an object, if it exists."""
    self.path = paths.of(path)
    self.local = self.path
    if paths.is_remote(self.path):
      self.local = _scratch(self) / self.path.name
      if self.path.is_file():
        self.local.write_bytes(self.path.read_bytes())
    else:
      self.path.parent.mkdir(parents=True, exist_ok=True)

  def publish(self) -> None:
    """Makes the object equal to the local copy, which was flushed before."""
    if self.local != self.path and self.local.exists():
      files.publish(self.local, self.path)


class GrowingFolder:
  """The same for the new files of a folder, which are only added."""

  def __init__(self, path: paths.PathLike):
    self.path = paths.of(path)
    self.local = self.path
    if paths.is_remote(self.path):
      self.local = _scratch(self)

  def publish(self) -> None:
    """Uploads all files."""
    if self.local == self.path:
      return
    for directory, _, names in os.walk(self.local):
      for name in names:
        file = pathlib.Path(directory) / name
        relative = file.relative_to(self.local).as_posix()
        files.publish(file, self.path / relative)


def _scratch(owner: Any) -> pathlib.Path:
  """Returns a new local folder, removed with its owner."""
  folder = tempfile.mkdtemp()
  weakref.finalize(owner, shutil.rmtree, folder, True)
  return pathlib.Path(folder)
