"""Run as one of some processes: `<port> <processes> <process> <folder>`.

Trains the toy of tests/online and prints what it comes to as one line of JSON.
"""

import json
import sys

from rest_jax.online import objective
from rest_jax.parallel import processes
from tests.online import toy

# The rows of a batch of each device are as many, whatever process has it.
CONFIG = toy.config(
  loss=objective.ClippedObjective(value_clip=0.2, entropy_coefficient=0.01),
  kl_coefficient=0.1,
  epochs=2,
  evaluate_every=1,
)


def main():
  port, count, process, folder = sys.argv[1:]
  if int(count) > 1:
    processes.initialize(f'localhost:{port}', int(count), int(process))
  result = toy.train(folder, CONFIG, num_samples=2 * 32)
  for timed in ('seconds', 'peak_rss_mb'):
    result['training'].pop(timed, None)
    result['cost'].pop(timed, None)
  del result['course']
  processes.barrier('end')
  print(json.dumps(result))


if __name__ == '__main__':
  main()
