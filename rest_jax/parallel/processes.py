"""Coordination of several processes of one run.

Every process runs the same program over one global mesh. Only the first, the
main process, writes manifests, metrics and results. Processes communicate
through the coordination service of `jax.distributed`, not through the devices:
waiting has no time limit there, signals still arrive, and the service ends all
processes when one dies. With one process nothing here has a cost.
"""

from collections.abc import Callable, Mapping
import contextlib
import dataclasses
import io
import itertools
import json
import os
import sys
import threading
import time
from typing import Any

from absl import logging
import jax

# The state of `jax.distributed`; Orbax reads it too.
from jax._src import distributed
import numpy as np

from rest_jax.parallel import rendezvous
from rest_jax.runtime import interruption

# Length of a wait, after which Python handles signals and waits again.
_WAIT_MS = 5_000
# Seconds without a heartbeat until a process counts as dead.
_HEARTBEAT_SECONDS = 30
# JAX's timeout, which aborts the process, is later than ours by this.
_ABORT_SECONDS = 600
# How long a process that was told to stop waits for the others.
_LEAVE_SECONDS = 15.0
# Key of the signal number that ended one of the processes.
_STOPPED = 'rest_jax/stopped'

_numbers = itertools.count()


class OtherProcessError(RuntimeError):
  """An error of the main process, raised in the others."""


def initialize(
  coordinator_address: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
  timeout_s: float = 300.0,
) -> None:
  """Joins the processes of a run; call it before any other use of JAX.

  Args:
    coordinator_address: host:port of process 0; None if JAX finds it by itself,
      as on TPU VMs. Either all three are given, or none.
    num_processes: number of processes.
    process_id: index of this process, from 0.
    timeout_s: how long to wait for the others, in seconds.

  Raises:
    ValueError: only some are given, or they are out of range.
    MeetingError: some processes did not start.
  """
  given = (coordinator_address, num_processes, process_id)
  if any(value is not None for value in given):
    if None in given:
      raise ValueError(
        'coordinator_address, num_processes and process_id must be given '
        f'together, or none of them; got {given}.'
      )
    if not 0 <= int(process_id or 0) < int(num_processes or 0):
      raise ValueError(
        'process_id must lie between 0 and num_processes - 1; got '
        f'{process_id} of {num_processes}.'
      )
    rendezvous.meet(
      str(coordinator_address),
      int(num_processes or 0),
      int(process_id or 0),
      timeout_s,
    )
  _initialize_jax(given, timeout_s)


def _initialize_jax(given: tuple[Any, ...], timeout_s: float) -> None:
  """Initialises JAX in a thread, so that Python can end the wait.

  JAX's own timeout aborts the process.
  """
  failures: list[BaseException] = []

  def initialize_here() -> None:
    try:
      jax.distributed.initialize(
        *given,
        initialization_timeout=int(timeout_s) + _ABORT_SECONDS,
        heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
      )
    except BaseException as error:
      failures.append(error)

  joining = threading.Thread(target=initialize_here, daemon=True)
  joining.start()
  began = time.monotonic()
  while joining.is_alive():
    left = began + timeout_s - time.monotonic()
    joining.join(max(min(left, rendezvous.TELL_SECONDS), 0.0))
    if not joining.is_alive():
      break
    waited = time.monotonic() - began
    place = given[0] or 'the coordinator that JAX found'
    words = f'waiting for the other processes of the run at {place}'
    if waited >= timeout_s:
      raise rendezvous.MeetingError(
        f'{words}, for {timeout_s:g} s. Start the same command on every host '
        'of the run, and look at the logs of the others.'
      )
    logging.warning('%s (%.0f s)', words, waited)
  if failures:
    raise failures[0]


def count() -> int:
  return jax.process_count()


def index() -> int:
  return jax.process_index()


def is_main() -> bool:
  """Returns whether this is the main process, which writes common files."""
  return index() == 0


def end(status: int, signal: int | None = None) -> None:
  """Ends this process after an error or a signal.

  A normal exit would wait for the others, which wait for this one. After an
  error the others notice that it is gone and end too. After a signal they are
  told, and those that also end, as all do in a training, exit together.

  Args:
    status: exit status.
    signal: signal that ended the program; None for none.
  """
  if count() == 1:
    return
  if signal is not None:
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      _client().key_value_set_bytes(
        _STOPPED, str(signal).encode(), allow_overwrite=True
      )
    leaving = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    leaving.start()
    leaving.join(_LEAVE_SECONDS)
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)


