"""Tests of what is to be run."""

import pytest

from rest_jax.launch import commands
from rest_jax.launch import job as job_lib
from tests.launch import jobs


def test_the_program_has_all_arguments_in_their_order():
  job = jobs.job(
    gin_files=(jobs.SMOKE, 'gin_configs/losses/bc.gin'),
    run_mode='grow',
    overrides=('X=\'a b; "c"\'', 'SEED=1'),
    arguments=('--grow_step=2', 'and more'),
  )
  assert job.program('py', '--distributed') == (
    'py', '-m', 'rest_jax.main', '--run_mode=grow', '--model_dir=/mnt/a',
    f'--gin_file={jobs.SMOKE}', '--gin_file=gin_configs/losses/bc.gin',
    "--gin.X='a b; \"c\"'", '--gin.SEED=1', '--distributed',
    '--grow_step=2', 'and more',
  )  # fmt: skip


@pytest.mark.parametrize(
  'changes, named',
  [
    ({'model_dir': ''}, '--model_dir'),
    ({'gin_files': ()}, '--gin_file'),
    ({'extras': 'tpu; x'}, '--extras'),
  ],
)
def test_missing_settings_are_named(changes, named):
  with pytest.raises(commands.LaunchError, match=named):
    jobs.job(**changes)


@pytest.mark.parametrize('model_dir', ['s3://bucket/a', 'runs/a', '~/a'])
def test_a_folder_that_workers_do_not_share_is_refused(model_dir):
  with pytest.raises(
    commands.LaunchError, match='file system that all workers share'
  ):
    jobs.job(model_dir=model_dir).check_remote()


def test_a_bucket_is_shared_by_all_workers():
  jobs.job(model_dir='gs://bucket/a').check_remote()


def test_gin_files_are_those_of_the_checkout(tmp_path, monkeypatch):
  monkeypatch.chdir(job_lib.PACKAGE.parent)
  assert jobs.job().own_gin_files() == ()
  # Of whatever the checkout holds beside gin_configs/.
  assert jobs.job(gin_files=('setup.py', jobs.SMOKE)).own_gin_files() == (
    'setup.py',
  )
  outside = tmp_path / 'own.gin'
  outside.write_text('')
  for name in (str(outside), 'gin_configs/nothing.gin'):
    with pytest.raises(commands.LaunchError, match='must be a file in'):
      jobs.job(gin_files=(name,)).own_gin_files()
  with pytest.raises(commands.LaunchError, match=f': {jobs.SMOKE}'):
    jobs.job(
      gin_files=(str(job_lib.PACKAGE.parent / jobs.SMOKE),)
    ).own_gin_files()


def test_variables_are_split_at_the_first_equals_sign():
  assert job_lib.environment(['A=b=c d', 'E=']) == {'A': 'b=c d', 'E': ''}


@pytest.mark.parametrize('setting', ['A', '=b', 'A B=c', '1A=b'])
def test_an_invalid_variable_is_refused(setting):
  with pytest.raises(commands.LaunchError, match='NAME=VALUE'):
    job_lib.environment([setting])
