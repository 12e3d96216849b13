"""Starts rest_jax.main on this machine, on Cloud TPU VMs or on GKE.

  python launch/launch.py --target=tpu_vm --tpu_name=... --zone=... \\
    --model_dir=... --gin_file=... [--gin.NAME=VALUE] [-- --other_flag_of_main]

--dry_run prints the commands. launch/README.md has the whole way from an empty
project of Google Cloud to a finished run.
"""

import pathlib
import sys

# Run as a file, this folder is where Python looks for modules, not the checkout.
if not __package__:
  sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

from absl import app, flags

from launch import commands
from launch import job as job_lib
from launch.targets import local, queued_resource, tpu_vm, xpk
from rest_jax.config import gin_files
from rest_jax.runtime import interruption

_TARGET = flags.DEFINE_enum(
  'target',
  'local',
  ['local', 'tpu_vm', 'queued_resource', 'xpk'],
  'Where: processes here, a Cloud TPU VM, one from the queue, or GKE.',
)
_DRY_RUN = flags.DEFINE_bool(
  'dry_run', False, 'Print the commands, and carry none out.'
)

_RUN_MODE = flags.DEFINE_string('run_mode', 'rest', "rest_jax.main's.")
_MODEL_DIR = flags.DEFINE_string(
  'model_dir', '', 'The folder of the run; of TPUs, on a shared file system.'
)
_GIN_FILE = flags.DEFINE_multi_string(
  'gin_file', [], 'A gin file; several compose left to right.'
)
_ENV = flags.DEFINE_multi_string(
  'env', [], 'NAME=VALUE of the environment of every process.'
)

_MAX_RESTARTS = flags.DEFINE_integer(
  'max_restarts',
  10,
  'How often a run that was cut off is started again. An error never is.',
  lower_bound=0,
)
_RESTART_SECONDS = flags.DEFINE_float(
  'restart_seconds', 30.0, 'The pause before that.', lower_bound=0.0
)
_GRACE_SECONDS = flags.DEFINE_float(
  'grace_seconds',
  300.0,
  'How long a worker that is told to save and end may take for it.',
  lower_bound=0.0,
)

# For --target=local.
_NUM_PROCESSES = flags.DEFINE_integer(
  'num_processes', 1, 'Processes on this machine.', lower_bound=1
)
_DEVICES_PER_PROCESS = flags.DEFINE_integer(
  'devices_per_process', 1, 'Simulated CPU devices of each.', lower_bound=1
)

# For the others.
_PROJECT = flags.DEFINE_string(
  'project', None, "Of Google Cloud; gcloud's own setting if not given."
)
_ZONE = flags.DEFINE_string('zone', None, 'Such as us-west4-a.')
_ACCELERATOR_TYPE = flags.DEFINE_string(
  'accelerator_type', '', 'Such as v5litepod-16.'
)
_SETUP_COMMAND = flags.DEFINE_string(
  'setup_command',
  '',
  "A shell's line for each worker before all else, to mount --model_dir.",
)
_EXTRAS = flags.DEFINE_string(
  'extras', 'tpu', 'Of setup.py, to be installed on each worker.'
)
_TPU_NAME = flags.DEFINE_string('tpu_name', '', 'Of the TPU VM.')
_RUNTIME_VERSION = flags.DEFINE_string(
  'runtime_version', '', 'The software of the TPU VM.'
)
_SPOT = flags.DEFINE_bool('spot', False, 'Whether the TPU may be preempted.')
_DELETE = flags.DEFINE_bool(
  'delete', False, 'Delete the TPU when the run has finished or failed.'
)
_COMMAND_TIMEOUT = flags.DEFINE_float(
  'command_timeout',
  1800.0,
  'Seconds that a command of gcloud before the run may take.',
  lower_bound=1.0,
)
_POLL_SECONDS = flags.DEFINE_float(
  'poll_seconds',
  30.0,
  'How often a TPU that is not there yet is looked for.',
  lower_bound=0.0,
)
_CLUSTER = flags.DEFINE_string('cluster', '', 'Of GKE, made by xpk.')
_WORKLOAD = flags.DEFINE_string('workload', '', 'A name for the run in it.')
_NUM_SLICES = flags.DEFINE_integer(
  'num_slices',
  1,
  'Slices of --accelerator_type; see gin_configs/meshes/multislice.gin.',
  lower_bound=1,
)
_BASE_DOCKER_IMAGE = flags.DEFINE_string(
  'base_docker_image', 'python:3.11', 'What xpk adds the code to.'
)
_DOCKER_IMAGE = flags.DEFINE_string(
  'docker_image', '', 'One with rest_jax[tpu] in it, used as it is.'
)

