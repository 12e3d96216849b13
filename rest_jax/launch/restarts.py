"""Starts a run again when it was cut off, and only then.

The program resumes by itself when it is started with the same arguments. Its exit
status says what to do: 1 is an error that would come again; 128 + signal means
that something ended it from outside; and a worker that is lost tells nothing.
"""

from collections.abc import Callable
import dataclasses
import sys
import time

from rest_jax.launch import commands, processes

# EX_TEMPFAIL of sysexits.h: nothing is wrong, try again later.
CUT_OFF_TOO_OFTEN = 75


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attempt:
  """One start of the run.

  Attributes:
    outcome: how the workers ended; None if it did not come to that.
    cut_off: what took the machines away, if something did.
  """

  outcome: processes.Outcome | None = None
  cut_off: str = ''


def run(
  attempt: Callable[[int], Attempt],
  *,
  max_restarts: int,
  pause_seconds: float,
) -> int:
  """Attempts a run until it ends, fails, or was cut off too often.

  Args:
    attempt: carries out the attempt of a number, from 0.
    max_restarts: attempts after the first.
    pause_seconds: between two attempts.

  Returns:
    The exit status: 0; that of the program that failed; 128 + the signal that
    the launcher was sent; CUT_OFF_TOO_OFTEN.
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
    commands.say(f'the run was cut off: {reason}')
    if number < max_restarts:
      commands.say(
        f'restart {number + 1} of {max_restarts} in {pause_seconds:g} s'
      )
      time.sleep(pause_seconds)
  commands.say(
    f'cut off {max_restarts + 1} times, which is all that '
    f'--max_restarts={max_restarts} allows; run the same command to resume'
  )
  return CUT_OFF_TOO_OFTEN


def why_cut_off(outcome: processes.Outcome) -> str:
  """Returns what ended a run from outside; empty if the program failed.

  When one worker goes, the others fail of it with a status of their own. So
  one that was lost or killed outweighs any that failed, whichever was seen
  first.
  """
  for one in outcome.ended:
    if one.status is None:
      return one.says()
    if one.status > 128 and not one.was_stopped:
      return one.says()
  return ''


def failed(outcome: processes.Outcome) -> processes.Ended:
  """Returns the first worker that failed by itself."""
  by_itself = [
    one for one in outcome.ended if one.status and not one.was_stopped
  ]
  return by_itself[0]


def _report_error(outcome: processes.Outcome) -> int:
  worker = failed(outcome)
  commands.say(f'{worker.says()}; this is an error, so it is not started again')
  if len(outcome.ended) > 1:
    commands.say(f'the last lines of worker {worker.worker}:')
    for line in worker.last_lines:
      print(f'  {line}', file=sys.stderr)
  assert worker.status
  return worker.status
