"""Tests of when a run is started again."""

import signal

import pytest

from rest_jax.launch import processes, restarts


def _ended(worker, status, *, was_stopped=False, last_lines=()):
  return processes.Ended(
    worker=worker, status=status, was_stopped=was_stopped, last_lines=last_lines
  )


def _outcome(*ended, interrupted=None):
  return processes.Outcome(ended=ended, interrupted=interrupted)


def _run(outcomes, max_restarts=2):
  """Plays outcomes; returns the status and how many were played."""
  left = list(outcomes)

  def attempt(number):
    assert number == len(outcomes) - len(left)
    played = left.pop(0)
    if isinstance(played, str):
      return restarts.Attempt(cut_off=played)
    return restarts.Attempt(outcome=played)

  status = restarts.run(attempt, max_restarts=max_restarts, pause_seconds=0)
  return status, len(outcomes) - len(left)


_DONE = _outcome(_ended(0, 0), _ended(1, 0))
_LOST = _outcome(_ended(1, None), _ended(0, 143, was_stopped=True))


def test_a_run_that_ends_well_is_not_started_again():
  assert _run([_DONE, _DONE]) == (0, 1)


@pytest.mark.parametrize('status', [1, 2, 127])
def test_an_error_is_final(status, capsys):
  failed = _ended(1, status, last_lines=('before', 'error: no such file'))
  stopped = _ended(0, 143, was_stopped=True)
  assert _run([_outcome(failed, stopped), _DONE]) == (status, 1)
  said = capsys.readouterr().err
  assert f'worker 1 ended with status {status}' in said
  assert 'error: no such file' in said


@pytest.mark.parametrize(
  'ended',
  [
    (_ended(0, None),),
    (_ended(0, 143),),
    (_ended(0, 137), _ended(1, 143, was_stopped=True)),
    # The error is a consequence of what was seen later.
    (_ended(0, 1), _ended(1, 137)),
    (_ended(0, 1), _ended(1, None, was_stopped=True)),
    (_ended(0, 0), _ended(1, 134)),
  ],
)
def test_an_interrupted_attempt_is_started_again(ended):
  assert _run([_outcome(*ended), _DONE]) == (0, 2)


def test_a_worker_that_was_killed_after_a_stop_hides_no_error():
  failed, stopped = _ended(0, 1), _ended(1, 137, was_stopped=True)
  assert _run([_outcome(failed, stopped), _DONE]) == (1, 1)


def test_lost_machines_outweigh_the_status_of_programs():
  assert _run(['the TPU is PREEMPTED', _DONE]) == (0, 2)


def test_the_number_of_restarts_is_limited(capsys):
  assert _run([_LOST] * 4) == (restarts.CUT_OFF_TOO_OFTEN, 3)
  assert '--max_restarts=2' in capsys.readouterr().err
  assert _run([_LOST] * 2, max_restarts=0) == (restarts.CUT_OFF_TOO_OFTEN, 1)


def test_an_interrupted_run_is_not_started_again():
  interrupted = _outcome(_ended(0, 143), interrupted=signal.SIGTERM)
  assert _run([interrupted, _DONE]) == (143, 1)
  # It had ended before the signal did anything.
  assert _run([_outcome(_ended(0, 0), interrupted=signal.SIGINT)]) == (0, 1)


def test_a_signal_is_named():
  assert _ended(3, 137).says() == 'worker 3 was ended by SIGKILL'
  assert _ended(3, 255).says() == 'worker 3 ended with status 255'
