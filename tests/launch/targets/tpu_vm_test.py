"""Tests of runs on a TPU VM, against a stand-in for gcloud."""

import dataclasses
import json
import os
import pathlib
import shlex
import subprocess
import sys
import threading
import time

import pytest

from rest_jax.launch import commands, processes, restarts
from rest_jax.launch import job as job_lib
from rest_jax.launch.targets import tpu_vm
from tests.launch import jobs

_AWKWARD = 'X=\'a  b; "c" $HOME `x` \\\\\''
_NAMES = ('compute', 'tpus', 'tpu-vm')
_END = ('--zone=us-west4-a', '--project=p', '--quiet')


@pytest.fixture(autouse=True)
def _quickly(monkeypatch):
  monkeypatch.setattr(processes, '_SETTLE_SECONDS', 0.2)
  monkeypatch.chdir(job_lib.PACKAGE.parent)


def _target(cls=tpu_vm.TpuVm, *, job=None, machine=None, **changes):
  at = tpu_vm.Machine(
    **{
      'project': 'p',
      'zone': 'us-west4-a',
      'name': 'rest',
      'accelerator_type': 'v5litepod-16',
      'runtime_version': 'v2-alpha-tpuv5-lite',
      'poll_seconds': 0.0,
      'command_timeout': 60.0,
      **(machine or {}),
    }
  )
  return cls(
    **{
      'job': job or jobs.job(),
      'machine': at,
      'restart_seconds': 0.0,
      'grace_seconds': 10.0,
      **changes,
    }
  )


def _node(state='READY', workers=2):
  return json.dumps({'state': state, 'networkEndpoints': [{}] * workers})


def _ends(stand_ins, which, status, *, printed='', marked=True):
  """Lets a worker's program end; without a mark the connection is lost."""
  mark = f'[worker] ended with status {status}\n' if marked else ''
  stand_ins.plays(
    'ssh', f'--worker={which}', 'worker.py run', stdout=printed + mark,
    status=status,
  )  # fmt: skip


# Commands, word by word.


def test_create():
  machine = _target(machine={'spot': True}).machine
  assert machine.create().argv == (
    'gcloud', *_NAMES, 'create', 'rest', '--accelerator-type=v5litepod-16',
    '--version=v2-alpha-tpuv5-lite', '--spot', *_END,
  )  # fmt: skip
  assert '--spot' not in _target().machine.create().argv


def test_describe_and_delete():
  machine = _target(machine={'project': None}).machine
  assert machine.describe().argv == (
    'gcloud', *_NAMES, 'describe', 'rest', '--format=json',
    '--zone=us-west4-a', '--quiet',
  )  # fmt: skip
  assert machine.delete().argv == (
    'gcloud', *_NAMES, 'delete', 'rest', '--zone=us-west4-a', '--quiet'
  )  # fmt: skip


def test_copy():
  argv = _target().machine.copy('rest').argv
  archive = str(job_lib.PACKAGE.parent / 'build' / 'launch' / 'rest.tar.gz')
  assert argv == (
    'gcloud', *_NAMES, 'scp', archive, 'rest:rest_jax.tar.gz', '--worker=all',
    *_END,
  )  # fmt: skip


def test_the_program_of_each_worker():
  job = jobs.job(environment={'A': "b 'c'"}, overrides=(_AWKWARD,))
  argv = _target(job=job).follow(3, 'id', 4).argv
  assert argv[:6] == ('gcloud', *_NAMES, 'ssh', 'rest')
  assert argv[6] == '--worker=3'
  assert argv[8:] == _END
  # As the shell of the worker reads it.
  remote = shlex.split(argv[7].removeprefix('--command='))
  assert remote == [
    'cd', 'rest_jax', '&&', 'env', 'PYTHONUNBUFFERED=1', "A=b 'c'", 'python3',
    'rest_jax/launch/worker.py', 'run', 'id', '.venv/bin/python', '-m', 'rest_jax.main',
    '--run_mode=rest', '--model_dir=/mnt/a', f'--gin_file={jobs.SMOKE}',
    f'--gin.{_AWKWARD}', '--distributed',
  ]  # fmt: skip


