"""Restarts a run that was interrupted from outside, but not one that failed.

The program resumes by itself when it is started with the same arguments. Exit
status 1 is an error, which a restart would repeat; 128 + signal number means
that something outside ended the program; the status of a lost worker is
unknown.
"""

from collections.abc import Callable
import dataclasses
import sys
import time

from rest_jax.launch import commands, processes

# EX_TEMPFAIL of sysexits.h: a temporary failure, try again later.
CUT_OFF_TOO_OFTEN = 75


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attempt:
  """One start of the run.

  Attributes:
    outcome: how the workers ended; None if they were not started.
    cut_off: reason why the machines are gone; empty if they are not.
  """

  outcome: processes.Outcome | None = None
  cut_off: str = ''


def run(
  attempt: Callable[[int], Attempt],
  *,
  max_restarts: int,
  pause_seconds: float,
) -> int:
  """Starts a run until it finishes, fails, or was interrupted too often.

  Args:
    attempt: starts the run; its argument is the number of the attempt, from 0.
    max_restarts: maximum number of attempts after the first.

  Returns:
    The exit status: 0; the status of the program that failed; 128 + the number
    of the signal to the launcher; or CUT_OFF_TOO_OFTEN.
  """
  for number in range(max_restarts + 1):
    now = attempt(number)
    outcome = now.outcome
    if outcome and all(one.status == 0 for one in outcome.ended):
      return 0
    if outcome and outcome.interrupted:
      commands.say('stopped; run the same command to resume')
      return 128 + outcome.interrupted
    reason = now.cut_off or (why_cut_off(outcome) if outcome else '')
    if not reason:
      assert outcome is not None
      return _report_error(outcome)
    commands.say(f'the run was interrupted: {reason}')
    if number < max_restarts:
      commands.say(
        f'restart {number + 1} of {max_restarts} in {pause_seconds:g} s'
      )
      time.sleep(pause_seconds)
  commands.say(
    f'interrupted {max_restarts + 1} times, more than '
    f'--max_restarts={max_restarts} allows; run the same command to resume'
  )
  return CUT_OFF_TOO_OFTEN


def why_cut_off(outcome: processes.Outcome) -> str:
  """Returns what ended a run from outside; empty if the program failed.

  When one worker is lost, the others fail in consequence, with their own exit
  status. So a lost or killed worker takes precedence over failed ones,
  whichever was seen first.
  """
  for one in outcome.ended:
    if one.status is None:
      return one.says()
    if one.status > 128 and not one.was_stopped:
      return one.says()
  return ''


def failed(outcome: processes.Outcome) -> processes.Ended:
  """Returns the first worker that failed without having been stopped."""
  return next(
    one for one in outcome.ended if one.status and not one.was_stopped
  )


def _report_error(outcome: processes.Outcome) -> int:
  worker = failed(outcome)
  commands.say(f'{worker.says()}; this is an error, so it is not restarted')
  if len(outcome.ended) > 1:
    commands.say(f'the last lines of worker {worker.worker}:')
    for line in worker.last_lines:
      print(f'  {line}', file=sys.stderr)
  assert worker.status
  return worker.status
