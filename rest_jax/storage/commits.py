"""Commits of a mirror: objects that list the files of its address.

They are in `.mirror/`, next to pending content. A commit ends with its own
checksum, so a truncated one is ignored.
"""

import contextlib
import dataclasses
import hashlib
import re
from typing import NamedTuple

from rest_jax.storage import bucket as bucket_lib
from rest_jax.storage import files, inventory, mirrored_folder

FOLDER = '.mirror'
_PENDING = 'pending/'
_NAME = re.compile(r'commit-(\d{8})-[0-9a-f]{32}\.json\Z')
_SCHEMA = 1
# A run may remove a commit that is being read, after writing the next.
_LOOKS = 5


class Commit(NamedTuple):
  """The content of an address.

  Attributes:
    number: number of the commit, from 1.
    id: unique id.
    owner: its writer: `host`, `process` and `since`.
    files: all files.
  """

  number: int
  id: str
  owner: dict[str, str]
  files: inventory.Inventory

  @property
  def name(self) -> str:
    return f'{FOLDER}/commit-{self.number:08d}-{self.id}.json'

  @property
  def words(self) -> str:
    who = 'process {process} on {host}, since {since}'.format(**self.owner)
    return f'commit {self.number} by {who}'


@dataclasses.dataclass(frozen=True)
class Listing:
  """The content of `.mirror/`.

  Attributes:
    commits: numbers and names of commits, complete or not, newest first.
    pending: sizes of pending content by name.
  """

  commits: list[tuple[int, str]]
  pending: dict[str, int]

  @property
  def next_number(self) -> int:
    return max((number for number, _ in self.commits), default=0) + 1


def pending_name(name: str, digest: str) -> str:
  """Returns a unique name for pending content of a file.

  Args:
    name: name of the file.
    digest: SHA-256 of the content.
  """
  place = hashlib.sha256(name.encode()).hexdigest()[:16]
  return f'{FOLDER}/{_PENDING}{digest}-{place}'


class Commits:
  """Reads and writes the commits of one address."""

  def __init__(self, bucket: bucket_lib.Bucket):
    self._bucket = bucket

  def list(self) -> Listing:
    """Lists commits and pending content."""
    commits, pending = [], {}
    for name, size in self._bucket.sizes(FOLDER, recursive=True).items():
      if found := _NAME.fullmatch(name):
        commits.append((int(found[1]), f'{FOLDER}/{name}'))
      elif name.startswith(_PENDING):
        pending[f'{FOLDER}/{name}'] = size
    return Listing(sorted(commits, reverse=True), pending)

  def look(self) -> tuple[Listing, Commit | None]:
    """Lists commits and pending content, and reads the newest complete commit.

    Raises:
      RemoteError: there are two, written by runs at the same time.
    """
    for _ in range(_LOOKS):
      listing = self.list()
      with contextlib.suppress(FileNotFoundError):
        return listing, self._newest(listing)
    raise bucket_lib.RemoteError(
      f'{self._bucket.address} changes faster than it can be read. Run the same '
      'command again.'
    )

  def _newest(self, listing: Listing) -> Commit | None:
    whole = None
    for number, name in listing.commits:
      if whole is not None and number < whole.number:
        break
      commit = self.read(name)
      if commit is not None and whole is not None:
        raise bucket_lib.RemoteError(
          f'two runs wrote to {self._bucket.address} at one moment: {whole.name} '
          f'and {commit.name}. Stop one of them, remove one of these objects, '
          'and run the same command again.'
        )
      whole = commit or whole
    return whole

  def read(self, name: str) -> Commit | None:
    """Reads a commit; None if it is incomplete.

    Raises:
      FileNotFoundError: it does not exist.
      RemoteError: it has another format version.
    """
    stored = self._bucket.read(name)
    where = self._bucket.name_of(name)
    try:
      content = files.decode_json(stored, where, must_be_sealed=True)
    except ValueError:
      return None
    if content.get('schema') != _SCHEMA:
      raise bucket_lib.RemoteError(
        f'{where} must have schema {_SCHEMA}; it has {content.get("schema")}. '
        'Use the version of this program that wrote it.'
      )
    listed = mirrored_folder.as_inventory(content['files'])
    return Commit(content['number'], content['id'], content['owner'], listed)

  def write(self, commit: Commit) -> None:
    """Writes a commit."""
    content = {'schema': _SCHEMA, **commit._asdict()}
    self._bucket.write(commit.name, files.encode_json(content, sealed=True))
