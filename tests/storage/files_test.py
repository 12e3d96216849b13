"""Tests of files that appear whole or not at all, and of what is told of disks."""

import errno
import json
import os

import pytest

from rest_jax.storage import files


def _fail_with(monkeypatch, number):
  def fail(descriptor):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(os, 'fsync', fail)


@pytest.mark.parametrize(
  'number, words',
  [
    (errno.ENOSPC, 'its disk is full'),
    (errno.EDQUOT, 'the quota of its disk is used up'),
    (errno.EROFS, 'its disk is read-only'),
    (errno.EFBIG, 'it is larger than a file may be'),
  ],
)
def test_a_full_disk_names_path_and_need(tmp_path, monkeypatch, number, words):
  path = tmp_path / 'made' / 'x.json'
  files.write_json(path, {'a': 1})
  _fail_with(monkeypatch, number)
  with pytest.raises(files.DiskError) as raised:
    files.write_json(path, {'a': 'x' * 2_000})
  told = str(raised.value)
  assert told.startswith(f'{path} cannot be written: {words}')
  assert 'needs 2,014 bytes' in told and 'bytes are free there' in told
  assert raised.value.errno == number
  # What was there is there, and nothing else.
  assert files.read_json(path) == {'a': 1}
  assert os.listdir(path.parent) == ['x.json']


def test_what_was_written_so_far_is_the_least_need(tmp_path, monkeypatch):
  _fail_with(monkeypatch, errno.ENOSPC)
  with (
    pytest.raises(files.DiskError, match=r'needs 3,000 bytes or more'),
    files.atomic_write(tmp_path / 'x') as temporary,
  ):
    temporary.write_bytes(b'x' * 3_000)


def test_other_errors_pass(tmp_path, monkeypatch):
  _fail_with(monkeypatch, errno.EIO)
  with pytest.raises(OSError, match='Input/output') as raised:
    files.write_json(tmp_path / 'x', {})
  assert not isinstance(raised.value, files.DiskError)
  assert not os.listdir(tmp_path)


def test_a_sealed_file_reads_as_what_was_written(tmp_path):
  path = tmp_path / 'x.json'
  content = {'é': [1, 2.5, None], 'seal_of': 'x'}
  files.write_json(path, content, sealed=True)
  assert files.read_json(path, must_be_sealed=True) == content
  # It is JSON for others too.
  seal = json.loads(path.read_text('utf-8')).pop('seal')
  assert len(seal) == 64


def test_every_bit_of_a_sealed_file_counts(tmp_path):
  path = tmp_path / 'x.json'
  files.write_json(path, {'a': 1e-05, 'b': 'ö'}, sealed=True)
  whole = path.read_bytes()
  for place in range(len(whole)):
    for bit in range(8):
      changed = bytearray(whole)
      changed[place] ^= 1 << bit
      path.write_bytes(changed)
      with pytest.raises(ValueError, match=r'x\.json'):
        files.read_json(path, must_be_sealed=True)
    path.write_bytes(whole[:place])
    with pytest.raises(ValueError, match=r'x\.json'):
      files.read_json(path, must_be_sealed=True)


def test_an_edited_file_is_noticed_without_being_asked(tmp_path):
  path = tmp_path / 'x.json'
  files.write_json(path, {'a': 1}, sealed=True)
  path.write_text(path.read_text().replace('1', '2', 1))
  with pytest.raises(ValueError, match='does not have its checksum'):
    files.read_json(path)
  path.write_text('{"a": 2}')
  assert files.read_json(path) == {'a': 2}


@pytest.mark.parametrize('content', ['{"a": ', '[' * 100_000, '\xff', ''])
def test_what_is_no_json_is_named(tmp_path, content):
  path = tmp_path / 'x.json'
  path.write_bytes(content.encode('latin-1'))
  with pytest.raises(ValueError, match=r'x\.json is not valid JSON'):
    files.read_json(path)


def test_addresses_are_no_folders():
  files.check_local('train', 'data/a.txt')
  with pytest.raises(ValueError, match=r'train must be a file of .*gs://b'):
    files.check_local('train', 'gs://b/a.txt')


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
  target = tmp_path / 'out'
  with pytest.raises(KeyError), files.atomic_folder(target) as folder:
    (folder / 'a').write_text('1')
    raise KeyError
  assert list(tmp_path.iterdir()) == []
  target.mkdir()  # An empty one is taken.
  with files.atomic_folder(target) as folder:
    (folder / 'a').write_text('1')
    assert list(target.iterdir()) == []
  assert [path.name for path in target.iterdir()] == ['a']
  message = 'must be a new or an empty folder'
  with pytest.raises(ValueError, match=message), files.atomic_folder(target):
    pass
  with files.atomic_folder(target, overwrite=True) as folder:
    (folder / 'b').write_text('2')
    assert (target / 'a').exists()
  assert [path.name for path in target.iterdir()] == ['b']
  assert list(tmp_path.iterdir()) == [target]
  with pytest.raises(ValueError, match=message):
    files.check_new_folder('--to', target / 'b')
