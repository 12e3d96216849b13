"""Tests of traces of chosen steps."""

import pathlib

import jax
import numpy as np
import pytest

from rest_jax.parallel import mesh as mesh_lib
from rest_jax.runtime import profiling
from rest_jax.training import journal
from tests.sampling import sampler_test
from tests.training import toy

MESH = mesh_lib.MeshConfig()


def steps_of(folder: pathlib.Path, unit: str) -> list[int]:
  """The steps that the one trace in a folder names."""
  (path,) = folder.glob('plugins/profile/*/*.xplane.pb')
  found = []
  for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
    for line in plane.lines:
      for event in line.events:
        numbers = [value for name, value in event.stats if name == 'step_num']
        if event.name == unit and numbers:
          found.extend(numbers)
  return sorted(map(int, found))


def train(directory):
  return toy.train(directory, toy.make_config(max_steps=6, evaluate_every=3))


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
  folder = tmp_path_factory.mktemp('plain') / 'bc'
  return folder, train(folder)


def test_chosen_steps_of_a_training_are_in_its_trace_alone(plain, tmp_path):
  folder, expected = plain
  with profiling.asked(profiling.Steps(2, 4), tmp_path, ''):
    result = train(tmp_path / 'variants' / 'bc')
  traced = tmp_path / 'profiles' / 'variants' / 'bc'
  assert steps_of(traced, 'train') == [2, 3, 4]
  # As it was without, and nothing of the trace in the stage's folder.
  assert result.summary['params_digest'] == expected.summary['params_digest']
  jax.tree.map(np.testing.assert_array_equal, result.params, expected.params)
  logged = journal.read_metrics(tmp_path / 'variants' / 'bc')
  assert logged == journal.read_metrics(folder)
  names = [sorted(p.name for p in f.iterdir()) for f in (folder, traced)]
  assert 'plugins' not in names[0]
  assert names[1] == ['plugins']


def test_nothing_is_traced_unless_asked(plain):
  assert not list(plain[0].parent.rglob('*.xplane.pb'))


def take(directory, *numbers):
  """Steps of nothing."""
  with profiling.Trace(directory, 'train') as trace:
    for number in numbers:
      trace.step(lambda: None, before=(), number=number)


def test_a_trace_ends_with_its_training(tmp_path):
  with profiling.asked(profiling.Steps(5, 9), tmp_path, 'process_1'):
    take(tmp_path / 'bc', 4, 5, 6)
  assert steps_of(tmp_path / 'profiles/bc/process_1', 'train') == [5, 6]


def test_a_training_that_has_none_of_the_steps_is_told(tmp_path, caplog):
  with profiling.asked(profiling.Steps(7, 9), tmp_path, ''):
    take(tmp_path / 'bc', 5, 6)
  assert not (tmp_path / 'profiles').exists()
  assert 'none of its steps from 7 to 9' in caplog.text
  assert 'the last was 6' in caplog.text
  caplog.clear()
  # A stage that was finished before takes no step at all.
  with profiling.asked(profiling.Steps(7, 9), tmp_path, ''):
    take(tmp_path / 'bc')
  assert not caplog.text


def test_a_training_that_fails_leaves_its_trace(tmp_path):
  def fail():
    raise ZeroDivisionError

  with profiling.asked(profiling.Steps(1, 3), tmp_path, ''):
    with (
      pytest.raises(ZeroDivisionError),
      profiling.Trace(tmp_path / 'bc', 'train') as trace,
    ):
      trace.step(lambda: 1, before=())
      trace.step(fail, before=())
    # The next begins afresh.
    with profiling.Trace(tmp_path / 'other', 'train') as trace:
      assert trace.step(lambda x: x + 1, 1, before=()) == 2
  assert steps_of(tmp_path / 'profiles' / 'bc', 'train') == [1, 2]
  assert steps_of(tmp_path / 'profiles' / 'other', 'train') == [1]


def test_launches_of_a_grow_are_counted_over_its_shards(tmp_path):
  sampler = sampler_test._sampler()
  sources, params = sampler_test._sources(), sampler_test._params()
  shards = np.split(np.arange(12), 2)

  def draw(trace):
    return [
      block
      for shard in shards
      for block in sampler.sample(
        params, sources, shard, seed=5, grow_step=1, trace=trace
      )
    ]

  with (
    profiling.asked(profiling.Steps(3, 4), tmp_path, ''),
    profiling.Trace(tmp_path / 'grow_1', 'sample') as trace,
  ):
    traced = draw(trace)
  # Blocks of two sources and two lengths: at least 3 launches a shard.
  assert steps_of(tmp_path / 'profiles' / 'grow_1', 'sample') == [3, 4]
  for block, expected in zip(traced, draw(None), strict=True):
    np.testing.assert_array_equal(block.log_probs, expected.log_probs)
    assert repr(block.tokens) == repr(expected.tokens)


def test_a_folder_elsewhere_is_named_by_its_last_part(tmp_path):
  inside, outside = tmp_path / 'run', tmp_path / 'given' / 'bc'
  with profiling.asked(profiling.Steps(1, 1), inside, ''):
    take(outside, 1)
  assert steps_of(inside / 'profiles' / 'bc', 'train') == [1]


@pytest.mark.parametrize(
  ('text', 'first', 'last'), [('10:15', 10, 15), ('3', 3, 3), ('1:1', 1, 1)]
)
def test_steps_are_read(text, first, last):
  assert profiling.Steps.parse(text) == profiling.Steps(first, last)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', r"such as 10:15, or of one; got ''"),
    ('10:', "got '10:'"),
    (':10', "got ':10'"),
    ('a:b', "got 'a:b'"),
    ('1:2:3', "got '1:2:3'"),
    ('-1:4', "got '-1:4'"),
    ('0:4', 'counted from 1.*got 0:4'),
    ('5:4', 'got 5:4'),
  ],
)
def test_wrong_steps_are_refused(text, message):
  with pytest.raises(ValueError, match=message):
    profiling.Steps.parse(text)
