"""Tests of benchmarks: what they count, and what they make of a failure."""

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from benchmarks import harness

# Each script in a process of its own: all define flags of the same names, and
# measure each system in one more.
_COMMANDS = {
  'training': (
    '--systems=float32,bfloat16 --tiny --batch=2 --source_length=5 '
    '--target_length=7 --steps=2 --rounds=1',
    {'tokens': 2 * 2 * 7},
  ),
  'scoring': (
    '--systems=float32 --tiny --sources=3 --samples=2 --length=6 --rounds=1',
    {'pairs': 3 * 2},
  ),
  'consensus': (
    '--systems=ours --sources=30 --samples=20 --rounds=1',
    {'samples': 30 * 20},
  ),
  'sampling': (
    '--systems=float32 --tiny --fixed_length --sources=4 --block=2 '
    '--samples=3 --source_length=5 --target_length=6 --rounds=1',
    {'tokens': 4 * 3 * 6},
  ),
}


def _lines(script: str, arguments: str) -> list[dict]:
  """What a benchmark prints."""
  done = subprocess.run(
    [sys.executable, '-m', f'benchmarks.{script}', *arguments.split()],
    env={**os.environ, 'PYTHONPATH': '.', 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert not done.returncode, done.stderr
  return [json.loads(line) for line in done.stdout.splitlines()]


# The other two start four and three processes that import JAX.
_QUICK = ('consensus', 'sampling')


@pytest.mark.parametrize(
  'script',
  [
    pytest.param(name, marks=() if name in _QUICK else pytest.mark.full)
    for name in _COMMANDS
  ],
)
def test_all_work_is_done_and_counted(script):
  arguments, work = _COMMANDS[script]
  first, *systems, last = _lines(script, arguments)
  assert 'settings' in first and last == {'ratios': {}}
  asked = arguments.split()[0].split('=')[1].split(',')
  assert [line['system'] for line in systems] == asked
  for line in systems:
    assert work.items() <= line.items()
    [seconds] = line['rounds']
    [(unit, amount)] = work.items()
    rate = line[f'{unit}_per_second']
    # Seconds are printed to 0.001, rates to 0.1.
    rounding = 0.0005 + 0.05 * seconds / rate
    assert amount / rate == pytest.approx(seconds, abs=1.01 * rounding)


@pytest.mark.full
def test_a_bucket_is_downloaded_once_and_then_read():
  first, *systems, last = _lines(
    'bucket_store', '--rows=2000 --batches=2 --turns=1'
  )
  assert first['settings'] | {'stored_mb': 0} == {
    'rows': 2000, 'stored_mb': 0, 'downloads': 1.0
  }  # fmt: skip
  assert [line['system'] for line in systems] == ['folder', 'bucket']
  assert last['ratios']['bucket_vs_folder'] > 0


@pytest.mark.full
def test_compiled_programs_of_sampling_are_listed_and_added_up():
  *lines, last = _lines('compile', '--tiny --only=sampling --sources=50')
  assert {use for line in lines for use in line['use']} >= {'grow', 'greedy'}
  for name in ('loop_bodies', 'compile_cpu_seconds'):
    total = sum(line[name] for line in lines)
    assert last['sums'][name] == pytest.approx(total, abs=0.01 * len(lines))
    assert total > 0


@pytest.mark.full
def test_memory_is_read_over_blocks_and_steps():
  blocks, steps = _lines('soak', '--blocks=8 --steps=8 --points=4')
  assert blocks['blocks'] == steps['steps'] == 8
  for line in (blocks, steps):
    assert 50 < line['first_mb'] < 20_000 and 50 < line['last_mb'] < 20_000


class _System:
  """Takes some time for 10 tokens, or cannot be prepared."""

  def __init__(self, error: Exception | None = None):
    self.error = error

  def __call__(self):
    if self.error is not None:
      raise self.error

    def run():
      time.sleep(0.05)
      return 10

    return run


def test_systems_that_take_turns():
  systems = {'ours': _System(), 'peer': _System()}
  measured = harness.measure(systems, num_rounds=3)
  for one in measured.values():
    assert len(one.rounds) == 3 and one.work == 10
    assert 0.05 <= min(one.rounds) <= one.seconds <= max(one.rounds)
    assert one.rate == pytest.approx(10 / one.seconds)


_KILLED = """
import time
from benchmarks import harness
from tests import benchmarks_test
worker = harness._Worker(benchmarks_test._System())
worker.run()
print(worker._process.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='only Linux can do it')
def test_a_killed_benchmark_leaves_no_stopped_process():
  with subprocess.Popen(
    [sys.executable, '-c', _KILLED],
    env={**os.environ, 'PYTHONPATH': '.'},
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    try:
      path = pathlib.Path('/proc', process.stdout.readline().strip(), 'stat')
      assert _comes_to(path, 'T')
    finally:
      process.kill()
  # Dead, and perhaps not yet noticed by who has inherited it.
  assert _comes_to(path, 'Z')


def _comes_to(path: pathlib.Path, state: str) -> bool:
  """Whether a process gets to a state, or ends, in a while."""
  for _ in range(600):
    if not path.exists() or f') {state} ' in path.read_text():
      return True
    time.sleep(0.05)
  return False


def test_a_ratio_is_the_median_over_rounds():
  def measured(name, work, rounds):
    seconds = sorted(rounds)[1]
    return harness.Measurement(name, seconds, work / seconds, work, 0.0, rounds)

  ratios = harness.rate_ratio(
    {
      'ours': measured('ours', 10, [1.0, 2.0, 4.0]),
      'peer': measured('peer', 30, [6.0, 6.0, 30.0]),
    },
    'ours',
    'peer',
  )
  # 10 / 30 of the work, in a sixth, a third and 2 / 15 of the time.
  assert ratios == {'ours_vs_peer': pytest.approx(6 / 3)}
  assert not harness.rate_ratio({}, 'ours', 'peer')


def test_only_what_is_not_installed_is_left_out(capsys):
  ours, peer = _System(), _System(ImportError('no peer'))
  measured = harness.measure({'ours': ours, 'peer': peer}, num_rounds=1)
  assert list(measured) == ['ours']
  assert 'peer is left out' in capsys.readouterr().err
  broken = _System(TypeError('an argument is missing'))
  with pytest.raises(RuntimeError, match='an argument is missing'):
    harness.measure({'ours': ours, 'broken': broken}, num_rounds=1)
