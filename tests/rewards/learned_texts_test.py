"""Tests of the texts of a reward model."""

import numpy as np

from rest_jax.rewards import corruptions, learned_texts


def test_sources_are_kept_whole():
  sources = [f'source {row // 4}' for row in range(40)]
  rows = learned_texts.spread_rows(sources, 12)
  assert rows.tolist() == [0, 1, 2, 3, *range(16, 20), *range(36, 40)]
  # Of interleaved sources, too.
  rows = learned_texts.spread_rows(['a', 'b', 'c'] * 4, 8)
  assert rows.tolist() == [0, 2, 3, 5, 6, 8, 9, 11]
  assert learned_texts.spread_rows(sources, 100).tolist() == list(range(40))
  assert len(learned_texts.spread_rows(sources, 1)) == 4


def test_texts_are_those_of_the_rows():
  texts = corruptions.ScoredTexts(
    ['a', 'a', 'b', 'b', 'c', 'c'], list('uvwxyz'), np.arange(6.0)
  )
  found = learned_texts.spread(texts, 4)
  assert found.sources == ['a', 'a', 'c', 'c']
  assert found.hypotheses == list('uvyz')
  assert found.scores.tolist() == [0.0, 1.0, 4.0, 5.0]


def test_several_corruptions_are_of_one_reference():
  class Pairs:
    def __len__(self):
      return 50

    def source_text(self, row):
      return f'source {row}'

    def reference_text(self, row):
      return f'reference number {row}'

  for per_reference, references in ((1, 20), (4, 5), (40, 2)):
    made = learned_texts.corruptor(
      corruptions.CorruptionConfig(),
      Pairs(),
      20,
      per_reference=per_reference,
      seed=0,
    )
    texts = made.scored(20)
    assert len(set(texts.sources)) == references
