"""Waits until all processes of a run have started, and reports missing ones.

JAX's coordination service does neither, and its client aborts a process in C++
after a timeout. So the processes meet first, at the port that the service uses
afterwards: each connects to process 0 and sends its index; process 0 reports
who is missing, and finally that all are there.
"""

from collections.abc import Collection
import contextlib
import selectors
import socket
import time

from absl import logging

# Seconds between log lines about missing processes.
TELL_SECONDS = 30.0
_RETRY_SECONDS = 0.2
_GREETING = 'rest_jax'
_GO, _MISSING, _REFUSED = 'go', 'missing', 'refused'
_MAX_LINE = 4096


class MeetingError(RuntimeError):
  """Not all processes of a run have started."""


def meet(
  address: str, num_processes: int, process_id: int, timeout_s: float
) -> None:
  """Returns when all processes have started.

  Args:
    address: host:port of process 0.
    num_processes: number of processes.
    process_id: index of this process, from 0.
    timeout_s: how long to wait, in seconds.

  Raises:
    MeetingError: some did not start, or do not fit; the message says which.
    ValueError: the address has no port.
  """
  host, _, port = address.rpartition(':')
  if not host or not port.isdigit():
    raise ValueError(
      f'coordinator_address must be host:port of process 0; got {address!r}.'
    )
  if process_id == 0:
    _host(address, int(port), num_processes, timeout_s)
  else:
    me = f'process {process_id} of {num_processes}'
    _join(
      me,
      address,
      (host.strip('[]'), int(port)),
      f'{_GREETING} {process_id} {num_processes}\n',
      timeout_s,
    )


def missing_words(missing: Collection[int]) -> str:
  numbers = ', '.join(map(str, sorted(missing)))
  return f'process{"es" if len(missing) > 1 else ""} {numbers}'


def _host(
  address: str, port: int, num_processes: int, timeout_s: float
) -> None:
  """Process 0: waits for the others."""
  others = set(range(1, num_processes))
  there: dict[int, socket.socket] = {}
  began, told, known = time.monotonic(), time.monotonic(), others
  with contextlib.ExitStack() as stack:
    server = stack.enter_context(_server(address, port))
    selector = stack.enter_context(selectors.DefaultSelector())
    selector.register(server, selectors.EVENT_READ)
    while missing := others - there.keys():
      for key, _ in selector.select(_RETRY_SECONDS):
        if key.fileobj is server:
          connection, where = server.accept()
          stack.callback(connection.close)
          _greet(connection, where[0], num_processes, there, selector)
        else:  # A known process has disconnected; it may come again.
          selector.unregister(key.fileobj)
          there.pop(key.data, None)
      missing = others - there.keys()
      if not missing:
        break
      now = time.monotonic()
      words = (
        f'process 0 of {num_processes} at {address} is waiting for '
        f'{missing_words(missing)}'
      )
      if now - began > timeout_s:
        message = f'{words}, for {timeout_s:g} s. {_remedy(address)}'
        for connection in there.values():
          _send(connection, f'{_REFUSED} {message}')
        raise MeetingError(message)
      is_due = now - told > TELL_SECONDS
      if is_due:
        told = now
        logging.warning('%s (%.0f s)', words, now - began)
      if is_due or known != missing:
        known = missing
        for connection in there.values():
          _send(connection, f'{_MISSING} {missing_words(missing)}')
    for connection in there.values():
      _send(connection, _GO)


def _greet(
  connection: socket.socket,
  where: str,
  num_processes: int,
  there: dict[int, socket.socket],
  selector: selectors.BaseSelector,
) -> None:
  """Registers a connection, or answers why it is inconsistent."""
  connection.settimeout(1.0)
  try:
    name, number, count = connection.recv(_MAX_LINE).decode().split()
    process, their_count = int(number), int(count)
  except (OSError, ValueError):
    return  # Not one of our processes.
  if name != _GREETING:
    return
  if their_count != num_processes or not 0 < process < num_processes:
    refusal = (
      f'process 0 was started with --num_processes={num_processes}; got '
      f'process {process} of {their_count}.'
    )
  elif process in there:
    refusal = f'another process has --process_id={process} already.'
  else:
    there[process] = connection
    selector.register(connection, selectors.EVENT_READ, process)
    return
  logging.warning('a process at %s was refused: %s', where, refusal)
  _send(connection, f'{_REFUSED} {refusal}')


def _join(
  me: str,
  address: str,
  place: tuple[str, int],
  greeting: str,
  timeout_s: float,
) -> None:
  """Any other process: contacts process 0 until all are there."""
  began, told = time.monotonic(), time.monotonic()
  problem = 'no answer'
  while True:
    left = began + timeout_s - time.monotonic()
    words = f'{me} is waiting for process 0 at {address}: {problem}'
    if left <= 0:
      raise MeetingError(f'{words}, for {timeout_s:g} s. {_remedy(address)}')
    if time.monotonic() - told > TELL_SECONDS:
      told = time.monotonic()
      logging.warning('%s (%.0f s)', words, time.monotonic() - began)
    try:
      with socket.create_connection(place, timeout=min(left, 5.0)) as opened:
        opened.sendall(greeting.encode())
        problem = _wait(me, address, opened, began, timeout_s)
    except OSError as error:
      problem = str(error)
    if problem == _GO:
      return
    time.sleep(_RETRY_SECONDS)


def _wait(
  me: str,
  address: str,
  opened: socket.socket,
  began: float,
  timeout_s: float,
) -> str:
  """Reads the answer of process 0: 'go', or why the connection ended."""
  opened.settimeout(max(began + timeout_s - time.monotonic(), 0.0) or None)
  missing, told = 'others', began
  try:
    with opened.makefile('rb') as lines:
      while line := lines.readline(_MAX_LINE):
        if line[0] < ord(' '):
          return _GO  # JAX's service, as after a restart of this process only.
        word, _, rest = line.decode(errors='replace').strip().partition(' ')
        if word == _REFUSED:
          raise MeetingError(f'{me} cannot go on: {rest}')
        if word == _GO:
          return _GO
        missing, now = rest, time.monotonic()
        if now - told > TELL_SECONDS:
          told = now
          logging.warning(
            '%s and process 0 at %s are waiting for %s', me, address, missing
          )
  except TimeoutError:
    raise MeetingError(
      f'{me}: process 0 at {address} is there, and has waited {timeout_s:g} s '
      f'for {missing}. {_remedy(address)}'
    ) from None
  return 'it closed the connection'


def _server(address: str, port: int) -> socket.socket:
  is_dual = socket.has_dualstack_ipv6()
  family = socket.AF_INET6 if is_dual else socket.AF_INET
  try:
    return socket.create_server(
      ('', port), family=family, dualstack_ipv6=is_dual, backlog=128
    )
  except OSError as error:
    raise MeetingError(
      f'process 0 cannot listen at port {port} of --coordinator_address='
      f'{address}: {error}. Choose another port, the same for all processes.'
    ) from error


def _send(connection: socket.socket, line: str) -> None:
  with contextlib.suppress(OSError):  # It has gone; it may come again.
    connection.sendall(f'{line}\n'.encode())


def _remedy(address: str) -> str:
  return (
    'Start every process, each with the same --num_processes and '
    f'--coordinator_address={address} and with a --process_id of its own; the '
    'port must be open between their machines.'
  )
