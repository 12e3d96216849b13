"""Trying again what fails now and then, such as a network."""

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
  """How often and how soon something is tried again.

  Attempt n + 1 follows `first_seconds` * 2^(n − 1) after attempt n, at most
  `most_seconds`, of which a random part of up to a half is left out, so that
  many programs do not come back at the same moment.

  Attributes:
    attempts: how many there are at most.
    first_seconds: the wait after the first.
    most_seconds: the longest wait.
    sleep: waits some seconds.
    draw: a random number in [0, 1).
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
    """Does something, again if it fails in a way that may pass.

    Args:
      what: words for it, such as 'gs://bucket/x: upload'.
      do: does it; it must be harmless to do it twice.
      is_transient: whether an error may not be there the next time.

    Returns:
      What `do` returns.

    Raises:
      ExhaustedError: every attempt failed in such a way. Other errors of `do`
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
