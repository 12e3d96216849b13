"""Tests of several hosts that share a bucket, each with a disk of its own."""

import itertools
import json
import pathlib
import types

import jax
import numpy as np
import optax

from rest_jax.data import ragged, sample_store
from rest_jax.filters import for_all_sources
from rest_jax.losses import bc
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.parallel import processes
from rest_jax.stages import improve_rows, score_samples
from rest_jax.storage import cache, files, paths
from rest_jax.training import checkpoints, digests, loader
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


def _finish(directory: pathlib.Path) -> None:
  sample_store.write_manifest(
    directory,
    {
      'num_sources': _SHARDS,
      'num_rows': 2 * _SHARDS,
      'shards': sample_store.shard_entries(directory, _SHARDS),
    },
  )


def _read_batches(directory: pathlib.Path) -> list[list[list[int]]]:
  """Returns this host's targets in each batch of an epoch."""
  store = sample_store.SampleStore.open(directory)
  _, rewards = store.rewards(_REWARD.name)
  rows = improve_rows.select(
    improve_rows.Rules(
      row_filter=for_all_sources.Fixed(values=(-np.inf,)), loss=bc.BC()
    ),
    store=store,
    sources=types.SimpleNamespace(
      source_tokens=ragged.Ragged.from_lists([np.array([5, 1])] * _SHARDS)
    ),
    samples=improve_rows.samples_of(
      store, rewards, include_references=True, include_unfinished=True
    ),
  )
  batches = loader.BucketedBatches(
    rows,
    tokens_per_batch=2 * _SHARDS,
    buckets=(2,),
    seed=0,
    rows_here=mesh_lib.rows_here(mesh_lib.MeshConfig().build()),
  )
  return [
    batches[index]['decoder_target_tokens'].tolist()
    for index in range(batches.batches_per_epoch)
  ]


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
  # Of samples, and of the rewards that it has written.
  copies = len(list((folder / f'new {number}').glob('*.arrow')))
  processes.by_main('finish', lambda: _finish(directory))
  found = {
    'copies': copies,
    'batches': _read_batches(directory),
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
  # Each has then read all rows, as a training does, but no file twice. The host
  # that writes rewards keeps a copy.
  assert downloaded == {
    pathlib.PurePath(name).name: size * (_HOSTS - name.startswith('rewards/'))
    for name, size in paths.sizes(bucket_dir).items()
    if name.endswith('.arrow')
  }
  local = tmp_path / 'local'
  for shard in range(_SHARDS):
    _write_shard(local, shard)
  _score(local)
  _finish(local)
  for path in local.rglob('*.arrow'):
    name = path.relative_to(local)
    assert (bucket_dir / name).read_bytes() == path.read_bytes()
  parts = zip(*(host['batches'] for host in found), strict=True)
  joined = [list(itertools.chain(*batch)) for batch in parts]
  assert joined == _read_batches(local)
