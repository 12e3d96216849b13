r"""The sample store at the paper's scale: written, filtered, read in batches.

  python -m benchmarks.store --rows=100000,1000000,4000000,16000000
  python -m benchmarks.store --rows 100000 1000000

For each size a store of random samples is written through the project's own
writer and measured in a process of its own. Then a batch of 256 random rows is
read in turns: ours, padded, with reward and threshold, and the same rows of the
same files by `pyarrow.Table.take`, which pads nothing. Files are in the page
cache, since they were just written. The last table is a calculation, not a
measurement: what the figures of the largest store make of a host's share of the
rows of WMT 2020 Zh-En.
"""

from collections.abc import Callable
import functools
import json
import multiprocessing
import pathlib
import resource
import sys
import tempfile
import time

from absl import app, flags
import numpy as np

from benchmarks import harness, random_store
from rest_jax.data import sample_store
from rest_jax.filters import base as filters_base
from rest_jax.filters import for_all_sources, per_source
from rest_jax.losses import bc as bc_loss
from rest_jax.stages import improve_rows
from rest_jax.training import loader

_ROWS = flags.DEFINE_list(
  'rows',
  ['100000', '1000000', '4000000', '16000000'],
  'Sizes of the stores; IWSLT with 100 samples a source has 16 M rows.',
)
_SAMPLES = flags.DEFINE_integer('samples', 100, 'N, samples a source.')
_TOKENS = flags.DEFINE_integer('tokens', 25, 'Tokens a sample, on average.')
_REPEATED = flags.DEFINE_float(
  'repeated', 0.4, 'Share of samples that repeat one of their source.'
)
_BATCHES = flags.DEFINE_integer('batches', 500, 'Batches timed.')
_SECONDS = flags.DEFINE_float('seconds', 5.0, 'How long the loader runs.')
_ROUNDS = flags.DEFINE_integer(
  'rounds', 3, 'Times that each filter is applied.'
)
_FOLDER = flags.DEFINE_string(
  'folder',
  None,
  'Where the temporary stores are written; the default is TMPDIR.',
)
_HOSTS = flags.DEFINE_integer(
  'hosts', 64, 'Hosts that share the rows, in the calculation.'
)

_REWARD = 'random'
_BATCH_ROWS = 256
_TOKENS_PER_BATCH = 8192
_BUCKETS = (16, 32, 64, 128)
_SOURCES_PER_SHARD = 2048
# Rows of a Grow on WMT 2020 Zh-En at the paper's number of samples.
_WMT_ROWS = 890_000_000

_FILTERS = (
  for_all_sources.Fixed(values=(0.7,)),
  for_all_sources.Quantile(values=(0.9,)),
  per_source.Percentile(values=(90.0,)),
  per_source.Interpolation(values=(0.5,)),
)


class Stopwatch:
  """Times and memory by name, as they go into the JSON lines."""

  def __init__(self):
    self.measures: dict[str, dict[str, float]] = {}

  def time(self, name: str, work: Callable, rounds: int = 1):
    """Does the work and notes its seconds, the median of all rounds."""
    seconds = []
    for _ in range(rounds):
      started = time.perf_counter()
      result = work()
      seconds.append(time.perf_counter() - started)
    self.add(name, float(np.median(seconds)))
    return result

  def add(self, name: str, seconds: float) -> None:
    before = self.measures.get(name, {'seconds': 0.0})['seconds']
    self.measures[name] = {'seconds': before + seconds}


def memory_mb() -> dict[str, float]:
  """Resident memory of this process now and at most.

  Pages of files that are mapped count as resident while they are in the page
  cache, but are given up when others need the memory; the rest is not.
  """
  fields = {}
  for line in pathlib.Path('/proc/self/status').read_text().splitlines():
    name, _, value = line.partition(':')
    if name in ('VmRSS', 'RssAnon', 'RssFile'):
      fields[name] = int(value.split()[0]) / 1024
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  return {
    'resident_mb': fields['VmRSS'],
    'own_mb': fields['RssAnon'],
    'file_mb': fields['RssFile'],
    'peak_mb': peak,
  }


