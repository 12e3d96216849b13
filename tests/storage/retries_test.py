"""Tests of trying again."""

import pytest

from rest_jax.storage import retries


def _failing(times, error):
  """Fails so often, then returns the number of calls."""
  calls = []

  def do():
    calls.append(1)
    if len(calls) <= times:
      raise error
    return len(calls)

  do.calls = calls
  return do


@pytest.mark.parametrize('draw, share', [(0.0, 1.0), (0.5, 0.75)])
def test_each_wait_is_twice_the_one_before_up_to_the_longest(draw, share):
  waits = []
  retry = retries.Retries(attempts=9, sleep=waits.append, draw=lambda: draw)
  do = _failing(8, OSError('torn line'))
  assert retry.call('x', do, lambda error: True) == 9
  assert waits == [share * s for s in (1, 2, 4, 8, 16, 32, 60, 60)]


def test_it_ends_after_so_many_attempts():
  waits = []
  retry = retries.Retries(attempts=3, sleep=waits.append)
  do = _failing(99, OSError('torn line'))
  with pytest.raises(
    retries.ExhaustedError, match=r'^x: sending .* 3 attempts.*OSError: torn'
  ):
    retry.call('x: sending', do, lambda error: True)
  assert (len(do.calls), len(waits)) == (3, 2)


def test_every_retry_has_a_line(caplog):
  retry = retries.Retries(attempts=3, sleep=lambda seconds: None)
  retry.call('x: sending', _failing(2, OSError('torn')), lambda error: True)
  assert [record.getMessage()[:33] for record in caplog.records] == [
    'x: sending failed (OSError: torn)'
  ] * 2


def test_what_will_not_pass_is_not_tried_again():
  do = _failing(99, PermissionError('no'))
  retry = retries.Retries(sleep=lambda seconds: pytest.fail('waited'))
  with pytest.raises(PermissionError):
    retry.call('x', do, lambda error: False)
  assert len(do.calls) == 1


def test_there_is_at_least_one_attempt():
  with pytest.raises(ValueError, match='at least 1; got 0'):
    retries.Retries(attempts=0)
