"""Tests of digests of arrays."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.training import digests

P = jax.sharding.PartitionSpec


def test_digest_depends_on_names_values_and_types():
  base = {'a': np.arange(3, dtype=np.float32), 'b': np.zeros(2, np.float32)}
  found = {
    digests.digest(tree)
    for tree in (
      base,
      {**base, 'a': np.arange(3, dtype=np.float32) + 1e-6},
      {'a': base['a'], 'c': base['b']},
      {**base, 'b': np.zeros(2, np.float64)},
      {**base, 'b': np.zeros((2, 1), np.float32)},
    )
  }
  assert len(found) == 5
  assert digests.digest(base) == digests.digest(dict(reversed(base.items())))


def test_blocks_by_hand():
  array = np.arange(2**15, dtype=np.float32).reshape(256, 128)
  # 8 blocks of 2^12 elements: 4 of rows, 2 of columns.
  hashes = b''.join(
    hashlib.sha256(
      array[64 * i : 64 * i + 64, 64 * j : 64 * j + 64].tobytes()
    ).digest()
    for i in range(4)
    for j in range(2)
  )
  expected = hashlib.sha256(b"['a'](256, 128)float32" + hashes).hexdigest()
  assert digests.digest({'a': array}) == expected


@pytest.mark.parametrize(
  'shape', [(), (0, 3), (5,), (96, 1024), (3, 64, 64, 2)]
)
def test_a_flipped_bit_anywhere_is_seen(shape):
  array = np.random.default_rng(0).normal(size=shape).astype(jnp.bfloat16)
  before = digests.digest({'a': array})
  for position in {0, array.size // 3, array.size - 1} - {-1}:
    if array.size:
      flipped = array.copy()
      flipped.reshape(-1).view(np.uint16)[position] ^= 1
      assert digests.digest({'a': flipped}) != before
  assert digests.digest({'a': jnp.asarray(array)}) == before


def test_that_of_all_bytes_is_that_of_earlier_versions():
  tree = {'b': np.zeros(2, np.int32), 'a': np.arange(3, dtype=np.float32)}
  expected = hashlib.sha256(
    b"['a'](3,)float32" + tree['a'].tobytes()
    + b"['b'](2,)int32" + tree['b'].tobytes()
  )  # fmt: skip
  assert digests.of_bytes(tree) == expected.hexdigest()
