"""Retries with exponential backoff for transient I/O errors."""

from collections.abc import Callable
import dataclasses
import itertools
import random
import time
from typing import TypeVar

from absl import logging

_Result = TypeVar('_Result')


class ExhaustedError(ValueError):
  """All attempts failed; the message has the last error."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retries:
  """Settings of retries.

  Attempt n + 1 follows min(`first_seconds` * 2^(n − 1), `most_seconds`) after
  attempt n, minus a random part of up to a half, so that many programs do not
  retry at the same time.

  Attributes:
    attempts: maximum number of attempts.
    first_seconds: wait after the first attempt.
    most_seconds: longest wait.
    sleep: function that waits some seconds.
    draw: function that returns a random number in [0, 1).
  """

  attempts: int = 8
  first_seconds: float = 1.0
  most_seconds: float = 60.0
  sleep: Callable[[float], object] = time.sleep
  draw: Callable[[], float] = random.random

  def __post_init__(self):
    if self.attempts < 1:
      raise ValueError(f'attempts must be at least 1; got {self.attempts}.')

  def call(
    self,
    what: str,
    do: Callable[[], _Result],
    is_transient: Callable[[Exception], bool],
  ) -> _Result:
    """Calls a function, again after transient errors.

    Args:
      what: description for messages, such as 'gs://bucket/x: upload'.
      do: the function; it must be idempotent.
      is_transient: whether an error is transient.

    Returns:
      The result of `do`.

    Raises:
      ExhaustedError: every attempt failed with a transient error. Other errors
        are raised at once.
    """
    for attempt in itertools.count(1):
      try:
        return do()
      except Exception as error:
        if not is_transient(error):
          raise
        if attempt == self.attempts:
          raise ExhaustedError(
            f'{what} failed in each of {attempt} attempts, the last time with '
            f'{type(error).__name__}: {error}'
          ) from error
        seconds = min(
          self.first_seconds * 2 ** (attempt - 1), self.most_seconds
        )
        seconds *= 1 - self.draw() / 2
        logging.warning(
          '%s failed (%s: %s); attempt %d of %d in %.1f s',
          what, type(error).__name__, error, attempt + 1, self.attempts, seconds,
        )  # fmt: skip
      self.sleep(seconds)
    raise AssertionError('not reached')
