"""Several processes that stop after the same step of a training.

A signal may come to one of them alone, and they are not at the same step when it
does. So now and then they ask each other, after steps that are the same in all, and
all stop where one was told to.
"""

import time
from typing import Any

import jax
import numpy as np

from rest_jax.parallel import processes

# Between two times that they ask each other: a third of what a machine that is
# taken away has left, or less.
SECONDS = 5.0


class Agreement:
  """Says to all processes of a training at once that one was told to stop."""

  def __init__(self, step: int):
    """Plans to ask after the first step.

    Args:
      step: that training starts from.
    """
    self._asked = step
    self._next = step + 1
    self._time = time.monotonic()

  def number(
    self, step: int, own: int | None, result: Any, *, is_meeting: bool
  ) -> int | None:
    """The signal that some process was sent, after a step.

    Args:
      step: steps taken, which every process calls this with.
      own: the signal that this process was sent; None for none.
      result: of the step; waited for where the others are asked, so that no more
        steps are under way than were meant to be.
      is_meeting: whether to ask now, for the processes wait for each other anyway.

    Returns:
      The same in all processes: its number, or None.
    """
    if processes.count() == 1:
      return own
    if step < self._next and not is_meeting:
      return None
    jax.block_until_ready(result)
    now = time.monotonic()
    told = processes.gather(
      'stop',
      {
        'number': np.asarray(own or 0),
        'pace': np.asarray((now - self._time) / max(step - self._asked, 1)),
      },
    )
    # By the main process's clock, since all must ask after the same step.
    self._next = step + steps_between(float(told[0]['pace']))
    self._asked, self._time = step, time.monotonic()
    return max(int(each['number']) for each in told) or None


def steps_between(pace: float) -> int:
  """How many steps may be taken until the others are asked.

  Args:
    pace: seconds of a step.
  """
  return max(1, int(SECONDS / max(pace, 1e-3)))
