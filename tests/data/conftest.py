"""What tests of data share: a small vocabulary and its text."""

import random

import pytest

from rest_jax.data import vocabularies


@pytest.fixture(scope='session')
def texts() -> list[str]:
  """Five hundred made-up sentences of eight letters."""
  draw = random.Random(0)

  def word() -> str:
    return ''.join(draw.choice('abcdefgh') for _ in range(draw.randint(1, 7)))

  return [' '.join(word() for _ in range(9)) for _ in range(500)]


@pytest.fixture(scope='session')
def vocabulary(texts, tmp_path_factory) -> vocabularies.Vocabulary:
  """A vocabulary of forty pieces."""
  path = tmp_path_factory.mktemp('vocabulary') / 'vocab.model'
  return vocabularies.train(
    vocabularies.VocabularyConfig(size=40, num_threads=1), texts, path
  )
