"""TensorBoard events of a sample store: histograms and some texts."""

from collections.abc import Sequence
import html
import pathlib
from typing import Any

import numpy as np

from rest_jax.data import pair_store, ragged, sample_store, vocabularies
from rest_jax.runtime import control_characters
from rest_jax.storage import event_file

_MAX_ROWS = 100_000  # Rows in the histograms.
_MAX_SOURCES = 8  # Sources whose samples are shown.


def write(
  directory: pathlib.Path,
  entries: Sequence[dict[str, Any]],
  *,
  reward_name: str,
  pairs: pair_store.PairStore,
  vocabulary: vocabularies.Vocabulary,
  step: int,
) -> None:
  """Writes an event file beside the shards of a store.

  The histograms `samples/reward`, `samples/length` and `samples/log_prob` are
  of evenly spread rows; `samples/text` has all samples of a few sources.
  """
  for stale in directory.glob('events.out.tfevents.*'):
    stale.unlink()  # Left by an interrupted run.
  stride = -(-sum(entry['rows'] for entry in entries) // _MAX_ROWS)
  columns, sources = [], []
  for number, _ in enumerate(entries):
    shard, rewards = _open(directory, entries, number, reward_name)
    columns.append(
      [c[::stride] for c in (rewards, shard.tokens.lengths, shard.log_prob)]
    )
    sources += [(number, source) for source in np.unique(shard.source_id)]
  tables = []
  for index in pair_store.spread_rows(len(sources), _MAX_SOURCES):
    number, source = sources[index]
    shard, rewards = _open(directory, entries, number, reward_name)
    rows = np.flatnonzero(shard.source_id == source)
    text = pairs.source_text(int(source))
    tables.append(_table(text, shard.tokens, rows, rewards, vocabulary))
  with event_file.EventFile(directory) as events:
    names = ('reward', 'length', 'log_prob')
    for name, parts in zip(names, zip(*columns, strict=True), strict=True):
      events.add_histogram(f'samples/{name}', np.concatenate(parts), step)
    events.add_text('samples/text', '\n\n'.join(tables), step)


def _open(
  directory: pathlib.Path,
  entries: Sequence[dict[str, Any]],
  number: int,
  reward_name: str,
) -> tuple[sample_store.Shard, np.ndarray]:
  """Opens a shard, and reads its normalised rewards."""
  rewards = sample_store.read_rewards(directory, reward_name, entries, number)[
    1
  ]
  return sample_store.Shard(directory / entries[number]['file']), rewards


def _table(
  source: str,
  tokens: ragged.Ragged,
  rows: np.ndarray,
  rewards: np.ndarray,
  vocabulary: vocabularies.Vocabulary,
) -> str:
  """Formats the samples of one source, best first, as a Markdown table."""
  ordered = rows[np.argsort(-rewards[rows], kind='stable')]
  texts = vocabulary.decode_batch([tokens[int(row)] for row in ordered])
  lines = [f'| reward ×100 | {_escaped(source)} |', '|---:|:---|']
  lines += [
    f'| {100 * rewards[row]:.1f} | {_escaped(text)} |'
    for row, text in zip(ordered, texts, strict=True)
  ]
  return '\n'.join(lines)


def _escaped(text: str) -> str:
  """Escapes a text for a table cell in Markdown."""
  shown = html.escape(control_characters.visible(text))
  for character in '\\`*_[]|':
    shown = shown.replace(character, f'&#{ord(character)};')
  return shown
