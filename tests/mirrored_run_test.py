"""Tests of runs that are killed, lose their folder, and go on from a mirror."""

import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
import types

import jax.numpy as jnp
import numpy as np
import pytest

from launch import chaos_differences
from rest_jax import experiment_run as run_lib
from rest_jax.cli import verification
from rest_jax.losses import bc
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.sampling import sampler
from rest_jax.stages import draw_samples
from rest_jax.stages import folder as folder_lib
from rest_jax.storage import commits, mirror, mirrored_folder, remote
from rest_jax.training import checkpoints, trainer
from rest_jax.training import step as step_lib
from tests import smoke
from tests.models import tiny
from tests.storage import object_store
from tests.training import toy


@pytest.fixture(scope='session')
def run(tmp_path_factory):
  return smoke.finished(tmp_path_factory.getbasetemp())


def _mirrored(store, folder: pathlib.Path) -> mirror.Mirror:
  return mirror.Mirror(object_store.open_bucket(store), folder, adopts=True)


def _train(folder: pathlib.Path) -> None:
  config, policy = toy.make_config(max_steps=8), toy.make_policy()
  trainer.train(
    config,
    model=policy,
    loss=bc.BC(label_smoothing=0.1),
    batches=config.batches(**toy.arguments(toy.make_tokens())),
    mesh_config=mesh_lib.MeshConfig(),
    params=tiny.init(policy),
    directory=folder,
    evaluate_fn=lambda params, step: {'objective': float(step)},
  )


def _state(step: int) -> step_lib.TrainState:
  return step_lib.TrainState(
    step=jnp.int32(step),
    params={'kernel': jnp.arange(6.0) + step},
    auxiliary={},
    optimizer={'mean': jnp.full(3, float(step))},
  )


def _save(folder: pathlib.Path, step: int) -> None:
  saved = checkpoints.Checkpoints(folder)
  saved.save(_state(step), record={'best_step': step}, objective=float(step))
  saved.close()
  remote.push()


def _kill_in(
  store: object_store.ObjectStore, commit: str, operation: str
) -> None:
  """Has `store` kill its user as a commit is sent, or moved to its place."""

  def fault(what, path):
    is_content = operation == 'move' or '/pending/' in path
    if what == operation and is_content and _has(store, f'.mirror/{commit}'):
      store.kill_at = store.kill_at or len(store.log) + 12

  store.fault = fault


@pytest.mark.parametrize(
  'operation, commit, found',
  [('written', 'commit-00000002', 4), ('move', 'commit-00000003', 8)],
)
def test_a_checkpoint_is_restored_where_machine_and_folder_are_gone(
  tmp_path, operation, commit, found
):
  """The first, while the second is sent; the second, once it counts."""
  store, work = object_store.ObjectStore(), tmp_path / 'work'

  _kill_in(store, commit, operation)
  with (
    pytest.raises(object_store.Killed),
    remote.kept(_mirrored(store, work)),
  ):
    for step in (4, 8):
      _save(work / 'bc', step)
  shutil.rmtree(work)
  store = object_store.ObjectStore(store.objects)
  with remote.kept(_mirrored(store, work)):
    saved = checkpoints.Checkpoints(work / 'bc')
    state, record = saved.restore_latest(_state(0))
    saved.close()
    assert record['best_step'] == int(state.step) == found
    np.testing.assert_array_equal(
      state.params['kernel'], np.arange(6.0) + found
    )
    _save(work / 'bc', 12)
  assert not _has(store, f'bc/checkpoints/{found}/')
  assert _has(store, 'bc/checkpoints/12/')


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  folder = tmp_path_factory.mktemp('undisturbed')
  _train(folder / 'bc')
  return folder


@pytest.mark.full
@pytest.mark.parametrize(
  'operation, commit, resumes_at',
  [('written', 'commit-00000002', 4), ('move', 'commit-00000003', 8)],
)
def test_a_training_goes_on_where_its_machine_and_folder_are_gone(
  undisturbed, tmp_path, operation, commit, resumes_at
):
  """It ends with the same bytes as one that nobody disturbed."""
  store, work = object_store.ObjectStore(), tmp_path / 'work'

  _kill_in(store, commit, operation)
  with (
    pytest.raises(object_store.Killed),
    remote.kept(_mirrored(store, work)),
  ):
    _train(work / 'bc')
  shutil.rmtree(work)
  store = object_store.ObjectStore(store.objects)
  with remote.kept(_mirrored(store, work)):
    steps = [path.name for path in (work / 'bc/checkpoints').iterdir()]
    assert steps == [str(resumes_at)]
    _train(work / 'bc')
  assert not list(chaos_differences.find(undisturbed, work))


def _has(store: object_store.ObjectStore, start: str) -> bool:
  """Whether a file whose name starts so is in its place."""
  return any(path.startswith(f'bucket/run/{start}') for path in store.objects)


class _Sampler:
  """Draws tokens that depend on seed and source alone."""

  def __init__(self):
    self.asked: list[int] = []

  def sample(
    self, params, source_tokens, rows, *, seed, grow_step, progress, trace
  ):
    del params, source_tokens, grow_step, trace
    for row in rows:
      self.asked.append(int(row))
      draw = np.random.default_rng([seed, row])
      tokens = [np.append(draw.integers(3, 64, 5), 1) for _ in range(3)]
      yield sampler.SampleBlock(
        source_ids=np.asarray([row]),
        tokens=[tokens],
        log_probs=draw.normal(size=(1, 3)).astype(np.float32),
        finished=np.ones((1, 3), bool),
      )
      progress(1)


