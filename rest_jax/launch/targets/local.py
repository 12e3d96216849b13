"""Processes of this machine, each with simulated CPU devices."""

from collections.abc import Sequence
import dataclasses
import os
import socket
import sys

from rest_jax.launch import commands, processes, restarts
from rest_jax.launch import job as job_lib

_DEVICES = '--xla_force_host_platform_device_count'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Local:
  """n processes of m devices, which find each other on loopback.

  Attributes:
    job: what is run.
    num_processes: n.
    devices_per_process: m.
    max_restarts: how often a run is started again whose process was killed.
    restart_seconds: the pause before.
    grace_seconds: how long a process that is told to end may take for it.
  """

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
      lines.insert(0, '# Side by side, with a free port each time:')
    return lines

  def run(self) -> int:
    """Runs it; returns the exit status."""
    return restarts.run(
      self._attempt,
      max_restarts=self.max_restarts,
      pause_seconds=self.restart_seconds,
    )

  def process_commands(self, port: int | str) -> list[commands.Command]:
    """Returns the command of each process.

    Args:
      port: where process 0 coordinates the others.
    """
    return [
      commands.Command(
        self._program(self._joining(port, index)), self._environment()
      )
      for index in range(self.num_processes)
    ]

  def _attempt(self, number: int) -> restarts.Attempt:
    del number
    outcome = processes.run_together(
      self.process_commands(_free_port()), grace_seconds=self.grace_seconds
    )
    return restarts.Attempt(outcome=outcome)

  def _program(self, added: Sequence[str]) -> tuple[str, ...]:
    return self.job.program(sys.executable, *added)

  def _joining(self, port: int | str, index: int) -> list[str]:
    if self.num_processes == 1:
      return []
    return [
      f'--coordinator_address=127.0.0.1:{port}',
      f'--num_processes={self.num_processes}',
      f'--process_id={index}',
    ]

  def _environment(self) -> dict[str, str]:
    asked = self.job.environment
    before = asked.get('XLA_FLAGS', os.environ.get('XLA_FLAGS', ''))
    found = {}
    if job_lib.is_checkout():
      paths = [str(job_lib.PACKAGE.parent), os.environ.get('PYTHONPATH', '')]
      found['PYTHONPATH'] = os.pathsep.join(path for path in paths if path)
    return {
      # Lines appear when they are written, not when a buffer is full.
      'PYTHONUNBUFFERED': '1',
      **found,
      'JAX_PLATFORMS': 'cpu',
      **asked,
      # The last of several counts is the one that XLA takes.
      'XLA_FLAGS': f'{before} {_DEVICES}={self.devices_per_process}'.strip(),
    }


def _free_port() -> int:
  with socket.socket() as opened:
    opened.bind(('127.0.0.1', 0))
    return opened.getsockname()[1]
