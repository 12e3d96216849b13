"""Several processes of one run: who does what, and how they agree.

Every process runs the same program over one global mesh. The first of them, the
main one, alone writes what there is one of: manifests, metrics, results. What
they tell each other goes through the coordination service of `jax.distributed`,
not through the devices: waiting has no time limit there, signals still arrive,
and the service ends all processes when one has died. With one process nothing
here costs anything.
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

# What `jax.distributed` keeps; Orbax reads it from there too.
from jax._src import distributed
import numpy as np

from rest_jax.parallel import rendezvous
from rest_jax.runtime import interruption

# How long a wait goes on before Python may handle signals, and waits again.
_WAIT_MS = 5_000
# Seconds until a process that says nothing counts as dead.
_HEARTBEAT_SECONDS = 30
# By so much JAX's timeout, which aborts, is later than ours.
_ABORT_SECONDS = 600
# How long one that was told to stop waits for the others to leave with it.
_LEAVE_SECONDS = 15.0
# Tells the number of the signal that has ended one of them.
_STOPPED = 'rest_jax/stopped'

_numbers = itertools.count()


class OtherProcessError(RuntimeError):
  """What the main process failed at, told in the others."""


def initialize(
  coordinator_address: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
  timeout_s: float = 300.0,
) -> None:
  """Joins the processes of a run; before anything else is done with JAX.

  Args:
    coordinator_address: host:port of process 0; None where JAX finds out by
      itself, as on TPU VMs. All three are given, or none.
    num_processes: how many there are.
    process_id: which one this is, from 0.
    timeout_s: how long to wait for the others, in seconds.

  Raises:
    ValueError: some are given and others are not, or they are out of range.
    MeetingError: the others did not come.
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
  """Initialises JAX in a thread, so that waiting can end in Python.

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
  """Whether this process writes what there is one of."""
  return index() == 0


def end(status: int, signal: int | None = None) -> None:
  """Ends this process after an error, or after a signal.

  An orderly end would wait for the others, which wait for this one: after an
  error they notice that it is gone, and end too. After a signal they are told, and
  those that end of it as well, as all do in a training, leave together.

  Args:
    status: exit status.
    signal: that ended the program; None for none.
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
  """Waits until all processes are here.

  Args:
    name: what is done; the same everywhere.
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
  """Has the main process do something, while the others wait for it.

  Args:
    name: what is done; the same everywhere.
    do: does it; returns a JSON value.

  Returns:
    What it returned, in every process.

  Raises:
    OtherProcessError: it failed, in the processes that waited.
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
  """Gives each process the arrays of all.

  Args:
    name: what they are; the same everywhere.
    arrays: of this process.

  Returns:
    The arrays of each process, in the order of their indices.
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
  """Which parts of a work are this process's own.

  Attributes:
    index: of those who share it, from 0.
    count: how many they are.
  """

  index: int = 0
  count: int = 1

  def __contains__(self, part: int) -> bool:
    return part % self.count == self.index


def share() -> Share:
  """The share of this process in what all processes do."""
  return Share(index(), count())


def is_spread(array: Any) -> bool:
  """Whether an array lies on devices of other processes too."""
  return isinstance(array, jax.Array) and not array.is_fully_addressable


def fetch(tree: Any) -> Any:
  """Returns arrays whole, as NumPy arrays, in every process.

  All processes must call it where an array is spread over several.
  """
  return jax.tree.map(lambda leaf: np.asarray(_own(leaf)), tree)


def place(tree: Any, shardings: Any) -> Any:
  """Puts arrays onto devices, of this process or of all.

  Args:
    tree: arrays: spread over the processes, or the same in each.
    shardings: a sharding for each.

  Returns:
    The arrays as the shardings say.
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
  """The whole of an array where this process can read it."""
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
  """A name that no other meeting of the processes has."""
  return f'rest_jax/{next(_numbers)}/{name}'


def _tell(key: str, value: bytes) -> None:
  _client().key_value_set_bytes(key, value)


def _hear(key: str) -> bytes:
  """Waits for what another process tells.

  Raises:
    Interrupted: a signal has ended some process, which may be that one.
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
