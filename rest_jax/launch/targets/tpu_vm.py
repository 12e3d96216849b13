"""All workers of a Cloud TPU VM, over ssh.

The TPU VM is created if it does not exist. The code is copied to ~/rest_jax on
every worker, with its own virtual environment. The output of each worker's
program is followed over one ssh connection. rest_jax/launch/worker.py keeps the
program running when the connection breaks.
"""

from concurrent import futures
import dataclasses
import json
import os
import re
import shlex
import time
from typing import Any

from rest_jax.launch import archive, commands, processes, restarts, worker
from rest_jax.launch import job as job_lib

# States of a TPU VM: usable; gone for good (a Spot VM cannot be restarted);
# transitional.
READY = 'READY'
_GONE = ('PREEMPTED', 'TERMINATED')
_TRANSITIONAL = (
  'CREATING', 'STARTING', 'RESTARTING', 'REPAIRING', 'REIMAGING', 'DELETING',
)  # fmt: skip

_NAME = re.compile(r'[a-z]([-a-z0-9]{0,61}[a-z0-9])?')
_TYPE = re.compile(r'(v\d+[a-z]*)-(\d+)')
# Paths on a worker: the checkout in the home folder, and files in it.
_CHECKOUT = 'rest_jax'
_PYTHON = '.venv/bin/python'
_WORKER = ('python3', 'rest_jax/launch/worker.py')
_ARCHIVE = 'rest_jax.tar.gz'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
  """A TPU VM, and how gcloud is called for it."""

  project: str | None = None
  zone: str
  name: str
  accelerator_type: str = ''
  runtime_version: str = ''
  spot: bool = False
  command_timeout: float = 1800.0
  poll_seconds: float = 30.0

  def __post_init__(self):
    for flag, value in (('--zone', self.zone), ('--tpu_name', self.name)):
      if not value:
        raise commands.LaunchError(f'{flag} is needed for a TPU VM.')
      if not _NAME.fullmatch(value):
        raise commands.LaunchError(
          f'{flag}={value} must consist of lower-case letters, digits and -, '
          'and start with a letter.'
        )
    if self.accelerator_type:
      check_accelerator_type(self.accelerator_type)

  def gcloud(self, group: str, action: str, *rest: str) -> commands.Command:
    """Returns `gcloud compute tpus GROUP ACTION ...` for this machine."""
    project = [f'--project={self.project}'] if self.project else []
    return commands.Command(
      (
        'gcloud',
        'compute',
        'tpus',
        group,
        action,
        *rest,
        f'--zone={self.zone}',
        *project,
        '--quiet',
      )
    )

  def describe(self) -> commands.Command:
    """Returns the command that prints the state and the workers."""
    return self.gcloud('tpu-vm', 'describe', self.name, '--format=json')

  def create(self) -> commands.Command:
    """Returns the command that creates the TPU VM.

    Raises:
      LaunchError: if the type or the software version is missing.
    """
    self.check_complete()
    return self.gcloud(
      'tpu-vm',
      'create',
      self.name,
      f'--accelerator-type={self.accelerator_type}',
      f'--version={self.runtime_version}',
      *(['--spot'] if self.spot else []),
    )

  def check_complete(self) -> None:
    """Raises LaunchError unless the type and the software version are given."""
    for flag, value in (
      ('--accelerator_type', self.accelerator_type),
      ('--runtime_version', self.runtime_version),
    ):
      if not value:
        raise commands.LaunchError(
          f'{flag} is needed to create {self.name}, which does not exist. See '
          'launch/README.md for values.'
        )

  def delete(self) -> commands.Command:
    """Returns the command that deletes the TPU VM."""
    return self.gcloud('tpu-vm', 'delete', self.name)

  def ssh(self, which: int | str, remote: str) -> commands.Command:
    """Returns the command that runs a shell command line on workers.

    Args:
      remote: shell command line; gcloud and ssh pass it on unchanged.
    """
    return self.gcloud(
      'tpu-vm', 'ssh', self.name, f'--worker={which}', f'--command={remote}'
    )

  def copy(self, archive_name: str) -> commands.Command:
    """Returns the command that copies an archive to all workers."""
    source = str(archive.path(archive_name))
    target = f'{self.name}:{_ARCHIVE}'
    return self.gcloud('tpu-vm', 'scp', source, target, '--worker=all')

  def description(self, describe: commands.Command) -> dict[str, Any] | None:
    """Returns the JSON output of `describe`; None if the resource is not found.

    Raises:
      CommandFailed: if gcloud fails for another reason.
    """
    status, printed, errors = commands.output(describe, self.command_timeout)
    if status == 0:
      return json.loads(printed)
    if 'NOT_FOUND' in errors:
      return None
    raise commands.CommandFailed(
      f'ended with status {status}: {describe.text()}\n{errors.strip()}'
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TpuVm:
  """A run on a TPU VM; the settings are flags of `rest-jax launch`."""

  job: job_lib.Job
  machine: Machine
  setup_command: str = ''
  max_restarts: int = 10
  restart_seconds: float = 30.0
  grace_seconds: float = 300.0
  delete: bool = False

  def __post_init__(self):
    self.job.check_remote()

  @property
  def machines(self) -> tuple[Machine, ...]:
    """The TPU VMs; their workers are numbered consecutively."""
    return (self.machine,)

  def plan(self) -> list[str]:
    """Returns the lines of --dry_run."""
    self.machine.check_complete()
    workers = num_workers(self.machine.accelerator_type) * len(self.machines)
    lines = [
      *self._plan_machine(),
      '# Code and environment, on all workers:',
      *(command.text() for command in self._prepare(0, workers)),
      f'# The run, in parallel on {workers} workers:',
      *(self.follow(n, 'RUN_ID', workers).text() for n in range(workers)),
      '# On Ctrl-C, or when a worker fails:',
      *(each.text() for each in self.stops('SIGNAL', workers)),
    ]
    if self.delete:
      lines += ['# When the run is over:', self.deletion().text()]
    return lines

  def run(self) -> int:
    """Runs the job; returns the exit status."""
    commands.require('gcloud')
    is_over = False
    try:
      status = restarts.run(
        self._attempt,
        max_restarts=self.max_restarts,
        pause_seconds=self.restart_seconds,
      )
      is_over = status < 128 and status != restarts.CUT_OFF_TOO_OFTEN
      return status
    finally:
      if self.delete and is_over:
        commands.run(self.deletion(), self.machine.command_timeout)
      else:
        commands.say(f'the TPU is billed until: {self.deletion().text()}')

  def follow(self, which: int, run_id: str, workers: int) -> commands.Command:
    """Returns the command that starts a worker's program and shows its output.

    Args:
      run_id: ID of the attempt, the same for all workers.
      workers: number of workers of all machines.
    """
    machine, number = divmod(which, workers // len(self.machines))
    environment = {'PYTHONUNBUFFERED': '1', **self.job.environment}
    line = commands.with_environment(
      (*_WORKER, 'run', run_id, *self._program(workers)), environment
    )
    return self.machines[machine].ssh(number, f'cd {_CHECKOUT} && {line}')

  def stops(self, number: int | str, workers: int) -> list[commands.Command]:
    """Returns the commands that signal all workers, one per machine."""
    stop = self._stop(number, workers)
    return [
      machine.ssh('all', f'cd {_CHECKOUT} && {stop}')
      for machine in self.machines
    ]

  def deletion(self) -> commands.Command:
    """Returns the command that deletes everything that is billed."""
    return self.machine.delete()

  def acquire(self) -> dict[str, Any]:
    """Waits until the TPU VM is ready, creating it if needed."""
    machine = self.machine
    while True:
      description = machine.description(machine.describe())
      state = description['state'] if description else ''
      if description and state == READY:
        return description
      if state in _GONE:
        commands.say(f'{machine.name} is {state}, and is created again')
        commands.run(machine.delete(), machine.command_timeout)
        state = ''
      if not state:
        commands.run(machine.create(), machine.command_timeout)
      elif state in _TRANSITIONAL:
        commands.say(f'{machine.name} is {state}; waiting')
        time.sleep(machine.poll_seconds)
      else:
        raise commands.LaunchError(
          f'{machine.name} is {state}; start it with `gcloud compute tpus '
          f'tpu-vm start {machine.name}`, or delete it.'
        )

  def _plan_machine(self) -> list[str]:
    machine = self.machine
    return [
      '# The TPU VM:',
      machine.describe().text(),
      '# If it does not exist (after a preemption it is deleted first):',
      machine.create().text(),
    ]

  def _prepare(self, number: int, workers: int) -> list[commands.Command]:
    name, setup = self.machine.name, self._setup(number, workers)
    return [
      *archive.create(self.job, name),
      *(machine.copy(name) for machine in self.machines),
      *(machine.ssh('all', setup) for machine in self.machines),
    ]

  def _program(self, workers: int) -> tuple[str, ...]:
    added = ['--distributed'] if workers > 1 else []
    return self.job.program(_PYTHON, *added)

  def _stop(self, number: int | str, workers: int) -> str:
    seconds = f'{self.grace_seconds:g}'
    return shlex.join(
      (*_WORKER, 'stop', str(number), seconds, *self._program(workers))
    )

  def _setup(self, number: int, workers: int) -> str:
    """Returns the command line that unpacks the code and makes the environment.

    In the first attempt, a worker on which the program already runs keeps its
    code. Later attempts stop the program first, since the other workers are
    restarted.
    """
    old = [f'{_CHECKOUT}/{n}' for n in ('rest_jax', 'launch', 'gin_configs')]
    command = ('bash', '-c', self.setup_command)
    steps = [
      f'rm -rf {" ".join(old)}',
      f'mkdir -p {_CHECKOUT}',
      f'tar -xzf {_ARCHIVE} -C {_CHECKOUT}',
      f'cd {_CHECKOUT}',
      *([shlex.join(command)] if self.setup_command else []),
      f'bash launch/setup_worker.sh {self.job.extras}',
    ]
    if number:
      stop = self._stop(15, workers)
      return f'(cd {_CHECKOUT} 2> /dev/null && {stop}); {" && ".join(steps)}'
    return (
      f'if ! (cd {_CHECKOUT} 2> /dev/null && '
      f'{shlex.join(_WORKER)} is_running 2> /dev/null); '
      f'then {" && ".join(steps)}; fi'
    )

  def _attempt(self, number: int) -> restarts.Attempt:
    try:
      workers = len(self.acquire()['networkEndpoints'])
      for command in self._prepare(number, workers):
        commands.run(command, self.machine.command_timeout)
    except commands.CommandFailed as error:
      cut_off = self._why_gone()
      if not cut_off and number == 0:
        raise
      return restarts.Attempt(cut_off=f'{cut_off or "preparing"}: {error}')
    run_id = f'{int(time.time())}-{os.getpid()}-{number}'
    outcome = processes.run_together(
      [self.follow(n, run_id, workers) for n in range(workers)],
      grace_seconds=self.grace_seconds,
      send=lambda number: self._send(number, workers),
      marker=worker.ENDED,
    )
    is_done = all(one.status == 0 for one in outcome.ended)
    cut_off = '' if is_done or outcome.interrupted else self._why_gone()
    return restarts.Attempt(outcome=outcome, cut_off=cut_off)

  def _send(self, number: int, workers: int) -> None:
    def stop(command: commands.Command) -> None:
      try:
        commands.run(command, self.grace_seconds + self.machine.command_timeout)
      except commands.CommandFailed as error:
        # A worker is lost; the others have received the signal.
        commands.say(f'not all workers received the signal: {error}')

    # In parallel: each command waits until its workers have ended.
    stops = self.stops(int(number), workers)
    with futures.ThreadPoolExecutor(len(stops)) as pool:
      list(pool.map(stop, stops))

  def _why_gone(self) -> str:
    """Returns why a machine is no longer usable; empty if all are usable."""
    for machine in self.machines:
      try:
        description = machine.description(machine.describe())
      except commands.CommandFailed as error:
        commands.say(str(error))
        continue
      if description is None:
        return f'{machine.name} is gone'
      if description['state'] != READY:
        return f'{machine.name} is {description["state"]}'
    return ''


def check_accelerator_type(value: str) -> None:
  """Raises LaunchError for a TPU type that gcloud and xpk do not know."""
  match = _TYPE.fullmatch(value)
  if match is None:
    raise commands.LaunchError(
      f'--accelerator_type={value} must be a type such as v5litepod-16, v4-32, '
      'v5p-8 or v6e-8.'
    )
  if match[1] == 'v5e':
    raise commands.LaunchError(
      f'--accelerator_type={value}: v5e is called v5litepod there, as in '
      f'v5litepod-{match[2]}.'
    )


def num_workers(accelerator_type: str) -> int:
  """Returns the number of worker machines of a TPU type, for --dry_run.

  A run reads the number from the TPU. The number in a type's name counts chips
  for v5e and v6e, and cores (two per chip) for others. A machine has four
  chips; v5e and v6e with up to eight chips have one machine.
  """
  check_accelerator_type(accelerator_type)
  name, number = accelerator_type.rsplit('-', 1)
  if name in ('v5litepod', 'v6e'):
    return 1 if int(number) <= 8 else int(number) // 4
  return max(1, int(number) // 8)