def _sample(folder: pathlib.Path) -> list[int]:
  """Samples ten sources into five shards; returns those that were drawn for."""
  drawing = _Sampler()
  draw_samples.sample(
    folder,
    draw_samples.Drawer(
      sampler=drawing,
      policy=types.SimpleNamespace(config=types.SimpleNamespace(vocab_size=64)),
      params=None,
      mesh_config=None,
      seed=3,
      grow_step=1,
    ),
    pairs=types.SimpleNamespace(source_tokens=None),
    rows=np.arange(10),
    shards=[(start, start + 2) for start in range(0, 10, 2)],
    description='sample',
  )
  return drawing.asked


def test_shards_are_sampled_once_on_whatever_machine(tmp_path):
  _sample(tmp_path / 'undisturbed/grow_1')
  store, work = object_store.ObjectStore(), tmp_path / 'work'

  def fault(operation, path):
    if operation == 'written' and len(_shards(store)) == 2:
      store.kill_at = store.kill_at or len(store.log) + 3

  store.fault = fault
  with (
    pytest.raises(object_store.Killed),
    remote.kept(_mirrored(store, work)),
  ):
    _sample(work / 'grow_1')
  shutil.rmtree(work)
  store = object_store.ObjectStore(store.objects)
  with remote.kept(_mirrored(store, work)):
    assert _sample(work / 'grow_1') == list(range(4, 10))
  assert not list(chaos_differences.find(tmp_path / 'undisturbed', work))
  assert len(_shards(store)) == 5


@pytest.mark.full
def test_a_grow_goes_on_where_its_machine_and_folder_are_gone(run, tmp_path):
  work = tmp_path / 'work'

  def start(store):
    with remote.kept(_mirrored(store, work)):
      again = run_lib.Run(run.experiment, work)
      again.make('grow_1')

  for name in ('data', 'bc', 'reward'):
    shutil.copytree(run.folder(name), work / name)
  store = object_store.ObjectStore()

  def fault(operation, path):
    # As the second shard is sent.
    if operation == 'write' and len(_shards(store)) == 1:
      store.kill_at = len(store.log) + 10

  store.fault = fault
  with pytest.raises(object_store.Killed):
    start(store)
  shutil.rmtree(work)
  store = object_store.ObjectStore(store.objects)
  assert 1 <= len(_shards(store)) < 4
  before = {path: store.objects[path] for path in _shards(store)}
  start(store)
  # Neither changed nor sent again.
  assert not [
    path
    for operation, path in store.log
    if operation == 'move' and path in before
  ]
  assert not list(chaos_differences.find(run.folder('grow_1'), work / 'grow_1'))
  assert not folder_lib.damages(work / 'grow_1', 'full')


def _shards(store: object_store.ObjectStore) -> list[str]:
  """Shards of D_1 that are in their places."""
  return [
    path
    for path in store.objects
    if '/grow_1/samples-' in path and commits.FOLDER not in path
  ]


def test_a_finished_run_is_the_same_on_another_machine(run, tmp_path):
  """By a mirror on a file system, in several threads, with Orbax's folders."""
  copy = smoke.copied(run, tmp_path)
  address = f'file://{tmp_path}/there'
  sent = remote.open_mirror(address, copy.model_dir, adopts=True)
  sent.pull()
  sent.push()
  fetched = run_lib.Run(run.experiment, tmp_path / 'elsewhere')
  remote.open_mirror(address, fetched.model_dir).pull()
  verification.check(fetched, 'full')
  assert not list(chaos_differences.find(run.model_dir, fetched.model_dir))
  # What the address holds is a run's folder itself.
  there, here = _contents(tmp_path / 'there'), _contents(fetched.model_dir)
  assert there == here and len(there) > 100


def _contents(folder: pathlib.Path) -> dict[str, bytes]:
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in folder.rglob('*')
    if path.is_file()
    and commits.FOLDER not in path.parts
    and path.name != mirrored_folder.MARKER_FILE
  }


@pytest.mark.full
def test_a_program_killed_at_random_that_loses_its_folder(run, tmp_path):
  """Twice by SIGKILL and once by SIGTERM, at random moments."""
  draw = random.Random(0)
  work, there = tmp_path / 'work', tmp_path / 'there'
  environment = {
    **os.environ,
    'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'compiled'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
  }
  command = [
    sys.executable, '-m', 'rest_jax.main', f'--work_dir={work}',
    f'--model_dir=file://{there}', f'--gin_file={smoke.GIN_FILE}',
  ]  # fmt: skip
  statuses = []
  for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
    # By what has been sent, so that the machine's speed does not matter.
    awaited = _last_commit(there) + draw.randint(3, 9)
    process = subprocess.Popen(command, env=environment)
    while process.poll() is None and _last_commit(there) < awaited:
      time.sleep(0.01)
    time.sleep(draw.uniform(0, 0.5))
    process.send_signal(number)
    statuses.append(process.wait(120))
    shutil.rmtree(work)
  assert statuses == [
    -signal.SIGKILL, 128 + signal.SIGTERM, -signal.SIGKILL,
  ]  # fmt: skip
  subprocess.run(command, env=environment, check=True)
  for folder in (work, there):
    assert not list(chaos_differences.find(run.model_dir, folder))


def _last_commit(there: pathlib.Path) -> int:
  """Its number, of a file's name: older ones go at any moment."""
  found = (there / commits.FOLDER).glob('commit-*.json')
  return max((int(path.name.split('-')[1]) for path in found), default=0)
