"""Items and ratings in one SQLite file.

Items and ratings are only added: another choice of policies or more items keeps
existing ratings. An item contains its texts and the digests of their policies,
so that a rating stays meaningful later.
"""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import datetime
import os
import sqlite3
import threading
import unicodedata

from rest_jax.rating import rating_config as config_lib
from rest_jax.storage import growing_file

FILE = 'ratings.sqlite'
LONGEST_NAME = 40

_SCHEMA_VERSION = 1
_ITEM_COLUMNS = (
  'split, source_id, source, first_policy, first_name, first_output, '
  'second_policy, second_name, second_output'
)
_SCHEMA = f"""
CREATE TABLE items (
  id INTEGER PRIMARY KEY,
  split TEXT NOT NULL,
  source_id INTEGER NOT NULL,
  source TEXT NOT NULL,
  first_policy TEXT NOT NULL,
  first_name TEXT NOT NULL,
  first_output TEXT NOT NULL,
  second_policy TEXT NOT NULL,
  second_name TEXT NOT NULL,
  second_output TEXT NOT NULL,
  UNIQUE ({_ITEM_COLUMNS})
) STRICT;
CREATE TABLE ratings (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  rater TEXT NOT NULL,
  item INTEGER NOT NULL REFERENCES items (id),
  kind TEXT NOT NULL,
  first REAL NOT NULL,
  second REAL NOT NULL,
  rated_at TEXT NOT NULL,
  UNIQUE (rater, item, kind)
) STRICT;
PRAGMA user_version = {_SCHEMA_VERSION};
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
  """A source and an output of each of two policies.

  Attributes:
    split: split of the source.
    source_id: row of the source in the split.
    source: text of the source.
    first_policy: digest of the policy of the first output.
    first_name: name of that policy in results.
    first_output: text of the first output.
    second_policy: digest of the policy of the second output.
    second_name: name of that policy in results.
    second_output: text of the second output.
  """

  split: str
  source_id: int
  source: str
  first_policy: str
  first_name: str
  first_output: str
  second_policy: str
  second_name: str
  second_output: str


@dataclasses.dataclass(frozen=True)
class Rating:
  """One rater's rating of one item.

  Attributes:
    rater: name of the rater.
    item: the rated item.
    first: value of the first output: a score from 0 to 6; for preferences 1 if
      it was preferred, 1/2 if neither was, 0 if the other was.
    second: value of the second output.
  """

  rater: str
  item: Item
  first: float
  second: float


class Store:
  """The SQLite file; thread-safe. Methods return when changes are on disk."""

  def __init__(self, path: str | os.PathLike[str]):
    """Opens the file, and creates it if missing.

    Raises:
      ValueError: if it is not a file of ratings.
    """
    self._file = growing_file.GrowingFile(path)
    self.path = self._file.path
    self._lock = threading.Lock()
    # Only `_transaction` begins transactions.
    self._connection = sqlite3.connect(
      self._file.local, isolation_level=None, check_same_thread=False
    )
    try:
      self._prepare()
    except sqlite3.DatabaseError as error:
      self._connection.close()
      raise ValueError(
        f'{self.path} must be a file of ratings; SQLite says: {error}. Restore '
        'it from a copy, or move it away to start a new one.'
      ) from error

  def _prepare(self) -> None:
    # A copy of an object is uploaded after every change: the file has all.
    mode = 'WAL' if self._file.local == self.path else 'DELETE'
    self._connection.execute(f'PRAGMA journal_mode = {mode}')
    # An acknowledged rating survives a power cut, too.
    self._connection.execute('PRAGMA synchronous = FULL')
    self._connection.execute('PRAGMA foreign_keys = ON')
    (version,) = self._connection.execute('PRAGMA user_version').fetchone()
    if version == 0:
      self._connection.executescript(f'BEGIN IMMEDIATE; {_SCHEMA} COMMIT;')
    elif version != _SCHEMA_VERSION:
      raise sqlite3.DatabaseError(
        f'its schema is version {version}, not {_SCHEMA_VERSION}'
      )

  def close(self) -> None:
    with self._lock:
      self._connection.close()

  @contextlib.contextmanager
  def _transaction(self) -> Iterator[sqlite3.Connection]:
    with self._lock:
      self._connection.execute('BEGIN IMMEDIATE')
      try:
        yield self._connection
        self._connection.execute('COMMIT')
        self._file.publish()
      except BaseException:
        self._connection.execute('ROLLBACK')
        raise

  def add(self, items: Sequence[Item]) -> list[int]:
    """Adds new items; returns the numbers of all."""
    values = [dataclasses.astuple(item) for item in items]
    marks = ', '.join('?' * len(dataclasses.fields(Item)))
    with self._transaction() as connection:
      connection.executemany(
        f'INSERT OR IGNORE INTO items ({_ITEM_COLUMNS}) VALUES ({marks})',
        values,
      )
      return [
        connection.execute(
          f'SELECT id FROM items WHERE ({_ITEM_COLUMNS}) = ({marks})', value
        ).fetchone()[0]
        for value in values
      ]

  def item(self, number: int) -> Item:
    """Returns the item of a number from `add`."""
    (row,) = self._read(
      f'SELECT {_ITEM_COLUMNS} FROM items WHERE id = ?', (number,)
    )
    return _item(row)

  def rate(
    self, rater: str, number: int, kind: str, first: float, second: float
  ) -> None:
    """Stores a rater's rating of an item; it replaces an earlier one.

    Args:
      rater: name of the rater, from `rater_name`.
      number: number of the item.
      kind: 'scores' or 'preference'.
      first: value of the first output, see `Rating`.
      second: value of the second output.

    Raises:
      ValueError: if the values are invalid for the kind.
    """
    _check_values(kind, first, second)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
    with self._transaction() as connection:
      connection.execute(
        'INSERT OR REPLACE INTO ratings '
        '(rater, item, kind, first, second, rated_at) '
        'VALUES (?, ?, ?, ?, ?, ?)',
        (rater, number, kind, first, second, now),
      )

  def undo(self, rater: str, number: int, kind: str) -> bool:
    """Removes a rating if it is the rater's last; returns whether it was."""
    with self._transaction() as connection:
      removed = connection.execute(
        'DELETE FROM ratings WHERE item = ? AND id = '
        '(SELECT MAX(id) FROM ratings WHERE rater = ? AND kind = ?)',
        (number, rater, kind),
      )
      return removed.rowcount == 1

  def rated(self, kind: str) -> dict[str, list[int]]:
    """Returns the numbers of the items that each rater rated, oldest first."""
    rows = self._read(
      'SELECT rater, item FROM ratings WHERE kind = ? ORDER BY id', (kind,)
    )
    numbers: dict[str, list[int]] = {}
    for rater, number in rows:
      numbers.setdefault(rater, []).append(number)
    return numbers

  def ratings(self, kind: str) -> list[Rating]:
    """Returns all ratings of a kind, oldest first."""
    rows = self._read(
      f'SELECT rater, first, second, {_ITEM_COLUMNS} FROM ratings '
      'JOIN items ON items.id = ratings.item WHERE kind = ? '
      'ORDER BY ratings.id',
      (kind,),
    )
    return [
      Rating(rater, _item(columns), first, second)
      for rater, first, second, *columns in rows
    ]

  def _read(self, query: str, values: tuple[object, ...]) -> list[tuple]:
    with self._lock:
      return self._connection.execute(query, values).fetchall()


