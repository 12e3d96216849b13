"""D_g as Parquet files that Hugging Face's `datasets` and others read.

A file for each shard of the store, named by the split that was sampled, so that
`datasets.load_dataset('/the/folder')` finds them.
"""

import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

from rest_jax.data import sample_rewards, sample_store
from rest_jax.runtime import progress as progress_lib
from rest_jax.stages import prepare, score_samples
from rest_jax.storage import files, paths

SCHEMA = pa.schema(
  [
    pa.field('source', pa.string()),
    pa.field('hypothesis', pa.string()),
    pa.field('reward', pa.float32()),
    pa.field('log_prob', pa.float32()),
    pa.field('finished', pa.bool_()),
    pa.field('is_reference', pa.bool_()),
    pa.field('source_id', pa.int64()),
    pa.field('sample_id', pa.int32()),
  ]
)


def run(
  *,
  grow_directory: str | pathlib.Path,
  reward_name: str,
  data: prepare.PreparedData,
  directory: str | pathlib.Path,
) -> int:
  """Writes samples, references and rewards, all of them or nothing.

  Columns: the two texts (a reference as it was written); `reward`, normalised;
  `log_prob` of the untempered policy in nats, summed over tokens; `finished`,
  whether EOS was reached; and the row's place in the store.

  Args:
    grow_directory: a finished Grow.
    reward_name: which of its rewards.
    data: that it was grown from.
    directory: the folder to write, new or empty.

  Returns:
    The number of rows.

  Raises:
    FileNotFoundError: if the Grow is not finished.
    ValueError: if the folder is in use, or the data are not those of the store.
  """
  directory = pathlib.Path(directory)
  manifest = sample_store.SampleStore.open(grow_directory).manifest
  files.check_new_folder('output', directory)
  if manifest['vocabulary_digest'] != data.vocabulary.digest:
    raise ValueError(
      f'{grow_directory} must have been grown from {data.directory}; its '
      'vocabulary is another one. Name the data that it was grown from: '
      '--gin.DATA_DIR=...'
    )
  split, shards = manifest['split'], manifest['shards']
  pairs = data.pairs(split)
  grow_directory = paths.of(grow_directory)
  with (
    files.atomic_folder(directory) as folder,
    progress_lib.Progress('export', len(shards), 'shard') as progress,
  ):
    for number, entry in enumerate(shards):
      sources, hypotheses = score_samples.texts(
        grow_directory, number, len(shards), pairs, data.vocabulary
      )
      _, rewards = sample_rewards.read_rewards(
        sample_store.rewards_path(
          grow_directory, reward_name, number, len(shards)
        ),
        rows=entry['rows'],
        samples_sha256=entry['sha256'],
      )
      shard = sample_store.Shard(grow_directory / entry['file'])
      table = pa.Table.from_arrays(
        [
          pa.array(sources, pa.string()),
          pa.array(hypotheses, pa.string()),
          pa.array(rewards, pa.float32()),
          pa.array(shard.log_prob, pa.float32()),
          pa.array(shard.finished, pa.bool_()),
          pa.array(shard.sample_id == sample_store.REFERENCE_SAMPLE_ID),
          pa.array(shard.source_id, pa.int64()),
          pa.array(shard.sample_id, pa.int32()),
        ],
        schema=SCHEMA,
      )
      name = f'{split}-{number:05d}-of-{len(shards):05d}.parquet'
      pq.write_table(table, folder / name)
      progress.advance(1)
  return manifest['num_rows']
