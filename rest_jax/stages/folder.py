"""The folder of a stage: complete only when its manifest exists.

A stage calls `begin` with the settings that feed it. A folder finished with the
same settings is used as it is; one made with other settings is refused, with the
difference shown. `finish` writes `manifest.json` last and atomically, with an
inventory of all files by which `damages` finds what changed later.
"""

from collections.abc import Iterable, Mapping
import contextlib
import dataclasses
import hashlib
import json
import pathlib
import re
import time
from typing import Any

from absl import logging

from rest_jax import settings as settings_lib
from rest_jax.parallel import processes
from rest_jax.runtime import progress, time_spent
from rest_jax.storage import files, inventory, paths

MANIFEST = 'manifest.json'
WARNINGS = 'warnings'  # The key of a manifest's list of messages.
SPENT = 'spent_seconds'  # The key of its seconds by kind, see `time_spent`.
_SETTINGS = 'settings.json'
_INVENTORY = 'inventory'
_ORIGINS = 'origins'
_DIGEST = re.compile("'[0-9a-f]{16,}'")
_VERBS = {'policy': 'starts from', 'init': 'starts from'}


# Patterns of the folders of stages, and the modes that make them.
_MODES: list[tuple[re.Pattern[str], str]] = []


def register(pattern: str, mode: str) -> None:
  """Has errors say which mode makes folders of a pattern, below a run."""
  below = r'(?:(?P<root>.*?)/)?(?:variants/[^/]+/)?'
  _MODES.append((re.compile(below + pattern), mode))


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
    spent: what the process had spent by then, see `time_spent`.
    warnings: what `warn` was told; the manifest holds them.
    origins: see `begin`; as seen from the folder.
    held: what is kept until the folder is finished, such as a lock.
  """

  path: pathlib.Path
  settings: dict[str, Any]
  is_finished: bool
  began: float = dataclasses.field(default_factory=time.monotonic)
  spent: dict[str, float] = dataclasses.field(default_factory=time_spent.so_far)
  warnings: list[str] = dataclasses.field(default_factory=list)
  origins: dict[str, str] = dataclasses.field(default_factory=dict)
  held: contextlib.ExitStack = dataclasses.field(
    default_factory=contextlib.ExitStack
  )

  def warn(self, message: str) -> None:
    """Logs a warning, which the manifest and the report repeat.

    Args:
      message: what was found, with its number, and what to do about it.
    """
    if message not in self.warnings:
      self.warnings.append(message)
      logging.warning('%s: %s', self.path.name, message)

  def manifest(self) -> dict[str, Any]:
    return read_manifest(self.path)

  def finish(self, manifest: dict[str, Any]) -> None:
    """Marks the folder complete; nothing may be written to it afterwards.

    Args:
      manifest: what to say of it.
    """
    processes.by_main(
      f'finish {self.path.name}', lambda: self._finish(manifest)
    )

  def _finish(self, manifest: dict[str, Any]) -> None:
    known = {
      **{
        entry['file']: entry['sha256'] for entry in manifest.get('shards', ())
      },
      **manifest.get('files', {}),
    }
    with time_spent.waiting():
      listed = inventory.take(
        self.path, without=(MANIFEST, _SETTINGS), known=known
      )
    files.write_json(
      self.path / MANIFEST,
      {
        **manifest,
        WARNINGS: self.warnings,
        _ORIGINS: self.origins,
        _INVENTORY: listed,
        # Of the last start alone, if the stage was cut off.
        'stage_seconds': time.monotonic() - self.began,
        SPENT: time_spent.since(self.spent),
        # Of the process, whatever else it has done before.
        'peak_rss_mb': progress.peak_rss_mb(),
        'settings': self.settings,
      },
      sealed=True,
    )
    (self.path / _SETTINGS).unlink(missing_ok=True)


def begin(
  path: str | pathlib.Path,
  settings: dict[str, Any],
  *,
  overwrite: bool = False,
  origins: Mapping[str, str | pathlib.Path] | None = None,
) -> StageFolder:
  """Opens a stage's folder, new, half done or finished.

  Args:
    path: the folder.
    settings: what feeds the stage; values that `settings.describe` accepts.
    overwrite: remove a folder made with other settings instead of refusing it.
    origins: folders of what digests among the settings stand for, by the path of
      the setting, such as 'policy' or 'reward.digest'. They are recorded, and
      said where a digest differs; they are no settings themselves.

  Returns:
    The folder. If `is_finished`, its results are those of these settings.

  Raises:
    SettingsChangedError: if the folder was begun or finished with other
      settings; the message lists the differences.
  """
  path = paths.of(path)
  described = settings_lib.describe(settings)
  named = _seen_from(path, origins or {})
  # Of several processes one looks: what it finds may change at once.
  is_finished = processes.by_main(
    f'begin {path.name}', lambda: _begin(path, described, named, overwrite)
  )
  return StageFolder(path, described, is_finished, origins=named)


def check(
  path: pathlib.Path,
  settings: dict[str, Any],
  origins: Mapping[str, str | pathlib.Path],
) -> None:
  """Raises SettingsChangedError where `begin` would; changes nothing.

  Args:
    path: a folder that is finished, or begun.
    settings: see `begin`.
    origins: see `begin`.
  """
  named = _seen_from(path, origins)
  changed = _changes(path, settings_lib.describe(settings), named)
  if changed:
    raise _changed_error(path, changed)


def _seen_from(
  path: pathlib.Path, origins: Mapping[str, str | pathlib.Path]
) -> dict[str, str]:
  """Returns folders relative to another, so that a run may be moved or copied."""
  return {key: paths.relative(folder, path) for key, folder in origins.items()}


def _changes(
  path: pathlib.Path, described: dict[str, Any], origins: dict[str, str]
) -> list[str] | None:
  """Returns the settings that differ, in words; None if there is no folder."""
  # In this order: a worker beside this one may finish the folder meanwhile.
  is_begun = (path / _SETTINGS).exists()
  if is_finished(path):
    manifest = read_manifest(path)
    existing, before = manifest.get('settings'), manifest.get(_ORIGINS, {})
  elif is_begun:
    existing = files.read_json(path / _SETTINGS)
    before = existing.pop(_ORIGINS, {})
  elif path.exists() and not all(map(_is_left_over, path.iterdir())):
    if (path / _SETTINGS).exists():  # A worker beside this one has begun it.
      return _changes(path, described, origins)
    raise SettingsChangedError(
      f'{path} holds files but neither {MANIFEST} nor {_SETTINGS}, so it is not '
      'the folder of a stage. Choose another --model_dir, or remove it.'
    )
  else:
    return None
  return [
    _in_words(path, line, before, origins)
    for line in settings_lib.differences(existing, described)
  ]


def _changed_error(
  path: pathlib.Path, changed: list[str]
) -> SettingsChangedError:
  # What all variants share cannot be another one's.
  variant = (
    ' keep both: give this one a name, --gin.VARIANT=...;'
    if 'variants' in path.parts
    else ''
  )
  return SettingsChangedError(
    f'{path} was made with other settings:\n  '
    + '\n  '.join(changed)
    + f'\nEither{variant} use another --model_dir; restore the settings; or pass '
    '--overwrite to remove this folder and make it again.'
  )


def _begin(
  path: pathlib.Path,
  described: dict[str, Any],
  origins: dict[str, str],
  overwrite: bool,
) -> bool:
  """Makes the folder ready; whether it is finished."""
  changed = _changes(path, described, origins)
  if changed:
    if not overwrite:
      raise _changed_error(path, changed)
    logging.warning('%s: removed, its settings changed: %s', path, changed)
    _remove(path)
  if changed is None or changed:
    path.mkdir(parents=True, exist_ok=True)
    files.write_json(
      path / _SETTINGS, {**described, _ORIGINS: origins}, sealed=True
    )
  return is_finished(path)


def _remove(path: pathlib.Path) -> None:
  """Removes a folder, so that no half of it is ever taken for a whole one."""
  if paths.is_remote(path):
    (path / MANIFEST).unlink(missing_ok=True)
    paths.remove_tree(path)
    return
  removed = path.with_name(f'.{path.name}.removed')
  paths.remove_tree(removed, missing_ok=True)
  path.rename(removed)
  paths.remove_tree(removed)


def _in_words(
  path: pathlib.Path,
  difference: str,
  before: dict[str, str],
  now: dict[str, str],
) -> str:
  """Says which folders a digest is of, where a difference is one of digests."""
  key, digests = difference.split(': ', 1)
  if key not in now:
    if len(_DIGEST.findall(digests)) == 2:
      return f'{difference} (digests: what it stands for was made otherwise)'
    return difference
  new = _name(path, now[key])
  if key not in before:
    return f'{difference} (digests; now that of {new})'
  old, verb = _name(path, before[key]), _VERBS.get(key, 'is')
  if old != new:
    return f'{key}: {verb} {new}, was {old}'
  if before[key] != now[key]:
    places = [paths.joined(path, each[key]) for each in (now, before)]
    return f'{key}: {verb} {places[0]}, was {places[1]}'
  return f'{key}: {new} was made again, with other content ({digests})'


def _name(path: pathlib.Path, origin: str) -> str:
  return in_words(paths.joined(path, origin).name)


def in_words(name: str) -> str:
  """Returns the words for a folder: 'improve_1_2' is 'improve 1.2'."""
  stage, *numbers = name.split('_')
  if numbers and all(number.isdigit() for number in numbers):
    return f'{stage} {".".join(numbers)}'
  return name


def reopen(
  path: str | pathlib.Path, damaged: Iterable[inventory.Damage]
) -> None:
  """Makes a finished folder one that was cut off before some files were made.

  Args:
    path: the folder.
    damaged: the files, which are removed.
  """
  path = paths.of(path)
  manifest = read_manifest(path)
  settings = {**manifest['settings'], _ORIGINS: manifest.get(_ORIGINS, {})}
  # The manifest goes last: until then it says what is missing.
  for damage in damaged:
    damage.path.unlink(missing_ok=True)
  files.write_json(path / _SETTINGS, settings, sealed=True)
  (path / MANIFEST).unlink()


def damages(
  path: str | pathlib.Path, verify: inventory.Verify
) -> list[inventory.Damage]:
  """Returns the files of a finished folder that are not as they were.

  Args:
    path: the folder.
    verify: 'fast' compares sizes, 'full' checksums; a folder of an earlier
      version, without an inventory, has nothing to be compared.

  Raises:
    ValueError: the manifest itself is damaged, or 'full' finds no inventory.
  """
  path = paths.of(path)
  manifest = read_manifest(path, must_be_sealed=verify == 'full')
  listed = manifest.get(_INVENTORY)
  if listed is None and verify == 'full':
    raise ValueError(
      f'{path / MANIFEST} must list the checksums of all files to be verified; '
      'it has none. Make the folder again, or leave --verify=full out.'
    )
  if not inventory.is_one(listed or {}):
    raise ValueError(
      f'{path / MANIFEST} must list files with size and checksum; it does not. '
      'Remove the folder to have the stage made again.'
    )
  return inventory.check(path, listed or {}, verify)


def clear(root: str | pathlib.Path) -> None:
  """Removes what killed programs left below a folder: halves of files.

  Args:
    root: the folder of a run, which no other process writes to.
  """
  if paths.is_remote(root):
    return  # No half of an object is ever there; Orbax removes its own.
  for path in pathlib.Path(root).rglob('.*'):
    if not _is_left_over(path):
      continue
    if path.is_dir():
      paths.remove_tree(path)
    else:
      path.unlink(missing_ok=True)


def _is_left_over(path: pathlib.Path) -> bool:
  return path.name.startswith('.') and path.suffix in ('.tmp', '.removed')


def is_finished(path: pathlib.Path) -> bool:
  """Returns whether a folder is that of a finished stage.

  The one place that decides it: a stage writes its manifest last.
  """
  return (path / MANIFEST).is_file()


def read_manifest(
  path: str | pathlib.Path, *, must_be_sealed: bool = False
) -> dict[str, Any]:
  """Reads the manifest of a finished stage.

  Args:
    path: the stage's folder.
    must_be_sealed: see `files.read_json`.

  Returns:
    The manifest.

  Raises:
    FileNotFoundError: if the stage is not finished.
    ValueError: if the manifest is damaged.
  """
  path = paths.of(path)
  if not is_finished(path):
    raise FileNotFoundError(
      f'{path} has no {MANIFEST}: the stage that makes it has not finished. '
      f'Run it first; it resumes where it stopped.{_command(path)}'
    )
  manifest = files.read_json(path / MANIFEST, must_be_sealed=must_be_sealed)
  if not isinstance(manifest, dict):
    raise ValueError(
      f'{path / MANIFEST} must hold an object; it holds {manifest!r}. Remove the '
      'folder to have the stage made again.'
    )
  return manifest


def _command(path: pathlib.Path) -> str:
  """Returns what to run for the folder of a stage; '' for an unknown one."""
  found = [
    (mode, matched.groupdict())
    for pattern, mode in _MODES
    for matched in [pattern.fullmatch(path.as_posix())]
    if matched
  ]
  if not found:
    return ''
  # A folder within a stage's is made with it.
  mode, named = min(found, key=lambda each: len(each[1]['root'] or ''))
  root = named.pop('root') or '.'
  steps = ''.join(f' --{key}={value}' for key, value in named.items())
  return (
    f' With the same --gin_file and --gin flags: --run_mode={mode}{steps} '
    f'--model_dir={root} (or --run_mode=rest for all stages).'
  )


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
