"""Bounds the memory maps that compiled programs hold in this process.

XLA maps memory for every program it compiles for a CPU: about nine maps each.
Linux allows a process `vm.max_map_count` of them, 65,530 by default, and a
process that needs one more dies inside the compiler.
"""

import gc
import pathlib

from absl import logging
import jax

# The share of the allowed maps above which compiled programs are dropped.
MAX_SHARE = 1 / 4
_MAPS = pathlib.Path('/proc/self/maps')
_LIMIT = pathlib.Path('/proc/sys/vm/max_map_count')


def num_maps() -> int:
  """Returns how many memory maps this process holds; 0 where unknown."""
  try:
    return _MAPS.read_bytes().count(b'\n')
  except OSError:  # Not Linux.
    return 0


def max_maps() -> int:
  """Returns how many memory maps a process may hold; 0 where unknown."""
  try:
    return int(_LIMIT.read_text())
  except OSError:
    return 0


def bound() -> bool:
  """Drops all compiled programs if they hold many memory maps.

  What is used again is compiled again, or read from JAX's compilation cache.

  Returns:
    Whether they were dropped.
  """
  before = num_maps()
  if before <= MAX_SHARE * max_maps():
    return False
  jax.clear_caches()
  gc.collect()
  logging.info(
    'compiled programs dropped: %d memory maps, were %d of %d',
    num_maps(),
    before,
    max_maps(),
  )
  return True
