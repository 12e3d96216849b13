"""Random choices that do not depend on the Python version."""

from collections.abc import Callable, Sequence
import random
from typing import Any


class Dice:
  """Random choices that do not depend on the Python version."""

  def __init__(self, seed: str):
    # Python guarantees the same `random()` sequence for a string seed.
    self._random = random.Random(seed).random

  def chance(self, probability: float) -> bool:
    """Returns True with this probability."""
    return self._random() < probability

  def uniform(self) -> float:
    """Returns a number in [0, 1)."""
    return self._random()

  def pick(self, options: Sequence) -> Any:
    """Returns one of the options, all equally likely."""
    return options[int(self._random() * len(options))]

  def pick_early(self, options: Sequence) -> Any:
    """Returns one of n options; P(one of the first k) = (k / n)^(2/3)."""
    return options[int(self._random() ** 1.5 * len(options))]

  def pick_weighted(self, pairs: Sequence[tuple]) -> Any:
    """Returns an option of (option, weight) pairs, by weight."""
    point = self._random() * sum(weight for _, weight in pairs)
    for option, weight in pairs:
      point -= weight
      if point < 0:
        return option
    return pairs[-1][0]

  def normal(self) -> float:
    """Returns a draw of the standard normal distribution."""
    # Approximated by a sum of twelve uniform numbers, which is reproducible.
    return sum(self._random() for _ in range(12)) - 6.0


def usual_with(dice: Dice, variety: float) -> Callable[[Sequence], Any]:
  """Returns a `pick` function for `lattice.draw`.

  Args:
    variety: probability of another option than the first, if there is one.
  """

  def pick(options: Sequence) -> Any:
    if len(options) > 1 and dice.chance(variety):
      return dice.pick(options[1:])
    return options[0]

  return pick