def rater_name(text: str) -> str:
  """Returns a rater's name in its stored form.

  Args:
    text: the name as typed.

  Raises:
    ValueError: if it is empty, too long, or has invisible characters.
  """
  name = ' '.join(unicodedata.normalize('NFC', text).split())
  if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
    raise ValueError(
      f'A name has 1 to {LONGEST_NAME} characters, all of them visible.'
    )
  return name


def _item(columns: Sequence) -> Item:
  names = [field.name for field in dataclasses.fields(Item)]
  return Item(**dict(zip(names, columns, strict=True)))


def _check_values(kind: str, first: float, second: float) -> None:
  if kind == config_lib.SCORES:
    scores = range(config_lib.HIGHEST_SCORE + 1)
    if first not in scores or second not in scores:
      raise ValueError(
        f'scores must be whole numbers from 0 to {config_lib.HIGHEST_SCORE}; '
        f'got {first} and {second}.'
      )
  elif kind != config_lib.PREFERENCE:
    raise ValueError(f'kind must be one of {config_lib.KINDS}; got {kind!r}.')
  elif (first, second) not in ((1.0, 0.0), (0.5, 0.5), (0.0, 1.0)):
    raise ValueError(
      f'a preference gives 1 and 0, 1/2 and 1/2, or 0 and 1; got {first} and '
      f'{second}.'
    )
