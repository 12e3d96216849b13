"""Tests of checkpoints in a bucket; for the rest see `trainer_test`."""

import time

from rest_jax.training import checkpoints


def test_a_folder_outlives_what_is_left_of_a_first_save(bucket_dir):
  left = bucket_dir / 'checkpoints' / '3' / 'params' / 'x'
  left.write_text('half')
  store = checkpoints.Checkpoints(bucket_dir)
  while left.exists():  # A thread of Orbax removes it.
    time.sleep(0.05)
  assert store.latest_step is None
  # Otherwise listing it would raise FileNotFoundError.
  assert (bucket_dir / 'checkpoints').exists()
  store.close()
