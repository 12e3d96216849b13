"""Tests of stage folders: finished, half done, made with other settings."""

import time

import pytest

from rest_jax.stages import folder


def test_a_folder_is_finished_by_its_manifest(tmp_path):
  began = time.monotonic()
  stage = folder.begin(tmp_path / 'a', {'x': 1})
  assert not stage.is_finished
  with pytest.raises(FileNotFoundError, match='has not finished'):
    folder.read_manifest(stage.path)
  stage.finish({'found': 2})
  again = folder.begin(tmp_path / 'a', {'x': 1})
  assert again.is_finished
  assert again.manifest()['found'] == 2
  taken = again.manifest()['stage_seconds']
  assert 0 < taken <= time.monotonic() - began


@pytest.mark.parametrize('is_finished', [False, True])
def test_other_settings_are_refused_with_the_difference(tmp_path, is_finished):
  stage = folder.begin(tmp_path / 'a', {'x': 1, 'y': 5})
  (stage.path / 'kept').write_text('work of hours')
  if is_finished:
    stage.finish({})
  with pytest.raises(folder.SettingsChangedError, match='x: 1 -> 2'):
    folder.begin(tmp_path / 'a', {'x': 2, 'y': 5})
  assert (stage.path / 'kept').exists()


def test_overwrite_is_explicit(tmp_path):
  stage = folder.begin(tmp_path / 'a', {'x': 1})
  (stage.path / 'old').write_text('x')
  stage.finish({})
  new = folder.begin(tmp_path / 'a', {'x': 2}, overwrite=True)
  assert not new.is_finished
  assert not (new.path / 'old').exists()


def test_a_half_done_folder_goes_on(tmp_path):
  stage = folder.begin(tmp_path / 'a', {'x': 1})
  (stage.path / 'half').write_text('x')
  again = folder.begin(tmp_path / 'a', {'x': 1}, overwrite=True)
  assert not again.is_finished
  assert (again.path / 'half').exists()


def test_a_stranger_s_folder_is_left_alone(tmp_path):
  (tmp_path / 'thesis.txt').write_text('x')
  with pytest.raises(folder.SettingsChangedError, match='not the folder'):
    folder.begin(tmp_path, {'x': 1}, overwrite=True)
  assert (tmp_path / 'thesis.txt').exists()


def test_a_damaged_manifest_is_named(tmp_path):
  stage = folder.begin(tmp_path / 'a', {'x': 1})
  stage.finish({})
  (stage.path / 'manifest.json').write_text('{"settings": ')
  with pytest.raises(ValueError, match=r'manifest\.json is not valid JSON'):
    folder.begin(tmp_path / 'a', {'x': 1})


def test_content_digest_ignores_time_only():
  manifest = {'settings': {'x': 1}, 'shards': [1], 'seconds': {'grow': 1.0}}
  same = {**manifest, 'seconds': {'grow': 2.0}, 'stage_seconds': 3.0}
  other = {**manifest, 'shards': [2]}
  assert folder.content_digest(manifest) == folder.content_digest(same)
  assert folder.content_digest(manifest) != folder.content_digest(other)