def write(task: random_store.RandomStore) -> dict[str, dict[str, float]]:
  """Writes the store and its rewards; making the samples is not timed."""
  watch = Stopwatch()
  shards = sample_store.shard_ranges(task.sources, _SOURCES_PER_SHARD)
  infos = []
  for shard, (start, stop) in enumerate(shards):
    rows, rewards = task.shard(start, stop)
    here = (task.directory, shard, len(shards))
    began = time.perf_counter()
    infos.append(sample_store.write_shard(*here, rows, random_store.VOCAB_SIZE))
    watch.add('write', time.perf_counter() - began)
    began = time.perf_counter()
    sample_store.write_rewards(
      *here[:1], _REWARD, *here[1:], raw=rewards, reward=rewards
    )
    watch.add('write_rewards', time.perf_counter() - began)
  manifest = {
    'num_sources': task.sources, 'num_rows': task.rows, 'shards': infos
  }  # fmt: skip
  watch.time(
    'write_manifest',
    lambda: sample_store.write_manifest(task.directory, manifest),
  )
  written = sum(path.stat().st_size for path in task.directory.rglob('*.arrow'))
  watch.measures['disk'] = {'bytes_per_row': written / task.rows}
  watch.measures['memory_writing'] = memory_mb()
  return watch.measures


def read(
  task: random_store.RandomStore, rounds: int, batches: int, seconds: float
) -> dict[str, dict[str, float]]:
  """Opens a store, applies every filter, and loads what one of them keeps."""
  watch = Stopwatch()
  start_mb = memory_mb()
  store = watch.time(
    'open', lambda: sample_store.SampleStore.open(task.directory)
  )
  _, rewards = watch.time('rewards', lambda: store.rewards(_REWARD))
  watch.time('index', lambda: _samples(store, rewards, with_hashes=False))
  index_mb = memory_mb()['own_mb'] - start_mb['own_mb']
  watch.time('hashes', lambda: store.tokens.hashes)
  samples = _samples(store, rewards, with_hashes=True)
  for row_filter in _FILTERS:
    watch.time(
      f'filter_{row_filter.kind}',
      functools.partial(row_filter.select, 1, samples),
      rounds,
    )
  watch.measures['memory_filtering'] = memory_mb()
  rows = watch.time('select_all', lambda: _select_all(task, store, samples))
  _time_batches(watch, rows, len(store), batches)
  _time_loader(watch, rows, seconds)
  watch.measures['index'] |= {'bytes_per_row': index_mb * 2**20 / len(store)}
  watch.measures['memory_loading'] = memory_mb()
  return watch.measures


def _samples(store, rewards, with_hashes: bool) -> filters_base.Samples:
  return improve_rows.samples_of(
    store,
    rewards,
    include_references=True,
    include_unfinished=False,
    with_hashes=with_hashes,
  )


def _select_all(task, store, samples) -> improve_rows.ImproveRows:
  return improve_rows.select(
    improve_rows.Rules(
      row_filter=for_all_sources.Fixed(values=(float('-inf'),)),
      loss=bc_loss.BC(),
    ),
    store=store,
    sources=random_store.RandomSources.random(task),
    samples=samples,
  )


def _time_batches(watch, rows, num_rows: int, batches: int) -> None:
  """Batches as a training step takes them: both sides, rewards, thresholds."""
  random = np.random.default_rng(2)
  seconds = []
  for _ in range(batches):
    chosen = random.integers(0, num_rows, _BATCH_ROWS)
    began = time.perf_counter()
    rows.load(chosen, random_store.LONGEST, random_store.LONGEST)
    seconds.append(time.perf_counter() - began)
  watch.measures['batch'] = {
    'seconds': float(np.median(seconds)),
    'seconds_95th': float(np.percentile(seconds, 95)),
  }


