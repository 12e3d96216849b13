"""Tests of paths in a bucket, against a server on loopback."""

import pathlib

from etils import epath
import pytest

from rest_jax.storage import paths


def test_a_local_path_stays_a_local_path():
  assert paths.of('runs/a') == pathlib.Path('runs/a')
  assert not paths.is_remote('runs/a')


@pytest.mark.parametrize('address', ['gs://bucket', 'gs://', 'gs:///a'])
def test_an_address_names_bucket_and_folder(address):
  with pytest.raises(ValueError, match='must name a bucket and a folder'):
    paths.of(address)


def test_other_stores_are_refused():
  with pytest.raises(ValueError, match='Mount other stores'):
    paths.of('az://bucket/a')


def test_paths_are_joined_as_local_ones_are():
  path = paths.of('gs://bucket/run')
  assert paths.of(path) is path
  assert str(path / 'bc' / 'x.json') == 'gs://bucket/run/bc/x.json'
  assert str(path.with_name('b')) == 'gs://bucket/b'
  assert path.absolute() == path.resolve() == path
  assert str((path / 'a' / '..' / 'b').resolve()) == 'gs://bucket/run/b'
  assert (path / 'a').is_relative_to(path)
  assert [str(p) for p in path.parents] == ['gs://bucket', 'gs://', '/']


@pytest.mark.parametrize(
  'path, start, expected',
  [
    ('runs/a/bc', 'runs/a/grow_1', '../bc'),
    ('gs://b/a/bc', 'gs://b/a/grow_1', '../bc'),
    ('gs://b/a/bc', '/runs/grow_1', 'gs://b/a/bc'),
    ('/runs/bc', 'gs://b/a/grow_1', '/runs/bc'),
  ],
)
def test_a_folder_is_found_from_another(path, start, expected):
  assert paths.relative(path, start) == expected
  assert str(paths.joined(start, expected)) == path


def test_epath_never_uses_tensorflow(bucket_dir, tmp_path, monkeypatch):
  monkeypatch.delenv('EPATH_USE_TF', raising=False)
  epath.Path(tmp_path).exists()  # It remembers.
  paths.of(f'{bucket_dir}/a').write_text('a')
  assert epath.Path(f'{bucket_dir}/a').exists()


def test_objects_are_written_and_read(bucket_dir):
  content = bytes(range(256)) * 40
  path = bucket_dir / 'bc' / 'x.bin'
  assert not path.exists()
  with pytest.raises(FileNotFoundError):
    path.read_bytes()
  path.write_bytes(content)
  assert path.read_bytes() == content
  with path.open('rb') as opened:
    assert opened.read() == content
  assert (path.exists(), path.is_file(), path.is_dir()) == (True, True, False)
  folder = path.parent
  assert (folder.exists(), folder.is_file(), folder.is_dir()) == (
    True, False, True,
  )  # fmt: skip


def test_an_upload_is_repeated_whose_answer_is_lost(gcs_server, bucket_dir):
  lost = []

  def lose_answer(request):
    if 'upload_id' in request.path and not lost:
      lost.append(request)
      gcs_server._pass_on(request)
      raise ConnectionError

  gcs_server.on_request = lose_answer
  # As Orbax writes.
  epath.Path(f'{bucket_dir}/a').write_text('a')
  assert lost and (bucket_dir / 'a').read_text() == 'a'


def test_text_is_utf_8(bucket_dir):
  path = bucket_dir / 'x.txt'
  path.write_text('größer\n')
  assert path.read_bytes() == 'größer\n'.encode()
  assert path.read_text('utf-8') == 'größer\n'
  with path.open() as opened:
    assert opened.read() == 'größer\n'
  path.write_bytes(b'a\xff')
  assert path.read_text(errors='replace') == 'a\ufffd'


@pytest.mark.parametrize('is_local', [True, False])
def test_files_are_listed_with_their_sizes(request, tmp_path, is_local):
  folder = tmp_path
  if not is_local:
    folder = request.getfixturevalue('bucket_dir')
  for name in ('a.txt', 'b/c.txt', '.hidden', '.d/e.txt', 'b/.f'):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(name)
  assert paths.sizes(folder) == {'a.txt': 5, 'b/c.txt': 7}


def test_what_another_host_writes_is_seen(bucket_dir):
  (bucket_dir / 'a').write_text('1')
  assert [path.name for path in bucket_dir.iterdir()] == ['a']
  # As another host would, without the filesystem of this process.
  import tensorstore

  store = tensorstore.KvStore.open(f'{bucket_dir}/').result()
  store.write('b', b'2').result()
  assert sorted(path.name for path in bucket_dir.iterdir()) == ['a', 'b']
  assert (bucket_dir / 'b').exists()
  assert [path.name for path in bucket_dir.glob('b*')] == ['b']


def test_a_folder_is_removed(bucket_dir):
  for name in ('a/b', 'a/c/d', 'ab'):
    (bucket_dir / name).write_text(name)
  paths.remove_tree(bucket_dir / 'a')
  assert [path.name for path in bucket_dir.iterdir()] == ['ab']
  with pytest.raises(FileNotFoundError):
    paths.remove_tree(bucket_dir / 'a')
  paths.remove_tree(bucket_dir / 'a', missing_ok=True)
