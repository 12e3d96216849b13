"""Tests of files that grow, in a local folder and in a bucket."""

import pytest

from rest_jax.storage import growing_file


@pytest.mark.parametrize('is_local', [True, False])
def test_a_file_grows_from_what_was_published(request, tmp_path, is_local):
  folder = tmp_path
  if not is_local:
    folder = request.getfixturevalue('bucket_dir')
  path = folder / 'bc' / 'metrics.jsonl'
  for number in (1, 2):
    file = growing_file.GrowingFile(path)
    with open(file.local, 'a', encoding='utf-8') as opened:
      opened.write(f'{number}\n')
    file.publish()
    assert path.read_text() == '1\n2\n'[: 2 * number]
  assert (file.local == path) == is_local


def test_new_files_of_a_folder_are_added(bucket_dir):
  (bucket_dir / 'old').write_text('old')
  folder = growing_file.GrowingFolder(bucket_dir)
  (folder.local / 'a').mkdir()
  (folder.local / 'a' / 'new').write_text('new')
  folder.publish()
  assert (bucket_dir / 'old').read_text() == 'old'
  assert (bucket_dir / 'a' / 'new').read_text() == 'new'
