"""The number of distinct samples in a training."""

from collections.abc import Sequence
import hashlib
import os

import numpy as np

from rest_jax.storage import growing_file

_BYTES = 8


class SeenSamples:
  """Counts distinct (source, text), by 64-bit hashes in a file.

  The file has one hash per sample in sampling order, so that a resumed training
  can drop the samples after its checkpoint. Among 10^8 samples, the probability
  that two different ones share a hash is below 0.001.
  """

  def __init__(self, path: str | os.PathLike[str], num_samples: int):
    """Opens the file.

    Args:
      num_samples: number of samples so far; later ones in the file are dropped.

    Raises:
      ValueError: the file has fewer samples.
    """
    self._file = growing_file.GrowingFile(path)
    self._path = self._file.local
    self._path.touch()
    stored = self._path.stat().st_size // _BYTES
    if stored < num_samples:
      raise ValueError(
        f'{path} must hold the hashes of the {num_samples} samples drawn '
        f'so far; it holds {stored}. It is damaged: remove its folder to rerun '
        'the stage.'
      )
    os.truncate(self._path, num_samples * _BYTES)

  def add(self, rows: np.ndarray, texts: Sequence[str]) -> None:
    """Adds samples, and flushes them to disk."""
    hashes = b''.join(
      hashlib.blake2b(f'{row}\t{text}'.encode(), digest_size=_BYTES).digest()
      for row, text in zip(rows.tolist(), texts, strict=True)
    )
    with open(self._path, 'ab') as opened:
      opened.write(hashes)
      opened.flush()
      os.fsync(opened.fileno())

  def publish(self) -> None:
    """Uploads the file if it belongs in a bucket."""
    self._file.publish()

  def count(self) -> int:
    """Returns the number of distinct samples."""
    return int(np.unique(np.fromfile(self._path, np.uint64)).size)
