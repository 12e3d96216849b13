"""Samples of each policy for the same sources, for a report."""

from collections.abc import Mapping
import pathlib

import numpy as np

from rest_jax.data import pair_store as pair_store_lib
from rest_jax.data import sample_store, vocabularies
from rest_jax.report.gather import samples as samples_lib
from rest_jax.stages import evaluate as evaluate_stage

# Limits of a page, so that it opens fast.
_MAX_SOURCES = 300
_MAX_CANDIDATES = 20_000


def browsed(
  directories: Mapping[str, pathlib.Path],
  *,
  split: str,
  reward_name: str,
  pairs: pair_store_lib.PairStore,
  vocabulary: vocabularies.Vocabulary,
) -> samples_lib.Samples:
  """Reads the samples of some sources.

  Args:
    directories: folders of finished evaluations of one split, by policy name.

  Returns:
    Sources that all policies share, evenly spread, few enough for a page.
  """
  stores = [
    sample_store.SampleStore.open(directory)
    for directory in directories.values()
  ]
  shared = np.unique(stores[0].source_id)
  for store in stores[1:]:
    shared = np.intersect1d(shared, store.source_id)
  num_samples = -(-len(stores[0]) // len(np.unique(stores[0].source_id)))
  num_candidates = num_samples * len(stores)
  limit = max(min(_MAX_SOURCES, _MAX_CANDIDATES // num_candidates), 1)
  chosen = shared[pair_store_lib.spread_rows(len(shared), limit)]
  of_policies = [
    _candidates(store, chosen, reward_name, vocabulary) for store in stores
  ]
  has_references = pairs.reference_tokens is not None
  return samples_lib.Samples(
    split=split,
    policies=tuple(directories),
    sources=tuple(
      samples_lib.Browsed(
        source_id=int(row),
        source=pairs.source_text(int(row)),
        reference=pairs.reference_text(int(row)) if has_references else None,
        candidates=tuple(candidates[index] for candidates in of_policies),
      )
      for index, row in enumerate(chosen)
    ),
    num_sources=len(shared),
    samples_per_source=num_samples,
  )


def _candidates(
  store: sample_store.SampleStore,
  chosen: np.ndarray,
  reward_name: str,
  vocabulary: vocabularies.Vocabulary,
) -> list[tuple[samples_lib.Candidate, ...]]:
  """Returns the candidates of each chosen source, best reward first."""
  rewards = store.rewards(reward_name)[1]
  judged = None
  if evaluate_stage.HUMAN in store.reward_names():
    judged = store.rewards(evaluate_stage.HUMAN)[1]
  source_id, finished = store.source_id, store.finished
  starts = np.searchsorted(source_id, chosen, 'left')
  stops = np.searchsorted(source_id, chosen, 'right')
  by_source = []
  for start, stop in zip(starts, stops, strict=True):
    rows = range(int(start), int(stop))
    tokens = [store.tokens[row] for row in rows]
    texts = vocabulary.decode_batch(tokens)
    by_source.append(
      samples_lib.merge(
        [
          samples_lib.Candidate(
            text=text,
            reward=100 * float(rewards[row]),
            judge=None if judged is None else 100 * float(judged[row]),
            length=len(token),
            finished=bool(finished[row]),
          )
          for row, token, text in zip(rows, tokens, texts, strict=True)
        ]
      )
    )
  return by_source
