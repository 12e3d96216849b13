"""All workers of a Cloud TPU VM, over ssh.

The machine is made if it is not there. Code goes to ~/rest_jax of every worker,
with an environment of its own; then each worker's program is followed over a
connection of its own. rest_jax/launch/worker.py keeps it going when that breaks.
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

# The state of a TPU VM that is in use.
READY = 'READY'
# Taken away for good: a Spot VM cannot be started again.
_GONE = ('PREEMPTED', 'TERMINATED')
_PASSING = (
  'CREATING', 'STARTING', 'RESTARTING', 'REPAIRING', 'REIMAGING', 'DELETING',
)  # fmt: skip

_NAME = re.compile(r'[a-z]([-a-z0-9]{0,61}[a-z0-9])?')
_TYPE = re.compile(r'(v\d+[a-z]*)-(\d+)')
# In the checkout of a worker; its home is where ssh begins.
_CHECKOUT = 'rest_jax'
_PYTHON = '.venv/bin/python'
_WORKER = ('python3', 'rest_jax/launch/worker.py')
_ARCHIVE = 'rest_jax.tar.gz'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
  """Which TPU, and how gcloud is to be called for it.

  Attributes:
    project: of Google Cloud; None for gcloud's own setting.
    zone: such as us-west4-a.
    name: of the TPU VM.
    accelerator_type: such as v5litepod-16; may be empty if the VM is there.
    runtime_version: the VM's software; likewise.
    spot: whether it may be preempted, which costs less.
    command_timeout: seconds that a command before the run may take.
    poll_seconds: how often a machine that is not there yet is looked for.
  """

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
          f'{flag}={value} must be of lower-case letters, digits and -, and '
          'begin with a letter.'
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
    """Returns the command that prints state and workers."""
    return self.gcloud('tpu-vm', 'describe', self.name, '--format=json')

  def create(self) -> commands.Command:
    """Returns the command that makes the machine.

    Raises:
      LaunchError: if it is not said of what type.
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
    """Raises LaunchError if the machine cannot be made with what is known."""
    for flag, value in (
      ('--accelerator_type', self.accelerator_type),
      ('--runtime_version', self.runtime_version),
    ):
      if not value:
        raise commands.LaunchError(
          f'{flag} is needed to make {self.name}, which is not there. See '
          'launch/README.md for values.'
        )

  def delete(self) -> commands.Command:
    """Returns the command that deletes the machine."""
    return self.gcloud('tpu-vm', 'delete', self.name)

  def ssh(self, which: int | str, remote: str) -> commands.Command:
    """Returns the command that runs a line in the shell of workers.

    Args:
      which: a worker's number, or 'all'.
      remote: the line; gcloud and ssh hand it over as it is.
    """
    return self.gcloud(
      'tpu-vm', 'ssh', self.name, f'--worker={which}', f'--command={remote}'
    )

  def copy(self, archived: str = '') -> commands.Command:
    """Returns the command that copies the archive to all workers.

    Args:
      archived: the archive's name; that of the machine if there is none.
    """
    source = str(archive.path(archived or self.name))
    target = f'{self.name}:{_ARCHIVE}'
    return self.gcloud('tpu-vm', 'scp', source, target, '--worker=all')

  def found(self, describe: commands.Command) -> dict[str, Any] | None:
    """Returns what `describe` prints as JSON; None if there is no such thing.

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
  """A run on a TPU VM.

  Attributes:
    job: what is run.
    machine: where.
    setup_command: a shell's line for each worker, before the environment is
      made; run again after each restart.
    max_restarts: how often a run that was cut off is started again.
    restart_seconds: the pause before.
    grace_seconds: how long a worker that is told to end may take for it.
    delete: whether the machine is deleted when the run has ended.
  """

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
    """The TPU VMs, whose workers are numbered one after the other."""
    return (self.machine,)

  def plan(self) -> list[str]:
    """Returns the lines of --dry_run."""
    self.machine.check_complete()
    of_each = num_workers(self.machine.accelerator_type)
    workers = of_each * len(self.machines)
    prepare = self._prepare(0, workers)
    lines = [
      *self._plan_machine(),
      '# Code and environment, on all workers:',
      *(command.text() for command in prepare),
      f'# The run, side by side on {workers} workers, followed:',
      *(self.follow(n, 'RUN_ID', workers).text() for n in range(workers)),
      '# On Ctrl-C, or when a worker fails:',
      *(each.text() for each in self.stops('SIGNAL', workers)),
    ]
    if self.delete:
      lines += ['# When it has ended:', self.deletion().text()]
    return lines

  def run(self) -> int:
    """Runs it; returns the exit status."""
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
        commands.say(f'the TPU costs until: {self.deletion().text()}')

  def follow(self, which: int, run_id: str, workers: int) -> commands.Command:
    """Returns the command that starts and follows a worker's program.

    Args:
      which: the worker's number.
      run_id: of this start; the same for all workers.
      workers: how many there are, on all machines.
    """
    machine, own = divmod(which, workers // len(self.machines))
    environment = {'PYTHONUNBUFFERED': '1', **self.job.environment}
    kept = commands.with_environment(
      (*_WORKER, 'run', run_id, *self._program(workers)), environment
    )
    return self.machines[machine].ssh(own, f'cd {_CHECKOUT} && {kept}')

  def stops(self, number: int | str, workers: int) -> list[commands.Command]:
    """Returns what signals the program of all workers, of each machine."""
    stop = self._stop(number, workers)
    return [
      machine.ssh('all', f'cd {_CHECKOUT} && {stop}')
      for machine in self.machines
    ]

  def deletion(self) -> commands.Command:
    """Returns the command after which nothing costs any more."""
    return self.machine.delete()

  def acquire(self) -> dict[str, Any]:
    """Waits until the machine is there, making it if need be.

    Returns:
      Its description.
    """
    machine = self.machine
    while True:
      found = machine.found(machine.describe())
      state = found['state'] if found else ''
      if found and state == READY:
        return found
      if state in _GONE:
        commands.say(f'{machine.name} is {state}, and is made again')
        commands.run(machine.delete(), machine.command_timeout)
        state = ''
      if not state:
        commands.run(machine.create(), machine.command_timeout)
      elif state in _PASSING:
        commands.say(f'{machine.name} is {state}; waiting')
        time.sleep(machine.poll_seconds)
      else:
        raise commands.LaunchError(
          f'{machine.name} is {state}; bring it up with `gcloud compute tpus '
          f'tpu-vm start {machine.name}`, or delete it.'
        )

  def _plan_machine(self) -> list[str]:
    machine = self.machine
    return [
      '# The TPU VM:',
      machine.describe().text(),
      '# If it is not there (after a preemption it is deleted first):',
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
    """Returns what unpacks the code and makes the environment.

    In the first attempt, a worker on which a run goes on keeps the code that it
    runs with, and is then followed. In later ones nothing may go on that does
    not know of the others' restart.
    """
    fresh = ' '.join(f'{_CHECKOUT}/{name}' for name in ('rest_jax', 'launch'))
    own = ('bash', '-c', self.setup_command)
    steps = [
      f'rm -rf {fresh} {_CHECKOUT}/gin_configs',
      f'mkdir -p {_CHECKOUT}',
      f'tar -xzf {_ARCHIVE} -C {_CHECKOUT}',
      f'cd {_CHECKOUT}',
      *([shlex.join(own)] if self.setup_command else []),
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
    def tell(command: commands.Command) -> None:
      try:
        commands.run(command, self.grace_seconds + self.machine.command_timeout)
      except commands.CommandFailed as error:
        # Of a worker that is lost; the others have been told.
        commands.say(f'not all workers could be told: {error}')

    # At once: each waits until its workers have ended, together with the others.
    stops = self.stops(int(number), workers)
    with futures.ThreadPoolExecutor(len(stops)) as pool:
      list(pool.map(tell, stops))

  def _why_gone(self) -> str:
    """Returns why the machine cannot be used any more; empty if it can."""
    for machine in self.machines:
      try:
        found = machine.found(machine.describe())
      except commands.CommandFailed as error:
        commands.say(str(error))
        continue
      if found is None:
        return f'{machine.name} is gone'
      if found['state'] != READY:
        return f'{machine.name} is {found["state"]}'
    return ''


def check_accelerator_type(value: str) -> None:
  """Raises LaunchError for what gcloud and xpk do not know as a TPU."""
  match = _TYPE.fullmatch(value)
  if match is None:
    raise commands.LaunchError(
      f'--accelerator_type={value} must be such as v5litepod-16, v4-32, '
      'v5p-8 or v6e-8.'
    )
  if match[1] == 'v5e':
    raise commands.LaunchError(
      f'--accelerator_type={value}: v5e is called v5litepod there, as in '
      f'v5litepod-{match[2]}.'
    )


def num_workers(accelerator_type: str) -> int:
  """Returns how many machines a TPU of a type has, for --dry_run.

  A run asks the TPU itself. The number in the name counts chips of v5e and v6e,
  and cores, two to a chip, of the others; a machine has four chips, or all of
  up to eight of v5e and v6e.
  """
  check_accelerator_type(accelerator_type)
  name, number = accelerator_type.rsplit('-', 1)
  if name in ('v5litepod', 'v6e'):
    return 1 if int(number) <= 8 else int(number) // 4
  return max(1, int(number) // 8)
