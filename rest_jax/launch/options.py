"""The flags of the launcher."""

from absl import flags

from rest_jax.launch import commands

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


def define() -> None:
  """Defines the flags. Not on import: `rest-jax run` has some of the same names."""
  _define_run()
  _define_restarts()
  _define_cloud()
  _define_tpu_vm()
  _define_xpk()


def check() -> None:
  """Raises LaunchError for a flag that belongs to another target."""
  for name in {name for names in _ONLY.values() for name in names}:
    users = [target for target, names in _ONLY.items() if name in names]
    if flags.FLAGS[name].present and flags.FLAGS.target not in users:
      raise commands.LaunchError(
        f'--{name} is for --target={" and ".join(users)}, not for '
        f'--target={flags.FLAGS.target}.'
      )


def _define_run() -> None:
  flags.DEFINE_enum(
    'target',
    'local',
    list(_ONLY),
    'Where to run: processes on this machine, a Cloud TPU VM, a queued TPU VM, '
    'or GKE.',
  )
  flags.DEFINE_bool('dry_run', False, 'Print the commands and stop.')
  flags.DEFINE_string('run_mode', 'rest', 'The --run_mode of rest-jax run.')
  flags.DEFINE_string(
    'model_dir',
    '',
    'The folder of the run; for TPUs, on a file system that all workers share.',
  )
  flags.DEFINE_multi_string(
    'gin_file', [], 'A gin file; several compose left to right.'
  )
  flags.DEFINE_multi_string(
    'env', [], 'NAME=VALUE, an environment variable of every process.'
  )
  flags.DEFINE_integer(
    'num_processes',
    1,
    'For --target=local: processes on this machine.',
    lower_bound=1,
  )
  flags.DEFINE_integer(
    'devices_per_process',
    1,
    'For --target=local: simulated CPU devices per process.',
    lower_bound=1,
  )


def _define_restarts() -> None:
  flags.DEFINE_integer(
    'max_restarts',
    10,
    'How often an interrupted run is started again. A failed one never is.',
    lower_bound=0,
  )
  flags.DEFINE_float(
    'restart_seconds',
    30.0,
    'Pause before a restart, in seconds.',
    lower_bound=0.0,
  )
  flags.DEFINE_float(
    'grace_seconds',
    300.0,
    'Time that a worker has to save and end before it is killed, in seconds.',
    lower_bound=0.0,
  )


def _define_cloud() -> None:
  flags.DEFINE_string(
    'project',
    None,
    'Google Cloud project ID. Default: the active gcloud configuration.',
  )
  flags.DEFINE_string('zone', None, 'Google Cloud zone, such as us-west4-a.')
  flags.DEFINE_string('accelerator_type', '', 'TPU type, such as v5litepod-16.')
  flags.DEFINE_string(
    'setup_command',
    '',
    'A shell command that each worker runs first, such as to mount --model_dir.',
  )
  flags.DEFINE_string(
    'extras', 'tpu', 'The extras of setup.py to install on each worker.'
  )
  flags.DEFINE_integer(
    'num_slices',
    1,
    'Number of slices of --accelerator_type; see '
    'gin_configs/meshes/multislice.gin.',
    lower_bound=1,
  )


def _define_tpu_vm() -> None:
  flags.DEFINE_string('tpu_name', '', 'Name of the TPU VM.')
  flags.DEFINE_string('runtime_version', '', 'Software version of the TPU VM.')
  flags.DEFINE_bool(
    'spot', False, 'Ask for a Spot TPU, which may be preempted.'
  )
  flags.DEFINE_bool(
    'delete', False, 'Delete the TPU when the run has finished or failed.'
  )
  flags.DEFINE_float(
    'command_timeout',
    1800.0,
    'Time limit of each gcloud command before the run, in seconds.',
    lower_bound=1.0,
  )
  flags.DEFINE_float(
    'poll_seconds',
    30.0,
    'Polling interval, in seconds, while waiting for the TPU to be created.',
    lower_bound=0.0,
  )


def _define_xpk() -> None:
  flags.DEFINE_string('cluster', '', 'Name of the GKE cluster, made by xpk.')
  flags.DEFINE_string('workload', '', 'Name of the workload in the cluster.')
  flags.DEFINE_string(
    'base_docker_image', 'python:3.11', 'The image that xpk adds the code to.'
  )
  flags.DEFINE_string(
    'docker_image', '', 'An image with rest_jax installed, used as it is.'
  )
