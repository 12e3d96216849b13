"""Tests of several processes on this machine."""

import json
import time

import pytest

from rest_jax.parallel import processes
from tests.parallel import spawn

_MODULE = ['-m', 'tests.parallel.two_processes']


def _two(*how):
  port = str(spawn.free_port())
  return [
    spawn.start([*_MODULE, port, str(process), *how], num_devices=2)
    for process in range(2)
  ]


@pytest.fixture(scope='module')
def found():
  """What tests/parallel/two_processes.py found in each of two."""
  started = _two()
  texts = spawn.outputs(started, 300)
  assert [p.returncode for p in started] == [0, 0], texts
  return [json.loads(text.splitlines()[-1]) for text in texts]


def test_they_tell_each_other(found):
  assert [of['is_main'] for of in found] == [True, False]
  for of in found:
    assert of['gathered'] == [[0, 1], [0, 1, 2]]
    assert of['by_main'] == {'of': 0.1}


def test_what_the_main_one_fails_at_is_told(found):
  assert found[0]['failure'] == 'ValueError: 0 failed'
  assert found[1]['failure'] == 'OtherProcessError: process 0: 0 failed'


def test_each_part_is_one_s_own(found):
  assert [of['share'] for of in found] == [
    [True, False, True, False],
    [False, True, False, True],
  ]


def test_each_reads_the_rows_of_its_devices(found):
  first, second = [0, 1, 2, 3], [4, 5, 6, 7]
  for of, rows in zip(found, (first, second), strict=True):
    assert of['batches']['1']['rows'] == rows
    assert of['batches']['2']['rows'] == rows
    # One part of the batch on all devices: both need all of it.
    assert of['batches']['4']['rows'] == first + second
    for batch in of['batches'].values():
      assert batch['is_whole']
      assert batch['sum'] == sum(range(16))


def test_a_mesh_of_its_own_has_the_model_axis_that_fits(found):
  for of in found:
    shapes = {model: b['local'] for model, b in of['batches'].items()}
    assert shapes == {
      '1': {'data': 2, 'model': 1},
      '2': {'data': 1, 'model': 2},
      '4': {'data': 1, 'model': 2},
    }


def test_arrays_move_between_all_devices_and_own(found):
  assert [of['moved'] for of in found] == [[True] * 4] * 2


def test_digests_are_made_of_hashes_of_the_parts(found):
  for of in found:
    assert of['digested'] == {
      'same': [True] * 4,
      # Divided within blocks: the small array thrice, the other in four parts.
      'gathered': 3 + 1,
      'cut': True,
      'of_cut': 5,
    }


def test_samplers_share_the_work_and_have_all_samples(found):
  for of in found:
    alone, shared = of['samples']['False'], of['samples']['True']
    assert shared['tokens'] == alone['tokens']
    assert shared['log_probs'] == alone['log_probs']
    assert alone['tokens'][8][2] == [805, 1]
  items = [of['samples']['True']['items'] for of in found]
  assert sum(items) == found[0]['samples']['False']['items']
  assert abs(items[0] - items[1]) <= 1


def test_none_waits_for_ever_for_one_that_ended():
  began = time.monotonic()
  started = _two('dies')
  texts = spawn.outputs(started, 300)
  assert started[1].returncode == 3
  assert started[0].returncode not in (0, 3)
  assert 'unhealthy' in texts[0] or 'died' in texts[0], texts[0]
  assert time.monotonic() - began < 100


# How they agree to stop is in stopping_test.
@pytest.mark.full
def test_one_that_waits_for_one_that_was_stopped_leaves_with_it():
  started = _two('stops')
  texts = spawn.outputs(started, 300)
  assert [p.returncode for p in started] == [143, 143], texts


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (('localhost:1', 2, None), 'must be given together'),
    ((None, None, 0), 'must be given together'),
    (('localhost:1', 2, 2), r'between 0 and num_processes - 1; got 2 of 2'),
  ],
)
def test_wrong_arguments_are_refused(given, message):
  with pytest.raises(ValueError, match=message):
    processes.initialize(*given)


def test_one_process_does_all_itself():
  assert processes.by_main('x', lambda: [1]) == [1]
  assert processes.is_main()
  assert 7 in processes.share()
  with pytest.raises(ZeroDivisionError):
    processes.by_main('x', lambda: 1 / 0)
