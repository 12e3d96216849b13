"""What an import brings along, seen in fresh interpreters."""

import os
import pathlib
import pkgutil
import subprocess
import sys

import rest_jax

_ROOT = pathlib.Path(__file__).resolve().parents[1]
# For programs of T5X, and what SeqIO is to import for the tasks it registers.
_AT_THE_DOOR = ('rest_jax.interop.t5x_model', 'rest_jax.data.wmt_tasks')
_MODULES = [
  module.name
  for module in pkgutil.walk_packages(rest_jax.__path__, 'rest_jax.')
  if not module.ispkg and module.name not in _AT_THE_DOOR
]
# What data/seqio_tasks.py, extras and figures may bring, and only when asked.
_DOORS = (
  'seqio', 'tensorflow', 'tensorflow_datasets', 't5x', 'torch', 'matplotlib',
)  # fmt: skip


def _run(program: str, *arguments: str) -> str:
  """Runs a program and returns what it prints; its failure is ours."""
  done = subprocess.run(
    [sys.executable, '-c', program, *arguments],
    capture_output=True,
    text=True,
    env={**os.environ, 'PYTHONPATH': str(_ROOT)},
    cwd=_ROOT,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


def test_modules_are_found():
  assert 'rest_jax.data.seqio_tasks' in _MODULES
  assert 'rest_jax.training.trainer' in _MODULES


def test_no_module_imports_what_is_slow_or_extra():
  program = (
    'import importlib, sys\n'
    f'doors = {_DOORS!r}\n'
    'for name in sys.argv[1:]:\n'
    '  importlib.import_module(name)\n'
    '  loaded = [door for door in doors if sys.modules.get(door)]\n'
    "  assert not loaded, f'{name} imports {loaded}'\n"
  )
  _run(program, *_MODULES)


def test_the_package_itself_imports_nothing_but_the_standard_library():
  program = (
    'import sys\nbefore = set(sys.modules)\nimport rest_jax\n'
    "new = set(sys.modules) - before - {'rest_jax'}\n"
    "print(*(m for m in new if m.split('.')[0] not in sys.stdlib_module_names))"
  )
  assert _run(program).split() == []


def test_help_is_quick_and_imports_no_jax():
  program = (
    'import runpy, sys, time\n'
    "sys.argv = ['rest_jax.main', '--help']\n"
    'try:\n'
    "  runpy.run_module('rest_jax.main', run_name='__main__')\n"
    'except SystemExit:\n'
    '  pass\n'
    "heavy = {'jax', 'flax', 'orbax', 'matplotlib', 'tensorflow'}\n"
    'assert not heavy & set(sys.modules), heavy & set(sys.modules)\n'
    'print(time.process_time())\n'
  )
  printed = _run(program)
  # Of the processor: what others keep it from does not count.
  assert float(printed.split()[-1]) < 3
  for flag in ('--run_mode', '--model_dir', '--gin_file', 'dry_run'):
    assert flag in printed
