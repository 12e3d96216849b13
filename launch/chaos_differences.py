"""What a run has otherwise than another of the same experiment.

Samples, rewards, pairs and metrics are compared byte by byte, checkpoints by
their arrays, since Orbax's files have random names, manifests and results by
what they say, times and memory aside.
"""

from collections.abc import Iterator
import pathlib
from typing import Any

import orbax.checkpoint as ocp

from rest_jax.stages import folder as folder_lib
from rest_jax.storage import files
from rest_jax.training import digests


def find(expected: pathlib.Path, found: pathlib.Path) -> Iterator[str]:
  """Says what a run has lost or has otherwise than the undisturbed one."""
  names = {
    path.relative_to(expected).as_posix()
    for path in expected.rglob('*')
    if path.is_file() and _is_compared(path)
  }
  others = {
    path.relative_to(found).as_posix()
    for path in found.rglob('*')
    if path.is_file() and _is_compared(path)
  }
  yield from (f'{name} is missing' for name in sorted(names - others))
  yield from (f'{name} is not in the other' for name in sorted(others - names))
  for name in sorted(names & others):
    one, other = expected / name, found / name
    if one.suffix == '.json':
      if _content(one) != _content(other):
        yield f'{name} has another content'
    elif one.read_bytes() != other.read_bytes():
      yield f'{name} has other bytes'
  for path in sorted(expected.rglob('checkpoints')):
    name = path.parent.relative_to(expected)
    yield from (
      f'{name}/checkpoints: {what}'
      for what in _other_arrays(path, found / name / 'checkpoints')
    )


def _other_arrays(expected: pathlib.Path, found: pathlib.Path) -> Iterator[str]:
  """Compares all checkpoints of a training, array by array."""
  steps, others = (
    {path.name for path in folder.glob('[0-9]*')} if folder.exists() else set()
    for folder in (expected, found)
  )
  yield from (f'{step} is in one of both alone' for step in steps ^ others)
  for step in sorted(steps & others, key=int):
    try:
      if _digests(expected, int(step)) != _digests(found, int(step)):
        yield f'{step} has other arrays'
    except ValueError as error:
      yield f'{step} cannot be read: {str(error)[:200]}'


def _is_compared(path: pathlib.Path) -> bool:
  return 'checkpoints' not in path.parts and (
    path.suffix in ('.arrow', '.npz', '.model', '.jsonl')
    or path.name in (folder_lib.MANIFEST, 'results.json', 'greedy.txt')
  )


def _content(path: pathlib.Path) -> Any:
  """A JSON file without times, memory, and names and sizes of Orbax's files."""
  return _without_times(files.read_json(path, must_be_sealed=True))


def _without_times(value: Any) -> Any:
  if isinstance(value, dict):
    return {
      key: _without_times(part)
      for key, part in value.items()
      if not (
        'seconds' in key
        or 'per_second' in key
        or key in ('peak_rss_mb', 'inventory')
      )
    }
  if isinstance(value, list):
    return [_without_times(part) for part in value]
  return value


def _digests(directory: pathlib.Path, step: int) -> list[str]:
  """Digests of the parameters and of the rest of a train state."""
  with ocp.CheckpointManager(
    directory.absolute(),
    options=ocp.CheckpointManagerOptions(read_only=True),
    item_names=('params', 'rest', 'record'),
  ) as manager:
    items = {name: ocp.args.StandardRestore() for name in ('params', 'rest')}
    restored = manager.restore(step, args=ocp.args.Composite(**items))
  return [digests.digest(restored[name]) for name in items]
