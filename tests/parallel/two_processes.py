"""Run as one of two processes of two devices each: `<port> <process> [how]`.

Prints what was found as one line of JSON. With `how`, process 1 ends with an
error and process 0 waits for it.
"""

import json
import sys
import time

import jax
import numpy as np

from rest_jax.parallel import mesh as mesh_lib
from rest_jax.parallel import processes

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


def main():
  port, process = sys.argv[1], int(sys.argv[2])
  processes.initialize(f'localhost:{port}', 2, process)
  if sys.argv[3:]:
    if process == 1:
      processes.end(3)
    processes.barrier('never')
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
    'any': [
      processes.any_of('one', process == 1),
      processes.any_of('none', False),
    ],
    'share': [part in processes.share() for part in range(4)],
    'batches': batches(),
    'moved': moved(),
  }
  processes.barrier('end')
  print(json.dumps(found))


if __name__ == '__main__':
  main()