def _time_loader(watch, rows, seconds: float) -> None:
  """Batches of similar length in random order, as the trainer iterates them."""
  batches = watch.time(
    'plan',
    lambda: loader.BucketedBatches(
      rows,
      tokens_per_batch=_TOKENS_PER_BATCH,
      buckets=_BUCKETS,
      seed=0,
    ),
  )
  iterator = batches.iterate()
  # Its order is made while the first batch is waited for.
  watch.time('first_batch', lambda: next(iterator))
  # The longest wait for a batch, an epoch's border included.
  slowest, examples, began = 0.0, 0, time.perf_counter()
  now = began
  while now < began + seconds:
    examples += len(next(iterator)['rewards'])
    before, now = now, time.perf_counter()
    slowest = max(slowest, now - before)
  watch.measures['loader'] = {
    'examples_per_second': examples / (now - began),
    'slowest_batch_seconds': slowest,
    'epochs': examples / batches.num_rows,
  }


def prepare_ours(
  task: random_store.RandomStore, batches: int
) -> Callable[[], float]:
  """Random batches: tokens padded, rewards, thresholds."""
  store = sample_store.SampleStore.open(task.directory)
  _, rewards = store.rewards(_REWARD)
  samples = _samples(store, rewards, with_hashes=False)
  rows = _select_all(task, store, samples)
  random = np.random.default_rng(3)

  def run() -> float:
    for _ in range(batches):
      chosen = random.integers(0, len(store), _BATCH_ROWS)
      rows.load(chosen, random_store.LONGEST, random_store.LONGEST)
    return float(batches)

  return run


def prepare_pyarrow(
  task: random_store.RandomStore, batches: int
) -> Callable[[], float]:
  """`Table.take` of the same files, mapped into memory; nothing is padded."""
  import pyarrow as pa

  def table(paths) -> pa.Table:
    return pa.concat_tables(
      [
        pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        for path in sorted(paths)
      ]
    )

  samples = table(task.directory.glob('samples-*.arrow'))
  rewards = table((task.directory / 'rewards').glob('*.arrow'))
  joined = samples.append_column('reward', rewards['reward'])
  random = np.random.default_rng(3)

  def run() -> float:
    for _ in range(batches):
      joined.take(random.integers(0, len(joined), _BATCH_ROWS))
    return float(batches)

  return run


def _in_process(function: Callable, *arguments):
  """What a function returns, run in a fresh process: memory is its own."""
  context = multiprocessing.get_context('spawn')
  with context.Pool(1) as pool:
    return pool.apply(function, arguments)


