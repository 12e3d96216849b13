"""Tests of the list of a folder's files."""

import hashlib

import pytest

from rest_jax.storage import inventory


@pytest.fixture
def folder(tmp_path):
  (tmp_path / 'below').mkdir()
  (tmp_path / 'a.arrow').write_bytes(b'abc')
  (tmp_path / 'below' / 'b').write_bytes(b'')
  (tmp_path / 'events.out.tfevents.1').write_bytes(b'x')
  (tmp_path / '.c.1.tmp').write_bytes(b'half')
  (tmp_path / 'manifest.json').write_bytes(b'{}')
  return tmp_path


def test_all_files_but_those_of_no_use_are_listed(folder):
  taken = inventory.take(folder, without=('manifest.json',))
  assert taken == {
    'a.arrow': (3, hashlib.sha256(b'abc').hexdigest()),
    'below/b': (0, hashlib.sha256(b'').hexdigest()),
  }
  known = inventory.take(folder, known={'a.arrow': 'given'})
  assert known['a.arrow'] == (3, 'given')


@pytest.mark.parametrize('verify', ['fast', 'full'])
@pytest.mark.parametrize('content', [b'ab', b'abcd'])
def test_a_file_that_is_missing_or_of_another_size(folder, verify, content):
  taken = inventory.take(folder)
  assert inventory.check(folder, taken, verify) == []
  (folder / 'a.arrow').write_bytes(content)
  (folder / 'below' / 'b').unlink()
  (folder / 'later').write_bytes(b'x')
  found = inventory.check(folder, taken, verify)
  assert [str(damage) for damage in found] == [
    f'{folder / "a.arrow"} has {len(content)} bytes in place of 3',
    f'{folder / "below" / "b"} is missing',
  ]


def test_another_content_of_the_same_size(folder):
  taken = inventory.take(folder)
  (folder / 'a.arrow').write_bytes(b'abd')
  assert inventory.check(folder, taken, 'fast') == []
  (damage,) = inventory.check(folder, taken, 'full')
  assert damage.path == folder / 'a.arrow'


@pytest.mark.parametrize(
  'value, is_one',
  [
    ({}, True),
    ({'a': [1, 'x']}, True),
    ([], False),
    ({'a': [1]}, False),
    ({'a': ['x', 1]}, False),
    ({'a': 3}, False),
  ],
)
def test_what_an_inventory_looks_like(value, is_one):
  assert inventory.is_one(value) == is_one