def test_a_single_worker_is_not_distributed():
  (remote,) = [
    word
    for word in _target().follow(0, 'id', 1).argv
    if word.startswith('--command=')
  ]
  assert '--distributed' not in remote


def test_stop():
  job = jobs.job(overrides=(_AWKWARD,))
  argv = _target(job=job).stops(15, 1)[0].argv
  assert argv[6] == '--worker=all'
  assert shlex.split(argv[7].removeprefix('--command=')) == [
    'cd', 'rest_jax', '&&', 'python3', 'rest_jax/launch/worker.py', 'stop', '15', '10',
    '.venv/bin/python', '-m', 'rest_jax.main', '--run_mode=rest',
    '--model_dir=/mnt/a', f'--gin_file={jobs.SMOKE}', f'--gin.{_AWKWARD}',
  ]  # fmt: skip


@pytest.mark.parametrize(
  'accelerator_type, workers',
  [
    ('v5litepod-1', 1), ('v5litepod-8', 1), ('v5litepod-16', 4),
    ('v6e-8', 1), ('v6e-256', 64), ('v4-8', 1), ('v4-32', 4), ('v5p-16', 2),
    ('v3-8', 1), ('v2-32', 4),
  ],
)  # fmt: skip
def test_how_many_workers_a_type_has(accelerator_type, workers):
  assert tpu_vm.num_workers(accelerator_type) == workers


@pytest.mark.parametrize(
  'changes, named',
  [
    ({'zone': ''}, '--zone is needed'),
    ({'name': ''}, '--tpu_name is needed'),
    ({'name': 'Rest'}, '--tpu_name=Rest'),
    ({'name': 'a b'}, '--tpu_name=a b'),
    ({'name': 'rest-'}, '--tpu_name=rest-'),
    ({'name': 'a' * 64}, '--tpu_name'),
    ({'zone': 'us west'}, '--zone=us west'),
    ({'accelerator_type': 'v5e:4x4'}, '--accelerator_type=v5e:4x4'),
    ({'accelerator_type': 'v5e-16'}, 'v5litepod-16'),
  ],
)
def test_invalid_flags_are_named(changes, named):
  with pytest.raises(commands.LaunchError, match=named):
    _target(machine=changes)


def test_a_plan_runs_no_command(stand_ins):
  lines = _target(delete=True, job=jobs.job(overrides=(_AWKWARD,))).plan()
  assert stand_ins.calls() == []
  started = [line for line in lines if 'worker.py run' in line]
  assert [shlex.split(line)[6] for line in started] == [
    f'--worker={n}' for n in range(4)
  ]
  # The line for the shell here holds a line for the shell there.
  there = shlex.split(started[0])[7].removeprefix('--command=')
  assert f'--gin.{_AWKWARD}' in shlex.split(there)
  assert shlex.split(lines[-1])[4:6] == ['delete', 'rest']
  with pytest.raises(commands.LaunchError, match='--runtime_version'):
    _target(machine={'runtime_version': ''}).plan()


# What is done, in which order.


def test_an_existing_machine_is_used(stand_ins, capfd):
  stand_ins.plays('describe', always=True, stdout=_node())
  _ends(stand_ins, 0, 0, printed='hello\n')
  _ends(stand_ins, 1, 0)
  assert _target(machine={'accelerator_type': ''}).run() == 0
  assert [call[4] for call in stand_ins.calls()] == [
    'describe', 'scp', 'ssh', 'ssh', 'ssh'
  ]  # fmt: skip
  (setup,) = stand_ins.calls('setup_worker.sh tpu')
  assert setup[6] == '--worker=all'
  started = stand_ins.calls('worker.py run')
  assert {call[6] for call in started} == {'--worker=0', '--worker=1'}
  assert all('--distributed' in call[7] for call in started)
  printed = capfd.readouterr()
  assert '[0] hello' in printed.out
  assert 'gcloud compute tpus tpu-vm delete rest' in printed.err


