"""A run's `data/` and `grow_1/` of a few rows, written by hand."""

import pathlib

import numpy as np

from rest_jax.data import sample_store, sources, task, vocabularies
from rest_jax.stages import prepare
from tests import single_stage

NUM_SOURCES = 6
SAMPLES = 4  # The reference and three samples of each source.
# Normalised rewards, a row each source.
REWARDS = np.float32(
  [
    [0.9, 0.1, 0.5, 0.7],
    [0.8, 0.5, 0.5, 0.2],
    [0.3, 0.6, 0.5, 0.4],
    [1.2, -0.1, 0.5, 0.0],
    [0.7, 0.7, 0.2, 0.9],
    [0.1, 0.2, 0.4, 0.3],
  ]
)
# Samples that did not reach EOS.
UNFINISHED = ((0, 3), (4, 1))
NUM_SHARDS = 2


def texts(count: int, seed: int = 0) -> list[str]:
  draw = np.random.default_rng(seed)
  words = ['the', 'cat', 'saw', 'a', 'red', 'dog', 'and', 'ran', 'home', 'now']
  return [
    ' '.join(draw.choice(words, draw.integers(2, 7))) for _ in range(count)
  ]


def write(folder: pathlib.Path) -> prepare.PreparedData:
  """Writes both folders; returns the prepared data."""
  split = sources.TextPairs(
    sources=texts(NUM_SOURCES), references=texts(NUM_SOURCES, 1)
  )
  validation = sources.TextPairs(sources=texts(3, 2), references=texts(3, 3))
  data = single_stage.prepared(
    task.Task(
      name='small',
      train=split,
      validation=validation,
      test=validation,
      vocabulary=vocabularies.VocabularyConfig(size=24),
    ),
    folder / 'data',
  )
  write_grow(folder / 'grow_1', data)
  return data


def write_grow(
  directory: pathlib.Path, data: prepare.PreparedData, floor=None
) -> None:
  references = data.pairs('train').reference_tokens
  infos = []
  per_shard = NUM_SOURCES // NUM_SHARDS
  for shard in range(NUM_SHARDS):
    source_ids = np.arange(per_shard) + shard * per_shard
    rows = [
      (source, sample) for source in source_ids for sample in range(SAMPLES)
    ]
    finished = np.array([row not in UNFINISHED for row in rows])
    tokens = []
    for (source, sample), is_finished in zip(rows, finished, strict=True):
      own = references[int(source)]
      if sample:
        own = np.append(data.vocabulary.encode(texts(1, 10 + sample)[0]), 1)
      tokens.append(own if is_finished else own[:-1])
    infos.append(
      sample_store.write_shard(
        directory,
        shard,
        NUM_SHARDS,
        sample_store.SampleRows(
          source_id=np.array([source for source, _ in rows]),
          sample_id=np.array([sample - 1 for _, sample in rows]),
          tokens=tokens,
          log_prob=-np.arange(1.0, len(rows) + 1),
          finished=finished,
        ),
        data.vocabulary.size,
      )
    )
    rewards = REWARDS[source_ids].reshape(-1)
    for name, raw in (('main', 10 * rewards), ('part', -rewards)):
      sample_store.write_rewards(
        directory, name, shard, NUM_SHARDS, raw, rewards
      )
  main = {'digest': 'x'} | ({} if floor is None else {'floor': floor})
  sample_store.write_manifest(
    directory,
    {
      'num_sources': NUM_SOURCES,
      'num_rows': NUM_SOURCES * SAMPLES,
      'split': 'train',
      'vocabulary_digest': data.vocabulary.digest,
      'rewards': {'main': main, 'part': {'scale': None}},
      'shards': infos,
    },
  )
