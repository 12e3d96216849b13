"""Tests of runs on a TPU VM from the queue, against a stand-in for gcloud."""

import json
import shlex

import pytest

from rest_jax.launch import commands, restarts
from rest_jax.launch import job as job_lib
from rest_jax.launch.targets import queued_resource, tpu_vm
from tests.launch import jobs

_END = ('--zone=us-west4-a', '--project=p', '--quiet')
_QUEUED = ('gcloud', 'compute', 'tpus', 'queued-resources')


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch):
  monkeypatch.chdir(job_lib.PACKAGE.parent)


def _target(*, spot=True, **changes):
  return queued_resource.QueuedResource(
    job=jobs.job(),
    machine=tpu_vm.Machine(
      project='p',
      zone='us-west4-a',
      name='queued',
      accelerator_type='v5litepod-8',
      runtime_version='v2-alpha-tpuv5-lite',
      spot=spot,
      poll_seconds=0.0,
      command_timeout=60.0,
    ),
    restart_seconds=0.0,
    grace_seconds=10.0,
    **changes,
  )


class _Cloud:
  """Plays states of the request, its machine and the program."""

  def __init__(self, stand_ins):
    self._stand_ins = stand_ins

  def request(self, *states):
    for state in states:
      if state is None:
        answer = {'status': 1, 'stderr': 'ERROR: NOT_FOUND: Resource'}
      else:
        answer = {'stdout': json.dumps({'state': {'state': state}})}
      self._stand_ins.plays('queued-resources describe', **answer)

  def node(self, state):
    found = {'state': state, 'networkEndpoints': [{}]}
    self._stand_ins.plays('tpu-vm describe', stdout=json.dumps(found))

  def program(self, status):
    mark = f'[worker] ended with status {status}\n'
    self._stand_ins.plays(
      'worker.py run', status=status or 0, stdout='' if status is None else mark
    )


@pytest.fixture
def cloud(stand_ins):
  return _Cloud(stand_ins)


def _actions(stand_ins):
  return [' '.join(call[3:5]) for call in stand_ins.calls()]


def test_the_request():
  assert _target().request().argv == (
    *_QUEUED, 'create', 'queued', '--node-id=queued',
    '--accelerator-type=v5litepod-8', '--runtime-version=v2-alpha-tpuv5-lite',
    '--spot', *_END,
  )  # fmt: skip
  assert '--spot' not in _target(spot=False).request().argv


def test_its_state_and_its_end():
  target = _target()
  assert target.describe().argv == (
    *_QUEUED, 'describe', 'queued', '--format=json', *_END
  )  # fmt: skip
  assert target.deletion().argv == (
    *_QUEUED,
    'delete',
    'queued',
    '--force',
    *_END,
  )


def test_a_resource_is_requested_and_waited_for(stand_ins, cloud):
  cloud.request(None, 'WAITING_FOR_RESOURCES', 'PROVISIONING', 'ACTIVE')
  cloud.node('READY')
  cloud.program(0)
  assert _target(delete=True).run() == 0
  assert _actions(stand_ins) == [
    'queued-resources describe', 'queued-resources create',
    'queued-resources describe', 'queued-resources describe',
    'queued-resources describe', 'tpu-vm describe',
    'tpu-vm scp', 'tpu-vm ssh', 'tpu-vm ssh', 'queued-resources delete',
  ]  # fmt: skip


def test_a_granted_resource_is_used(stand_ins, cloud):
  cloud.request('ACTIVE')
  cloud.node('READY')
  cloud.program(0)
  assert _target().run() == 0
  assert not stand_ins.calls('queued-resources', 'create')
  assert not stand_ins.calls('queued-resources', 'delete')


