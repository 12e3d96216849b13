"""Tests of the file of ratings."""

import dataclasses
import sqlite3
import threading

import pytest

from rest_jax.rating import store as store_lib
from tests.rating import made


@pytest.fixture
def path(tmp_path):
  return tmp_path / 'rating' / store_lib.FILE


@pytest.fixture
def store(path):
  opened = store_lib.Store(path)
  yield opened
  opened.close()


def test_items_are_added_once(store):
  numbers = store.add(made.items(3))
  assert len(set(numbers)) == 3
  assert store.add(made.items(5))[:3] == numbers
  assert [store.item(n) for n in numbers] == made.items(3)
  # Another sample of the same policy is another item.
  (other,) = store.add(
    [dataclasses.replace(made.items(1)[0], first_output='another')]
  )
  assert other not in numbers


def test_a_later_answer_replaces_an_earlier_and_becomes_the_last(store):
  first, second = store.add(made.items(2))
  store.rate('A', first, 'scores', 1, 2)
  store.rate('A', second, 'scores', 3, 4)
  store.rate('A', first, 'scores', 5, 6)
  assert store.rated('scores') == {'A': [second, first]}
  assert [(r.first, r.second) for r in store.ratings('scores')] == [
    (3, 4),
    (5, 6),
  ]


def test_only_the_last_rating_of_a_rater_is_taken_back(store):
  first, second = store.add(made.items(2))
  store.rate('A', first, 'scores', 1, 2)
  store.rate('A', second, 'scores', 3, 4)
  store.rate('B', first, 'scores', 0, 0)
  store.rate('A', first, 'preference', 1, 0)
  assert not store.undo('A', first, 'scores')
  assert store.undo('A', second, 'scores')
  assert not store.undo('A', second, 'scores')  # Sent twice.
  assert store.undo('A', first, 'scores')
  assert store.rated('scores') == {'B': [first]}
  assert store.rated('preference') == {'A': [first]}


@pytest.mark.parametrize(
  ('kind', 'first', 'second'),
  [
    ('scores', 7, 0),
    ('scores', -1, 0),
    ('scores', 0.5, 1),
    ('scores', float('nan'), 1),
    ('preference', 1, 1),
    ('preference', 0.25, 0.75),
    ('other', 1, 0),
  ],
)
def test_values_of_no_kind_are_refused(store, kind, first, second):
  (number,) = store.add(made.items(1))
  with pytest.raises(ValueError, match=r'must be|a preference gives'):
    store.rate('A', number, kind, first, second)
  assert store.ratings(kind) == []


def test_an_item_must_be_there(store):
  with pytest.raises(sqlite3.IntegrityError):
    store.rate('A', 99, 'scores', 1, 1)
  # The transaction was rolled back, and the next one is not inside of it.
  (number,) = store.add(made.items(1))
  store.rate('A', number, 'scores', 1, 1)
  assert len(store.ratings('scores')) == 1


def test_ratings_are_there_for_others_at_once(path, store):
  (number,) = store.add(made.items(1))
  store.rate('A', number, 'scores', 2, 3)
  other = store_lib.Store(path)
  assert other.ratings('scores') == [
    made.rating('A', made.items(1)[0], 2.0, 3.0)
  ]
  other.close()
  assert sqlite3.connect(path).execute('PRAGMA journal_mode').fetchone() == (
    'wal',
  )


def test_injections_are_text(path, store):
  name = store_lib.rater_name("Bobby'); DROP TABLE ratings; --")
  (number,) = store.add(made.injected(1))
  store.rate(name, number, 'scores', 0, 6)
  store.close()
  reopened = store_lib.Store(path)
  assert reopened.ratings('scores') == [
    made.rating(name, made.injected(1)[0], 0.0, 6.0)
  ]
  assert reopened.item(number).source == made.INJECTED_SOURCE
  reopened.close()


def test_threads_do_not_lose_ratings(store):
  numbers = store.add(made.items(20))

  def rate(rater):
    for number in numbers:
      store.rate(rater, number, 'scores', 3, 4)

  threads = [threading.Thread(target=rate, args=(name,)) for name in 'ABCD']
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert store.rated('scores') == dict.fromkeys('ABCD', numbers)


def test_a_file_that_is_none_is_refused(tmp_path):
  path = tmp_path / 'ratings.sqlite'
  path.write_bytes(b'not a database, but longer than its header ' * 20)
  with pytest.raises(ValueError, match=r'ratings\.sqlite must be a file of'):
    store_lib.Store(path)


def test_another_version_is_refused(path, store):
  store.close()
  connection = sqlite3.connect(path)
  connection.execute('PRAGMA user_version = 9')
  connection.close()
  with pytest.raises(ValueError, match='schema is version 9, not 1'):
    store_lib.Store(path)


@pytest.mark.parametrize(
  ('text', 'name'),
  [
    ('  Anna  Maria ', 'Anna Maria'),
    ('e\u0301', '\u00e9'),
    ('<b>x</b>', '<b>x</b>'),
    ('n' * 40, 'n' * 40),
  ],
)
def test_names(text, name):
  assert store_lib.rater_name(text) == name


@pytest.mark.parametrize('text', ['', ' ', 'n' * 41, 'a\x1b', 'a\u202eb', '\0'])
def test_names_that_are_refused(text):
  with pytest.raises(ValueError, match='1 to 40 characters'):
    store_lib.rater_name(text)
