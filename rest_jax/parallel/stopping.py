"""Stops several processes after the same step of a training.

A signal may reach only one of them, and they may be at different steps. So they
ask each other after certain steps, which are the same in all processes, and all
stop if one was told to.
"""

import time
from typing import Any

import jax
import numpy as np

from rest_jax.parallel import processes

# Seconds between two questions: at most a third of the notice that a preempted
# machine gets.
SECONDS = 5.0


class Agreement:
  """Tells all processes of a training in the same step to stop."""

  def __init__(self, step: int):
    """Plans the first question after the first step.

    Args:
      step: initial step of the training.
    """
    self._asked = step
    self._next = step + 1
    self._time = time.monotonic()

  def number(
    self, step: int, own: int | None, result: Any, *, is_meeting: bool
  ) -> int | None:
    """Returns the signal that some process received, after a step.

    Args:
      step: number of steps taken; every process calls this with each.
      own: signal that this process received; None for none.
      result: result of the step; awaited before asking, to limit the steps in
        flight.
      is_meeting: whether to ask now, because the processes wait for each other
        anyway.

    Returns:
      The number of the signal or None, the same in all processes.
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
    # By the main process's clock, so that all ask after the same step.
    self._next = step + steps_between(float(told[0]['pace']))
    self._asked, self._time = step, time.monotonic()
    return max(int(each['number']) for each in told) or None


def steps_between(pace: float) -> int:
  """Returns the number of steps until the next question.

  Args:
    pace: seconds per step.
  """
  return max(1, int(SECONDS / max(pace, 1e-3)))
