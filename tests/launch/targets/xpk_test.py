"""Tests of runs as xpk workloads, against a stand-in for xpk."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest

from rest_jax.launch import commands
from rest_jax.launch import job as job_lib
from rest_jax.launch.targets import xpk
from rest_jax.runtime import interruption
from tests.launch import jobs

_AWKWARD = 'X=\'a  b; "c" $HOME $(HOME) $$ `x` \\\\\''


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch):
  monkeypatch.chdir(job_lib.PACKAGE.parent)


def _target(**changes):
  return xpk.Xpk(
    **{
      'job': jobs.job(),
      'project': 'p',
      'zone': 'us-west4-a',
      'cluster': 'c',
      'workload': 'w',
      'tpu_type': 'v5litepod-16',
      **changes,
    }
  )


def _remote(target):
  (command,) = [
    word.removeprefix('--command=')
    for word in target.create().argv
    if word.startswith('--command=')
  ]
  return command


def _expanded(text, variables):
  """What Kubernetes makes of a container's command.

  $$ is one $, $(NAME) a variable if there is one, and any other $ is itself.
  """

  def value(match):
    if match[0] == '$$':
      return '$'
    return variables.get(match[1], match[0])

  return re.sub(r'\$\$|\$\(([^()]*)\)', value, text)


def test_the_workload():
  target = _target(num_slices=2, max_restarts=7)
  folder = str(job_lib.PACKAGE.parent / 'build' / 'launch' / 'w')
  assert target.create().argv[:-1] == (
    'xpk', 'workload', 'create', '--cluster=c', '--project=p',
    '--zone=us-west4-a', '--workload=w', '--tpu-type=v5litepod-16',
    '--num-slices=2', '--max-restarts=7', '--base-docker-image=python:3.11',
    f'--script-dir={folder}',
  )  # fmt: skip
  assert target.wait().argv == (
    'xpk', 'workload', 'list', '--cluster=c', '--project=p',
    '--zone=us-west4-a', '--wait-for-job-completion=w',
  )  # fmt: skip
  assert target.delete().argv[2:] == (
    'delete', '--cluster=c', '--project=p', '--zone=us-west4-a',
    '--workload=w',
  )  # fmt: skip


def test_an_image_of_ones_own_is_used_as_it_is():
  target = _target(docker_image='gcr.io/p/rest', project=None, zone=None)
  argv = target.create().argv
  assert '--docker-image=gcr.io/p/rest' in argv
  assert not [
    word for word in argv if 'script-dir' in word or 'base-docker' in word
  ]
  assert not [word for word in argv if word.startswith(('--project', '--zone'))]
  assert target.stage() == []
  assert shlex.split(_remote(target))[:6] == [
    'exec', 'env', 'PYTHONUNBUFFERED=1', 'python', '-m', 'rest_jax.main'
  ]  # fmt: skip


@pytest.mark.parametrize('docker_image', ['', 'gcr.io/p/rest'])
def test_arguments_reach_the_program_as_they_are(tmp_path, docker_image):
  """Through Kubernetes and the script that xpk puts a command into."""
  job = jobs.job(
    overrides=(_AWKWARD,),
    arguments=('--policy=a b', "it's"),
    environment={'A': "b;  'c' $HOME $$"},
    extras='tpu,iwslt',
  )
  target = _target(
    job=job, docker_image=docker_image, setup_command='false || echo mounted'
  )
  app = tmp_path / 'app'
  (app / 'launch').mkdir(parents=True)
  (app / 'launch' / 'environment.sh').write_text(
    'make_environment() { echo "made $1"; }\n'
  )
  stand_in = tmp_path / 'bin' / 'python'
  stand_in.parent.mkdir()
  stand_in.write_text(
    f'#!{sys.executable}\nimport json, os, sys\n'
    'print(json.dumps([sys.argv[1:], os.environ["A"]]))\nsys.exit(41)\n'
  )
  stand_in.chmod(0o755)
  command = _expanded(_remote(target), {'HOME': 'wrong', 'A': 'wrong'})
  script = f'({command.replace("/app", str(app))}) & wait $!'
  done = subprocess.run(
    ['bash', '-c', script],
    capture_output=True,
    text=True,
    env={
      **os.environ,
      'PATH': f'{stand_in.parent}{os.pathsep}{os.environ["PATH"]}',
    },
  )
  assert done.returncode == 41, done.stderr
  *before, seen = done.stdout.splitlines()
  assert before == (
    ['mounted'] if docker_image else ['mounted', 'made tpu,iwslt']
  )
  assert json.loads(seen) == [
    [
      '-m', 'rest_jax.main', '--run_mode=rest', '--model_dir=/mnt/a',
      f'--gin_file={jobs.SMOKE}', f'--gin.{_AWKWARD}', '--distributed',
      '--policy=a b', "it's",
    ],
    "b;  'c' $HOME $$",
  ]  # fmt: skip


def test_a_workload_is_submitted_with_its_code_and_waited_for(stand_ins):
  target = _target()
  folder = job_lib.PACKAGE.parent / 'build' / 'launch' / 'w'
  shutil.rmtree(folder, ignore_errors=True)
  (folder / 'rest_jax').mkdir(parents=True)
  (folder / 'rest_jax' / 'removed.py').touch()
  assert target.run() == 0
  assert [call[2] for call in stand_ins.calls()] == ['create', 'list']
  for path in (
    'rest_jax/main.py',
    'launch/environment.sh',
    jobs.SMOKE,
    'setup.py',
  ):
    assert (folder / path).is_file()
  assert not (folder / 'rest_jax' / 'removed.py').exists()
  assert not (folder / 'tests').exists()


def test_a_workload_that_fails_says_where_its_log_is(stand_ins):
  stand_ins.plays('list', status=125)
  with pytest.raises(
    commands.CommandFailed, match=r'status 125[\s\S]*kubectl logs .*=w '
  ):
    _target().run()


def test_an_interrupted_wait_leaves_the_workload(
  stand_ins, monkeypatch, capsys
):
  carry_out = commands.run

  def run(command):
    if 'list' in command.argv:
      raise interruption.Interrupted(signal.SIGINT)
    carry_out(command)

  monkeypatch.setattr(commands, 'run', run)
  assert _target().run() == 130
  assert [call[2] for call in stand_ins.calls()] == ['create']
  said = capsys.readouterr().err
  assert 'the workload keeps running' in said
  assert _target().delete().text() in said


def test_a_workload_that_was_not_submitted_is_not_waited_for(stand_ins):
  stand_ins.plays('create', status=1)
  with pytest.raises(commands.CommandFailed, match='status 1: xpk'):
    _target().run()
  assert not stand_ins.calls('list')


@pytest.mark.parametrize(
  'changes, named',
  [
    ({'cluster': ''}, '--cluster'),
    ({'workload': 'W'}, '--workload=W'),
    ({'workload': 'w' * 41}, 'at most 40'),
    ({'tpu_type': ''}, '--accelerator_type'),
    ({'tpu_type': 'v5e-16'}, 'v5litepod-16'),
    ({'job': jobs.job(overrides=('X="""a\nb"""',))}, 'line break'),
    ({'job': jobs.job(model_dir='s3://b/a')}, '--model_dir=s3://b/a'),
  ],
)
def test_invalid_flags_are_named(changes, named):
  with pytest.raises(commands.LaunchError, match=named):
    _target(**changes)


def test_a_plan_runs_no_command(stand_ins):
  target = _target(job=jobs.job(overrides=(_AWKWARD,)))
  lines = target.plan()
  assert stand_ins.calls() == []
  assert list(target.create().argv) in [shlex.split(line) for line in lines]
