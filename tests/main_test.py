"""Tests of the command line."""

import logging
import pathlib

from absl import flags
from absl.testing import flagsaver
import pytest

from rest_jax import main
from tests import smoke

_PACKAGE = pathlib.Path(main.__file__).parent


@pytest.mark.parametrize(
  'path, ours',
  [
    (_PACKAGE / 'stages' / 'grow.py', True),
    (_PACKAGE / 'main.py', True),
    # In an environment inside of a checkout that is called like the package.
    (_PACKAGE.parent / '.venv/site-packages/orbax/checkpoint.py', False),
    (pathlib.Path('/somewhere/rest_jax/.venv/orbax.py'), False),
  ],
)
def test_other_libraries_are_told_from_ours_by_their_files(path, ours):
  record = logging.LogRecord(
    'absl', logging.INFO, str(path), 1, 'message', None, None
  )
  assert main.is_ours(record) is ours


def test_a_value_function_that_no_loss_reads_is_refused(
  tmp_path, monkeypatch, capsys
):
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(tmp_path / 'cache'))
  if not flags.FLAGS.is_parsed():
    flags.FLAGS(['rest_jax'])
  with flagsaver.flagsaver(
    run_mode='value', model_dir=str(tmp_path), gin_file=[smoke.GIN_FILE]
  ):
    assert main.main(['rest_jax'], []) == 1
  assert 'gin_configs/losses/oac.gin' in capsys.readouterr().err


@pytest.fixture
def failing(tmp_path, monkeypatch):
  """Runs the command line, and has a stage raise an error."""

  def run(error, **changes):
    def fail(self):
      raise error

    monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(tmp_path / 'cache'))
    monkeypatch.setattr('rest_jax.experiment.Run.report', fail)
    if not flags.FLAGS.is_parsed():
      flags.FLAGS(['rest_jax'])
    with flagsaver.flagsaver(
      run_mode='report',
      model_dir=str(tmp_path / 'run'),
      gin_file=[smoke.GIN_FILE],
      **changes,
    ):
      return main.main(['rest_jax'], [])

  return run


@pytest.mark.parametrize(
  'error', [ValueError('wrong \x1b[2J'), ImportError('wrong \x1b[2J')]
)
def test_an_expected_error_is_its_words(failing, tmp_path, capsys, error):
  assert failing(error) == 1
  assert capsys.readouterr().err.endswith('error: wrong ␛[2J\n')
  assert not (tmp_path / 'run' / 'traceback.txt').exists()


def test_another_error_says_where_its_traceback_is(failing, tmp_path, capsys):
  assert failing(KeyError('name')) == 1
  printed = capsys.readouterr().err
  path = tmp_path / 'run' / 'traceback.txt'
  assert f"error: KeyError: 'name' (not expected; {path} says" in printed
  assert 'Traceback' not in printed
  assert 'in fail' in path.read_text()


@pytest.mark.parametrize('error', [ValueError('wrong'), KeyError('wrong')])
def test_a_traceback_is_shown_if_asked_for(failing, error):
  with pytest.raises(type(error), match='wrong'):
    failing(error, traceback=True)
