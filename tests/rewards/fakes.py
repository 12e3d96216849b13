"""Rewards of fixed numbers and a vocabulary, for tests of rewards."""

import dataclasses

import numpy as np

from rest_jax.data import vocabularies
from rest_jax.rewards import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
  """The reward of each hypothesis is looked up; its own settings and reward."""

  rewards: tuple[tuple[str, float], ...]
  name: str = 'table'
  needs_references: bool = False
  needs_samples: bool = False
  parts: tuple = ()

  @property
  def digest(self):
    return f'{self.name} {self.rewards}'

  def check(self):
    return 'a table'

  def load(self, resources):
    return self

  def score(self, sources, hypotheses, references=None, peers=None):
    if self.needs_references:
      base.needed(self.name, references)
    return np.asarray([dict(self.rewards)[h] for h in hypotheses], np.float32)


class Characters(vocabularies.Encoder):
  """A vocabulary of characters: no file, no training."""

  size = 32

  def encode_batch(self, texts):
    return [
      np.asarray([3 + ord(c) % 29 for c in text], np.int32) for text in texts
    ]


class Pairs:
  """What guards read of a pair store."""

  def __init__(self, *pairs):
    self._pairs = pairs

  def __len__(self):
    return len(self._pairs)

  def source_text(self, row):
    return self._pairs[row][0]

  def reference_text(self, row):
    return self._pairs[row][1]


def resources(*pairs):
  return base.Resources(
    mesh=None,
    vocabulary=None,
    pairs=Pairs(*pairs),
    network=None,
    policy=None,
    trained=None,
  )
