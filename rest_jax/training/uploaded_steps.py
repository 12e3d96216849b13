"""Checkpoints in a store that Orbax does not write to, such as s3://.

Orbax works in a local folder. A checkpoint is uploaded once it is whole, its
metadata last, without which it does not count.
"""

import pathlib
import tempfile

from rest_jax.parallel import processes
from rest_jax.storage import paths

_LAST = '_CHECKPOINT_METADATA'


class UploadedSteps:
  """A local folder whose checkpoints are those of a folder in a store."""

  def __init__(self, path: pathlib.Path):
    """Downloads the checkpoints.

    Args:
      path: the folder in the store.

    Raises:
      ValueError: one of several processes asks for it.
    """
    if processes.count() > 1:
      raise ValueError(
        f'several processes save their checkpoints in gs:// or a shared folder; '
        f'got {path}. Use one process, or mount the store as a folder.'
      )
    self._path = path
    self._temporary = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    self.local = pathlib.Path(self._temporary.name)
    filesystem, name = paths.filesystem(path)
    for step in self._whole():
      filesystem.get(f'{name}/{step}', str(self.local / step), recursive=True)

  def publish(self) -> None:
    """Makes the store's checkpoints the local ones."""
    steps = {path.name for path in self.local.glob('[0-9]*')}
    for step in steps - self._whole():
      # A program that was killed may have left a part.
      paths.remove_tree(self._path / step, missing_ok=True)
      names = sorted(paths.sizes(self.local / step), key=_LAST.__eq__)
      for name in names:
        paths.upload(self.local / step / name, self._path / step / name)
    for step in self._whole() - steps:
      (self._path / step / _LAST).unlink()
    for name in {path.name for path in self._path.glob('[0-9]*')} - steps:
      paths.remove_tree(self._path / name)

  def close(self) -> None:
    self._temporary.cleanup()

  def _whole(self) -> set[str]:
    return {path.parent.name for path in self._path.glob(f'[0-9]*/{_LAST}')}
