"""Folders of other runs, and whose vocabulary they have."""

import json
import logging

import pytest

from rest_jax.data import vocabularies
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import prepare, vocabulary_record


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A folder with prepared data and a policy that names their digest."""
  folder = tmp_path_factory.mktemp('run')
  path = folder / 'data' / vocabularies.FILE
  vocabulary = vocabularies.train(
    vocabularies.VocabularyConfig(size=18),
    ['ein Satz mit Wörtern', 'noch ein Satz'] * 9,
    path,
  )
  described = {'size': vocabulary.size, 'digest': vocabulary.digest}
  _finish(folder / 'data', {}, vocabulary=described, files={})
  data = prepare.load(folder / 'data')
  _finish(folder / 'variants/a/improve_1_1', {'data': data.digest})
  _finish(folder / 'variants/a/recorded', {}, vocabulary=described)
  _finish(folder / 'grow_1', {}, vocabulary_digest=vocabulary.digest)
  return data


def _finish(folder, settings, **manifest):
  folder.mkdir(parents=True, exist_ok=True)
  manifest['settings'] = settings
  (folder / folder_lib.MANIFEST).write_text(json.dumps(manifest))
  return folder


@pytest.mark.parametrize(
  'name', ['data', 'variants/a/improve_1_1', 'variants/a/recorded', 'grow_1']
)
def test_folders_of_a_run(run, name):
  folder = run.directory.parent / name
  digest = run.vocabulary.digest
  assert vocabulary_record.digest(folder) == digest
  path = run.directory / vocabularies.FILE
  assert vocabulary_record.find(folder) == path
  assert vocabulary_record.find(folder, str(path)) == path
  vocabulary_record.check('BC_DIR', folder, digest, 'the same')
  # The same text gives the same vocabulary.
  vocabulary_record.check('BC_DIR', folder, None, 'one that it trains')
  with pytest.raises(ValueError, match=r'BC_DIR = .*vocab\.model .* has other'):
    vocabulary_record.check('BC_DIR', folder, 'f' * 64, 'other')


def test_samples_are_of_the_sources_of_the_data(run, tmp_path):
  described = {'vocabulary_digest': run.vocabulary.digest}
  same = _finish(tmp_path / 'same', {'data': run.digest}, **described)
  vocabulary_record.check_samples('GROW_DIR', same, run)
  # The same vocabulary, as a given tokeniser is.
  other = _finish(tmp_path / 'other', {'data': 'others'}, **described)
  with pytest.raises(
    ValueError, match=r'GROW_DIR = .* samples of other source'
  ):
    vocabulary_record.check_samples('GROW_DIR', other, run)


def test_a_folder_that_does_not_say(run, tmp_path, caplog):
  # Of data that are not beside it any more.
  folder = _finish(tmp_path / 'bc', {'data': 'x'})
  assert vocabulary_record.digest(folder) is None
  assert vocabulary_record.find(folder) is None
  with caplog.at_level(logging.WARNING):
    vocabulary_record.check('BC_DIR', folder, 'a', 'mine', data='x')
    assert not caplog.messages
    vocabulary_record.check('BC_DIR', folder, 'a', 'mine', data='y')
    assert 'does not say which vocabulary' in caplog.messages[0]
  folder = _finish(tmp_path / 'imported', {'imported': 'digest'})
  with pytest.raises(ValueError, match='Import it again'):
    vocabulary_record.check('BC_DIR', folder, 'a', 'mine')
  # What is not there is another error, of whoever needs it.
  vocabulary_record.check('BC_DIR', tmp_path / 'none', 'a', 'mine')


@pytest.mark.parametrize('file', ['config.json', 'checkpoint'])
def test_a_checkpoint_that_is_not_imported(tmp_path, file):
  (tmp_path / file).write_text('{}')
  with pytest.raises(ValueError, match=r'Import it first: .*convert --from='):
    vocabulary_record.check('BC_DIR', tmp_path, 'a', 'mine')
