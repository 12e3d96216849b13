"""Tests of several hosts that share a bucket, each with a disk of its own."""

import json
import pathlib
import types

import jax
import numpy as np
import optax

from rest_jax.data import sample_store
from rest_jax.losses import bc
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.parallel import processes
from rest_jax.stages import score_samples
from rest_jax.storage import cache, files, paths
from rest_jax.training import checkpoints, digests
from rest_jax.training import step as step_lib
from tests import forks
from tests.parallel import spawn
from tests.rewards import fakes

_HOSTS = 4
_SHARDS = 8
_VOCABULARY = types.SimpleNamespace(
  decode_batch=lambda rows: [str(row[0]) for row in rows]
)
_REWARD = fakes.Table(rewards=tuple((str(n), n / 2) for n in range(3, 64)))


def _write_shard(directory: pathlib.Path, shard: int) -> None:
  rows = sample_store.SampleRows(
    source_id=np.full(2, shard),
    sample_id=np.arange(2),
    tokens=[np.array([3 + shard, 1]), np.array([20 + shard, 1])],
    log_prob=np.zeros(2, np.float32),
    finished=np.ones(2, bool),
  )
  sample_store.write_shard(directory, shard, _SHARDS, rows, 64)


def _score(directory: pathlib.Path) -> None:
  score_samples.score(
    score_samples.Store(
      directory,
      _SHARDS,
      fakes.Pairs(*[('s', 'r')] * _SHARDS),
      _VOCABULARY,
    ),
    reward=_REWARD,
    normalizer=None,
    description='score',
  )


def _saved_and_restored(directory: pathlib.Path) -> list[str]:
  """Digests of a train state that is spread over all hosts."""
  mesh = mesh_lib.MeshConfig().build()

  def spread(value, *axes):
    spec = jax.sharding.PartitionSpec(*axes)
    return processes.place(value, jax.sharding.NamedSharding(mesh, spec))

  weights = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
  state = step_lib.init_state({'w': weights}, bc.BC(), optax.adam(1.0), {})
  state = jax.tree.map(
    lambda x: spread(np.asarray(x), *['data'] * (np.ndim(x) == 2)), state
  )
  store = checkpoints.Checkpoints(directory)
  store.save(state, record={'a': 1}, objective=1.0)
  store.close()
  store = checkpoints.Checkpoints(directory)
  restored, record = store.restore_latest(state)
  store.close()
  assert record['a'] == 1
  assert restored.params['w'].sharding == state.params['w'].sharding
  return [digests.digest(each.params) for each in (state, restored)]


def _host(number: int, port: int, address: str, folder: pathlib.Path) -> None:
  """What one of the hosts does; writes what it has seen."""
  directory = paths.of(address)
  processes.initialize(f'localhost:{port}', _HOSTS, number)
  cache.configure(folder / f'{number}', 1)
  for shard in range(_SHARDS):
    if shard in processes.share():
      _write_shard(directory, shard)
  processes.barrier('written')
  # Started again on other machines.
  cache.configure(folder / f'new {number}', 1)
  _score(directory)
  found = {
    # Of samples, and of the rewards that it has written.
    'copies': len(list((folder / f'new {number}').glob('*.arrow'))),
    'digests': _saved_and_restored(directory),
  }
  files.write_json(folder / f'{number}.json', found)
  processes.barrier('end')


def test_hosts_share_a_bucket(gcs_server, bucket_dir, tmp_path):
  log, port = tmp_path / 'log', spawn.free_port()
  started = [
    forks.start(_host, number, port, str(bucket_dir), tmp_path, log=log)
    for number in range(_HOSTS)
  ]
  forks.check(started, log)
  found = [
    json.loads((tmp_path / f'{number}.json').read_text())
    for number in range(_HOSTS)
  ]
  # One state, from all hosts' parts.
  assert len({digest for host in found for digest in host['digests']}) == 1
  # Each has read its own shards alone, and no rewards.
  assert [host['copies'] for host in found] == [2 * _SHARDS // _HOSTS] * _HOSTS
  downloaded = {
    pathlib.PurePath(name).name: size
    for name, size in gcs_server.downloaded.items()
    if name.endswith('.arrow')
  }
  sizes = paths.sizes(bucket_dir)
  assert downloaded == {
    name: size for name, size in sizes.items() if name.startswith('samples')
  }
  for shard in range(_SHARDS):
    _write_shard(tmp_path / 'local', shard)
  _score(tmp_path / 'local')
  for path in (tmp_path / 'local').rglob('*.arrow'):
    name = path.relative_to(tmp_path / 'local')
    assert (bucket_dir / name).read_bytes() == path.read_bytes()
