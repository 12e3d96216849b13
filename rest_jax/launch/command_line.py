"""`rest-jax launch`: starts a run here, on Cloud TPU VMs or on GKE.

  rest-jax launch --target=tpu_vm --tpu_name=... --zone=... \\
    --model_dir=... --gin_file=... [--gin.NAME=VALUE] [-- --other_flag_of_run]

--dry_run prints the commands. launch/README.md has all steps from an empty
Google Cloud project to a finished run.
"""

import dataclasses
import sys
from typing import Any, TypeVar

from absl import app, flags

from rest_jax.config import command
from rest_jax.launch import commands, options
from rest_jax.launch import job as job_lib
from rest_jax.launch.targets import local, queued_resource, tpu_vm, xpk
from rest_jax.runtime import interruption

_T = TypeVar('_T')


def main(arguments: list[str], overrides: list[str]) -> int:
  """Launches the run that the flags describe; returns the exit status.

  Args:
    arguments: command-line arguments after `--`, for `rest-jax run`.
    overrides: gin overrides, `NAME=VALUE` each.
  """
  given = flags.FLAGS
  try:
    options.check()
    target = _target(
      job_lib.Job(
        model_dir=given.model_dir,
        gin_files=tuple(given.gin_file),
        run_mode=given.run_mode,
        overrides=tuple(overrides),
        arguments=tuple(arguments),
        environment=job_lib.environment(given.env),
        extras=given.extras,
      )
    )
    if given.dry_run:
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


def _target(job: job_lib.Job) -> local.Local | tpu_vm.TpuVm | xpk.Xpk:
  """Returns the target that the flags describe."""
  given = flags.FLAGS
  if given.target == 'local':
    return _of_flags(local.Local, job=job)
  if given.target == 'xpk':
    return _of_flags(xpk.Xpk, job=job, tpu_type=given.accelerator_type)
  machine = _of_flags(
    tpu_vm.Machine, name=given.tpu_name, zone=given.zone or ''
  )
  if given.target == 'tpu_vm':
    return _of_flags(tpu_vm.TpuVm, job=job, machine=machine)
  return _of_flags(queued_resource.QueuedResource, job=job, machine=machine)


def _of_flags(cls: type[_T], **others: Any) -> _T:
  """Makes a dataclass with the flags of its fields' names, and other values."""
  fields: Any = dataclasses.fields(cls)  # pyright: ignore[reportArgumentType]
  names = {field.name for field in fields} & set(flags.FLAGS) - set(others)
  return cls(**{name: flags.FLAGS[name].value for name in names}, **others)


def entry_point() -> None:
  """Splits the command line at `--` and launches the run."""
  options.define()
  end = sys.argv.index('--') if '--' in sys.argv else len(sys.argv)

  def run(rest: list[str], overrides: list[str]) -> None:
    if len(rest) > 1:
      raise app.UsageError(
        f'unknown arguments: {rest[1:]}; put arguments of rest-jax run after --'
      )
    sys.exit(main(sys.argv[end + 1 :], overrides))

  command.start(run, sys.argv[:end], options)
