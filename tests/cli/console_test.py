"""Tests of the program `rest-jax`."""

import importlib
import os
import pathlib
import subprocess
import sys

import pytest

import rest_jax
from rest_jax.cli import console

_ROOT = pathlib.Path(console.__file__).parents[2]


def test_help_has_a_line_for_each_command(capsys):
  for argv in (['rest-jax'], ['rest-jax', '--help']):
    console.main(argv)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    words = [line.split()[0] for line in lines if line.startswith('  ')]
    assert words == list(console.commands())
  assert {'run', 'new', 'compare', 'rate', 'convert', 'launch'} <= set(words)
  console.main(['rest-jax', '--version'])
  assert capsys.readouterr().out == f'rest_jax {rest_jax.__version__}\n'


def test_help_imports_no_library():
  program = (
    'import sys\n'
    'from rest_jax.cli import console\n'
    "console.main(['rest-jax', '--help'])\n"
    "heavy = {'jax', 'numpy', 'absl', 'gin'} & set(sys.modules)\n"
    'assert not heavy, heavy\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', program],
    capture_output=True,
    text=True,
    env={**os.environ, 'PYTHONPATH': str(_ROOT)},
  )
  assert done.returncode == 0, done.stderr
  assert 'rest-jax COMMAND' in done.stdout


@pytest.mark.parametrize(
  ('arguments', 'name', 'seen'),
  [
    (['run', '--a', 'b'], 'run', ['rest-jax run', '--a', 'b']),
    (['rate', '--a'], 'rate', ['rest-jax rate', '--run_mode=rate', '--a']),
    (['launch', '--', '--help'], 'launch', ['rest-jax launch', '--', '--help']),
  ],
)
def test_a_command_gets_what_follows_its_name(
  monkeypatch, arguments, name, seen
):
  module = importlib.import_module(console.commands()[name].module)
  monkeypatch.setattr(sys, 'argv', ['before'])
  calls = []
  monkeypatch.setattr(module, 'entry_point', lambda: calls.append(sys.argv))
  console.main(['rest-jax', *arguments])
  assert calls == [seen]


@pytest.mark.parametrize('name', list(console.commands()))
def test_every_command_has_an_entry_point(name):
  module = importlib.import_module(console.commands()[name].module)
  assert callable(module.entry_point)


def test_an_unknown_command_is_named_with_the_nearest():
  with pytest.raises(SystemExit, match=r"no command 'lunch'.* mean launch\?"):
    console.main(['rest-jax', 'lunch'])


@pytest.mark.parametrize(
  ('name', 'flag'), [('run', '--run_mode'), ('launch', '--tpu_name')]
)
def test_help_of_a_command_lists_its_flags(name, flag):
  done = subprocess.run(
    [
      sys.executable,
      '-c',
      'from rest_jax.cli import console; console.main()',
      name,
      '--help',
    ],
    capture_output=True,
    text=True,
    env={**os.environ, 'PYTHONPATH': str(_ROOT)},
  )
  assert f'rest-jax {name} [flags]' in done.stdout
  assert flag in done.stdout and 'Traceback' not in done.stderr