def barrier(name: str) -> None:
  """Waits until all processes arrive.

  Args:
    name: name of the barrier; the same in all processes.
  """
  if count() == 1:
    return
  key = _key(name)
  _tell(f'{key}/{index()}', b'')
  if is_main():
    for process in range(count()):
      _hear(f'{key}/{process}')
    _tell(f'{key}/all', b'')
  _hear(f'{key}/all')


def by_main(name: str, do: Callable[[], Any]) -> Any:
  """Calls a function in the main process while the others wait.

  Args:
    name: name of the call; the same in all processes.
    do: the function; returns a JSON value.

  Raises:
    OtherProcessError: in the waiting processes, if it failed.
  """
  if count() == 1:
    return do()
  key = _key(name)
  if not is_main():
    told = json.loads(_hear(key))
    if 'error' in told:
      raise OtherProcessError(f'process 0: {told["error"]}')
    return told['result']
  try:
    result = do()
  except Exception as error:
    _tell(key, json.dumps({'error': str(error)}).encode())
    raise
  _tell(key, json.dumps({'result': result}).encode())
  return result


def gather(
  name: str, arrays: Mapping[str, np.ndarray]
) -> list[dict[str, np.ndarray]]:
  """Returns the arrays of each process, in the order of their indices.

  Args:
    name: name of the arrays; the same in all processes.
    arrays: arrays of this process.
  """
  if count() == 1:
    return [dict(arrays)]
  key = _key(name)
  written = io.BytesIO()
  np.savez(written, **arrays)  # pyright: ignore[reportArgumentType]
  _tell(f'{key}/{index()}', written.getvalue())
  gathered = []
  for process in range(count()):
    found = io.BytesIO(_hear(f'{key}/{process}'))
    with np.load(found, allow_pickle=False) as opened:
      gathered.append({name: opened[name] for name in opened.files})
  barrier(f'{name}: read')
  _client().key_value_delete(f'{key}/{index()}')
  return gathered


@dataclasses.dataclass(frozen=True)
class Share:
  """This process's share of some work.

  Attributes:
    index: index of this process among those that share the work, from 0.
    count: number of processes that share it.
  """

  index: int = 0
  count: int = 1

  def __contains__(self, part: int) -> bool:
    return part % self.count == self.index


def share() -> Share:
  """Returns this process's share of work done by all processes."""
  return Share(index(), count())


def is_spread(array: Any) -> bool:
  """Returns whether an array is also on devices of other processes."""
  return isinstance(array, jax.Array) and not array.is_fully_addressable


def fetch(tree: Any) -> Any:
  """Returns complete arrays as NumPy arrays, in every process.

  All processes must call it if an array is spread over several.
  """
  return jax.tree.map(lambda leaf: np.asarray(_own(leaf)), tree)


def place(tree: Any, shardings: Any) -> Any:
  """Places arrays on devices of this process or of all.

  Args:
    tree: arrays that are spread over the processes, or equal in each.
    shardings: one sharding per array.
  """
  return jax.tree.map(_place, tree, shardings)


def _place(array: Any, sharding: jax.sharding.Sharding) -> jax.Array:
  if sharding.is_fully_addressable:
    return jax.device_put(_own(array), sharding)
  if is_spread(array):
    return jax.jit(_same, out_shardings=sharding)(array)
  value = np.asarray(array)
  return jax.make_array_from_callback(
    value.shape, sharding, lambda index: value[index]
  )


def _own(array: Any) -> Any:
  """Returns a complete array if this process can read it."""
  if not is_spread(array):
    return array
  if not array.is_fully_replicated:
    mesh = array.sharding.mesh
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    array = jax.jit(_same, out_shardings=whole)(array)
  return array.addressable_data(0)


def _same(array: jax.Array) -> jax.Array:
  return array


def _key(name: str) -> str:
  """Returns a unique key for one communication of the processes."""
  return f'rest_jax/{next(_numbers)}/{name}'


def _tell(key: str, value: bytes) -> None:
  _client().key_value_set_bytes(key, value)


def _hear(key: str) -> bytes:
  """Waits for a message of another process.

  Raises:
    Interrupted: a signal has ended a process, perhaps that one.
  """
  while True:
    try:
      return _client().blocking_key_value_get_bytes(key, _WAIT_MS)
    except jax.errors.JaxRuntimeError as error:
      if 'DEADLINE_EXCEEDED' not in str(error):
        raise
    stopped = _stopped()
    if stopped is not None:
      raise interruption.Interrupted(stopped)


def _stopped() -> int | None:
  try:
    return int(_client().key_value_try_get_bytes(_STOPPED))
  except jax.errors.JaxRuntimeError as error:
    if 'NOT_FOUND' not in str(error):
      raise
    return None


def _client() -> Any:
  client = distributed.global_state.client
  if client is None:
    raise RuntimeError('several processes, but none has been initialised')
  return client