def test_a_missing_machine_is_created(stand_ins):
  stand_ins.plays('describe', status=1, stderr='ERROR: NOT_FOUND: Resource')
  stand_ins.plays('describe', stdout=_node('CREATING', 1))
  stand_ins.plays('describe', stdout=_node('READY', 1))
  _ends(stand_ins, 0, 0)
  assert _target(delete=True).run() == 0
  assert [call[4] for call in stand_ins.calls()] == [
    'describe', 'create', 'describe', 'describe', 'scp', 'ssh', 'ssh', 'delete'
  ]  # fmt: skip


def test_without_an_accelerator_type_no_machine_is_created(stand_ins):
  stand_ins.plays('describe', status=1, stderr='NOT_FOUND')
  with pytest.raises(commands.LaunchError, match='--accelerator_type'):
    _target(machine={'accelerator_type': ''}).run()
  assert not stand_ins.calls('create')


def test_another_failure_of_gcloud_is_shown(stand_ins):
  stand_ins.plays('describe', always=True, status=1, stderr='not logged in')
  with pytest.raises(commands.CommandFailed, match='not logged in'):
    _target().run()
  assert not stand_ins.calls('create')


def test_a_stopped_machine_is_not_started(stand_ins):
  stand_ins.plays('describe', stdout=_node('STOPPED'))
  with pytest.raises(commands.LaunchError, match=r'is STOPPED.*tpu-vm start'):
    _target().run()


def test_an_error_stops_the_others_and_is_final(stand_ins, tmp_path, capfd):
  stand_ins.plays('describe', always=True, stdout=_node())
  _ends(stand_ins, 0, 143)
  _ends(stand_ins, 1, 1, printed='error: no such file\n')
  # Worker 0 goes on until it is told to end.
  target = _Waiting(**_fields(_target()), home=tmp_path)
  stand_ins.plays('worker.py stop', status=0)
  assert target.run() == 1
  assert len(stand_ins.calls('worker.py run')) == 2
  assert len(stand_ins.calls('worker.py stop 15')) == 1
  said = capfd.readouterr().err
  assert 'worker 1 ended with status 1' in said
  assert '  error: no such file' in said


def _fields(target):
  return {
    field.name: getattr(target, field.name)
    for field in dataclasses.fields(target)
  }


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Waiting(tpu_vm.TpuVm):
  """Worker 0 answers only once a stop was sent to all."""

  home: pathlib.Path

  def follow(self, which, run_id, workers):
    command = super().follow(which, run_id, workers)
    if which:
      return command
    wait = f'until test -e {self.home}/stop; do sleep 0.05; done; '
    return commands.Command(('sh', '-c', wait + 'exec "$@"', '', *command.argv))

  def _send(self, number, workers):
    super()._send(number, workers)
    (self.home / 'stop').touch()


def test_after_a_preemption_the_machine_is_created_again(stand_ins, capfd):
  stand_ins.plays('describe', stdout=_node())
  # The first attempt: one worker is lost, another fails of it.
  _ends(stand_ins, 0, 1)
  _ends(stand_ins, 1, 1, marked=False)
  stand_ins.plays('describe', stdout=_node('PREEMPTED'))
  # The second.
  stand_ins.plays('describe', stdout=_node('PREEMPTED'))
  stand_ins.plays('describe', stdout=_node())
  _ends(stand_ins, 0, 0)
  _ends(stand_ins, 1, 0)
  assert _target(delete=True).run() == 0
  assert [call[4] for call in stand_ins.calls() if call[4] != 'ssh'] == [
    'describe', 'scp', 'describe', 'describe', 'delete', 'create', 'describe',
    'scp', 'delete',
  ]  # fmt: skip
  ids = {shlex.split(call[7])[8] for call in stand_ins.calls('worker.py run')}
  assert len(ids) == 2
  assert 'rest is PREEMPTED' in capfd.readouterr().err


def test_preemption_before_the_first_line_is_no_error(stand_ins):
  stand_ins.plays('describe', stdout=_node(workers=1))
  stand_ins.plays('setup_worker.sh', status=255)
  stand_ins.plays('describe', stdout=_node('PREEMPTED', 1))
  stand_ins.plays('describe', stdout=_node(workers=1))
  _ends(stand_ins, 0, 0)
  assert _target().run() == 0


