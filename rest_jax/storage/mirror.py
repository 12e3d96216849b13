"""Mirror of a folder at an address, equal at every commit.

The address has the files by name, and in `.mirror/` what makes a copy of many
files atomic:

  commit-<number>-<id>.json  lists all files with size and SHA-256, and its
                             writer; the newest complete one is valid
  pending/<...>              content of files that are not yet in place

A push uploads new content to `pending/`, writes a commit, and only then moves
the content into place, removes files that the commit does not list, and finally
the previous commit. So the files of the newest commit always exist, in place or
pending, whenever a push is killed, even if objects can be written partially.

A folder remembers its last commit. While that is the newest commit, the folder
is ahead: its differences are newer. After a commit by another program, the
address is ahead, and files that exist only in the folder are set aside.
"""

from collections.abc import Iterable
import datetime
import os
import pathlib
import socket
import uuid

from absl import logging

from rest_jax.storage import bucket as bucket_lib
from rest_jax.storage import commits as commits_lib
from rest_jax.storage import inventory, mirrored_folder

# A run may write a new commit while another program downloads the last.
_FETCHES = 5


class OtherWriterError(bucket_lib.RemoteError):
  """Another run has written to the address."""


class Mirror:
  """Mirrors a folder at an address. The process must hold its lock."""

  def __init__(
    self,
    bucket: bucket_lib.Bucket,
    folder: str | os.PathLike[str],
    *,
    adopts: bool = False,
  ):
    """Stores the arguments; reads nothing.

    Args:
      bucket: the objects below the address.
      folder: the folder; it may be missing.
      adopts: whether a folder that was never mirrored may be uploaded to an
        empty address.
    """
    self._bucket = bucket
    self._commits = commits_lib.Commits(bucket)
    self._folder = mirrored_folder.Folder(folder)
    self._adopts = adopts
    # The newest commit known to this program.
    self._commit: commits_lib.Commit | None = None
    self._attempted: commits_lib.Commit | None = None
    # Whether this program wrote it and finished the clean-up.
    self._is_owner = self._is_settled = False
    self._owner = {
      'host': socket.gethostname(),
      'process': str(os.getpid()),
      'since': datetime.datetime.now(datetime.UTC).isoformat('T', 'seconds'),
    }

  def describe(self) -> str:
    """Describes what `pull` would do, reading little of the address."""
    (_, commit), where = self._commits.look(), self._folder.path
    if commit is None:
      return f'{self._bucket.address} holds no run yet; it would mirror {where}'
    num_bytes = sum(size for size, _ in commit.files.values())
    lead = 'leads' if self._is_known(commit) else 'would be made equal to it'
    return (
      f'{self._bucket.address} holds {len(commit.files)} files, '
      f'{num_bytes:,} bytes: {commit.words}; {where} {lead}'
    )

  def pull(self) -> None:
    """Makes the folder equal to the newest commit, unless the folder is ahead.

    Raises:
      RemoteError: the address has other content, the folder belongs to another
        address, or the folder has files unknown to the address.
      DamagedObjectError: an object differs from the commit.
    """
    listing, commit = self._commits.look()
    for attempt in range(1, _FETCHES + 1):
      try:
        self._pull(listing, commit)
        break
      except bucket_lib.DamagedObjectError:
        before = commit
        listing, commit = self._commits.look()
        if commit == before or attempt == _FETCHES:
          raise
    self._commit, self._is_owner = commit, False

  def push(self) -> None:
    """Makes the address equal to the folder; call `pull` first.

    The first push of a program always writes a commit, by which earlier runs
    notice that this one has taken over.

    Raises:
      OtherWriterError: another program has written a commit.
      RemoteError: an object could not be written in spite of retries.
    """
    entries = self._folder.entries()
    before = {} if self._commit is None else self._commit.files
    if self._is_owner and self._is_settled and entries == before:
      return
    listing, newest = self._commits.look()
    self._check_owner(newest)
    commit = commits_lib.Commit(
      listing.next_number, uuid.uuid4().hex, self._owner, entries
    )
    before = {} if self._commit is None else self._commit.files
    changed = [name for name in entries if entries[name] != before.get(name)]
    self._send(commit, changed, listing.pending)
    self._write(commit, listing)
    self._settle(commit, listing, changed)
    if changed:
      logging.info(
        'mirror: %d files, %s bytes, sent to %s', len(changed),
        f'{sum(entries[name][0] for name in changed):,}', self._bucket.address,
      )  # fmt: skip

  def _send(
    self,
    commit: commits_lib.Commit,
    names: Iterable[str],
    pending: dict[str, int],
  ) -> None:
    """Uploads content under pending names."""
    sent = []
    for name in names:
      size, digest = commit.files[name]
      to = commits_lib.pending_name(name, digest)
      # It may exist from an interrupted push.
      if pending.get(to) != size:
        sent.append((self._folder.path / name, to, size, digest))
    self._bucket.each('mirror: send', self._bucket.upload, sent)

  def _write(
    self, commit: commits_lib.Commit, listing: commits_lib.Listing
  ) -> None:
    """Writes a commit, if no other program has."""
    known = {name for _, name in listing.commits}
    self._check_alone(known)
    self._attempted = commit
    self._mark(self._commit, commit)
    self._commits.write(commit)
    try:
      self._check_alone(known | {commit.name})
    except OtherWriterError:
      # Both stop; the previous commit stands, or that of the other.
      self._bucket.remove(commit.name)
      raise
    self._commit, self._attempted, self._is_owner = commit, None, True
    self._mark(commit)

  def _check_alone(self, known: set[str]) -> None:
    """Raises if there are unknown commits."""
    for _, name in self._commits.list().commits:
      if name not in known:
        raise self._other(self._whole(name))

  def _check_owner(self, newest: commits_lib.Commit | None) -> None:
    """Raises unless the newest commit is known to this program."""
    if newest is not None and newest == self._attempted:
      # It was written although a failure was reported.
      self._commit = newest
    if newest != self._commit:
      raise self._other(newest)

  def _other(self, commit: commits_lib.Commit | None) -> OtherWriterError:
    words = 'its last commit is gone, or half written'
    if commit is not None:
      words = commit.words
    return OtherWriterError(
      f'another run writes to {self._bucket.address} ({words}), so this one '
      f'stops. What it has done is in {self._folder.path}. Run one of them at a '
      'time, or choose another --model_dir.'
    )

  def _settle(
    self,
    commit: commits_lib.Commit,
    before: commits_lib.Listing,
    sent: Iterable[str],
  ) -> None:
    """Moves content into place, and removes what the commit does not list.

    It touches only objects that existed `before` and those that were `sent`.
    """
    self._is_settled = False
    places = {
      commits_lib.pending_name(name, digest): name
      for name, (_, digest) in commit.files.items()
    }
    sizes = {name: commit.files[place][0] for name, place in places.items()}
    # There may also be partial objects of files in place.
    waiting = {
      name for name, size in before.pending.items() if sizes.get(name) == size
    }
    waiting |= {
      commits_lib.pending_name(name, commit.files[name][1]) for name in sent
    }
    self._bucket.each(
      'mirror: move',
      self._bucket.move,
      [(name, places[name], sizes[name]) for name in waiting],
    )
    old = [name for _, name in before.commits]
    removed = {name for one in old for name in self._files_of(one)}
    removed -= commit.files.keys()
    strays = before.pending.keys() - waiting
    if removed:
      # This program may have been paused while another continued.
      self._check_alone({*old, commit.name})
    self._bucket.each(
      'mirror: remove',
      self._bucket.remove,
      [(name,) for name in removed | strays],
    )
    for folder in _left_empty(removed, commit.files):
      self._bucket.prune(folder)
    # Last: until then they tell what to remove.
    for name in old:
      self._bucket.remove(name)
    self._is_settled = True

  def _files_of(self, name: str) -> Iterable[str]:
    commit = self._whole(name)
    return () if commit is None else commit.files

  def _whole(self, name: str) -> commits_lib.Commit | None:
    """Reads a commit; None if it is incomplete or gone."""
    try:
      return self._commits.read(name)
    except FileNotFoundError:
      return None

  def _pull(
    self, listing: commits_lib.Listing, commit: commits_lib.Commit | None
  ) -> None:
    marker = self._folder.read_marker()
    if marker is not None and marker.address != self._bucket.address:
      raise bucket_lib.RemoteError(
        f'{self._folder.path} mirrors {marker.address}; choose another --work_dir '
        f'for {self._bucket.address}.'
      )
    if commit is None:
      self._check_empty(marker, listing)
      return
    if self._is_known(commit):
      return
    entries = self._folder.entries()
    before = {} if marker is None else marker.files
    own = [
      name
      for name, entry in entries.items()
      if entry not in (commit.files.get(name), before.get(name))
    ]
    if own and marker is None:
      raise bucket_lib.RemoteError(
        f'{self._folder.path} has {len(own)} files that {self._bucket.address} '
        f'has not, such as {own[0]}, and was never its mirror. Choose another '
        '--work_dir, or remove that folder.'
      )
    # From here on the folder matches no commit until the download is complete.
    marker = mirrored_folder.Marker(self._bucket.address, files=before)
    self._folder.write_marker(marker)
    if own:
      aside = self._folder.set_aside(own)
      logging.warning(
        '%s has a newer %s; %d files that were here alone are kept in %s',
        self._bucket.address, commit.words, len(own), aside,
      )  # fmt: skip
    self._fetch(commit, entries, listing.pending)
    self._folder.remove(name for name in entries if name not in commit.files)
    self._mark(commit)

  def _fetch(
    self,
    commit: commits_lib.Commit,
    entries: inventory.Inventory,
    pending: Iterable[str],
  ) -> None:
    """Downloads files that are missing in the folder or differ."""

    def fetch(name: str, size: int, digest: str) -> None:
      path = self._folder.path / name
      waiting = commits_lib.pending_name(name, digest)
      if waiting in pending:
        try:
          self._bucket.download(waiting, path, size, digest)
          self._folder.know(name, digest)
          return
        except (FileNotFoundError, bucket_lib.DamagedObjectError):
          pass  # It has been moved meanwhile, or was being moved.
      try:
        self._bucket.download(name, path, size, digest)
        self._folder.know(name, digest)
      except FileNotFoundError as error:
        raise bucket_lib.DamagedObjectError(
          f'{self._bucket.name_of(name)} is missing, though {commit.words} lists '
          'it. Restore it, or go on from a folder that has it: --work_dir.'
        ) from error

    lacking = [
      (name, *entry)
      for name, entry in commit.files.items()
      if entries.get(name) != entry
    ]
    self._bucket.each('mirror: fetch', fetch, lacking)
    if lacking:
      logging.info(
        'mirror: %d files, %s bytes, fetched from %s', len(lacking),
        f'{sum(size for _, size, _ in lacking):,}', self._bucket.address,
      )  # fmt: skip

  def _check_empty(
    self,
    marker: mirrored_folder.Marker | None,
    listing: commits_lib.Listing,
  ) -> None:
    """Raises unless an address without a commit may be written."""
    if self._bucket.has_others(commits_lib.FOLDER):
      damaged = ''.join(
        f' ({self._bucket.name_of(name)} is damaged)'
        for _, name in listing.commits
      )
      raise bucket_lib.RemoteError(
        f'{self._bucket.address} holds objects but no commit of a run{damaged}. '
        'Choose another --model_dir, or remove them.'
      )
    # Only an interrupted push has attempted a commit without having one.
    if marker is not None and (marker.commit or not marker.attempted):
      raise bucket_lib.RemoteError(
        f'{self._bucket.address} held the run of {self._folder.path}, and holds '
        'nothing now. To send it again, remove '
        f'{self._folder.path / mirrored_folder.MARKER_FILE} and name the folder '
        'by --work_dir.'
      )
    entries = self._folder.entries()
    if entries and marker is None and not self._adopts:
      raise bucket_lib.RemoteError(
        f'{self._folder.path} has files, and {self._bucket.address} has none. To '
        f'send them there, say so: --work_dir={self._folder.path}; for a new '
        'run, choose another folder.'
      )

  def _is_known(self, commit: commits_lib.Commit) -> bool:
    """Returns whether the folder has had a commit, and so is ahead."""
    marker = self._folder.read_marker()
    return marker is not None and commit.id in (marker.commit, marker.attempted)

  def _mark(
    self,
    commit: commits_lib.Commit | None,
    attempted: commits_lib.Commit | None = None,
  ) -> None:
    self._folder.write_marker(
      mirrored_folder.Marker(
        self._bucket.address,
        None if commit is None else commit.id,
        None if attempted is None else attempted.id,
        {} if commit is None else commit.files,
      )
    )


def _left_empty(removed: Iterable[str], kept: Iterable[str]) -> list[str]:
  """Returns folders that removed files leave empty, innermost first."""
  left, needed = (
    {
      parent.as_posix()
      for name in names
      for parent in pathlib.PurePosixPath(name).parents
      if parent.name
    }
    for names in (removed, kept)
  )
  return sorted(left - needed, key=len, reverse=True)
