"""A workload on GKE, by xpk (https://github.com/AI-Hypercomputer/xpk).

xpk itself starts a workload again that was cut off, up to --max-restarts times:
by its own account on exit statuses 42 and 127 to 255, so on 128 + signal and not
on 1.
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
  """A run as an xpk workload.

  Attributes:
    job: what is run.
    project: of Google Cloud; None for gcloud's own setting.
    zone: of the cluster; None for gcloud's own setting.
    cluster: its name; `xpk cluster create` makes one.
    workload: a name for this run.
    tpu_type: such as v5litepod-16.
    num_slices: how many of them.
    base_docker_image: an image with Python 3.11 or newer and bash; xpk adds
      the code to it, and the environment is made as the container starts.
    docker_image: an image with rest_jax installed, used as it is.
    setup_command: a shell's line for each worker, before the program.
    max_restarts: how often a workload that was cut off is started again.
  """

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
          'digits and -, and begin with a letter.'
        )
    if not self.tpu_type:
      raise commands.LaunchError(
        '--accelerator_type is needed, such as v5litepod-16.'
      )
    tpu_vm.check_accelerator_type(self.tpu_type)
    self.job.check_remote()
    if '\n' in self.remote():
      raise commands.LaunchError(
        'xpk cannot pass on a line break, which an argument or variable has.'
      )

  def plan(self) -> list[str]:
    """Returns the lines of --dry_run."""
    return [
      *(command.text() for command in self.stage()),
      self.create().text(),
      self.wait().text(),
      '# Its log, and its end:',
      self.logs().text(),
      self.delete().text(),
    ]

  def run(self) -> int:
    """Submits it and waits for its end; returns the exit status."""
    commands.require('xpk')
    for command in (*self.stage(), self.create()):
      commands.run(command)
    commands.say(f'its log: {self.logs().text()}')
    try:
      commands.run(self.wait())
    except interruption.Interrupted as interrupted:
      commands.say(
        f'{interrupted}: the workload goes on; it ends with: '
        f'{self.delete().text()}'
      )
      return 128 + interrupted.number
    except commands.CommandFailed as error:
      raise commands.CommandFailed(
        f'{error}\nThe last lines of its workers: {self.logs().text()}'
      ) from error
    return 0

  def stage(self) -> list[commands.Command]:
    """Returns the commands that lay out the code for xpk to copy."""
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
    """Returns the command that ends when the workload does, with its fate."""
    return self._xpk('list', f'--wait-for-job-completion={self.workload}')

  def delete(self) -> commands.Command:
    """Returns the command that ends the workload."""
    return self._xpk('delete', f'--workload={self.workload}')

  def logs(self) -> commands.Command:
    """Returns the command that shows what its workers printed last."""
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
    """Returns the line that the shell of each container reads."""
    # xpk signals the shell itself, so the program has to take its place.
    run = 'exec ' + commands.with_environment(
      self.job.program('python', '--distributed'),
      {'PYTHONUNBUFFERED': '1', **self.job.environment},
    )
    own = []
    if self.setup_command:
      own = [shlex.join(('bash', '-c', self.setup_command))]
    if self.docker_image:
      return ' && '.join([*own, run])
    return ' && '.join(
      [
        f'cd {_CHECKOUT}',
        *own,
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