def test_a_setup_that_fails_at_first_is_an_error(stand_ins):
  stand_ins.plays('describe', always=True, stdout=_node())
  stand_ins.plays('setup_worker.sh', status=1)
  with pytest.raises(commands.CommandFailed, match=r'status 1.*setup_worker'):
    _target().run()


def test_too_many_preemptions(stand_ins):
  for _ in range(3):
    stand_ins.plays('describe', stdout=_node(workers=1))
    _ends(stand_ins, 0, 255, marked=False)
    stand_ins.plays('describe', stdout=_node('PREEMPTED', 1))
  target = _target(max_restarts=2, delete=True)
  assert target.run() == restarts.CUT_OFF_TOO_OFTEN
  assert len(stand_ins.calls('worker.py run')) == 3
  # It is to be resumed, so the machine stays.
  assert not stand_ins.calls('delete')


def test_no_capacity_after_a_preemption_is_tried_again(stand_ins):
  stand_ins.plays('describe', stdout=_node(workers=1))
  _ends(stand_ins, 0, 255, marked=False)
  stand_ins.plays('describe', stdout=_node('PREEMPTED', 1))
  stand_ins.plays('describe', status=1, stderr='NOT_FOUND')
  stand_ins.plays('create', status=1, stderr='no capacity')
  stand_ins.plays('describe', status=1, stderr='NOT_FOUND')
  stand_ins.plays('describe', status=1, stderr='NOT_FOUND')
  stand_ins.plays('describe', stdout=_node(workers=1))
  _ends(stand_ins, 0, 0)
  assert _target().run() == 0
  assert len(stand_ins.calls('create')) == 2


# On workers that are folders of this machine.

# Instead of a virtual environment: the Python of the tests, marked as made.
_VENV = (
  'mkdir -p .venv/bin && '
  f'printf \'#!/bin/sh\\nexec %s "$@"\\n\' {sys.executable} '
  '> .venv/bin/python && chmod +x .venv/bin/python && '
  'source launch/environment.sh && '
  'environment_key .venv/bin/python > .venv/installed-tpu'
)
# In the place of rest_jax.main: notes its arguments and plays a part.
_MAIN = """
import json, os, pathlib, signal, sys, time
def save(number, frame):
  pathlib.Path('saved').write_text(str(number))
  pathlib.Path('../part').write_text('0')
  sys.exit(128 + number)
signal.signal(signal.SIGTERM, save)
signal.signal(signal.SIGINT, save)
pathlib.Path('seen.json').write_text(
  json.dumps([sys.argv[1:], os.environ.get('A')]))
part = pathlib.Path('../part').read_text()
print('playing', part, flush=True)
if part != 'wait':
  sys.exit(int(part))
time.sleep(60)
"""


def _workers(stand_ins, *parts):
  stand_ins.plays('describe', always=True, stdout=_node(workers=len(parts)))
  homes = stand_ins.homes(len(parts))
  for home, part in zip(homes, parts, strict=True):
    (home / 'part').write_text(part)
  play = f'printf %s {shlex.quote(_MAIN)} > rest_jax/main.py'
  return homes, f'{_VENV} && {play}'


def test_arguments_reach_the_program_as_they_are(stand_ins, monkeypatch):
  homes, setup = _workers(stand_ins, '0', '0')
  job = jobs.job(
    overrides=(_AWKWARD, 'Y=(1, 2)'),
    arguments=('--policy=a b', "it's"),
    environment={'A': "b;  'c' $HOME"},
  )
  assert _target(job=job, setup_command=setup).run() == 0
  for home in homes:
    seen = json.loads((home / 'rest_jax' / 'seen.json').read_text())
    assert seen == [
      [
        '--run_mode=rest', '--model_dir=/mnt/a', f'--gin_file={jobs.SMOKE}',
        f'--gin.{_AWKWARD}', '--gin.Y=(1, 2)', '--distributed',
        '--policy=a b', "it's",
      ],
      "b;  'c' $HOME",
    ]  # fmt: skip


def test_when_one_worker_fails_the_others_save(stand_ins, capfd):
  homes, setup = _workers(stand_ins, 'wait', '3', 'wait')
  assert _target(setup_command=setup).run() == 3
  assert [(home / 'rest_jax' / 'saved').exists() for home in homes] == [
    True, False, True
  ]  # fmt: skip
  said = capfd.readouterr().err
  assert 'worker 1 ended with status 3' in said
  assert '  playing 3' in said


