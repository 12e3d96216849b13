"""Algorithm 1 by several processes gives what one process gives."""

import json
import os
import pathlib
import signal
import time

import numpy as np
import pytest

from rest_jax.data import sample_store
from rest_jax.stages import folder as folder_lib
from rest_jax.training import journal
from tests import forks, once
from tests.parallel import spawn

_SMOKE = [
  '--gin_file=gin_configs/experiments/smoke.gin',
  # 40 rows of 48: as many on 1 as on 8 devices, which must divide them.
  '--gin.TOKENS_PER_BATCH=1920',
]
# A given reward and few of everything: what takes time is to compile.
SMALL = [
  *_SMOKE,
  '--gin_file=gin_configs/rewards/chrf.gin',
  '--gin.Task.ratings=None',
  '--gin.NUM_TRAIN_PAIRS=60',
  '--gin.NUM_VALIDATION_PAIRS=20',
  '--gin.VocabularyConfig.size=240',
  '--gin.NUM_GROW_STEPS=1',
  '--gin.NUM_IMPROVE_STEPS=1',
  '--gin.BC_STEPS=6',
  '--gin.BC_EVALUATE_EVERY=3',
  '--gin.IMPROVE_STEPS=4',
  '--gin.IMPROVE_EVALUATE_EVERY=2',
  '--gin.SOURCES_PER_SHARD=16',
  '--gin.MAX_TARGET_LENGTH=16',
  '--gin.DecodeConfig.row_shares=()',
  # The same program draws all samples.
  '--gin.NUM_SAMPLES_PER_SOURCE=2',
  '--gin.TOKENS_PER_BATCH=384',
  '--gin.MAX_SELECTION_SOURCES=20',
  "--gin.EvaluateConfig.splits=('validation',)",
  # chrF is 1 for references, and few samples of such a policy come to an end.
  '--gin.QUANTILES=(0.05,)',
]


def finish(
  arguments, folder: pathlib.Path, num_processes: int, num_devices: int
) -> None:
  started = spawn.start_run(
    [*arguments, f'--model_dir={folder}'], num_processes, num_devices
  )
  texts = spawn.outputs(started, 900)
  assert [p.returncode for p in started] == [0] * num_processes, '\n'.join(
    text[-3000:] for text in texts
  )


def arrow_files(directory: pathlib.Path) -> dict[str, bytes]:
  found = {
    str(path.relative_to(directory)): path.read_bytes()
    for path in directory.rglob('*.arrow')
  }
  assert found
  return found


def same_training(a: pathlib.Path, b: pathlib.Path, tolerance=1e-5) -> None:
  """Losses, and all else that is logged, of two trainings."""
  logged = [journal.read_metrics(folder) for folder in (a, b)]
  assert len(logged[0]) == len(logged[1]) > 0
  for entry, other in zip(*logged, strict=True):
    assert entry.keys() == other.keys()
    for name, value in entry.items():
      if isinstance(value, float):
        assert other[name] == pytest.approx(value, rel=tolerance, abs=1e-5), (
          name,
          entry,
          other,
        )
      else:
        assert other[name] == value
  tokens = [
    folder_lib.read_manifest(folder)['training']['target_tokens']
    for folder in (a, b)
  ]
  assert tokens[0] == tokens[1] > 0


def same_samples(a: pathlib.Path, b: pathlib.Path) -> None:
  """The same tokens; log-probabilities but for rounding.

  The policies were trained on other devices, and differ by rounding: now and then
  a number drawn lies between both ends of the same token's interval.
  """
  first, second = (
    sample_store.SampleStore.open(path, verify='full') for path in (a, b)
  )
  for name in ('source_id', 'sample_id'):
    np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
  assert len(first.tokens) == len(second.tokens) > 1000
  same = np.array(
    [
      np.array_equal(*pair)
      for pair in zip(first.tokens, second.tokens, strict=True)
    ]
  )
  assert same.mean() > 0.99
  for name in ('finished', 'log_prob'):
    np.testing.assert_allclose(
      np.asarray(getattr(first, name))[same],
      np.asarray(getattr(second, name))[same],
      atol=1e-3,
      err_msg=name,
    )


