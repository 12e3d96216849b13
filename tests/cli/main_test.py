"""Tests of the command line."""

import errno
import logging
import os
import pathlib
import signal
import subprocess
import sys
import time
import types

from absl import app, flags
import pytest

from rest_jax.cli import main
from rest_jax.storage import files
from rest_jax.training import checkpoints, journal
from tests import smoke

_PACKAGE = pathlib.Path(main.__file__).parents[1]
_ROOT = pathlib.Path(__file__).resolve().parents[2]


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
  assert smoke.command(run_mode='value', model_dir=str(tmp_path)) == 1
  assert 'gin_configs/losses/oac.gin' in capsys.readouterr().err


def test_sigterm_saves_and_ends_and_a_second_process_is_refused(
  tmp_path, run, monkeypatch, capsys
):
  settings = [
    *smoke.given(run, 'data'),
    'BC_STEPS=100000',
    'BC_EVALUATE_EVERY=50000',
  ]
  command = [
    sys.executable, '-m', 'rest_jax.main', '--run_mode=bc',
    f'--model_dir={tmp_path / "run"}', f'--gin_file={smoke.GIN_FILE}',
    *(f'--gin.{setting}' for setting in settings),
  ]  # fmt: skip
  metrics = tmp_path / 'run' / 'bc' / journal.METRICS_FILE
  with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
    try:
      deadline = time.monotonic() + 240
      while not (metrics.exists() and metrics.read_text()):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
      monkeypatch.setattr('rest_jax.experiment_run.Run.make_mode', pytest.fail)
      given = {'run_mode': 'bc', 'model_dir': str(tmp_path / 'run')}
      assert smoke.command(*settings, **given) == 1
      refusal = capsys.readouterr().err
      assert f'process {process.pid} on' in refusal
      assert 'Traceback' not in refusal
      process.send_signal(signal.SIGTERM)
      _, errors = process.communicate(timeout=60)
    finally:
      process.kill()
  assert process.returncode == 128 + signal.SIGTERM
  assert 'stopped by SIGTERM; run the same command to resume' in errors
  store = checkpoints.Checkpoints(metrics.parent, read_only=True)
  saved = store.latest_step
  store.close()
  # At the step at hand, not at an evaluation.
  last = journal.read_metrics(metrics.parent)[-1]['step']
  assert last <= saved < last + 50


@pytest.mark.parametrize(
  'address, words',
  [
    ('hdfs://host/run', 'Mount other stores as a folder'),
    ('gs://bucket', 'must name a bucket and a folder'),
  ],
)
def test_a_wrong_address_is_refused(
  tmp_path, monkeypatch, capsys, address, words
):
  monkeypatch.chdir(tmp_path)
  status = smoke.command(
    run_mode='rest',
    model_dir=address,
    gin_file=[str(_ROOT / smoke.GIN_FILE)],
    dry_run=True,
  )
  assert status == 1
  assert words in capsys.readouterr().err
  assert not list(tmp_path.iterdir())


def test_a_wrong_address_of_compiled_programs_is_refused(
  tmp_path, monkeypatch, capsys
):
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', 'gs://bucket')
  status = smoke.command(
    run_mode='rest',
    model_dir=str(tmp_path),
    gin_file=[str(_ROOT / smoke.GIN_FILE)],
    dry_run=True,
  )
  assert status == 1
  assert 'must name a bucket and a folder' in capsys.readouterr().err


def test_runs_are_compared_without_a_configuration(tmp_path, capsys):
  status = smoke.command(
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
    smoke.command(run_mode='rest', model_dir=str(tmp_path), compare=['a', 'b'])


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ({'profile': '2:3', 'run_mode': 'online'}, '--profile is for --run_mode='),
    ({'profile_all': True}, '--profile_all needs --profile'),
  ],
)
def test_a_profile_of_nothing_is_refused(given, message, tmp_path):
  with pytest.raises(app.UsageError, match=message):
    smoke.command(model_dir=str(tmp_path), **given)


def test_steps_of_a_profile_are_read_before_anything_runs(tmp_path, capsys):
  status = smoke.command(
    run_mode='bc',
    model_dir=str(tmp_path / 'run'),
    profile='7:3',
  )
  assert status == 1
  assert 'got 7:3' in capsys.readouterr().err
  assert not list((tmp_path / 'run').rglob('*.gin'))


@pytest.mark.parametrize('mode', ['sample', 'refresh', 'compare', 'rate'])
def test_what_one_process_does_is_refused_to_several(mode, tmp_path):
  with pytest.raises(app.UsageError, match=f'{mode} is for one process'):
    smoke.command(
      run_mode=mode,
      model_dir=str(tmp_path),
      distributed=True,
    )


def test_several_processes_say_all_of_themselves(tmp_path, capsys):
  status = smoke.command(
    run_mode='rest',
    model_dir=str(tmp_path),
    num_processes=2,
  )
  assert status == 1
  assert 'must be given together' in capsys.readouterr().err


