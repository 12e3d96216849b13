"""Tests of processes on this machine."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from rest_jax.launch import job as job_lib
from rest_jax.launch import processes
from rest_jax.launch.targets import local

_SMOKE = 'gin_configs/experiments/smoke.gin'
_ROOT = job_lib.PACKAGE.parent


def _job(**changes):
  return job_lib.Job(
    **{'model_dir': 'runs/a', 'gin_files': (_SMOKE,), **changes}
  )


class _StandIn(job_lib.Job):
  """Another program in the place of rest_jax.main."""

  def program(self, python, *added):
    return (python, *self.arguments, *added)


def _stand_in(script, *arguments):
  return _StandIn(
    model_dir='runs/a',
    gin_files=(_SMOKE,),
    arguments=('-c', script, *arguments),
  )


def test_a_single_process_is_not_distributed(monkeypatch):
  monkeypatch.delenv('XLA_FLAGS', raising=False)
  monkeypatch.delenv('PYTHONPATH', raising=False)
  target = local.Local(job=_job(), devices_per_process=2)
  (command,) = target.process_commands(1234)
  assert command.argv == (
    sys.executable, '-m', 'rest_jax.main', '--run_mode=rest',
    '--model_dir=runs/a', f'--gin_file={_SMOKE}',
  )  # fmt: skip
  assert command.environment == {
    'PYTHONUNBUFFERED': '1',
    'PYTHONPATH': str(_ROOT),
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': '--xla_force_host_platform_device_count=2',
  }


def test_several_processes_find_each_other():
  target = local.Local(job=_job(), num_processes=3)
  for index, command in enumerate(target.process_commands(1234)):
    assert command.argv[-3:] == (
      '--coordinator_address=127.0.0.1:1234',
      '--num_processes=3',
      f'--process_id={index}',
    )


def test_flags_of_xla_are_kept_and_variables_of_the_user_win(monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '--xla_a=1')
  devices = '--xla_force_host_platform_device_count=1'
  (command,) = local.Local(job=_job()).process_commands(1)
  assert command.environment['XLA_FLAGS'] == f'--xla_a=1 {devices}'
  job = _job(environment={'XLA_FLAGS': '--xla_b=2', 'JAX_PLATFORMS': 'cuda'})
  (command,) = local.Local(job=job).process_commands(1)
  assert command.environment['XLA_FLAGS'] == f'--xla_b=2 {devices}'
  assert command.environment['JAX_PLATFORMS'] == 'cuda'


def test_a_run_of_the_program(tmp_path, capfd):
  """The real program, in a process of two simulated devices."""
  model_dir = tmp_path / 'a b'
  job = _job(
    model_dir=str(model_dir),
    run_mode='prepare',
    overrides=('VARIANT=\'a; "b" $c\'', 'NUM_TRAIN_PAIRS=120'),
  )
  target = local.Local(job=job, devices_per_process=2)
  assert target.run() == 0
  manifest = json.loads((model_dir / 'data' / 'manifest.json').read_text())
  assert manifest
  config = (model_dir / 'config.gin').read_text()
  assert 'NUM_TRAIN_PAIRS = 120' in config
  assert 'a; "b" $c' in config


def test_an_error_of_the_program_is_its_status_and_not_repeated(
  tmp_path, capfd
):
  job = _job(model_dir=str(tmp_path / 'a'), overrides=('NO_SUCH_MACRO=1',))
  assert local.Local(job=job, max_restarts=3).run() == 1
  said = capfd.readouterr()
  assert said.out.count('NO_SUCH_MACRO') == 1
  assert 'not restarted' in said.err


# Has the devices that it is told to have.
_DEVICES = """
import jax, sys
print('devices', jax.device_count(), *sys.argv[2:])
"""


def test_devices_are_simulated(capfd):
  target = local.Local(job=_stand_in(_DEVICES, ''), devices_per_process=3)
  assert target.run() == 0
  assert 'devices 3' in capfd.readouterr().out


# The first attempt of process 1 is killed; the others end well.
_KILLED_ONCE = """
import os, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
index = sys.argv[-1].split('=')[1]
first = not (folder / 'killed').exists()
with open(folder / f'ports_{index}', 'a') as ports:
  ports.write(sys.argv[-3] + '\\n')
if index == '1' and first:
  (folder / 'killed').touch()
  os.kill(os.getpid(), 9)
if first:
  time.sleep(60)
"""


def test_a_killed_process_has_all_started_again(tmp_path, monkeypatch, capfd):
  monkeypatch.setattr(processes, '_SETTLE_SECONDS', 0.1)
  target = local.Local(
    job=_stand_in(_KILLED_ONCE, str(tmp_path)),
    num_processes=2,
    restart_seconds=0,
  )
  assert target.run() == 0
  said = capfd.readouterr().err
  assert 'worker 1 was ended by SIGKILL' in said
  assert 'restart 1 of 10' in said
  ports = [(tmp_path / f'ports_{n}').read_text().split() for n in range(2)]
  assert ports[0] == ports[1]
  assert len(ports[0]) == 2


_SAVES = """
import pathlib, signal, sys, time
folder, index = pathlib.Path(sys.argv[1]), sys.argv[-1].split('=')[1]
def save(number, frame):
  with open(folder / f'saved_{index}', 'a') as saved:
    saved.write(f'{number} ')
  time.sleep(0.5)
  sys.exit(128 + number)
signal.signal(signal.SIGTERM, save)
signal.signal(signal.SIGINT, save)
(folder / f'ready_{index}').touch()
time.sleep(60)
"""
_LAUNCHER = """
import sys
from rest_jax.launch.targets import local
from tests.launch.targets import local_test
job = local_test._stand_in(local_test._SAVES, sys.argv[1])
sys.exit(local.Local(job=job, num_processes=2).run())
"""


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_launcher_lets_the_workers_save(tmp_path, number):
  """As Ctrl-C at a terminal does: all of the launcher's group is signalled."""
  launcher = subprocess.Popen(
    [sys.executable, '-c', _LAUNCHER, str(tmp_path)],
    cwd=_ROOT,
    env={**os.environ, 'PYTHONPATH': str(_ROOT)},
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )
  ready = [pathlib.Path(tmp_path / f'ready_{n}') for n in range(2)]
  for _ in range(600):
    if all(path.exists() for path in ready):
      break
    time.sleep(0.05)
  os.killpg(launcher.pid, number)
  _, said = launcher.communicate(timeout=60)
  assert launcher.returncode == 128 + number
  assert 'run the same command to resume' in said
  for index in range(2):
    # Once: a second signal would stop a training without saving.
    assert (tmp_path / f'saved_{index}').read_text() == f'{number} '
