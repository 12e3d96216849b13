"""Tests of stage folders: finished, half done, made with other settings."""

import time

import pytest

from rest_jax import rest
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


def test_a_manifest_that_was_changed_is_noticed(tmp_path):
  stage = folder.begin(tmp_path / 'a', {'x': 1})
  stage.finish({'found': 2})
  path = stage.path / folder.MANIFEST
  path.write_text(path.read_text().replace('"found": 2', '"found": 3'))
  with pytest.raises(ValueError, match='does not have its checksum'):
    stage.manifest()


def test_warnings_are_logged_and_kept_in_the_manifest(tmp_path, caplog):
  stage = folder.begin(tmp_path / 'a', {'x': 1})
  stage.warn('7 of 9 rows are too long; raise the limit')
  stage.warn('7 of 9 rows are too long; raise the limit')
  stage.finish({})
  expected = ['7 of 9 rows are too long; raise the limit']
  assert stage.manifest()['warnings'] == expected
  logged = [r.message for r in caplog.records if r.levelname == 'WARNING']
  assert logged == ['a: 7 of 9 rows are too long; raise the limit']


@pytest.mark.parametrize('is_finished', [False, True])
def test_other_settings_are_refused_with_the_difference(tmp_path, is_finished):
  stage = folder.begin(tmp_path / 'a', {'x': 1, 'y': 5})
  (stage.path / 'kept').write_text('work of hours')
  if is_finished:
    stage.finish({})
  with pytest.raises(folder.SettingsChangedError, match='x: 1 -> 2'):
    folder.begin(tmp_path / 'a', {'x': 2, 'y': 5})
  assert (stage.path / 'kept').exists()


@pytest.mark.parametrize('is_finished', [False, True])
@pytest.mark.parametrize(
  'origin, expected',
  [
    ('v/improve_1_1', 'init: starts from improve 1.1, was improve 1.2'),
    ('other/improve_1_2', 'init: starts from .*other/improve_1_2, was .*v/imp'),
    ('v/improve_1_2', r'improve 1\.2 was made again, with other content'),
  ],
)
def test_a_digest_that_differs_is_said_in_words(
  tmp_path, is_finished, origin, expected
):
  def begin(digest, origin):
    return folder.begin(
      tmp_path / 'v/a', {'init': digest}, origins={'init': tmp_path / origin}
    )

  stage = begin('0' * 64, 'v/improve_1_2')
  if is_finished:
    stage.finish({})
  with pytest.raises(folder.SettingsChangedError, match=expected):
    begin('1' * 64, origin)
  # The folder alone is no setting: runs are moved and shared.
  assert begin('0' * 64, 'w/improve_3_3').is_finished == is_finished


def test_digests_of_folders_that_were_not_recorded(tmp_path):
  folder.begin(
    tmp_path / 'a', {'data': '0' * 64, 'reward': {'digest': '2' * 64}}
  )
  with pytest.raises(folder.SettingsChangedError) as error:
    folder.begin(
      tmp_path / 'a',
      {'data': '1' * 64, 'reward': {'digest': '3' * 64}},
      origins={'data': tmp_path / 'data'},
    )
  text = str(error.value)
  assert 'now that of data' in text and 'made otherwise' in text


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


def test_a_folder_that_was_killed_as_it_began_goes_on(tmp_path):
  path = tmp_path / 'a'
  path.mkdir()
  (path / '.settings.json.12.tmp').write_text('{"x"')
  stage = folder.begin(path, {'x': 1})
  stage.finish({})
  assert list(stage.manifest()['inventory']) == []
  folder.clear(tmp_path)
  assert sorted(p.name for p in path.iterdir()) == ['manifest.json']


def test_a_folder_that_was_killed_as_it_was_removed_is_no_half_folder(
  tmp_path, monkeypatch
):
  stage = folder.begin(tmp_path / 'a', {'x': 1})
  (stage.path / 'old').write_text('x')
  stage.finish({})

  def killed(path):
    raise KeyboardInterrupt

  with monkeypatch.context() as patched:
    patched.setattr('shutil.rmtree', killed)
    with pytest.raises(KeyboardInterrupt):
      folder.begin(tmp_path / 'a', {'x': 2}, overwrite=True)
  again = folder.begin(tmp_path / 'a', {'x': 2})
  assert not again.is_finished and not (again.path / 'old').exists()
  folder.clear(tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['a']


def test_a_reopened_folder_was_cut_off_before_the_damage(tmp_path):
  stage = folder.begin(tmp_path / 'a', {'x': 1})
  for name in ('good', 'bad'):
    (stage.path / name).write_text(name)
  stage.finish({})
  (stage.path / 'bad').write_text('worse')
  (damage,) = folder.damages(stage.path, 'fast')
  folder.reopen(stage.path, [damage])
  again = folder.begin(tmp_path / 'a', {'x': 1})
  assert not again.is_finished
  assert (again.path / 'good').exists() and not (again.path / 'bad').exists()
  with pytest.raises(folder.SettingsChangedError, match='x: 1 -> 2'):
    folder.begin(tmp_path / 'a', {'x': 2})


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


@pytest.mark.parametrize(
  ('path', 'command'),
  [
    ('runs/a/data', '--run_mode=prepare --model_dir=runs/a '),
    ('data', '--run_mode=prepare --model_dir=. '),
    ('/r/bc', '--run_mode=bc --model_dir=/r '),
    ('a/reward', '--run_mode=reward --model_dir=a '),
    ('a/grow_1', '--run_mode=grow --grow_step=1 --model_dir=a '),
    (
      'a/variants/bc/improve_2_3',
      '--run_mode=improve --grow_step=2 --improve_step=3 --model_dir=a ',
    ),
    (
      'a/variants/x/refresh_1/reward',
      '--run_mode=refresh --grow_step=1 --model_dir=a ',
    ),
    ('a/variants/x/online_ppo', '--run_mode=online --model_dir=a '),
    ('a/evaluate/bc-test', '--run_mode=evaluate --model_dir=a '),
    ('a/evidence/test', '--run_mode=evaluate --model_dir=a '),
  ],
)
def test_what_is_not_finished_says_what_to_run(
  tmp_path, monkeypatch, path, command
):
  assert rest.stages  # With it, all kinds of stages are imported.
  monkeypatch.chdir(tmp_path)
  with pytest.raises(FileNotFoundError, match='Run it first') as caught:
    folder.read_manifest(path)
  assert command in str(caught.value)


def test_another_folder_has_no_command(tmp_path):
  with pytest.raises(FileNotFoundError) as caught:
    folder.read_manifest(tmp_path / 'elsewhere')
  assert str(caught.value).endswith('it resumes where it stopped.')
