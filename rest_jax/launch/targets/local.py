"""Processes on this machine, each with simulated CPU devices."""

import dataclasses
import os
import socket
import sys

from rest_jax.launch import commands, processes, restarts
from rest_jax.launch import job as job_lib

_DEVICES = '--xla_force_host_platform_device_count'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Local:
  """Processes with simulated CPU devices, connected through loopback."""

  job: job_lib.Job
  num_processes: int = 1
  devices_per_process: int = 1
  max_restarts: int = 10
  restart_seconds: float = 10.0
  grace_seconds: float = 300.0

  def plan(self) -> list[str]:
    """Returns the lines of --dry_run."""
    lines = [command.text() for command in self.process_commands('PORT')]
    if self.num_processes > 1:
      lines.insert(0, '# In parallel, with a free port for each attempt:')
    return lines

  def run(self) -> int:
    """Runs the job; returns the exit status."""
    return restarts.run(
      self._attempt,
      max_restarts=self.max_restarts,
      pause_seconds=self.restart_seconds,
    )

  def process_commands(self, port: int | str) -> list[commands.Command]:
    """Returns the command of each process."""
    return [
      commands.Command(
        self.job.program(sys.executable, *self._joining(port, index)),
        self._environment(),
      )
      for index in range(self.num_processes)
    ]

  def _attempt(self, number: int) -> restarts.Attempt:
    del number
    outcome = processes.run_together(
      self.process_commands(_free_port()), grace_seconds=self.grace_seconds
    )
    return restarts.Attempt(outcome=outcome)

  def _joining(self, port: int | str, index: int) -> list[str]:
    if self.num_processes == 1:
      return []
    return [
      f'--coordinator_address=127.0.0.1:{port}',
      f'--num_processes={self.num_processes}',
      f'--process_id={index}',
    ]

  def _environment(self) -> dict[str, str]:
    given = self.job.environment
    xla_flags = given.get('XLA_FLAGS', os.environ.get('XLA_FLAGS', ''))
    python_path = {}
    if job_lib.is_checkout():
      paths = [str(job_lib.PACKAGE.parent), os.environ.get('PYTHONPATH', '')]
      python_path['PYTHONPATH'] = os.pathsep.join(filter(None, paths))
    return {
      # Output is shown line by line.
      'PYTHONUNBUFFERED': '1',
      **python_path,
      'JAX_PLATFORMS': 'cpu',
      **given,
      # If a flag is repeated, XLA takes the last value.
      'XLA_FLAGS': f'{xla_flags} {_DEVICES}={self.devices_per_process}'.strip(),
    }


def _free_port() -> int:
  with socket.socket() as opened:
    opened.bind(('127.0.0.1', 0))
    return opened.getsockname()[1]