@pytest.mark.parametrize('after', ['SUSPENDED', 'ACTIVE'])
def test_after_a_preemption_the_resource_is_requested_again(
  stand_ins, cloud, after
):
  cloud.request('ACTIVE')
  cloud.node('READY')
  cloud.program(None)  # The connection is lost.
  cloud.node('PREEMPTED')
  # The request may learn of it later than its machine.
  cloud.request('SUSPENDING', after)
  if after == 'ACTIVE':
    cloud.node('PREEMPTED')
  cloud.request('WAITING_FOR_RESOURCES', 'ACTIVE')
  cloud.node('READY')
  cloud.program(0)
  assert _target().run() == 0
  made = [
    a for a in _actions(stand_ins) if a.split()[1] in ('create', 'delete')
  ]
  assert made == ['queued-resources delete', 'queued-resources create']
  assert len(stand_ins.calls('worker.py run')) == 2


def test_a_failed_request_is_an_error(stand_ins, cloud):
  cloud.request('FAILED')
  with pytest.raises(
    commands.LaunchError, match=r'failed.*delete queued --force'
  ):
    _target().run()
  assert not stand_ins.calls('queued-resources', 'create')


def test_too_many_preemptions(stand_ins, cloud):
  for _ in range(2):
    cloud.request('ACTIVE')
    cloud.node('READY')
    cloud.program(None)
    cloud.node('PREEMPTED')
  assert _target(max_restarts=1).run() == restarts.CUT_OFF_TOO_OFTEN


def test_an_error_of_the_program_is_final(stand_ins, cloud):
  cloud.request('ACTIVE')
  cloud.node('READY')
  cloud.program(1)
  cloud.node('READY')
  assert _target().run() == 1
  assert len(stand_ins.calls('worker.py run')) == 1


def test_several_slices_are_one_request(stand_ins, cloud):
  target = _target(num_slices=2)
  argv = target.request().argv
  assert '--node-count=2' in argv
  assert '--node-prefix=queued' in argv
  assert not [word for word in argv if word.startswith('--node-id')]
  cloud.request(None, 'ACTIVE', 'ACTIVE')
  # Of one slice it is not ready yet.
  for state in ('READY', 'CREATING', 'READY', 'READY'):
    cloud.node(state)
  for _ in range(2):
    cloud.program(0)
  assert target.run() == 0
  names = [call[5] for call in stand_ins.calls('tpu-vm describe')]
  assert names == ['queued-0', 'queued-1'] * 2
  copied = stand_ins.calls('tpu-vm scp')
  assert len({call[5] for call in copied}) == 1  # One archive.
  targets = [call[6].split(':')[0] for call in copied]
  assert targets == ['queued-0', 'queued-1']
  run = sorted(stand_ins.calls('worker.py run'), key=lambda call: call[5])
  assert [call[5:7] for call in run] == [
    ['queued-0', '--worker=0'], ['queued-1', '--worker=0'],
  ]  # fmt: skip
  assert all('--distributed' in call[7] for call in run)


def test_workers_are_numbered_across_slices(stand_ins):
  target = _target(num_slices=2)
  followed = [target.follow(number, 'id', 4).argv[5:7] for number in range(4)]
  assert followed == [
    (name, f'--worker={worker}')
    for name in ('queued-0', 'queued-1')
    for worker in (0, 1)
  ]
  assert [command.argv[5:7] for command in target.stops(15, 4)] == [
    ('queued-0', '--worker=all'),
    ('queued-1', '--worker=all'),
  ]
  lines = target.plan()
  assert stand_ins.calls() == []
  assert (
    len([line for line in lines if 'rest_jax/launch/worker.py run' in line])
    == 2
  )


def test_after_the_loss_of_one_slice_all_are_requested_again(stand_ins, cloud):
  cloud.request('ACTIVE', 'SUSPENDED', 'ACTIVE')
  for state in ('READY', 'READY', 'READY', 'PREEMPTED', 'READY', 'READY'):
    cloud.node(state)
  for status in (None, None, 0, 0):
    cloud.program(status)
  assert _target(num_slices=2).run() == 0
  made = [
    a for a in _actions(stand_ins) if a.split()[1] in ('create', 'delete')
  ]
  assert made == ['queued-resources delete', 'queued-resources create']


def test_a_plan_runs_no_command(stand_ins):
  lines = _target(delete=True).plan()
  assert stand_ins.calls() == []
  split = [shlex.split(line) for line in lines if not line.startswith('#')]
  assert list(_target().request().argv) in split
  assert list(_target().deletion().argv) == split[-1]
