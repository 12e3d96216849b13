"""A workload on GKE, by xpk (https://github.com/AI-Hypercomputer/xpk).

xpk itself restarts an interrupted workload, up to --max-restarts times:
according to its documentation after exit status 42 and 127 to 255, so after 128
+ signal number but not after 1.
"""

import dataclasses
import re
import shlex

from rest_jax.launch import archive, commands
from rest_jax.launch import job as job_lib
from rest_jax.launch.targets import tpu_vm
from rest_jax.runtime import interruption

_NAME = re.compile(r'[a-z]([-a-z0-9]{0,38}[a-z0-9])?')
# Where xpk puts --script-dir in the image.
_CHECKOUT = '/app'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Xpk:
  """A run as an xpk workload; the settings are flags of `rest-jax launch`."""

  job: job_lib.Job
  project: str | None = None
  zone: str | None = None
  cluster: str
  workload: str
  tpu_type: str
  num_slices: int = 1
  base_docker_image: str = 'python:3.11'
  docker_image: str = ''
  setup_command: str = ''
  max_restarts: int = 10

  def __post_init__(self):
    for flag, value in (
      ('--cluster', self.cluster),
      ('--workload', self.workload),
    ):
      if not value or not _NAME.fullmatch(value):
        raise commands.LaunchError(
          f'{flag}={value} must be a name of at most 40 lower-case letters, '
          'digits and -, and start with a letter.'
        )
    if not self.tpu_type:
      raise commands.LaunchError(
        '--accelerator_type is needed, such as v5litepod-16.'
      )
    tpu_vm.check_accelerator_type(self.tpu_type)
    self.job.check_remote()
    if '\n' in self.remote():
      raise commands.LaunchError(
        'xpk cannot pass on line breaks; an argument or variable has one.'
      )

  def plan(self) -> list[str]:
    """Returns the lines of --dry_run."""
    return [
      *(command.text() for command in self.stage()),
      self.create().text(),
      self.wait().text(),
      '# To show its log, and to delete it:',
      self.logs().text(),
      self.delete().text(),
    ]

  def run(self) -> int:
    """Submits the workload and waits for its end; returns the exit status."""
    commands.require('xpk')
    for command in (*self.stage(), self.create()):
      commands.run(command)
    commands.say(f'to show its log: {self.logs().text()}')
    try:
      commands.run(self.wait())
    except interruption.Interrupted as interrupted:
      commands.say(
        f'{interrupted}: the workload keeps running; to delete it: '
        f'{self.delete().text()}'
      )
      return 128 + interrupted.number
    except commands.CommandFailed as error:
      raise commands.CommandFailed(
        f'{error}\nTo show the last lines of its workers: {self.logs().text()}'
      ) from error
    return 0

  def stage(self) -> list[commands.Command]:
    """Returns the commands that unpack the code for xpk to copy."""
    if self.docker_image:
      return []
    folder = self._folder()
    return [
      *archive.create(self.job, self.workload),
      commands.Command(('rm', '-rf', folder)),
      commands.Command(('mkdir', '-p', folder)),
      commands.Command(
        ('tar', '-xzf', str(archive.path(self.workload)), '-C', folder)
      ),
    ]

  def create(self) -> commands.Command:
    """Returns the command that submits the workload."""
    if self.docker_image:
      image = [f'--docker-image={self.docker_image}']
    else:
      image = [
        f'--base-docker-image={self.base_docker_image}',
        f'--script-dir={self._folder()}',
      ]
    return self._xpk(
      'create',
      f'--workload={self.workload}',
      f'--tpu-type={self.tpu_type}',
      f'--num-slices={self.num_slices}',
      f'--max-restarts={self.max_restarts}',
      *image,
      # Kubernetes reads $(NAME) in a command, and $$ as one $.
      f'--command={self.remote().replace("$", "$$")}',
    )

  def wait(self) -> commands.Command:
    """Returns the command that waits for the end of the workload."""
    return self._xpk('list', f'--wait-for-job-completion={self.workload}')

  def delete(self) -> commands.Command:
    """Returns the command that deletes the workload."""
    return self._xpk('delete', f'--workload={self.workload}')

  def logs(self) -> commands.Command:
    """Returns the command that shows the last output of the workers."""
    return commands.Command(
      (
        'kubectl',
        'logs',
        f'--selector=xpk.google.com/workload={self.workload}',
        '--prefix',
        '--tail=20',
        '--max-log-requests=100',
      )
    )

  def remote(self) -> str:
    """Returns the shell command line of each container."""
    # exec: xpk signals the shell, so the program must replace it.
    run = 'exec ' + commands.with_environment(
      self.job.program('python', '--distributed'),
      {'PYTHONUNBUFFERED': '1', **self.job.environment},
    )
    setup = []
    if self.setup_command:
      setup = [shlex.join(('bash', '-c', self.setup_command))]
    if self.docker_image:
      return ' && '.join([*setup, run])
    return ' && '.join(
      [
        f'cd {_CHECKOUT}',
        *setup,
        'source launch/environment.sh',
        f'make_environment {self.job.extras}',
        'export PATH="$PWD/.venv/bin:$PATH"',
        run,
      ]
    )

  def _folder(self) -> str:
    return str(archive.path(self.workload)).removesuffix('.tar.gz')

  def _xpk(self, action: str, *rest: str) -> commands.Command:
    settings = [
      f'--{name}={value}'
      for name, value in (('project', self.project), ('zone', self.zone))
      if value
    ]
    return commands.Command(
      ('xpk', 'workload', action, f'--cluster={self.cluster}', *settings, *rest)
    )
