"""Weights & Biases tracking, off by default: it gets TensorBoard's data."""

from collections.abc import Iterator
import contextlib
import dataclasses
import hashlib
import importlib
import pathlib
import tempfile
from typing import Any

import numpy as np

_CONFIG_FILE = 'operative_config.gin'


@dataclasses.dataclass
class _Tracked:
  """The tracked run.

  Attributes:
    groups: name prefixes that already have their own step axis.
  """

  package: Any
  run: Any
  root: pathlib.Path
  groups: set[str] = dataclasses.field(default_factory=set)


# One per process, as in wandb.
_tracked: _Tracked | None = None


@contextlib.contextmanager
def wandb(project: str | None, model_dir: pathlib.Path) -> Iterator[None]:
  """Sends scalars and histograms of a run to a project.

  The same folder is the same run in wandb, so a resumed run continues there.

  Args:
    project: name of the project; None for no tracking.
    model_dir: folder of the run; its configuration is sent too.

  Raises:
    ImportError: the package is not installed.
  """
  global _tracked
  if not project:
    yield
    return
  try:
    package = importlib.import_module('wandb')
  except ImportError as error:
    raise ImportError(
      f'--wandb_project needs the package wandb: pip install wandb ({error})'
    ) from error
  root = model_dir.resolve()
  config = root / _CONFIG_FILE
  with package.init(
    project=project,
    name=root.name,
    id=hashlib.sha256(f'{project}\n{root}'.encode()).hexdigest()[:16],
    resume='allow',
    dir=root if isinstance(root, pathlib.Path) else tempfile.mkdtemp(),
    config={'gin': config.read_text('utf-8')} if config.exists() else None,
  ) as run:
    _tracked = _Tracked(package, run, root)
    try:
      yield
    finally:
      _tracked = None


def log(
  directory: pathlib.Path, name: str, value: float | np.ndarray, step: int
) -> None:
  """Sends a number, or the distribution of an array, if a run is tracked.

  Args:
    directory: folder of the stage, whose name is prepended to `name`.
    value: finite number or array.
  """
  if _tracked is None:
    return
  path = directory.resolve()
  if path.is_relative_to(_tracked.root):
    path = path.relative_to(_tracked.root)
  group = path.as_posix().strip('/')
  axis = f'{group}/step'
  if group not in _tracked.groups:
    _tracked.run.define_metric(f'{group}/*', step_metric=axis)
    _tracked.groups.add(group)
  if isinstance(value, np.ndarray):
    value = _tracked.package.Histogram(value)
  _tracked.run.log({f'{group}/{name}': value, axis: step})
