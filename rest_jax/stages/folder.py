"""The folder of a stage: complete only when its manifest exists.

A stage calls `begin` with its settings. A folder finished with the same
settings is used as it is; a folder made with other settings is refused with the
list of differences. `finish` writes `manifest.json` last and atomically. The
manifest has an inventory of all files, from which `damages` finds later
changes.
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
# Keys of a manifest: list of messages; seconds by kind, see `time_spent`.
WARNINGS = 'warnings'
SPENT = 'spent_seconds'
_SETTINGS = 'settings.json'
_INVENTORY = 'inventory'
_ORIGINS = 'origins'
_DIGEST = re.compile("'[0-9a-f]{16,}'")
_VERBS = {'policy': 'starts from', 'init': 'starts from'}


# Patterns of the folders of stages, each with the run mode that makes them.
_MODES: list[tuple[re.Pattern[str], str]] = []


def register(pattern: str, mode: str) -> None:
  """Registers the run mode that makes folders of a pattern, for errors.

  Args:
    pattern: regular expression for the path below the folder of a run.
  """
  below = r'(?:(?P<root>.*?)/)?(?:variants/[^/]+/)?'
  _MODES.append((re.compile(below + pattern), mode))


class SettingsChangedError(ValueError):
  """A folder was made with other settings than the run has now."""


@dataclasses.dataclass(frozen=True)
class StageFolder:
  """One stage's output folder.

  Attributes:
    settings: the stage's settings as JSON values (see `settings.describe`).
    is_finished: whether it was finished when it was opened.
    began: time of opening, on the monotonic clock.
    spent: seconds by kind that the process had spent by then, see `time_spent`.
    warnings: messages of `warn`, for the manifest.
    origins: see `begin`; paths are relative to the folder.
    held: contexts to leave once the folder is finished, such as a lock.
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

  def warn(self, message: str | None) -> None:
    """Logs a warning, which the manifest and the report repeat.

    Args:
      message: the finding, with its number, and what to do; None for no
        warning.
    """
    if message is not None and message not in self.warnings:
      self.warnings.append(message)
      logging.warning('%s: %s', self.path.name, message)

  def manifest(self) -> dict[str, Any]:
    return read_manifest(self.path)

  def finish(self, manifest: dict[str, Any]) -> None:
    """Marks the folder complete; nothing may be written to it afterwards."""
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
        # Since the last start, if the stage was interrupted.
        'stage_seconds': time.monotonic() - self.began,
        SPENT: time_spent.since(self.spent),
        # Of the whole process, earlier stages included.
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
  """Opens the folder of a stage: new, incomplete or finished.

  Args:
    settings: the stage's settings; values that `settings.describe` accepts.
    overwrite: remove a folder made with other settings instead of refusing it.
    origins: for settings that are digests of a folder's content, that folder,
      by the path of the setting, such as 'policy' or 'reward.digest'. They are
      recorded for error messages; another origin is no other setting.

  Returns:
    The folder. If `is_finished`, it holds the results of these settings.

  Raises:
    SettingsChangedError: the folder was begun or finished with other settings;
      the message lists the differences.
  """
  path = paths.of(path)
  described = settings_lib.describe(settings)
  relative = _relative(path, origins or {})
  # One process decides for all: the folder may change between two looks.
  is_finished = processes.by_main(
    f'begin {path.name}', lambda: _begin(path, described, relative, overwrite)
  )
  return StageFolder(path, described, is_finished, origins=relative)


def check(
  path: pathlib.Path,
  settings: dict[str, Any],
  origins: Mapping[str, str | pathlib.Path],
) -> None:
  """Raises SettingsChangedError where `begin` would; changes no file."""
  described = settings_lib.describe(settings)
  changed = _changes(path, described, _relative(path, origins))
  if changed:
    raise _changed_error(path, changed)


def _relative(
  path: pathlib.Path, origins: Mapping[str, str | pathlib.Path]
) -> dict[str, str]:
  """Returns folders relative to `path`, so that a run may be moved or copied."""
  return {key: paths.relative(folder, path) for key, folder in origins.items()}


def _changes(
  path: pathlib.Path, described: dict[str, Any], origins: dict[str, str]
) -> list[str] | None:
  """Describes the settings that differ; None if there is no folder."""
  # In this order: another worker may finish the folder meanwhile.
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
  # A variant has folders of its own only below `variants`.
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
  """Makes the folder ready; returns whether it is finished."""
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
  """Removes a folder; if interrupted, it no longer looks finished or begun."""
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
  """Describes a differing setting; if it is a digest, by the folder it is of."""
  key, digests = difference.split(': ', 1)
  if key not in now:
    if len(_DIGEST.findall(digests)) == 2:
      return f'{difference} (digests: its content was made otherwise)'
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
  """Returns the display name of a folder: 'improve_1_2' is 'improve 1.2'."""
  stage, *numbers = name.split('_')
  if numbers and all(number.isdigit() for number in numbers):
    return f'{stage} {".".join(numbers)}'
  return name


def reopen(
  path: str | pathlib.Path, damaged: Iterable[inventory.Damage]
) -> None:
  """Turns a finished folder into an interrupted one without some files."""
  path = paths.of(path)
  manifest = read_manifest(path)
  settings = {**manifest['settings'], _ORIGINS: manifest.get(_ORIGINS, {})}
  # The manifest is removed last: until then it lists the missing files.
  for damage in damaged:
    damage.path.unlink(missing_ok=True)
  files.write_json(path / _SETTINGS, settings, sealed=True)
  (path / MANIFEST).unlink()


def damages(
  path: str | pathlib.Path, verify: inventory.Verify
) -> list[inventory.Damage]:
  """Returns the files of a finished folder that were changed or removed.

  Args:
    path: the folder.
    verify: 'fast' compares sizes, 'full' checksums. A folder of an earlier
      version has no inventory: 'fast' finds nothing there.

  Raises:
    ValueError: the manifest is damaged, or has no inventory for 'full'.
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
  """Removes temporary files that killed programs left."""
  if paths.is_remote(root):
    return  # Objects are written whole; Orbax removes its own files.
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
  """Whether the stage of a folder is finished: it writes its manifest last."""
  return (path / MANIFEST).is_file()


def read_manifest(
  path: str | pathlib.Path, *, must_be_sealed: bool = False
) -> dict[str, Any]:
  """Reads the manifest of a finished stage.

  Raises:
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
  """Returns the command that makes a stage's folder; '' if it is unknown."""
  matches = [
    (mode, match.groupdict())
    for pattern, mode in _MODES
    if (match := pattern.fullmatch(path.as_posix()))
  ]
  if not matches:
    return ''
  # A folder inside the folder of a stage is made by that stage.
  mode, groups = min(matches, key=lambda match: len(match[1]['root'] or ''))
  root = groups.pop('root') or '.'
  steps = ''.join(f' --{key}={value}' for key, value in groups.items())
  return (
    f' With the same --gin_file and --gin flags: --run_mode={mode}{steps} '
    f'--model_dir={root} (or --run_mode=rest for all stages).'
  )


def content_digest(manifest: dict[str, Any]) -> str:
  """SHA-256 of a manifest's content and settings, without times."""
  kept = {
    key: value
    for key, value in manifest.items()
    if key in ('settings', 'shards', 'files', 'normalizer')
  }
  text = json.dumps(kept, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
