"""Run as one of two processes of two devices each: `<port> <process> [how]`.

Prints what was found as one line of JSON. With `how`, process 0 waits for process 1,
which ends: with an error if it `dies`, as of SIGTERM if it `stops`.
"""

import json
import sys
import time

import jax
import numpy as np

from rest_jax.data import ragged
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.parallel import processes
from rest_jax.runtime import interruption
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.training import digests
from tests.training import toy

Mesh = mesh_lib.MeshConfig
BATCH = np.arange(16.0).reshape(8, 2)


def failure(process: int) -> str:
  def fail():
    raise ValueError(f'{process} failed')

  try:
    processes.by_main('fail', fail)
  except (ValueError, processes.OtherProcessError) as error:
    return f'{type(error).__name__}: {error}'
  return 'no error'


def batches() -> dict:
  """Each process hands over its rows; what comes of all, and whose they are."""
  found = {}
  for model in (1, 2, 4):
    mesh = Mesh(model=model).build()
    rows = mesh_lib.rows_here(mesh)(len(BATCH))
    put = mesh_lib.put_batch({'x': BATCH[rows]}, mesh)['x']
    found[model] = {
      'rows': rows.tolist(),
      'is_whole': processes.fetch(put).tolist() == BATCH.tolist(),
      'sum': float(jax.jit(lambda x: x.sum())(put)),
      'local': dict(Mesh(model=model).build_local().shape),
    }
  return found


def moved() -> list[bool]:
  """From the host to all devices, to those of this process, and back."""
  value = {'w': np.arange(8.0, dtype=np.float32)}
  config = Mesh(model=2)
  spread, own = config.build(), config.build_local()

  def on(mesh, axis):
    spec = jax.sharding.PartitionSpec(axis)
    return {'w': jax.sharding.NamedSharding(mesh, spec)}

  steps = [processes.place(value, on(spread, 'data'))]
  for target in (on(own, 'model'), on(spread, 'model'), on(spread, 'data')):
    steps.append(processes.place(steps[-1], target))
    assert steps[-1]['w'].sharding.is_equivalent_to(target['w'], 1)
  return [
    processes.fetch(step)['w'].tolist() == value['w'].tolist() for step in steps
  ]


def digested() -> dict:
  """Digests of arrays spread over all devices, and how often one is gathered."""
  tree = {
    'w': np.arange(2.0**14, dtype=np.float32).reshape(128, 128),
    'b': np.arange(8.0, dtype=np.float32),
  }
  # Four parts of each row, which is two blocks.
  cut = {'w': np.arange(6.0 * 2**12, dtype=np.float32).reshape(6, 2**12)}
  mesh = Mesh(model=2).build()
  spec = jax.sharding.PartitionSpec

  def spread(tree, *axes):
    sharding = jax.sharding.NamedSharding(mesh, spec(*axes))
    return processes.place(tree, jax.tree.map(lambda _: sharding, tree))

  fetch, fetched = processes.fetch, []
  processes.fetch = lambda array: fetched.append(1) or fetch(array)
  digest, specs = (
    digests.digest,
    [(), ('data',), ('model',), (('data', 'model'),)],
  )
  try:
    found = {
      'same': [digest(spread(tree, *s)) == digest(tree) for s in specs],
      'gathered': len(fetched),
      'cut': digest(spread(cut, None, ('data', 'model'))) == digest(cut),
      'of_cut': len(fetched),
    }
  finally:
    processes.fetch = fetch
  return found


class Counting(sampler_lib.Sampler):
  """Stands for the device: outputs that tell source and sample, and what ran."""

  num_items = 0

  def _run(self, call, items):
    for item in items:
      self.num_items += 1
      positions = np.repeat(item.positions, len(item.sample_ids))
      sample_ids = np.tile(item.sample_ids, len(item.positions))
      tokens = 100 * call.rows[positions] + sample_ids
      yield sampler_lib.Drawn(
        positions=positions,
        sample_ids=sample_ids,
        tokens=np.stack([tokens + 3, np.ones_like(tokens)], -1),
        lengths=np.full(len(tokens), 2),
        log_probs=-tokens.astype(np.float32),
        finished=np.ones(len(tokens), bool),
      )


def shared_samples() -> dict:
  """What a process gets that draws alone, and one that shares."""
  config = sampler_lib.DecodeConfig(
    num_samples_per_source=3,
    samples_per_block=2,
    block_sources=2,
    source_length_buckets=(4, 8),
    max_target_length=8,
  )
  sources = ragged.Ragged.from_lists(
    [np.ones(1 + n % 7, np.int32) for n in range(9)]
  )
  found = {}
  for is_shared in (False, True):
    sampler = Counting(
      toy.make_policy(), config, Mesh().build(), is_shared=is_shared
    )
    block = sampler.sample_all({}, sources, np.arange(9), seed=0, grow_step=1)
    found[str(is_shared)] = {
      'tokens': [[t.tolist() for t in row] for row in block.tokens],
      'log_probs': block.log_probs.tolist(),
      'items': sampler.num_items,
    }
  return found


def main():
  port, process = sys.argv[1], int(sys.argv[2])
  if 'dies' in sys.argv:
    processes._HEARTBEAT_SECONDS = 5
  processes.initialize(f'localhost:{port}', 2, process)
  if sys.argv[3:]:
    if process == 1:
      processes.end(*{'dies': (3,), 'stops': (143, 15)}[sys.argv[3]])
    try:
      processes.barrier('never')
    except interruption.Interrupted as told:
      processes.end(128 + told.number, told.number)
  # Process 0 waits for longer than one wait goes on.
  processes._WAIT_MS = 200
  time.sleep(process)
  gathered = processes.gather('rows', {'x': np.arange(process + 2)})
  found = {
    'process': process,
    'is_main': processes.is_main(),
    'gathered': [part['x'].tolist() for part in gathered],
    'by_main': processes.by_main('number', lambda: {'of': process + 0.1}),
    'failure': failure(process),
    'share': [part in processes.share() for part in range(4)],
    'batches': batches(),
    'moved': moved(),
    'digested': digested(),
    'samples': shared_samples(),
  }
  processes.barrier('end')
  print(json.dumps(found))


if __name__ == '__main__':
  main()