@pytest.fixture
def failing(tmp_path, monkeypatch):
  """Runs the command line, and has a stage raise an error."""

  def run(error, **changes):
    def fail(self):
      raise error

    monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(tmp_path / 'cache'))
    monkeypatch.setattr('rest_jax.experiment_run.Run.report', fail)
    model_dir = str(tmp_path / 'run')
    return smoke.command(run_mode='report', model_dir=model_dir, **changes)

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
  assert f"error: KeyError: 'name' (not expected; {path} has" in printed
  assert 'Traceback' not in printed
  assert 'in fail' in path.read_text()


@pytest.mark.parametrize(
  'error',
  [
    OSError(errno.ENOSPC, 'No space left on device', '/a/b'),
    OSError(errno.EROFS, 'Read-only file system', '/a/b'),
    files.disk_error('/a/b', errno.ENOSPC, 12),
    PermissionError(errno.EACCES, 'Permission denied', '/a/b'),
  ],
)
def test_a_disk_that_takes_nothing_is_no_surprise(
  failing, tmp_path, capsys, error
):
  assert failing(error) == 1
  printed = capsys.readouterr().err
  assert '/a/b' in printed and 'not expected' not in printed
  assert not (tmp_path / 'run' / 'traceback.txt').exists()


@pytest.mark.parametrize('error', [ValueError('wrong'), KeyError('wrong')])
def test_a_traceback_is_shown_if_asked_for(failing, error):
  with pytest.raises(type(error), match='wrong'):
    failing(error, traceback=True)


@pytest.mark.parametrize(
  'given',
  [
    pytest.param({'dry_run': False}, marks=pytest.mark.full),
    {'dry_run': True},
  ],
)
def test_a_reader_that_leaves_ends_it_quietly(
  given, tmp_path, run, monkeypatch, capsys
):
  """As `... | head -1` may do: status 128 + SIGPIPE, and no word of it."""
  path = tmp_path / 'in.txt'
  path.write_text('\n'.join(run.data.pairs('test').source_texts()[:3]) + '\n')
  reading, writing = os.pipe()
  os.close(reading)
  with open(writing, 'w', encoding='utf-8') as stdout:
    monkeypatch.setattr(sys, 'stdout', stdout)
    status = smoke.command(
      run_mode='sample', model_dir=str(run.model_dir), input=str(path), **given
    )
    # What is still to be written is written at exit, which does not fail.
    stdout.write('the rest')
  assert status == 128 + signal.SIGPIPE
  # Nothing but what the log warns of: that the smoke run cuts its samples.
  errors = capsys.readouterr().err.splitlines()
  assert all(line.startswith('W') for line in errors)


def test_files_are_found_in_a_locale_without_utf8(tmp_path):
  folder = tmp_path / 'straße'
  folder.mkdir()
  for name in ('a.de', 'a.en'):
    (folder / name).write_text('Straße …\nStraße\n', encoding='utf-8')
  files = [
    f"--gin.{split}_{side}=('{folder / name}',)"
    for split in ('TRAIN', 'VALIDATION', 'TEST')
    for side, name in (('SOURCES', 'a.de'), ('REFERENCES', 'a.en'))
  ]
  done = subprocess.run(
    [
      sys.executable, '-m', 'rest_jax.main', '--dry_run', '--run_mode=prepare',
      '--gin_file=gin_configs/experiments/summarise_small.gin', *files,
      f'--model_dir={folder / "run"}', '--gin.VocabularyConfig.size=12',
    ],
    capture_output=True, check=False, cwd=_ROOT,
    env=os.environ
    | {'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'},
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert 'ParallelText: Straße …' in done.stdout.decode()
  assert str(folder / 'run') in done.stdout.decode()


@pytest.mark.parametrize(
  ('path', 'level', 'shown'),
  [
    ('/x/orbax/checkpoint/future.py', logging.ERROR, False),
    ('/x/asyncio/base_events.py', logging.ERROR, False),
    ('/x/tensorstore/a.py', logging.ERROR, True),
    ('/x/tensorstore/a.py', logging.WARNING, False),
    (str(_PACKAGE / 'rest.py'), logging.INFO, True),
  ],
)
def test_pages_of_other_libraries_are_not_shown(path, level, shown):
  if not flags.FLAGS.is_parsed():
    flags.FLAGS(['rest_jax'])
  record = logging.LogRecord('a', level, path, 1, 'a\n%s', ('b' * 999,), None)
  assert main._is_shown(record) is shown
  if shown and 'tensorstore' in path:
    assert record.getMessage() == 'a ' + 'b' * 298


def test_reads_that_were_given_up_are_not_shown(monkeypatch):
  shown = []
  monkeypatch.setattr(sys, '__unraisablehook__', shown.append)
  for text, of in (('Event loop is closed', None), ('else', None), ('', 1)):
    main._hide_closed_loops(
      types.SimpleNamespace(exc_value=RuntimeError(text), object=of)
    )
  assert [str(one.exc_value) for one in shown] == ['else', '']


def test_a_file_without_rights_is_named(failing, tmp_path, capsys):
  path = tmp_path / 'a.de'
  path.write_text('')
  path.chmod(0o000)
  assert failing(PermissionError(errno.EACCES, 'Permission', str(path))) == 1
  assert f'file {path} belongs to user' in capsys.readouterr().err
