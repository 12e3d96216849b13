"""Stage `prepare`: text to a vocabulary and tokenised pairs, stored once."""

import collections
from collections.abc import Iterator, Mapping
import dataclasses
import hashlib
import pathlib
from typing import TYPE_CHECKING, Any

from absl import logging

from rest_jax.data import pair_store, sources, vocabularies
from rest_jax.data import task as task_lib
from rest_jax.evaluation import text_metrics
from rest_jax.parallel import processes
from rest_jax.rewards import reference_text
from rest_jax.stages import base
from rest_jax.stages import folder as folder_lib
from rest_jax.storage import files, paths

if TYPE_CHECKING:
  from rest_jax.stages import context as context_lib

TRAIN, VALIDATION, TEST, GROW = 'train', 'validation', 'test', 'grow'
# Of the pairs to train on; of those to evaluate on any counts.
_MAX_DROPPED = 0.1
_MAX_TOKENISED = 0.1
_MAX_REWRITTEN = 0.1
_LEAST_BLEU = 98.0
_LOOKED_AT = 2_000  # References a split.
_NAMED = 3  # Stretches a warning names.


@dataclasses.dataclass(frozen=True)
class PreparedData:
  """A finished `data/` folder.

  Attributes:
    directory: the folder.
    vocabulary: its vocabulary, with the languages of the task.
    digest: of vocabulary and pairs; it feeds every later stage.
    checksums: of its files, by name.
  """

  directory: pathlib.Path
  vocabulary: vocabularies.Vocabulary
  digest: str
  checksums: Mapping[str, str]

  @property
  def described_vocabulary(self) -> dict[str, Any]:
    """Size, digest and languages, if any, for the manifests of stages."""
    return _described(self.vocabulary)

  def pairs(self, split: str) -> pair_store.PairStore:
    """Opens the pairs of 'train', 'validation', 'test' or 'grow'."""
    path = pair_store.pair_path(self.directory, split)
    return pair_store.PairStore(path, self.checksums.get(path.name))

  @property
  def grow_split(self) -> str:
    """The split whose sources a Grow samples for: D's own unless others are."""
    counts = folder_lib.read_manifest(self.directory)['splits']
    return GROW if GROW in counts else TRAIN


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Prepare(base.Stage):
  """Reads the task's text, makes the vocabulary and stores tokenised pairs.

  Attributes:
    task: what to read, and the limits on pairs.

  `make` raises ValueError for unreadable or misaligned input; see `data.sources`.
  """

  task: task_lib.Task

  run_mode = 'prepare'
  help = 'Reads the text, makes the vocabulary and stores tokenised pairs.'
  is_profiled = False
  pattern = 'data'
  own_name = 'data'
  given_as = 'data'

  def check(self, context: 'context_lib.Context') -> None:
    context.check_vocabularies()

  def settings(self, context: 'context_lib.Context') -> dict[str, Any]:
    # Ratings and judge feed later stages only.
    return {'task': dataclasses.replace(self.task, ratings=None, judge=None)}

  def make(
    self, context: 'context_lib.Context', output: folder_lib.StageFolder
  ) -> dict[str, Any]:
    counts = processes.by_main('prepare', lambda: _make(self.task, output.path))
    for split, found in counts.items():
      for message in _warnings(self.task, split, found):
        output.warn(f'{split}: {message}')
    languages = self.task.vocabulary.languages
    vocabulary = _vocabulary(output.path, dataclasses.asdict(languages))
    written = sorted(output.path.glob('pairs-*'))
    return {
      'splits': counts,
      'vocabulary': _described(vocabulary),
      'files': {file.name: files.sha256(file) for file in written},
    }


