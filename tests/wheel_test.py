"""The wheel has all that runs need, and works outside of a checkout."""

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

import rest_jax
from rest_jax.launch import archive
from rest_jax.launch import job as job_lib

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_SMOKE = 'gin_configs/experiments/smoke.gin'


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
  """The wheel, unpacked in a folder of its own."""
  folder = tmp_path_factory.mktemp('wheel')
  job = job_lib.Job(model_dir='/a', gin_files=(_SMOKE,))
  # A copy: a build leaves folders behind.
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(archive, 'path', lambda name: folder / f'{name}.tar.gz')
    for command in archive.create(job, 'checkout'):
      subprocess.run(command.argv, check=True)
  checkout = folder / 'checkout'
  checkout.mkdir()
  subprocess.run(
    ['tar', '-xzf', str(folder / 'checkout.tar.gz'), '-C', str(checkout)],
    check=True,
  )
  subprocess.run(
    [
      sys.executable, 'setup.py', '-q', 'bdist_wheel',
      f'--dist-dir={folder}',
    ],
    cwd=checkout,
    check=True,
  )  # fmt: skip
  [path] = folder.glob('*.whl')
  with zipfile.ZipFile(path) as opened:
    opened.extractall(folder / 'site')
  return folder / 'site'


def _run(site, folder, *arguments):
  return subprocess.run(
    [
      sys.executable,
      '-c',
      'from rest_jax.cli import console; console.main()',
      *arguments,
    ],
    cwd=folder,
    env={**os.environ, 'PYTHONPATH': str(site)},
    capture_output=True,
    text=True,
  )


def test_it_has_every_file(wheel):
  for path in (_ROOT / 'gin_configs').rglob('*.gin'):
    assert (wheel / 'rest_jax' / path.relative_to(_ROOT)).is_file()
  for path in (_ROOT / 'rest_jax').rglob('*'):
    if path.is_file() and '__pycache__' not in path.parts:
      assert (wheel / path.relative_to(_ROOT)).is_file(), path
  [points] = wheel.glob('rest_jax-*.dist-info/entry_points.txt')
  assert 'rest-jax = rest_jax.cli.console:main' in points.read_text()


def test_a_run_is_planned_from_an_empty_folder(wheel, tmp_path):
  done = _run(wheel, tmp_path, 'run', f'--gin_file={_SMOKE}', '--dry_run')
  assert done.returncode == 0, done.stderr
  assert 'to do     bc' in done.stdout


def test_the_launcher_copies_the_installed_package(wheel, tmp_path):
  own = tmp_path / 'own.gin'
  own.write_text(f"include '{_SMOKE}'\n")
  done = _run(
    wheel, tmp_path, 'launch', '--dry_run', '--target=xpk', '--cluster=c',
    '--workload=w', '--accelerator_type=v5litepod-16', '--model_dir=/mnt/a',
    '--gin_file=own.gin',
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  commands = done.stdout.splitlines()[:5]
  subprocess.run('\n'.join(commands), shell=True, check=True, cwd=tmp_path)
  copied = tmp_path / 'build' / 'launch' / 'w'
  for path in (
    'own.gin', _SMOKE, 'setup.py', 'launch/setup_worker.sh',
    'launch/constraints.txt', 'rest_jax/launch/worker.py', 'README.md',
  ):  # fmt: skip
    assert (copied / path).is_file(), path
  assert not (copied / 'rest_jax' / 'gin_configs').exists()
  # What was copied can be installed, and so be copied again.
  done = subprocess.run(
    [sys.executable, 'setup.py', '--version'],
    cwd=copied,
    capture_output=True,
    text=True,
  )
  assert done.stdout.strip() == rest_jax.__version__
