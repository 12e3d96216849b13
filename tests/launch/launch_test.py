"""Tests of the launcher's command line."""

import os
import shlex
import subprocess
import sys

import pytest

from rest_jax.launch import job as job_lib

_ROOT = job_lib.PACKAGE.parent
_SMOKE = '--gin_file=gin_configs/experiments/smoke.gin'
_TPU = (
  '--target=tpu_vm', '--model_dir=/mnt/a', '--zone=us-west4-a',
  '--tpu_name=launched', '--accelerator_type=v5litepod-16',
  '--runtime_version=v2-alpha-tpuv5-lite', _SMOKE,
)  # fmt: skip
_AWKWARD = '--gin.X=\'a b; "c"\''


def _launch(*arguments, how=('launch/launch.py',), cwd=_ROOT):
  environment = {**os.environ}
  environment.pop('PYTHONPATH', None)
  return subprocess.run(
    [sys.executable, *how, *arguments],
    capture_output=True,
    text=True,
    cwd=cwd,
    env=environment,
    timeout=120,
  )


def test_a_dry_run_prints_the_commands_and_runs_none(stand_ins):
  done = _launch(
    *_TPU, '--dry_run', '--env=A=b c', '--spot', _AWKWARD, '--',
    '--policy=x y', '--dry_run',
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert stand_ins.calls() == []
  lines = [shlex.split(line) for line in done.stdout.splitlines()]
  (created,) = [line for line in lines if 'create' in line]
  assert '--spot' in created
  started = [line for line in lines if 'worker.py run' in ' '.join(line)]
  assert len(started) == 4
  remote = shlex.split(started[0][7].removeprefix('--command='))
  assert 'A=b c' in remote
  assert remote[-4:] == [
    _AWKWARD, '--distributed', '--policy=x y', '--dry_run'
  ]  # fmt: skip


def test_the_launcher_runs_as_a_module_and_from_another_folder(tmp_path):
  arguments = ('--dry_run', '--model_dir=runs/a', _SMOKE)
  as_file = _launch(*arguments)
  as_module = _launch(*arguments, how=('-m', 'launch.launch'))
  elsewhere = _launch(
    *arguments, how=(str(_ROOT / 'launch' / 'launch.py'),), cwd=tmp_path
  )
  assert as_file.returncode == 0, as_file.stderr
  assert as_file.stdout == as_module.stdout == elsewhere.stdout
  assert f'--model_dir=runs/a {_SMOKE}' in as_file.stdout


@pytest.mark.parametrize(
  'arguments, named',
  [
    (('--model_dir=a', _SMOKE, '--tpu_name=b'), '--tpu_name is for'),
    (('--model_dir=a', _SMOKE, 'grow'), "unknown arguments: ['grow']"),
    (('--model_dir=a', _SMOKE, '--grow_step=2'), 'grow_step'),
    (('--model_dir=a', _SMOKE, '--gin.X'), '--gin.X'),
    (('--model_dir=a', _SMOKE, '--env=b'), '--env=b'),
    ((_SMOKE,), '--model_dir'),
    (('--model_dir=a',), '--gin_file'),
    ((*_TPU, '--num_processes=2'), '--num_processes is for --target=local'),
    ((*_TPU, '--zone='), '--zone'),
    ((*_TPU, '--target=nowhere'), 'nowhere'),
    (
      ('--target=xpk', '--model_dir=/a', _SMOKE, '--spot'),
      'tpu_vm and queued_resource',
    ),
  ],
)
def test_invalid_flags_are_named(arguments, named, stand_ins):
  done = _launch(*arguments)
  assert done.returncode == 1
  assert named in done.stderr + done.stdout
  assert 'Traceback' not in done.stderr
  assert stand_ins.calls() == []


def test_a_missing_executable_is_named(tmp_path, monkeypatch):
  monkeypatch.setenv('PATH', str(tmp_path))
  done = _launch(*_TPU)
  assert done.returncode == 1
  assert 'error: gcloud is not on the PATH' in done.stderr


def test_a_failure_of_the_program_is_the_exit_status(stand_ins):
  found = '{"state": "READY", "networkEndpoints": [{}]}'
  stand_ins.plays('describe', always=True, stdout=found)
  ended = '[worker] ended with status 1\n'
  stand_ins.plays('worker.py run', status=1, stdout=f'no file\n{ended}')
  done = _launch(*_TPU)
  assert done.returncode == 1
  assert 'no file' in done.stdout
  assert 'worker 0 ended with status 1' in done.stderr
  assert len(stand_ins.calls('worker.py run')) == 1


def test_a_signal_while_a_tpu_is_waited_for_ends_it(stand_ins):
  found = '{"state": "CREATING", "networkEndpoints": []}'
  stand_ins.plays('describe', always=True, stdout=found)
  launcher = subprocess.Popen(
    [sys.executable, 'launch/launch.py', *_TPU],
    cwd=_ROOT,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert launcher.stderr is not None
  for line in launcher.stderr:
    if 'is CREATING; waiting' in line:
      break
  launcher.terminate()
  _, said = launcher.communicate(timeout=60)
  assert launcher.returncode == 143
  assert 'run the same command to resume' in said