def test_a_signal_to_the_launcher_reaches_all_workers(stand_ins):
  homes, setup = _workers(stand_ins, 'wait', 'wait')
  seen = [home / 'rest_jax' / 'seen.json' for home in homes]

  def interrupt():
    while not all(path.exists() for path in seen):
      time.sleep(0.05)
    os.kill(os.getpid(), 2)

  threading.Thread(target=interrupt).start()
  assert _target(setup_command=setup, delete=True).run() == 130
  for home in homes:
    assert (home / 'rest_jax' / 'saved').read_text() == '2'
  assert not stand_ins.calls('delete')


def test_a_running_program_is_followed_and_keeps_its_code(stand_ins):
  (home,), setup = _workers(stand_ins, 'wait')
  target = _target(setup_command=setup)
  first = _started(target, home)
  marker = home / 'rest_jax' / 'rest_jax' / 'marker'
  marker.touch()
  for command in target._prepare(0, 1):
    commands.run(command)
  assert marker.exists()
  second = threading.Thread(target=_attempt, args=(target, 1))
  second.start()
  time.sleep(1)
  commands.run(*target.stops(15, 1))
  first.join(120)
  second.join(120)
  assert not first.is_alive() and not second.is_alive()
  assert (home / 'rest_jax' / 'saved').read_text() == '15'


def test_a_program_behind_a_lost_connection_is_stopped_before_a_restart(
  stand_ins, capfd
):
  (home,), setup = _workers(stand_ins, 'wait')
  target = _target(setup_command=setup)
  first = _started(target, home)
  # To the launcher the worker is lost; its program saves, and resumes as 0.
  _ends(stand_ins, 0, 255, marked=False)
  assert target.run() == 0
  first.join(120)
  assert not first.is_alive()
  assert (home / 'rest_jax' / 'saved').read_text() == '15'
  printed = capfd.readouterr()
  assert 'worker 0 was lost' in printed.err
  assert 'playing 0' in printed.out


def test_another_run_on_the_machine_is_not_disturbed(stand_ins, capfd):
  homes, setup = _workers(stand_ins, 'wait', 'wait')
  theirs = _target(setup_command=setup)
  first = _started(theirs, homes[0], 2)
  (homes[1] / 'part').write_text('0')
  ours = _target(setup_command=setup, job=jobs.job(overrides=('SEED=2',)))
  assert ours.run() == 1
  assert 'another run is in progress here' in capfd.readouterr().out
  assert not (homes[0] / 'rest_jax' / 'saved').exists()
  commands.run(*theirs.stops(15, 2))
  first.join(120)
  assert (homes[0] / 'rest_jax' / 'saved').exists()


def _started(target, home, workers=1):
  """Starts an attempt in a thread; returns once its program runs."""
  thread = threading.Thread(target=_attempt, args=(target, workers))
  thread.start()
  while not (home / 'rest_jax' / 'seen.json').exists():
    time.sleep(0.05)
  return thread


def _attempt(target, workers):
  for command in target._prepare(0, workers):
    commands.run(command)
  subprocess.run(target.follow(0, str(time.time()), workers).argv)


def test_the_copied_code_is_all_that_the_program_needs(stand_ins, tmp_path):
  stand_ins.plays('describe', always=True, stdout=_node(workers=1))
  (home,) = stand_ins.homes(1)
  model_dir = tmp_path / 'shared' / 'a'
  job = jobs.job(
    model_dir=str(model_dir),
    run_mode='prepare',
    overrides=('NUM_TRAIN_PAIRS=120',),
    environment={'PYTHONPATH': '', 'PYTHONSAFEPATH': ''},
  )
  assert _target(job=job, setup_command=_VENV).run() == 0
  assert (model_dir / 'data' / 'manifest.json').exists()
  copied = {path.name for path in (home / 'rest_jax').iterdir()}
  assert {'rest_jax', 'gin_configs', 'launch', 'setup.py'} <= copied
  assert not {'tests', '.git', 'docs'} & copied