def _make(task: task_lib.Task, directory: pathlib.Path) -> dict[str, Any]:
  """Makes vocabulary and pairs; returns what was read of each split."""
  splits = {TRAIN: task.train, VALIDATION: task.validation, TEST: task.test}
  if task.grow is not None:
    splits[GROW] = task.grow
  vocabulary = vocabularies.make(
    task.vocabulary, _texts([task.train, task.grow]), directory
  )
  counts = {}
  for split, source in splits.items():
    counts[split] = pair_store.build(
      directory,
      split,
      source,
      vocabulary,
      max_source_length=task.max_source_length,
      max_target_length=task.max_target_length,
      max_length_ratio=task.max_length_ratio,
    )
    _report(split, counts[split])
    pairs = pair_store.PairStore.open(directory, split)
    if pairs.has_references:
      counts[split].update(_look_at_references(source, pairs, vocabulary))
  return counts


def _look_at_references(
  source: sources.PairSource,
  pairs: pair_store.PairStore,
  vocabulary: vocabularies.Vocabulary,
) -> dict[str, Any]:
  """What some references of a split look like, for the manifest.

  Returns:
    tokenised: share that looks tokenised; rewritten: share that the vocabulary
    does not give back as it stands, but for blanks; if that is large,
    changed_characters: the most frequent ones; bleu_of_rewritten: BLEU of what
    it gives back.
  """
  rows = pair_store.spread_rows(len(pairs), _LOOKED_AT)
  references = [pairs.reference_text(int(row)) for row in rows]
  found: dict[str, Any] = {'tokenised': 0.0}
  # The built-in language is written with spaces before its marks.
  if not getattr(source, 'is_tokenised', False):
    found['tokenised'] = reference_text.tokenised_share(references)
  given_back = vocabulary.decode_batch(vocabulary.encode_batch(references))
  changed = [
    (text, back)
    for text, back in zip(references, given_back, strict=True)
    if text.split() != back.split()
  ]
  found['rewritten'] = len(changed) / len(references)
  if found['rewritten'] > _MAX_REWRITTEN:
    lost = collections.Counter(
      character for text, back in changed for character in {*text} - {*back}
    )
    found['changed_characters'] = [
      character for character, _ in lost.most_common(_NAMED)
    ]
    found['bleu_of_rewritten'], _ = text_metrics.corpus_bleu(
      given_back,
      references,
      tokenize=reference_text.bleu_tokenizer(references),
    )
  return found


def load(directory: str | pathlib.Path) -> PreparedData:
  """Opens a finished folder; an unfinished one is an error."""
  directory = paths.of(directory)
  manifest = folder_lib.read_manifest(directory)
  hashed = hashlib.sha256(manifest['vocabulary']['digest'].encode())
  for name, checksum in sorted(manifest['files'].items()):
    hashed.update(f'{name} {checksum}'.encode())
  vocabulary = _vocabulary(
    directory, manifest['vocabulary'].get('languages', {})
  )
  return PreparedData(
    directory, vocabulary, hashed.hexdigest(), manifest['files']
  )


def _vocabulary(
  directory: pathlib.Path, languages: dict[str, str | None]
) -> vocabularies.Vocabulary:
  return vocabularies.Vocabulary(
    vocabularies.stored(directory), vocabularies.Languages(**languages)
  )


def _described(vocabulary: vocabularies.Vocabulary) -> dict[str, Any]:
  described = {'size': vocabulary.size, 'digest': vocabulary.digest}
  if vocabulary.languages == vocabularies.Languages():
    return described
  return {**described, 'languages': dataclasses.asdict(vocabulary.languages)}


def _texts(
  pair_sources: list[sources.PairSource | None],
) -> Iterator[str]:
  for source in pair_sources:
    if source is None:
      continue
    for pair in source.read():
      yield pair.source
      if pair.reference is not None:
        yield pair.reference


def _report(split: str, counts: dict[str, Any]) -> None:
  logging.info(
    '%s: %d pairs read, %d kept, %d dropped (%s)',
    split,
    counts['read'],
    counts['kept'],
    counts['read'] - counts['kept'],
    ', '.join(
      f'{name} {counts[f"dropped_{name}"]}'
      for name in ('empty', 'long', 'ratio')
    ),
  )


