"""Grow by several workers, each a run of its own."""

import dataclasses

import numpy as np
import pytest

from rest_jax import experiment_run as run_lib
from rest_jax import settings
from rest_jax.cli import modes
from rest_jax.data import sample_store
from rest_jax.rewards import lexical
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import draw_samples, policies
from rest_jax.stages import folder as folder_lib
from rest_jax.storage import lock
from rest_jax.training import teacher_forcing
from tests import smoke

NUM_SHARDS = 5
WORKERS = 3


class Sampler:
  """Draws by seed, Grow step and source alone, as the real one, but no more."""

  num_unfinished = 0  # Of each source.

  def __init__(self, num_samples):
    self._num_samples = num_samples

  def sample(self, params, tokens, ids, *, seed, grow_step, progress, trace):
    del params, tokens, trace
    finished = np.arange(self._num_samples) >= self.num_unfinished
    for source in ids:
      random = np.random.default_rng((seed, grow_step, int(source)))
      lengths = random.integers(1, 7, self._num_samples)
      progress(1)
      yield sampler_lib.SampleBlock(
        source_ids=np.asarray([source]),
        tokens=[
          [
            np.append(random.integers(3, 99, n), 4 if is_open else 1)
            for n, is_open in zip(lengths, ~finished, strict=True)
          ]
        ],
        log_probs=random.normal(size=(1, self._num_samples)).astype(np.float32),
        finished=finished[None],
      )


@pytest.fixture(scope='module')
def experiment(tmp_path_factory):
  """Data, and how five shards are grown; nothing is computed by a network."""
  folder = tmp_path_factory.mktemp('grow')
  made = smoke.settings(
    'NUM_TRAIN_PAIRS=48',
    'NUM_VALIDATION_PAIRS=10',
    'SOURCES_PER_SHARD=10',
    'VocabularyConfig.size=200',
    'Task.ratings=None',
    gin_files=('gin_configs/rewards/chrf.gin',),
  )
  run_lib.Run(made, folder).make('data')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
      draw_samples,
      'policy_sampler',
      lambda policy, decode, *_, **__: Sampler(decode.num_samples_per_source),
    )
    patch.setattr(policies, 'load', lambda *_: None)
    patch.setattr(policies, 'digest', lambda _: 'a policy')
    patch.setattr(
      teacher_forcing.Rows,
      'log_probs',
      lambda self, *_: np.zeros(len(self.sources[1])),
    )
    yield dataclasses.replace(made, data_dir=str(folder / 'data'))


def grown(experiment, folder, worker=None, **arguments):
  """D_1 in `folder`, or a worker's part of it."""
  config = dataclasses.replace(
    experiment.grow, worker=worker, num_workers=WORKERS
  )
  run = run_lib.Run(
    dataclasses.replace(experiment, grow=config), folder, **arguments
  )
  return run.make('grow_1')


def files(directory):
  """What is in a store, but for what says how long it took and when."""
  return {
    str(path.relative_to(directory)): path.read_bytes()
    for path in sorted(directory.rglob('*.arrow'))
  }


def is_finished(directory) -> bool:
  return (directory / folder_lib.MANIFEST).exists()


@pytest.fixture(scope='module')
def alone(experiment, tmp_path_factory):
  directory = grown(experiment, tmp_path_factory.mktemp('alone'))
  store = sample_store.SampleStore.open(directory, verify='full')
  assert len(store.manifest['shards']) == NUM_SHARDS
  assert len(np.unique(store.tokens.lengths)) > 1
  return directory


def test_the_last_worker_finishes_the_store_of_one(experiment, alone, tmp_path):
  for worker in (2, 0):
    directory = grown(experiment, tmp_path, worker)
    assert not is_finished(directory)
  # Shards 0 and 3 are those of worker 0, shard 2 that of worker 2.
  assert sample_store.finished_shards(directory, NUM_SHARDS) == {0, 2, 3}
  grown(experiment, tmp_path, 1)
  assert is_finished(directory)
  assert files(directory) == files(alone)
  digests = map(folder_lib.content_digest, map(folder_lib.read_manifest, (
    directory, alone,
  )))  # fmt: skip
  assert len(set(digests)) == 1
  # One that comes late has nothing to do.
  before = {path: path.stat().st_mtime_ns for path in directory.iterdir()}
  grown(experiment, tmp_path, 0)
  assert before == {p: p.stat().st_mtime_ns for p in directory.iterdir()}


def test_a_run_of_all_does_what_a_lost_worker_left(experiment, alone, tmp_path):
  directory = grown(experiment, tmp_path, 0)
  grown(experiment, tmp_path, 2)
  kept = sample_store.shard_path(directory, 0, NUM_SHARDS)
  before = kept.stat().st_mtime_ns
  grown(experiment, tmp_path)
  assert kept.stat().st_mtime_ns == before
  assert is_finished(directory)
  assert files(directory) == files(alone)
  assert not list(directory.glob('.raw*'))


def test_of_two_last_workers_one_finishes(experiment, tmp_path):
  directory = grown(experiment, tmp_path, 0)
  grown(experiment, tmp_path, 1)
  with lock.held(directory):  # The other is at it.
    grown(experiment, tmp_path, 2)
  assert not is_finished(directory)
  grown(experiment, tmp_path, 2)
  assert is_finished(directory)


def test_unfinished_samples_are_a_warning(experiment, alone, tmp_path, caplog):
  assert not folder_lib.read_manifest(alone)['warnings']
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(Sampler, 'num_unfinished', 3)
    directory = grown(experiment, tmp_path)
  # 4 samples of each source; references do not count.
  (message,) = folder_lib.read_manifest(directory)['warnings']
  count = folder_lib.read_manifest(directory)['num_sources']
  assert message.startswith(
    f'{3 * count} of {4 * count} samples (75.0 %) are unfinished'
  )
  assert [r for r in caplog.records if message in r.getMessage()]


def test_samples_are_not_scored_by_a_reward_at_chance(
  experiment, tmp_path, monkeypatch
):
  monkeypatch.setattr(lexical.Chrf, 'refusal', 'at chance', raising=False)
  with pytest.raises(ValueError, match='at chance'):
    grown(experiment, tmp_path)


def test_a_worker_does_not_overwrite(experiment, tmp_path):
  with pytest.raises(ValueError, match='neither overwrites nor'):
    grown(experiment, tmp_path, 0, overwrite=True)


def test_a_worker_does_nothing_else(experiment, tmp_path):
  config = dataclasses.replace(experiment.grow, worker=0)
  run = run_lib.Run(dataclasses.replace(experiment, grow=config), tmp_path)
  with pytest.raises(ValueError, match=r"--run_mode=grow.* got 'rest'"):
    modes.stage(run, 'rest', 1, 1)


@pytest.mark.parametrize(('worker', 'count'), [(3, 3), (-1, 3), (None, 0)])
def test_wrong_numbers_are_refused(experiment, worker, count):
  with pytest.raises(ValueError, match='worker must lie between 0 and'):
    dataclasses.replace(experiment.grow, worker=worker, num_workers=count)


def test_who_makes_it_does_not_change_what_it_is(experiment):
  described = [
    settings.describe(dataclasses.replace(experiment.grow, **changes))
    for changes in ({}, {'worker': 1, 'num_workers': 2})
  ]
  assert described[0] == described[1]
