"""Processes that tests kill, stop and start again, or that work together.

They are forks of a process that has imported everything, so that a start costs
no imports.
"""

from collections.abc import Callable, Mapping, Sequence
import multiprocessing
from multiprocessing import process as process_lib
import os
import pathlib
import socket
import sys
from typing import Any

from matplotlib import figure

from rest_jax.cli import main
from rest_jax.storage import lease
from tests.parallel import spawn

_IMPORTED = (
  'gcsfs',
  'orbax.checkpoint',
  'rest_jax.cli.modes',
  'rest_jax.config.registry',
  'rest_jax.experiment_run',
)


def start(
  work: Callable[..., None], *arguments: Any, log: pathlib.Path
) -> process_lib.BaseProcess:
  """Calls a function in a new process with one simulated device.

  Args:
    work: a function of a module.
    *arguments: its arguments.
    log: file to which its output is appended.
  """
  context = multiprocessing.get_context('forkserver')
  context.set_forkserver_preload([__name__, *_IMPORTED])
  process = context.Process(
    target=_work, args=(work, arguments, log, spawn.environment(1))
  )
  process.start()
  return process


def start_run(
  arguments: Sequence[str], log: pathlib.Path, host: str = 'host'
) -> process_lib.BaseProcess:
  """Starts `rest-jax run`.

  Args:
    arguments: the flags.
    log: file to which its output is appended.
    host: name of the machine that it believes to be on.
  """
  return start(_run, list(arguments), host, log=log)


def check(
  processes: Sequence[process_lib.BaseProcess], log: pathlib.Path
) -> None:
  """Waits for processes, which must end well."""
  for process in processes:
    process.join()
  codes = [process.exitcode for process in processes]
  assert not any(codes), f'{codes}: {log.read_text()[-3000:]}'


def _work(
  work: Callable[..., None],
  arguments: Sequence[Any],
  log: pathlib.Path,
  environment: Mapping[str, str],
) -> None:
  with open(log, 'ab') as opened:
    for stream in (1, 2):
      os.dup2(opened.fileno(), stream)
  os.environ.update(environment)
  work(*arguments)


def _run(arguments: list[str], host: str) -> None:
  # Pictures are written, with nothing on them: to draw takes most of a report.
  figure.Figure.savefig = _save_blank
  socket.gethostname = lambda: host
  # A lost owner of a bucket is taken over soon.
  lease.RENEW_SECONDS, lease.LOST_SECONDS = 0.5, 4.0
  sys.argv = ['rest-jax', *arguments]
  main.entry_point()


def _save_blank(_, to: Any, **settings: Any) -> None:
  blank = f'<{settings["format"]}/>'.encode()
  if hasattr(to, 'write'):
    to.write(blank)
  else:
    pathlib.Path(to).write_bytes(blank)
