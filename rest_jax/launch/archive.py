"""The archive of the code that is copied to other machines."""

import pathlib

from rest_jax.launch import commands
from rest_jax.launch import job as job_lib

# Files that an installation needs besides the package. setup.py puts these
# files of a checkout into the package, so that an installed launcher has them
# too.
_FILES = ('LICENSE', 'README.md', 'launch', 'pyproject.toml', 'setup.py')


def path(name: str) -> pathlib.Path:
  """Returns the path of the archive for a TPU or workload of this name."""
  return job_lib.files_root() / 'build' / 'launch' / f'{name}.tar.gz'


def create(job: job_lib.Job, name: str) -> list[commands.Command]:
  """Returns the commands that create the archive of a checkout without data."""
  archive = path(name)
  package = job_lib.PACKAGE
  if job_lib.is_checkout():
    parts = [f'--directory={package.parent}', 'rest_jax', 'gin_configs']
    parts += _FILES
  else:
    parts = [
      f'--directory={package.parent}', 'rest_jax',
      f'--directory={package}', 'gin_configs',
      f'--directory={package / "project"}', *_FILES,
    ]  # fmt: skip
  if gin_files := job.own_gin_files():
    parts += [f'--directory={job_lib.files_root()}', *gin_files]
  return [
    commands.Command(('mkdir', '-p', str(archive.parent))),
    commands.Command(
      (
        'tar',
        '--create',
        '--gzip',
        f'--file={archive}',
        '--exclude=__pycache__',
        # An installed package contains these two folders.
        '--exclude=rest_jax/gin_configs',
        '--exclude=rest_jax/project',
        *parts,
      )
    ),
  ]
