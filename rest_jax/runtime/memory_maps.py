"""Limits the number of memory maps held by compiled programs.

XLA creates about nine memory maps per program compiled for a CPU. Linux allows
`vm.max_map_count` maps per process, by default 65,530, and a process that needs
one more dies inside the compiler.
"""

import gc
import pathlib

from absl import logging

# The share of the allowed maps above which compiled programs are dropped.
MAX_SHARE = 1 / 4
_MAPS = pathlib.Path('/proc/self/maps')
_LIMIT = pathlib.Path('/proc/sys/vm/max_map_count')


def num_maps() -> int:
  """Returns the number of memory maps of this process; 0 if unknown."""
  try:
    return _MAPS.read_bytes().count(b'\n')
  except OSError:  # Not Linux.
    return 0


def max_maps() -> int:
  """Returns the maximum number of memory maps per process; 0 if unknown."""
  try:
    return int(_LIMIT.read_text())
  except OSError:
    return 0


def bound() -> bool:
  """Drops all compiled programs if they hold many memory maps; says whether.

  Programs that are used again are recompiled, or read from JAX's compilation
  cache.
  """
  before = num_maps()
  if before <= MAX_SHARE * max_maps():
    return False
  import jax  # Slow, and without it there are no programs.

  jax.clear_caches()
  gc.collect()
  logging.info(
    'compiled programs dropped: %d memory maps, were %d of %d',
    num_maps(),
    before,
    max_maps(),
  )
  return True
