"""Files that are not what they are called."""

import pytest

from rest_jax.data import vocabularies
from rest_jax.storage import file_kinds

_TOKENIZER = b'{"added_tokens": [], "model": {"type": "Unigram"}}'


@pytest.mark.parametrize(
  ('content', 'words'),
  [
    (b'version https://git-lfs.github.com/spec/v1\noid', 'git lfs pull'),
    (b'', 'empty'),
    (b'\n<!DOCTYPE html><html>', 'a web page'),
    (b'<html lang="en">', 'a web page'),
    (b'GGUF\x03\x00\x00', 'llama'),
    (b'PK\x03\x04\x00', 'a pickle'),
    (b'\x80\x02}q', 'a pickle'),
    (b'\x89HDF\r\n', 'HDF5'),
    (b'\x1f\x8b\x08', 'unpack it'),
    (_TOKENIZER, 'tokenizer.json of the tokenizers library'),
    (b'{"a": 1}', 'a JSON file'),
    ('▁der\t-3.1\n'.encode(), 'a text file'),
  ],
)
def test_files_are_named(tmp_path, content, words):
  path = tmp_path / 'spiece.model'
  path.write_bytes(content)
  assert words in file_kinds.describe(path)
  # And so by whoever reads a vocabulary.
  with pytest.raises(ValueError, match='sentencepiece model') as raised:
    vocabularies.Vocabulary(path)
  assert words in str(raised.value)


def test_paths_that_are_no_files(tmp_path):
  (tmp_path / 'link').symlink_to('nowhere')
  for path, words in ((tmp_path, 'a folder'), (tmp_path / 'link', 'a link')):
    assert words in file_kinds.describe(path)
    with pytest.raises(FileNotFoundError, match=words):
      vocabularies.Vocabulary(path)
  assert file_kinds.describe(tmp_path / 'none') == ''


def test_a_model_is_no_other_file(tmp_path):
  path = tmp_path / 'vocab.model'
  texts = ['ein Satz mit Wörtern', 'noch ein Satz'] * 9
  vocabularies.train(vocabularies.VocabularyConfig(size=18), texts, path)
  assert file_kinds.describe(path) == ''
  path.write_bytes(path.read_bytes()[:100])
  with pytest.raises(ValueError, match='is not, or is damaged'):
    vocabularies.Vocabulary(path)
