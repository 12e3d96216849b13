"""Tests of the exported file: what the reward stage reads of it."""

import dataclasses

import numpy as np
import pytest

from rest_jax.data import ratings as ratings_lib
from rest_jax.rating import export
from tests.rating import made


@pytest.fixture
def read(tmp_path):
  def read_back(ratings, kind='scores'):
    path = tmp_path / export.FILE
    export.write(path, ratings, kind)
    return ratings_lib.RatingsFile(path=path).read()

  return read_back


def test_what_was_rated_is_read_back(read):
  items = made.items(20)
  rated = [made.rating('A', item, n % 7, 6) for n, item in enumerate(items)]
  rated += [made.rating('B', item, 0, 5) for item in items[:10]]
  found = read(rated)
  assert len(found) == 40
  rows = {
    (source, hypothesis): (score, weight)
    for source, hypothesis, score, weight in zip(
      found.source, found.hypothesis, found.score, found.weight, strict=True
    )
  }
  assert rows['source 3', 'plain 3'] == (1.5, 2)
  assert rows['source 3', 'fancy 3'] == (5.5, 2)
  assert rows['source 12', 'plain 12'] == (5, 1)
  assert {split: found.split.count(split) for split in set(found.split)} == {
    'train': 32,
    'dev': 4,
    'test': 4,
  }
  # `RatingsFile` refuses sources in two splits; the choice is no accident.
  assert read(rated[::-1]).split == found.split


def test_few_ratings_have_a_train_and_a_dev_split(read):
  items = made.items(2)
  found = read([made.rating('A', item, 1, 6) for item in items])
  assert sorted(found.split) == ['dev', 'dev', 'train', 'train']


def test_preferences(read):
  items = made.items(3)
  found = read(
    [
      made.rating('A', items[0], 1.0, 0.0),
      made.rating('B', items[0], 0.5, 0.5),
      made.rating('A', items[1], 0.0, 1.0),
      made.rating('A', items[2], 0.0, 1.0),
    ],
    'preference',
  )
  rows = dict(zip(found.hypothesis, found.score, strict=True))
  assert rows['plain 0'] == np.float32(0.75)
  assert rows['fancy 0'] == np.float32(0.25)


def test_texts_that_a_table_cannot_hold(read):
  items = made.items(4)
  items[0] = made.injected(1)[0]
  items[1] = dataclasses.replace(items[1], source='a\tb\r\nc', first_output='')
  items[2] = dataclasses.replace(items[2], second_output='"quoted\nline')
  # Equal outputs of both policies are one row.
  items[3] = dataclasses.replace(
    items[3], first_output='same', second_output='same'
  )
  found = read([made.rating('A', item, 1, 6) for item in items])
  rows = dict(
    zip(
      zip(found.source, found.hypothesis, strict=True),
      zip(found.score, found.weight, strict=True),
      strict=True,
    )
  )
  assert set(rows) == {
    (made.INJECTED_SOURCE, made.INJECTED_OUTPUT),
    (made.INJECTED_SOURCE, 'fancy 0'),
    ('a b  c', 'fancy 1'),
    ('source 2', 'plain 2'),
    ('source 2', '"quoted line'),
    ('source 3', 'same'),
  }
  assert rows['source 3', 'same'] == (3.5, 1)


def test_nothing_rated_is_a_header():
  assert export.tsv([], 'scores') == (
    'split\tsource\thypothesis\tscore\tscore_type\tannotators\n'
  )
