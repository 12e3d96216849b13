"""Several processes on this machine, with simulated devices."""

from collections.abc import Sequence
from concurrent import futures
import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def free_port() -> int:
  with socket.socket() as opened:
    opened.bind(('localhost', 0))
    return opened.getsockname()[1]


def environment(num_devices: int) -> dict[str, str]:
  """The environment of a process on simulated devices, with this one's kernels.

  XLA_FLAGS may limit the CPU's instructions: results are then compared with
  those of processes that have the same limit.
  """
  devices = f'--xla_force_host_platform_device_count={num_devices}'
  return os.environ | {
    'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} {devices}'.strip(),
    'JAX_PLATFORMS': 'cpu',
    'PYTHONPATH': str(ROOT),
  }


def start(arguments: Sequence[str], num_devices: int) -> subprocess.Popen:
  """Starts `python <arguments>` on simulated devices; its output is one text."""
  return subprocess.Popen(
    [sys.executable, *arguments],
    cwd=ROOT,
    env=environment(num_devices),
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def start_run(
  arguments: Sequence[str], num_processes: int, num_devices: int
) -> list[subprocess.Popen]:
  """Starts a run as some processes, which meet if they are several."""
  address = f'localhost:{free_port()}'
  command = ['-m', 'rest_jax.main', *arguments]
  if num_processes == 1:
    return [start(command, num_devices)]
  together = [
    '--distributed',
    f'--coordinator_address={address}',
    f'--num_processes={num_processes}',
  ]
  return [
    start([*command, *together, f'--process_id={number}'], num_devices)
    for number in range(num_processes)
  ]


def outputs(processes: Sequence[subprocess.Popen], seconds: float) -> list[str]:
  """What each has written when all have ended; none is left behind."""

  def output(process):
    try:
      return process.communicate(timeout=seconds)[0]
    finally:
      process.kill()
      process.wait()
      process.stdout.close()

  # At once: one whose output nobody reads waits, and the others for it.
  with futures.ThreadPoolExecutor(len(processes)) as pool:
    return list(pool.map(output, processes))
