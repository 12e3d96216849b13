"""Tests of the command line."""

import logging
import pathlib

from absl import app, flags
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


def _run(**given):
  if not flags.FLAGS.is_parsed():
    flags.FLAGS(['rest_jax'])
  with flagsaver.flagsaver(**given):
    return main.main(['rest_jax'], [])


def test_runs_are_compared_without_a_configuration(tmp_path, capsys):
  status = _run(
    run_mode='report',
    model_dir=str(tmp_path / 'out'),
    gin_file=None,
    compare=[str(tmp_path / 'a'), str(tmp_path / 'b')],
  )
  assert status == 1
  assert 'has no results.json' in capsys.readouterr().err
  assert not (tmp_path / 'out').exists()


def test_a_comparison_is_a_report(tmp_path):
  with pytest.raises(
    app.UsageError, match='--compare is for --run_mode=report'
  ):
    _run(run_mode='rest', model_dir=str(tmp_path), compare=['a', 'b'])