def measure(
  task: random_store.RandomStore,
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
  """Returns all measures of one size, and the ratio to the peer."""
  measures = _in_process(write, task)
  measures |= _in_process(
    read, task, _ROUNDS.value, _BATCHES.value, _SECONDS.value
  )
  steps = (
    'write', 'write_rewards', 'write_manifest', 'open', 'rewards', 'index',
    'hashes', 'filter_percentile',
  )  # fmt: skip
  measures['written_and_filtered'] = {
    'seconds': sum(measures[step]['seconds'] for step in steps)
  }
  turns = harness.measure(
    {
      'ours': functools.partial(prepare_ours, task, 200),
      'pyarrow': functools.partial(prepare_pyarrow, task, 20),
    },
    num_rounds=5,
  )
  for name, system in turns.items():
    measures[f'turn_{name}'] = {
      'seconds': 1 / system.rate, 'peak_mb': system.peak_mb
    }  # fmt: skip
  return measures, harness.rate_ratio(turns, 'ours', 'pyarrow')


def calculate_share(
  measures: dict[str, dict[str, float]], num_rows: int, hosts: int
) -> dict[str, float]:
  """What a host of many would need for its share of WMT: not measured.

  Args:
    measures: of a store.
    num_rows: rows of that store.
    hosts: that hold equal shares of the shards.

  Returns:
    Rows, bytes and seconds of a host, in proportion to the measured store.
  """
  share = _WMT_ROWS / hosts
  factor = share / num_rows
  return {
    'rows': share,
    'disk_bytes_per_row': measures['disk']['bytes_per_row'],
    'disk_gb': measures['disk']['bytes_per_row'] * share / 1e9,
    'index_bytes_per_row': measures['index']['bytes_per_row'],
    'index_gb': measures['index']['bytes_per_row'] * share / 1e9,
    'written_and_filtered_seconds': (
      factor * measures['written_and_filtered']['seconds']
    ),
    'epoch_hours_of_loading': (
      share / measures['loader']['examples_per_second'] / 3600
    ),
  }


def _print(rows: int, measures: dict[str, dict[str, float]]) -> None:
  for name, values in measures.items():
    rounded = {key: float(f'{value:.5g}') for key, value in values.items()}
    print(json.dumps({'rows': rows, 'measure': name, **rounded}), flush=True)


def _table(results: dict[int, dict[str, dict[str, float]]]) -> str:
  lines = [
    ('write, s', 'write', 'seconds', 1),
    ('write rewards, s', 'write_rewards', 'seconds', 1),
    ('bytes a row, disk', 'disk', 'bytes_per_row', 1),
    ('open, s', 'open', 'seconds', 1),
    ('rewards, s', 'rewards', 'seconds', 1),
    ('index, s', 'index', 'seconds', 1),
    ('index, bytes a row', 'index', 'bytes_per_row', 1),
    ('hashes, s', 'hashes', 'seconds', 1),
    *(
      (f'{row_filter.kind}, s', f'filter_{row_filter.kind}', 'seconds', 1)
      for row_filter in _FILTERS
    ),
    ('written, percentile, s', 'written_and_filtered', 'seconds', 1),
    ('peak, writing, MB', 'memory_writing', 'peak_mb', 1),
    ('peak, filtering, MB', 'memory_filtering', 'peak_mb', 1),
    ('after it, no files, MB', 'memory_filtering', 'own_mb', 1),
    ('batch of 256, ms', 'batch', 'seconds', 1e3),
    ('batch, 95th, ms', 'batch', 'seconds_95th', 1e3),
    ('loader, examples/s', 'loader', 'examples_per_second', 1),
    ('loader, slowest, ms', 'loader', 'slowest_batch_seconds', 1e3),
    ('in turns, ours, ms', 'turn_ours', 'seconds', 1e3),
    ('in turns, pyarrow, ms', 'turn_pyarrow', 'seconds', 1e3),
  ]
  text = [' ' * 24 + ''.join(f'{rows:>14,}' for rows in results)]
  for title, measure_name, key, scale in lines:
    cells = [
      f'{one[measure_name][key] * scale:14,.2f}'
      if measure_name in one
      else f'{"not measured":>14}'
      for one in results.values()
    ]
    text.append(f'{title:24}' + ''.join(cells))
  return '\n'.join(text)


def main(argv) -> None:
  sizes = [int(size) for size in (*_ROWS.value, *argv[1:])]
  results, ratios = {}, {}
  settings = {
    flag.name: flag.value
    for flag in (_SAMPLES, _TOKENS, _REPEATED, _BATCHES, _ROUNDS)
  }
  print(json.dumps({'settings': {'rows': sizes, **settings}}))
  for size in sizes:
    with tempfile.TemporaryDirectory(dir=_FOLDER.value) as folder:
      task = random_store.RandomStore(
        pathlib.Path(folder),
        sources=max(1, size // _SAMPLES.value),
        samples=_SAMPLES.value,
        tokens=_TOKENS.value,
        repeated=_REPEATED.value,
      )
      results[task.rows], ratio = measure(task)
      _print(task.rows, results[task.rows])
      ratios |= {f'{k}_{task.rows}_rows': v for k, v in ratio.items()}
  print(_table(results), file=sys.stderr)
  largest = max(results)
  share = calculate_share(results[largest], largest, _HOSTS.value)
  print(json.dumps({'calculated': "a host's share of WMT", **share}))
  print(
    f'calculated, not measured: one of {_HOSTS.value} hosts that share '
    f'{_WMT_ROWS:,} rows',
    *(f'{key:30}{value:16,.3f}' for key, value in share.items()),
    sep='\n',
    file=sys.stderr,
  )
  rounded = {name: round(value, 2) for name, value in ratios.items()}
  print(json.dumps({'ratios': rounded}), flush=True)


if __name__ == '__main__':
  app.run(main)
