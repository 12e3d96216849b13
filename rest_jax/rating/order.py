"""Choice, order and sides of the items, determined by a seed.

These are hashes, not draws: adding items does not change what a rater sees of
an item, and resuming needs no stored state.
"""

from collections.abc import Iterable
import hashlib


def chosen(source_ids: Iterable[int], count: int, seed: int) -> list[int]:
  """Returns `count` random sources; a larger choice contains a smaller one."""
  ranked = sorted(source_ids, key=lambda number: _hash(seed, 'source', number))
  return ranked[:count]


def of_rater(items: Iterable[int], rater: str, seed: int) -> list[int]:
  """Returns the numbers of items in the order that a rater sees them."""
  return sorted(items, key=lambda number: _hash(seed, 'order', rater, number))


def is_swapped(item: int, rater: str, seed: int) -> bool:
  """Returns whether a rater sees an item's second output on the left."""
  return _hash(seed, 'side', rater, item)[0] % 2 == 1


def _hash(*parts: object) -> bytes:
  return hashlib.sha256(repr(parts).encode()).digest()
