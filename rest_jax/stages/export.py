"""Export of D_g as Parquet files, for Hugging Face's `datasets` and others.

There is one file per shard of the store, named by the split that was sampled,
so that `datasets.load_dataset('/the/folder')` finds them.
"""

import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

from rest_jax.data import pair_store, prepared_digest, sample_store
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
  """Writes all rows and returns their number; on an error, writes nothing.

  Columns: the two texts (a reference as it was written); `reward`, normalised;
  `log_prob` of the untempered policy in nats, summed over tokens; `finished`,
  whether EOS was reached; and the row's place in the store. If pairs name their
  languages, also `source_language` and `target_language`.

  Args:
    directory: the folder to write, new or empty.

  Raises:
    FileNotFoundError: the Grow is not finished.
    ValueError: the folder is in use, or `data` is not the data of the Grow.
  """
  directory = pathlib.Path(directory)
  manifest = sample_store.SampleStore.open(grow_directory).manifest
  files.check_new_folder('output', directory)
  if not prepared_digest.is_of(
    manifest, data=data.digest, vocabulary=data.vocabulary.digest
  ):
    raise ValueError(
      f'{grow_directory} must have been sampled from {data.directory}; its text '
      'or vocabulary is another one. Set the data that it was sampled from: '
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
      shard = sample_store.Shard(grow_directory / entry['file'])
      sources, hypotheses = score_samples.texts(shard, pairs, data.vocabulary)
      _, rewards = sample_store.read_rewards(
        grow_directory, reward_name, shards, number
      )
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
      table = _with_languages(table, pairs)
      name = f'{split}-{number:05d}-of-{len(shards):05d}.parquet'
      pq.write_table(table, folder / name)
      progress.advance(1)
  return manifest['num_rows']


def _with_languages(table: pa.Table, pairs: pair_store.PairStore) -> pa.Table:
  """Adds the languages of the rows' sources, if pairs name them."""
  codes = pairs.languages_of(table['source_id'].to_pylist())
  for side in ('source', 'target') if pairs.has_languages else ():
    column = pa.array([getattr(each, side) for each in codes], pa.string())
    table = table.append_column(f'{side}_language', column)
  return table
