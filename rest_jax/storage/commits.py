"""The commits of a mirror: objects that say which files its address holds.

They lie in `.mirror/`, beside content that is on its way to its place. A commit
ends with a checksum of itself, so that one that was cut off counts for nothing.
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
# A run may remove a commit, after writing the next, while it is being read.
_LOOKS = 5


class Commit(NamedTuple):
  """What an address holds.

  Attributes:
    number: from 1.
    id: of it alone.
    owner: who wrote it: `host`, `process` and `since`.
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
  """What is in `.mirror/`.

  Attributes:
    commits: numbers and names of commits, whole or not, the newest first.
    pending: sizes of pending content by name.
  """

  commits: list[tuple[int, str]]
  pending: dict[str, int]

  @property
  def next_number(self) -> int:
    return max((number for number, _ in self.commits), default=0) + 1


def pending_name(name: str, digest: str) -> str:
  """Names content that is to become a file; no two files share one.

  Args:
    name: of the file.
    digest: SHA-256 of the content.
  """
  place = hashlib.sha256(name.encode()).hexdigest()[:16]
  return f'{FOLDER}/{_PENDING}{digest}-{place}'


class Commits:
  """Reads and writes the commits of one address."""

  def __init__(self, bucket: bucket_lib.Bucket):
    self._bucket = bucket

  def list(self) -> Listing:
    """Lists what is there."""
    commits, pending = [], {}
    for name, size in self._bucket.sizes(FOLDER, recursive=True).items():
      if found := _NAME.fullmatch(name):
        commits.append((int(found[1]), f'{FOLDER}/{name}'))
      elif name.startswith(_PENDING):
        pending[f'{FOLDER}/{name}'] = size
    return Listing(sorted(commits, reverse=True), pending)

  def look(self) -> tuple[Listing, Commit | None]:
    """Lists what is there, and reads the newest commit that is whole.

    Raises:
      RemoteError: there are two, which runs wrote at one moment.
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
    """Reads a commit; None if it was not written to its end.

    Raises:
      FileNotFoundError: it is not there.
      RemoteError: it is of another version.
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
