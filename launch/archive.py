"""The code that is copied to other machines."""

import pathlib

from launch import commands
from launch import job as job_lib

# All that the installation and the program need, so that data and results that
# lie in the checkout stay where they are.
_PATHS = (
  'LICENSE',
  'README.md',
  'gin_configs',
  'launch',
  'pyproject.toml',
  'rest_jax',
  'setup.py',
)


def path(name: str) -> pathlib.Path:
  """Returns where the archive for a TPU or workload of that name is made."""
  return job_lib.ROOT / 'build' / 'launch' / f'{name}.tar.gz'


def create(job: job_lib.Job, name: str) -> list[commands.Command]:
  """Returns the commands that make the archive."""
  archive = path(name)
  return [
    commands.Command(('mkdir', '-p', str(archive.parent))),
    commands.Command(
      (
        'tar',
        '--create',
        '--gzip',
        f'--file={archive}',
        f'--directory={job_lib.ROOT}',
        '--exclude=__pycache__',
        *_PATHS,
        *job.own_gin_files(),
      )
    ),
  ]
