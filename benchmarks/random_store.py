"""Random samples of any number, for the benchmark of the store."""

import dataclasses
import pathlib

import numpy as np

from rest_jax.data import ragged, sample_store, special_ids

VOCAB_SIZE = 32_000
LONGEST = 128


@dataclasses.dataclass(frozen=True)
class RandomStore:
  """A store to be made.

  Attributes:
    directory: its folder.
    sources: number of sources.
    samples: of each source.
    tokens: of a sample, on average.
    repeated: share of samples that repeat one of their source.
  """

  directory: pathlib.Path
  sources: int
  samples: int
  tokens: int
  repeated: float

  @property
  def rows(self) -> int:
    return self.sources * self.samples

  def shard(
    self, start: int, stop: int
  ) -> tuple[sample_store.SampleRows, np.ndarray]:
    """Random samples of some sources, and their rewards.

    Lengths are of a gamma distribution. A repeated sample has the tokens and
    the reward of an earlier one of its source.
    """
    random = np.random.default_rng((0, start))
    num_rows = (stop - start) * self.samples
    sample_id = np.tile(np.arange(self.samples, dtype=np.int32), stop - start)
    origin = np.arange(num_rows)
    origin -= np.where(
      random.random(num_rows) < self.repeated,
      (random.random(num_rows) * (sample_id + 1)).astype(np.int64),
      0,
    )
    while np.any(origin[origin] != origin):
      origin = origin[origin]
    lengths = 1 + random.gamma(4, (self.tokens - 1) / 4, num_rows).astype(int)
    lengths = np.clip(lengths, 1, LONGEST)[origin]
    ends = np.cumsum(lengths)
    begins = ends - lengths
    tokens = random.integers(3, VOCAB_SIZE, ends[-1], dtype=np.uint16)
    shift = np.repeat(begins[origin] - begins, lengths)
    tokens = tokens[np.arange(ends[-1]) + shift]
    tokens[ends - 1] = special_ids.T5.eos
    rewards = random.normal(size=num_rows).astype(np.float32)[origin]
    rows = sample_store.SampleRows(
      source_id=np.repeat(np.arange(start, stop), self.samples),
      sample_id=sample_id,
      tokens=[tokens[i:j] for i, j in zip(begins, ends, strict=True)],
      log_prob=np.full(num_rows, -1.0, np.float32),
      finished=np.ones(num_rows, bool),
    )
    return rows, rewards


@dataclasses.dataclass(frozen=True)
class RandomSources:
  """Stands for the pairs that `source_id` refers to."""

  source_tokens: ragged.Ragged

  @classmethod
  def random(cls, store: RandomStore) -> 'RandomSources':
    random = np.random.default_rng(1)
    tokens = random.integers(
      3, VOCAB_SIZE, store.sources * store.tokens, dtype=np.uint16
    )
    bounds = np.arange(store.sources + 1, dtype=np.int64) * store.tokens
    return cls(ragged.Ragged([(tokens, bounds)]))