def policies_of(folder: pathlib.Path) -> list[dict]:
  results = json.loads((folder / 'results.json').read_text(encoding='utf-8'))
  return results['variants']


def small(base: pathlib.Path) -> pathlib.Path:
  """The folder of a run of SMALL by one process of one device, see `once.made`."""

  def make(path):
    path.mkdir(exist_ok=True)
    log = path / 'log'
    given = [*SMALL, f'--model_dir={path / "run"}']
    forks.check([forks.start_run(given, log)], log)

  return once.made(base, 'small', make) / 'run'


@pytest.fixture(scope='module')
def one(tmp_path_factory):
  return small(tmp_path_factory.getbasetemp())


# Two processes that share a bucket are compared in the fast tier: bucket_run_test.
@pytest.mark.full
def test_two_processes_go_on_from_a_policy_to_the_same_bytes(one, tmp_path):
  folder = tmp_path / 'run'
  given = [f'--gin.DATA_DIR={one}/data', f'--gin.BC_DIR={one}/bc']
  finish([*SMALL, *given], folder, 2, 2)
  assert len(list((folder / 'grow_1').glob('samples-*'))) == 4
  assert arrow_files(folder / 'grow_1') == arrow_files(one / 'grow_1')
  stages = [folder_lib.read_manifest(f / 'grow_1') for f in (folder, one)]
  assert len(set(map(folder_lib.content_digest, stages))) == 1
  improved = 'variants/bc/improve_1_1'
  same_training(folder / improved, one / improved)
  assert len(list((folder / improved).glob('events.out.*'))) == 1
  for found, expected in zip(
    policies_of(folder), policies_of(one), strict=True
  ):
    assert found['name'] == expected['name']
    assert found['reward']['mean'] == pytest.approx(
      expected['reward']['mean'], abs=1e-3
    )
  assert not [path for path in folder.rglob('*.tmp') if path.is_file()]


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """The smoke experiment by two processes of four devices."""
  folder = tmp_path_factory.mktemp('two') / 'run'
  finish(_SMOKE, folder, 2, 4)
  return folder


_TRAININGS = (
  'bc',
  'reward',
  'reward/pretrain',
  *(f'variants/bc/improve_{g}_{i}' for g in (1, 2) for i in (1, 2)),
)
_STORES = ('grow_1', 'variants/bc/grow_2')


@pytest.mark.full
@pytest.mark.parametrize('num_devices', [1, 8])
def test_the_whole_loop_is_that_of_one_process(whole, tmp_path, num_devices):
  finish(_SMOKE, tmp_path / 'run', 1, num_devices)
  for training in _TRAININGS:
    if training == 'reward/pretrain':
      continue  # Has no manifest; `reward` starts from it.
    same_training(whole / training, tmp_path / 'run' / training)
  for store in _STORES:
    same_samples(whole / store, tmp_path / 'run' / store)


@pytest.mark.full
@pytest.mark.parametrize(
  'sign', ['grow_1/samples-00000*', 'variants/bc/improve_1_2/metrics.jsonl']
)
@pytest.mark.parametrize('victim', [0, 1])
def test_one_is_killed_and_both_are_started_again(
  whole, tmp_path, sign, victim
):
  folder = tmp_path / 'run'
  started = spawn.start_run([*_SMOKE, f'--model_dir={folder}'], 2, 4)
  while not list(folder.glob(sign)):
    assert all(process.poll() is None for process in started)
    time.sleep(0.05)
  os.kill(started[victim].pid, signal.SIGKILL)
  spawn.outputs(started, 200)
  assert all(process.returncode != 0 for process in started)
  finish(_SMOKE, folder, 2, 4)
  for training in _TRAININGS:
    if training != 'reward/pretrain':
      same_training(whole / training, folder / training, tolerance=1e-6)
  for store in _STORES:
    assert arrow_files(whole / store) == arrow_files(folder / store)
