"""Digests of trees of arrays, computed on the processes that hold them.

Orbax's files have random names, and a flipped bit is restored silently, so
arrays are compared, not files.
"""

from collections.abc import Sequence
import hashlib
import math
from typing import Any

import jax
import numpy as np

from rest_jax.parallel import processes

# Maximum number of blocks per axis, a power of 2 like mesh axes, and minimum
# number of elements per block.
_BLOCKS = 32
_ELEMENTS = 2**12


def digest(tree: Any) -> str:
  """Returns the SHA-256 of names, shapes, types and blocks of arrays.

  The blocks of an array depend only on its shape, so the digest does not depend
  on its sharding. Each process hashes its blocks, and hashes are exchanged
  instead of arrays, unless the sharding cuts through blocks. All processes must
  call it if an array is spread over several.
  """
  leaves = _named(tree)
  hashes = {name: _hashes(array) for name, array in leaves}
  spread = [name for name, array in leaves if processes.is_spread(array)]
  if spread:
    parts = processes.gather('digest', {name: hashes[name] for name in spread})
    for name in spread:
      hashes[name] = np.bitwise_or.reduce([part[name] for part in parts])
  hashed = hashlib.sha256()
  for name, array in leaves:
    hashed.update(f'{name}{array.shape}{array.dtype.name}'.encode())
    hashed.update(hashes[name].tobytes())
  return hashed.hexdigest()


def of_bytes(tree: Any) -> str:
  """Returns the SHA-256 of names, shapes, types and bytes of arrays, in order.

  Recorded by checkpoints of format 2 and imported policies. Each process needs
  all arrays completely.
  """
  hashed = hashlib.sha256()
  for name, array in _named(tree):
    array = processes.fetch(array)
    hashed.update(f'{name}{array.shape}{array.dtype.name}'.encode())
    hashed.update(np.ascontiguousarray(array).tobytes())
  return hashed.hexdigest()


def _named(tree: Any) -> list[tuple[str, Any]]:
  named = jax.tree_util.tree_leaves_with_path(tree)
  return sorted((jax.tree_util.keystr(path), leaf) for path, leaf in named)


def _hashes(array: Any) -> np.ndarray:
  """Returns the SHA-256 of local blocks, uint8 [*grid, 32]; 0 for others."""
  grid = _grid(array.shape)
  sizes = [n // cells for n, cells in zip(array.shape, grid, strict=True)]
  if not processes.is_spread(array):
    return _hashes_of(np.asarray(array), sizes)
  everywhere = array.sharding.devices_indices_map(array.shape).values()
  if any(_cells(index, array.shape, sizes) is None for index in everywhere):
    return _hashes_of(processes.fetch(array), sizes)
  hashes = np.zeros((*grid, 32), np.uint8)
  for shard in array.addressable_shards:
    if shard.replica_id == 0:
      cells = _cells(shard.index, array.shape, sizes)
      hashes[cells] = _hashes_of(np.asarray(shard.data), sizes)
  return hashes


def _grid(shape: Sequence[int]) -> list[int]:
  """Returns the number of blocks along each axis."""
  grid = [1] * len(shape)
  for _ in range(_BLOCKS.bit_length() - 1):
    for axis, size in enumerate(shape):
      is_large = math.prod(shape) >= 2 * math.prod(grid) * _ELEMENTS
      if is_large and size % (2 * grid[axis]) == 0:
        grid[axis] *= 2
  return grid


def _cells(
  index: tuple[slice, ...], shape: Sequence[int], sizes: Sequence[int]
) -> tuple[slice, ...] | None:
  """Returns the blocks of a shard; None if it cuts through blocks."""
  cells = []
  for part, size, block in zip(index, shape, sizes, strict=True):
    start, stop, _ = part.indices(size)
    if start % block or stop % block:
      return None
    cells.append(slice(start // block, stop // block))
  return tuple(cells)


def _hashes_of(array: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
  """Returns the SHA-256 of an array's blocks of the given sizes."""
  grid = [
    n // size if size else 1 for n, size in zip(array.shape, sizes, strict=True)
  ]
  # [g, b] for each axis -> [g, ..., b, ...]
  cut = array.reshape(
    [n for pair in zip(grid, sizes, strict=True) for n in pair]
  )
  order = [*range(0, cut.ndim, 2), *range(1, cut.ndim, 2)]
  blocks = cut.transpose(order).reshape(math.prod(grid), math.prod(sizes))
  hashed = b''.join(
    hashlib.sha256(block.tobytes()).digest() for block in blocks
  )
  return np.frombuffer(hashed, np.uint8).reshape(*grid, 32)