def _warnings(
  task: task_lib.Task, split: str, counts: dict[str, Any]
) -> Iterator[str]:
  """What of a split is likely to spoil training or results."""
  dropped = counts['read'] - counts['kept']
  is_measured = split in (VALIDATION, TEST)
  if dropped > (0 if is_measured else _MAX_DROPPED * counts['read']):
    yield _dropped(task, counts, is_measured)
  if stretches := counts.get('misaligned'):
    yield _misaligned(stretches, counts['read'])
  share = counts.get('tokenised', 0.0)
  if share > _MAX_TOKENISED:
    yield (
      f'{share:.0%} of the references look tokenised (" ." or " ," with a '
      'space before it, "&quot;", "@-@"). BLEU of such text is not that of plain '
      'text, as it is published, and a policy trained on it writes the same: '
      'detokenise the files.'
    )
  if is_measured and counts.get('bleu_of_rewritten', 100.0) < _LEAST_BLEU:
    characters = ' '.join(counts['changed_characters'])
    remedy = (
      "Set VocabularyConfig.normalization_rule = 'identity' to keep characters as "
      'they are, or raise character_coverage.'
    )
    if task.vocabulary.model_file is not None:
      remedy = 'The given tokeniser has no pieces for them.'
    yield (
      f'{counts["rewritten"]:.0%} of the references hold what the vocabulary cannot write '
      f'({characters}), so that even they would have '
      f'{counts["bleu_of_rewritten"]:.1f} BLEU. {remedy}'
    )


def _dropped(
  task: task_lib.Task, counts: dict[str, Any], is_measured: bool
) -> str:
  """Says which pairs were dropped, and what would keep them."""
  dropped = counts['read'] - counts['kept']
  reasons = []
  if counts['dropped_long']:
    common = counts['lengths_of_95_percent']
    limits = {
      'max_source_length': task.max_source_length,
      'max_target_length': task.max_target_length,
    }
    named = zip(limits.items(), common, strict=False)
    reasons.append(
      f'{counts["dropped_long"]:,} are longer than the limits; 95 % of all '
      'would fit '
      + ' and '.join(f'{name}={n} (now {now})' for (name, now), n in named)
    )
  if counts['dropped_ratio']:
    reasons.append(
      f'{counts["dropped_ratio"]:,} have sides of too unequal length; raise '
      f'max_length_ratio (now {task.max_length_ratio}) to keep them'
    )
  if counts['dropped_empty']:
    reasons.append(
      f'{counts["dropped_empty"]:,} have an empty side; check the files'
    )
  effect = (
    ' Scores are of the remaining pairs and not comparable with those of others.'
    if is_measured
    else ''
  )
  return (
    f'{dropped:,} of {counts["read"]:,} pairs ({dropped / counts["read"]:.1%}) '
    f'were dropped: {"; ".join(reasons)}.{effect}'
  )


def _misaligned(stretches: list[dict[str, Any]], read: int) -> str:
  """Says where the two sides do not seem to correspond."""
  named = []
  for found in stretches[:_NAMED]:
    words = f'{found["place"]} (correlation {found["correlation"]:.2f}'
    if found['shift']:
      lines = 'line' if abs(found['shift']) == 1 else 'lines'
      words += (
        f', {found["shifted"]:.2f} with the reference {abs(found["shift"])} '
        f'{lines} {"later" if found["shift"] > 0 else "earlier"}'
      )
    named.append(f'{words})')
  if len(stretches) > _NAMED:
    named.append(f'{len(stretches) - _NAMED} more, see manifest.json')
  total = sum(found['last'] - found['first'] + 1 for found in stretches)
  return (
    f'about {total:,} of {read:,} pairs look misaligned, judging by the lengths '
    f'of their sides: {"; ".join(named)}. Translations correlate at 0.5 to 1: '
    'look at these lines, and align the files again.'
  )
