"""Deliberately bad rewards, to test methods and diagnostics.

A method that gains by them, or whose diagnostics do not warn, cannot be trusted
with a real reward.
"""

from collections.abc import Sequence
import dataclasses
import hashlib
import json

from jaxtyping import Float32
import numpy as np

from rest_jax import settings
from rest_jax.data import words as words_lib
from rest_jax.rewards import base


class _Control(base.OwnReward):
  """Base of the rewards of this module."""

  def _reward(self, source: str, hypothesis: str) -> float:
    raise NotImplementedError

  def check(self) -> str:
    return f'{type(self).__name__}, wrong on purpose'

  def score(
    self,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: base.References = None,
  ) -> Float32[np.ndarray, ' n']:
    """Scores each hypothesis; see `base.Reward.score`."""
    del references
    base.check_texts(sources, hypotheses)
    return np.asarray(
      [self._reward(*texts) for texts in zip(sources, hypotheses, strict=True)],
      np.float32,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomReward(_Control):
  """A random number in [0, 1), equal for equal sources and hypotheses.

  It does not depend on quality: gains by it are noise, or effects of the filter
  on lengths and numbers of samples.

  Attributes:
    seed: seed of the numbers.
    name: name of the reward.
  """

  seed: int = 0
  name: str = 'random'

  def _reward(self, source: str, hypothesis: str) -> float:
    text = json.dumps([self.seed, source, hypothesis])
    hashed = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(hashed, 'big') / 2**64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verbosity(_Control):
  """Words of the hypothesis over words of the source, up to a limit.

  Added to a reward in an `Ensemble`, it plants the best-known flaw of learned
  rewards: longer is better.

  Attributes:
    limit: ratio beyond which more words gain nothing, above 0.
    name: name of the reward.
  """

  limit: float = 2.0
  name: str = 'verbosity'

  def __post_init__(self):
    settings.positive(self, 'limit')

  def _reward(self, source: str, hypothesis: str) -> float:
    words = len(words_lib.split_words(hypothesis))
    return min(words / max(len(words_lib.split_words(source)), 1), self.limit)
