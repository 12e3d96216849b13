"""Run as one of two processes: `<port> <process> <folder> [step]`.

Trains in the subfolder `cut`. With a step, process 1 is sent SIGTERM at it, alone;
without, the training is resumed, and another, in `whole`, is not disturbed. Prints as
one line of JSON how each ended.
"""

import dataclasses
import json
import os
import pathlib
import signal
import sys

import jax

from rest_jax.parallel import mesh as mesh_lib
from rest_jax.parallel import processes, stopping
from rest_jax.runtime import interruption
from rest_jax.training import checkpoints
from tests.training import toy

MESH = mesh_lib.MeshConfig()
POLICY = toy.make_policy()
# Nothing but a signal has the processes meet before the end.
CONFIG = toy.make_config(max_steps=30, evaluate_every=30, log_every=30)


def train(folder: pathlib.Path, signalled_at: int | None = None) -> dict:
  rows, calls = toy.make_rows(toy.make_tokens()), []

  def load_and_stop(*given):
    calls.append(given)
    if len(calls) == signalled_at and not processes.is_main():
      os.kill(os.getpid(), signal.SIGTERM)
    return rows.load(*given)

  stopping_rows = dataclasses.replace(rows, load=load_and_stop)
  result = toy.train(
    folder,
    CONFIG,
    policy=POLICY,
    params=POLICY.init(jax.random.key(0)),
    batches=CONFIG.batches(stopping_rows, MESH.build()),
    mesh_config=MESH,
  )
  return {
    'steps': result.summary['steps'],
    'tokens': result.summary['target_tokens'],
    'digest': result.summary['params_digest'],
  }


def main():
  port, process, folder, *step = sys.argv[1:]
  processes.initialize(f'localhost:{port}', 2, int(process))
  stopping.SECONDS = 0.1
  cut, whole = (pathlib.Path(folder) / name for name in ('cut', 'whole'))
  if not step:
    print(json.dumps({'resumed': train(cut), 'whole': train(whole)}))
    return
  try:
    with interruption.handled():
      train(cut, int(step[0]))
  except interruption.Interrupted as told:
    store = checkpoints.Checkpoints(cut)
    print(json.dumps({'steps': store.latest_step}))
    store.close()
    processes.end(128 + told.number, told.number)


if __name__ == '__main__':
  main()
