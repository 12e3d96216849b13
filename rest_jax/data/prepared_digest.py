"""Digests of prepared data: vocabulary and pairs, by the manifest of `data/`."""

from collections.abc import Iterable, Mapping
import hashlib
from typing import Any

from rest_jax.data import pair_store
from rest_jax.data import task as task_lib

_OWN_SPLITS = task_lib.TRAIN, task_lib.VALIDATION, task_lib.TEST, task_lib.GROW


def of_data(manifest: Mapping[str, Any]) -> str:
  """Returns the digest of vocabulary and pairs, a setting of later stages.

  Further test sets do not count: one that is added later changes no stage but
  its own evaluations.
  """
  more = {
    pair_store.pair_path('', split).name
    for split in manifest.get('splits', ())
    if split not in _OWN_SPLITS
  }
  parts = [
    f'{name} {checksum}'
    for name, checksum in sorted(manifest['files'].items())
    if name not in more
  ]
  return _digest([manifest['vocabulary']['digest'], *parts])


def of_split(data: str, split: str, checksums: Mapping[str, str]) -> str:
  """Returns the digest of data with a split, which may be a further test set.

  Args:
    data: result of `of_data`.
    checksums: SHA-256 of the files of pairs, by name.
  """
  if split in _OWN_SPLITS:
    return data
  name = pair_store.pair_path('', split).name
  return _digest([data, f'{name} {checksums[name]}'])


def is_of(samples: Mapping[str, Any], *, data: str, vocabulary: str) -> bool:
  """Returns whether samples are of the sources of some data.

  A sample names its source by number, which is another source in other data,
  even with the same vocabulary.

  Args:
    samples: manifest of a sample store; without settings it only has the digest
      of its vocabulary.
    data: result of `of_data`.
    vocabulary: digest of the vocabulary.
  """
  own = samples.get('settings', {}).get('data', data)
  return own == data and samples['vocabulary_digest'] == vocabulary


def _digest(parts: Iterable[str]) -> str:
  return hashlib.sha256(''.join(parts).encode()).hexdigest()