_ON_TPU_VM = (
  'tpu_name', 'runtime_version', 'spot', 'delete', 'command_timeout',
  'poll_seconds',
)  # fmt: skip
_IN_CLOUD = (
  'project', 'zone', 'accelerator_type', 'setup_command', 'extras',
)  # fmt: skip
_RESTARTED_HERE = ('restart_seconds', 'grace_seconds')
# The flags that only some targets have.
_ONLY = {
  'local': (*_RESTARTED_HERE, 'num_processes', 'devices_per_process'),
  'tpu_vm': (*_RESTARTED_HERE, *_IN_CLOUD, *_ON_TPU_VM),
  'queued_resource': (
    *_RESTARTED_HERE, *_IN_CLOUD, *_ON_TPU_VM, 'num_slices',
  ),
  'xpk': (
    *_IN_CLOUD, 'cluster', 'workload', 'num_slices', 'base_docker_image',
    'docker_image',
  ),
}  # fmt: skip


def main(arguments: list[str], overrides: list[str]) -> int:
  """Does what the flags say; returns the exit status.

  Args:
    arguments: those after `--`.
    overrides: gin's, as `NAME=VALUE`.
  """
  try:
    _refuse_flags_of_other_targets()
    target = _target(
      job_lib.Job(
        model_dir=_MODEL_DIR.value,
        gin_files=tuple(_GIN_FILE.value),
        run_mode=_RUN_MODE.value,
        overrides=tuple(overrides),
        arguments=tuple(arguments),
        environment=job_lib.environment(_ENV.value),
        extras=_EXTRAS.value,
      )
    )
    if _DRY_RUN.value:
      print('\n'.join(target.plan()))
      return 0
    with interruption.handled():
      return target.run()
  except commands.LaunchError as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  except interruption.Interrupted as interrupted:
    commands.say(f'stopped by {interrupted}; run the same command to resume')
    return 128 + interrupted.number


def _target(
  job: job_lib.Job,
) -> local.Local | tpu_vm.TpuVm | xpk.Xpk:
  """Returns the target that the flags describe."""
  restarts = {
    'max_restarts': _MAX_RESTARTS.value,
    'restart_seconds': _RESTART_SECONDS.value,
    'grace_seconds': _GRACE_SECONDS.value,
  }
  if _TARGET.value == 'local':
    return local.Local(
      job=job,
      num_processes=_NUM_PROCESSES.value,
      devices_per_process=_DEVICES_PER_PROCESS.value,
      **restarts,
    )
  if _TARGET.value == 'xpk':
    return xpk.Xpk(
      job=job,
      project=_PROJECT.value,
      zone=_ZONE.value,
      cluster=_CLUSTER.value,
      workload=_WORKLOAD.value,
      tpu_type=_ACCELERATOR_TYPE.value,
      num_slices=_NUM_SLICES.value,
      base_docker_image=_BASE_DOCKER_IMAGE.value,
      docker_image=_DOCKER_IMAGE.value,
      setup_command=_SETUP_COMMAND.value,
      max_restarts=_MAX_RESTARTS.value,
    )
  machine = tpu_vm.Machine(
    project=_PROJECT.value,
    zone=_ZONE.value or '',
    name=_TPU_NAME.value,
    accelerator_type=_ACCELERATOR_TYPE.value,
    runtime_version=_RUNTIME_VERSION.value,
    spot=_SPOT.value,
    command_timeout=_COMMAND_TIMEOUT.value,
    poll_seconds=_POLL_SECONDS.value,
  )
  settings = {
    'job': job,
    'machine': machine,
    'setup_command': _SETUP_COMMAND.value,
    'delete': _DELETE.value,
    **restarts,
  }
  if _TARGET.value == 'tpu_vm':
    return tpu_vm.TpuVm(**settings)
  return queued_resource.QueuedResource(
    num_slices=_NUM_SLICES.value, **settings
  )


def _refuse_flags_of_other_targets() -> None:
  for name in {name for names in _ONLY.values() for name in names}:
    users = [target for target, names in _ONLY.items() if name in names]
    if flags.FLAGS[name].present and _TARGET.value not in users:
      raise commands.LaunchError(
        f'--{name} is for --target={" and ".join(users)}, not for '
        f'--target={_TARGET.value}.'
      )


def entry_point() -> None:
  """Splits off gin's flags and what follows `--`; the rest is absl's."""
  end = sys.argv.index('--') if '--' in sys.argv else len(sys.argv)
  try:
    argv, overrides = gin_files.split_flags(sys.argv[:end])
  except ValueError as error:
    sys.exit(f'error: {error}')

  def run(rest: list[str]) -> None:
    if len(rest) > 1:
      raise app.UsageError(
        f'unknown arguments: {rest[1:]}; those of rest_jax.main follow a --'
      )
    sys.exit(main(sys.argv[end + 1 :], overrides))

  app.run(run, argv=argv)


if __name__ == '__main__':
  entry_point()
