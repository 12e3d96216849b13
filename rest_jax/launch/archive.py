"""The code that is copied to other machines."""

import pathlib

from rest_jax.launch import commands
from rest_jax.launch import job as job_lib

# What an installation needs beside the package. setup.py puts these files of a
# checkout into the package, so that an installed launcher has them too.
_PROJECT = ('LICENSE', 'README.md', 'launch', 'pyproject.toml', 'setup.py')


def path(name: str) -> pathlib.Path:
  """Returns where the archive for a TPU or workload of that name is made."""
  return job_lib.files_root() / 'build' / 'launch' / f'{name}.tar.gz'


def create(job: job_lib.Job, name: str) -> list[commands.Command]:
  """Returns the commands that make the archive: a checkout without its data."""
  archive = path(name)
  package = job_lib.PACKAGE
  if job_lib.is_checkout():
    parts = [f'--directory={package.parent}', 'rest_jax', 'gin_configs']
    parts += _PROJECT
  else:
    parts = [
      f'--directory={package.parent}', 'rest_jax',
      f'--directory={package}', 'gin_configs',
      f'--directory={package / "project"}', *_PROJECT,
    ]  # fmt: skip
  if own := job.own_gin_files():
    parts += [f'--directory={job_lib.files_root()}', *own]
  return [
    commands.Command(('mkdir', '-p', str(archive.parent))),
    commands.Command(
      (
        'tar',
        '--create',
        '--gzip',
        f'--file={archive}',
        '--exclude=__pycache__',
        # Where the package is installed these lie in it.
        '--exclude=rest_jax/gin_configs',
        '--exclude=rest_jax/project',
        *parts,
      )
    ),
  ]
