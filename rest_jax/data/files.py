"""Files that appear whole or not at all."""

from collections.abc import Iterator
import contextlib
import hashlib
import json
import os
import pathlib
import socket
from typing import Any


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Yields a temporary path that becomes `path` when the block succeeds.

  The temporary file lies beside the target, so that the final rename is atomic,
  and is flushed to disk before it. It is removed if the block raises.

  Args:
    path: where the finished file shall be; its folder is made if missing.

  Yields:
    The path to write to.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  # Of several hosts two may have processes of one number.
  owner = f'{socket.gethostname()}.{os.getpid()}'
  temporary = path.with_name(f'.{path.name}.{owner}.tmp')
  try:
    yield temporary
    with open(temporary, 'rb+') as written:
      os.fsync(written.fileno())
    os.replace(temporary, path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise


def write_json(path: str | os.PathLike[str], content: Any) -> None:
  """Writes JSON atomically; NaN and infinities are refused (ValueError)."""
  text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
  with atomic_write(path) as temporary:
    temporary.write_text(text + '\n', encoding='utf-8')


def read_json(path: str | os.PathLike[str]) -> Any:
  """Reads a JSON file; an unreadable one is an error that names the path."""
  try:
    return json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise ValueError(
      f'{path} is not valid JSON ({error}); it was damaged or edited. '
      'Remove its folder to have the stage made again.'
    ) from error


def sha256(path: str | os.PathLike[str]) -> str:
  """Returns the SHA-256 of a file's bytes, in hexadecimal."""
  with open(path, 'rb') as opened:
    return hashlib.file_digest(opened, 'sha256').hexdigest()
