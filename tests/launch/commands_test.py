"""Tests of commands, written and carried out."""

import json
import subprocess
import sys

import pytest

from rest_jax.launch import commands

_AWKWARD = ('a b', "it's", '"c"', '$HOME;`x`', '', '*', 'a\nb', '--x=\\')
_SHOW = (
  'import json, os, sys; print(json.dumps([sys.argv[1:], os.environ["X"]]))'
)


def test_the_text_does_the_same_in_a_shell():
  command = commands.Command(
    (sys.executable, '-c', _SHOW, *_AWKWARD), {'X': "a 'b' $c"}
  )
  for shell in ('sh', 'bash'):
    shown = subprocess.run(
      [shell, '-c', command.text()], capture_output=True, text=True, check=True
    )
    assert json.loads(shown.stdout) == [list(_AWKWARD), "a 'b' $c"]


def test_a_missing_program_is_named_with_its_installation(
  monkeypatch, tmp_path
):
  monkeypatch.setenv('PATH', str(tmp_path))
  with pytest.raises(
    commands.LaunchError, match=r'gcloud is not on the PATH.*sdk/docs/install'
  ):
    commands.run(commands.Command(('gcloud', 'version')))
  with pytest.raises(commands.LaunchError, match='pip install xpk'):
    commands.require('xpk')


def test_a_failure_names_status_and_command():
  with pytest.raises(commands.CommandFailed, match=r"status 3: sh -c 'exit 3'"):
    commands.run(commands.Command(('sh', '-c', 'exit 3')))


@pytest.mark.parametrize('carry_out', [commands.run, commands.output])
def test_a_command_that_takes_too_long_is_stopped(carry_out):
  with pytest.raises(commands.CommandFailed, match=r'command_timeout=0\.2 s'):
    carry_out(commands.Command(('sleep', '60')), 0.2)


def test_output_is_parsed():
  command = commands.Command(('sh', '-c', 'echo out; echo err >&2; exit 5'))
  assert commands.output(command, 10) == (5, 'out\n', 'err\n')
