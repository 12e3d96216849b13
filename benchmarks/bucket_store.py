r"""Batches of random rows from a bucket, compared with a local folder.

  python -m benchmarks.bucket_store --rows=4000000

A store of random samples is written as by `store.py`, whose flags this script
shares, and copied to a server of the GCS API on this machine. Two processes open
it, one from the folder and one from the bucket, and take turns to read batches of
256 random rows: both sides padded, with reward and threshold. After the first pass
those of the bucket come from its local copies, so that `downloads` (of each byte,
on average) stays 1.
"""

from collections.abc import Callable
import dataclasses
import functools
import os
import pathlib
import tempfile

from absl import app, flags

from benchmarks import harness, random_store, store
from rest_jax.storage import cache, paths
from tests import gcs

_ROUNDS = flags.DEFINE_integer('turns', 15, 'Turns of each process.')


def prepare_bucket(
  task: random_store.RandomStore, cache_dir: str, batches: int
) -> Callable[[], float]:
  """Prepares the batches of `store.prepare_ours` from a bucket."""
  cache.configure(cache_dir, gigabytes=50)
  return store.prepare_ours(task, batches)


def main(argv) -> None:
  del argv
  given = flags.FLAGS
  [rows] = given.rows
  with (
    tempfile.TemporaryDirectory(dir=given.folder) as folder,
    tempfile.TemporaryDirectory(dir=given.folder) as cache_dir,
    gcs.server() as server,
  ):
    os.environ.update(gcs.environment(server.port))
    task = random_store.RandomStore(
      pathlib.Path(folder),
      sources=int(rows) // given.samples,
      samples=given.samples,
      tokens=given.tokens,
      repeated=given.repeated,
    )
    store.write(task)
    copy = paths.of(f'gs://{gcs.BUCKET}/store')
    sizes = paths.sizes(task.directory)
    for name in sizes:
      paths.upload(task.directory / name, copy / name)
    in_bucket = dataclasses.replace(task, directory=copy)
    batches = given.batches
    measured = harness.measure(
      {
        'folder': functools.partial(store.prepare_ours, task, batches),
        'bucket': functools.partial(
          prepare_bucket, in_bucket, cache_dir, batches
        ),
      },
      num_rounds=_ROUNDS.value,
    )
    settings = {
      'rows': task.rows,
      'stored_mb': round(sum(sizes.values()) / 1e6),
      'downloads': sum(server.downloaded.values()) / sum(sizes.values()),
    }
  harness.report(
    measured,
    unit='batches',
    ratios=harness.rate_ratio(measured, 'bucket', 'folder'),
    settings=settings,
  )


if __name__ == '__main__':
  app.run(main)
