"""The folder of a stage: complete only when its manifest exists.

A stage calls `begin` with the settings that feed it. A folder finished with the
same settings is used as it is; one made with other settings is refused, with the
difference shown. `finish` writes `manifest.json` last and atomically.
"""

import dataclasses
import hashlib
import json
import pathlib
import shutil
import time
from typing import Any

from absl import logging

from rest_jax import progress
from rest_jax import settings as settings_lib
from rest_jax.data import files
from rest_jax.parallel import processes

MANIFEST = 'manifest.json'
_SETTINGS = 'settings.json'


class SettingsChangedError(ValueError):
  """A folder holds results of other settings than those asked for."""


@dataclasses.dataclass(frozen=True)
class StageFolder:
  """One stage's output folder.

  Attributes:
    path: the folder.
    settings: what feeds the stage, as JSON values (see `settings.describe`).
    is_finished: whether it was finished when it was opened.
    began: when it was opened, on the monotonic clock.
  """

  path: pathlib.Path
  settings: dict[str, Any]
  is_finished: bool
  began: float = dataclasses.field(default_factory=time.monotonic)

  def manifest(self) -> dict[str, Any]:
    return read_manifest(self.path)

  def finish(self, manifest: dict[str, Any]) -> None:
    """Marks the folder complete; nothing may be written to it afterwards."""
    processes.by_main(
      f'finish {self.path.name}', lambda: self._finish(manifest)
    )

  def _finish(self, manifest: dict[str, Any]) -> None:
    files.write_json(
      self.path / MANIFEST,
      {
        **manifest,
        # Of the last start alone, if the stage was cut off.
        'stage_seconds': time.monotonic() - self.began,
        # Of the process, whatever else it has done before.
        'peak_rss_mb': progress.peak_rss_mb(),
        'settings': self.settings,
      },
    )
    (self.path / _SETTINGS).unlink(missing_ok=True)


def begin(
  path: str | pathlib.Path,
  settings: dict[str, Any],
  *,
  overwrite: bool = False,
) -> StageFolder:
  """Opens a stage's folder, new, half done or finished.

  Args:
    path: the folder.
    settings: what feeds the stage; values that `settings.describe` accepts.
    overwrite: remove a folder made with other settings instead of refusing it.

  Returns:
    The folder. If `is_finished`, its results are those of these settings.

  Raises:
    SettingsChangedError: if the folder was begun or finished with other
      settings; the message lists the differences.
  """
  path = pathlib.Path(path)
  described = settings_lib.describe(settings)
  # Of several processes one looks: what it finds may change at once.
  is_finished = processes.by_main(
    f'begin {path.name}', lambda: _begin(path, described, overwrite)
  )
  return StageFolder(path, described, is_finished)


def _begin(
  path: pathlib.Path, described: dict[str, Any], overwrite: bool
) -> bool:
  """Makes the folder ready; whether it is finished."""
  # In this order: a worker beside this one may finish the folder meanwhile.
  is_begun, existing = (path / _SETTINGS).exists(), None
  is_finished = (path / MANIFEST).exists()
  if is_finished:
    existing = read_manifest(path).get('settings')
  elif is_begun:
    existing = files.read_json(path / _SETTINGS)
  elif path.exists() and any(map(_is_strange, path.iterdir())):
    raise SettingsChangedError(
      f'{path} holds files but neither {MANIFEST} nor {_SETTINGS}, so it is not '
      'the folder of a stage. Choose another --model_dir, or remove it.'
    )
  if existing is not None and existing != described:
    changed = settings_lib.differences(existing, described)
    if not overwrite:
      raise SettingsChangedError(
        f'{path} was made with other settings:\n  '
        + '\n  '.join(changed)
        + '\nUse another --model_dir, restore the settings, or pass '
        '--overwrite to remove this folder and make it again.'
      )
    logging.warning('%s: removed, its settings changed: %s', path, changed)
    shutil.rmtree(path)
    is_finished, existing = False, None
  if existing is None:
    path.mkdir(parents=True, exist_ok=True)
    files.write_json(path / _SETTINGS, described)
  return is_finished


def _is_strange(path: pathlib.Path) -> bool:
  """Whether a file is not one that a worker beside this one just writes."""
  return not (path.name.startswith('.') and path.name.endswith('.tmp'))


def read_manifest(path: str | pathlib.Path) -> dict[str, Any]:
  """Reads the manifest of a finished stage.

  Args:
    path: the stage's folder.

  Returns:
    The manifest.

  Raises:
    FileNotFoundError: if the stage is not finished.
  """
  path = pathlib.Path(path)
  if not (path / MANIFEST).exists():
    raise FileNotFoundError(
      f'{path} has no {MANIFEST}: the stage that makes it has not finished. '
      'Run it first; it resumes where it stopped.'
    )
  return files.read_json(path / MANIFEST)


def content_digest(manifest: dict[str, Any]) -> str:
  """SHA-256 of what a manifest says was made and from what, not how long it took.

  Args:
    manifest: of a finished stage.

  Returns:
    Hexadecimal digits.
  """
  kept = {
    key: value
    for key, value in manifest.items()
    if key in ('settings', 'shards', 'files', 'normalizer')
  }
  text = json.dumps(kept, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
