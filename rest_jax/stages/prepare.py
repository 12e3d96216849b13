"""Stage `prepare`: makes the vocabulary, and stores tokenised pairs of text."""

import collections
from collections.abc import Iterator, Mapping
import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any

from absl import logging

from rest_jax.data import pair_store, prepared_digest, sources, vocabularies
from rest_jax.data import task as task_lib
from rest_jax.evaluation import text_metrics
from rest_jax.parallel import processes
from rest_jax.rewards import reference_text
from rest_jax.stages import base, text_record
from rest_jax.stages import folder as folder_lib
from rest_jax.storage import files, paths

if TYPE_CHECKING:
  from rest_jax.stages import context as context_lib

# Limits of warnings. Dropped pairs of validation and test sets always give one.
_MAX_DROPPED = 0.1
_MAX_TOKENISED = 0.1
_MAX_REWRITTEN = 0.1
_MIN_BLEU = 98.0
_MAX_REFERENCES = 2_000  # References that are checked per split.
_MAX_NAMED = 3  # Misaligned passages or characters that a warning names.


@dataclasses.dataclass(frozen=True)
class PreparedData:
  """A finished `data/` folder.

  Attributes:
    vocabulary: the vocabulary, with the languages of the task.
    digest: digest of vocabulary and pairs, without those of further test sets;
      a setting of every later stage.
  """

  directory: pathlib.Path
  vocabulary: vocabularies.Vocabulary
  digest: str
  checksums: Mapping[str, str]

  @property
  def described_vocabulary(self) -> dict[str, Any]:
    """Size, digest and languages, if any, for the manifests of stages."""
    return _described(self.vocabulary)

  @property
  def splits(self) -> tuple[str, ...]:
    """The splits whose pairs are stored."""
    return tuple(folder_lib.read_manifest(self.directory)['splits'])

  def digest_of(self, split: str) -> str:
    """Returns `digest`, with the pairs of a split that it leaves out."""
    return prepared_digest.of_split(self.digest, split, self.checksums)

  def pairs(self, split: str) -> pair_store.PairStore:
    """Opens the pairs of a split, see `Task.splits`."""
    path = pair_store.pair_path(self.directory, split)
    return pair_store.PairStore(path, self.checksums.get(path.name))

  @property
  def grow_split(self) -> str:
    """The split that Grow samples for: `grow` if there is one, else `train`."""
    return task_lib.GROW if task_lib.GROW in self.splits else task_lib.TRAIN


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Prepare(base.Stage):
  """Reads the task's text, makes the vocabulary and stores tokenised pairs.

  `make` raises ValueError for unreadable or misaligned input; see
  `data.sources`.

  Attributes:
    task: the text, and the limits on pairs.
    measured: splits that policies are measured on.
  """

  task: task_lib.Task
  measured: tuple[str, ...] = ()

  run_mode = 'prepare'
  help = 'Reads the text, makes the vocabulary and stores tokenised pairs.'
  is_profiled = False
  pattern = 'data'
  own_name = 'data'
  given_as = 'data'

  def check(self, context: 'context_lib.Context') -> None:
    context.check_vocabularies()

  def check_finished(self, context: 'context_lib.Context') -> None:
    text_record.warn_of_changes(self.folder)
    for split in self.measured:
      check_count(split, len(context.data.pairs(split)))

  def settings(self, context: 'context_lib.Context') -> dict[str, Any]:
    # Only later stages use ratings and judge.
    return {'task': dataclasses.replace(self.task, ratings=None, judge=None)}

  def make(
    self, context: 'context_lib.Context', output: folder_lib.StageFolder
  ) -> dict[str, Any]:
    context.forget_data()
    counts = processes.by_main('prepare', lambda: _make(self.task, output.path))
    for split, of_split in counts.items():
      for message in _warnings(self.task, split, of_split):
        output.warn(f'{split}: {message}')
    languages = dataclasses.asdict(self.task.languages)
    vocabulary = _vocabulary(output.path, languages)
    pair_files = sorted(output.path.glob('pairs-*'))
    return {
      'splits': counts,
      'vocabulary': _described(vocabulary),
      'files': {file.name: files.sha256(file) for file in pair_files},
      text_record.FIELD: processes.by_main(
        'text files', lambda: text_record.of_pairs(self.task.splits.values())
      ),
    }


def _make(task: task_lib.Task, directory: pathlib.Path) -> dict[str, Any]:
  """Makes vocabulary and pairs; returns the counts of each split."""
  vocabulary = vocabularies.make(
    task.vocabulary,
    _texts([task.train, task.grow]),
    directory,
    task.languages,
  )
  counts = {}
  for split, source in task.splits.items():
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
      counts[split].update(_check_references(source, pairs, vocabulary))
  return counts


def check_count(split: str, count: int) -> None:
  """Raises ValueError if pairs are too few to measure policies on."""
  if count < 2:
    raise ValueError(
      f'the {split} split must keep at least two pairs, as policies are measured '
      'on it, and standard errors are of the spread between sources; got '
      f'{count}. Add pairs, or leave a test set out of EvaluateConfig.splits.'
    )


def _check_references(
  source: sources.PairSource,
  pairs: pair_store.PairStore,
  vocabulary: vocabularies.Vocabulary,
) -> dict[str, Any]:
  """Checks some references of a split, for the manifest.

  Returns:
    `tokenised`: share that looks tokenised; `rewritten`: share that decoding of
    the encoded text changes, spaces aside. If that is large, also
    `changed_characters`: the most frequent lost characters, and
    `bleu_of_rewritten`: BLEU of the decoded texts.
  """
  rows = pair_store.spread_rows(len(pairs), _MAX_REFERENCES)
  references = [pairs.reference_text(int(row)) for row in rows]
  checked: dict[str, Any] = {'tokenised': 0.0}
  # The built-in language has spaces before punctuation.
  if not getattr(source, 'is_tokenised', False):
    checked['tokenised'] = reference_text.tokenised_share(references)
  decoded = vocabulary.decode_batch(vocabulary.encode_batch(references))
  changed = [
    (before, after)
    for before, after in zip(references, decoded, strict=True)
    if before.split() != after.split()
  ]
  checked['rewritten'] = len(changed) / len(references)
  if checked['rewritten'] > _MAX_REWRITTEN:
    lost = collections.Counter(
      character
      for before, after in changed
      for character in {*before} - {*after}
    )
    checked['changed_characters'] = [
      character for character, _ in lost.most_common(_MAX_NAMED)
    ]
    checked['bleu_of_rewritten'], _ = text_metrics.corpus_bleu(
      decoded, references, tokenize=reference_text.bleu_tokenizer(references)
    )
  return checked


def load(directory: str | pathlib.Path) -> PreparedData:
  """Opens a finished folder.

  Raises:
    FileNotFoundError: the folder is not finished.
  """
  directory = paths.of(directory)
  manifest = folder_lib.read_manifest(directory)
  vocabulary = _vocabulary(
    directory, manifest['vocabulary'].get('languages', {})
  )
  return PreparedData(
    directory,
    vocabulary,
    prepared_digest.of_data(manifest),
    manifest['files'],
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
  for name, count in counts.get('languages', {}).items():
    logging.info('%s: %d pairs kept of %s', split, count, name)
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
  """Yields warnings on a split whose text may harm training or results."""
  dropped = counts['read'] - counts['kept']
  is_measured = split not in (task_lib.TRAIN, task_lib.GROW)
  if dropped > (0 if is_measured else _MAX_DROPPED * counts['read']):
    yield _dropped(task, counts, is_measured)
  if passages := counts.get('misaligned'):
    yield _misaligned(passages, counts['read'])
  share = counts.get('tokenised', 0.0)
  if share > _MAX_TOKENISED:
    yield (
      f'{share:.0%} of the references look tokenised (" ." or " ," with a '
      'space before it, "&quot;", "@-@"). BLEU of such text is not comparable '
      'with published BLEU of plain text, and a policy trained on it writes such '
      'text: detokenise the files.'
    )
  if is_measured and counts.get('bleu_of_rewritten', 100.0) < _MIN_BLEU:
    characters = ' '.join(counts['changed_characters'])
    remedy = (
      "Set VocabularyConfig.normalization_rule = 'identity' to keep characters as "
      'they are, or raise character_coverage.'
    )
    if task.vocabulary.model_file is not None:
      remedy = 'The given tokeniser has no pieces for them.'
    yield (
      f'{counts["rewritten"]:.0%} of the references have characters that the '
      f'vocabulary cannot write ({characters}): at best, outputs have '
      f'{counts["bleu_of_rewritten"]:.1f} BLEU. {remedy}'
    )


def _dropped(
  task: task_lib.Task, counts: dict[str, Any], is_measured: bool
) -> str:
  """Describes the dropped pairs, and the settings that would keep them."""
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
      f'{counts["dropped_ratio"]:,} have sides of too different lengths; raise '
      f'max_length_ratio (now {task.max_length_ratio}) to keep them'
    )
  if counts['dropped_empty']:
    reasons.append(
      f'{counts["dropped_empty"]:,} have an empty side; check the files'
    )
  effect = (
    ' Scores are of the remaining pairs, and not comparable with other systems.'
    if is_measured
    else ''
  )
  return (
    f'{dropped:,} of {counts["read"]:,} pairs ({dropped / counts["read"]:.1%}) '
    f'were dropped: {"; ".join(reasons)}.{effect}'
  )


def _misaligned(passages: list[dict[str, Any]], read: int) -> str:
  """Describes the lines on which the two sides do not seem to correspond."""
  named = []
  for passage in passages[:_MAX_NAMED]:
    words = f'{passage["place"]} (correlation {passage["correlation"]:.2f}'
    if shift := passage['shift']:
      lines = 'line' if abs(shift) == 1 else 'lines'
      words += (
        f', {passage["shifted"]:.2f} with the reference {abs(shift)} {lines} '
        f'{"later" if shift > 0 else "earlier"}'
      )
    named.append(f'{words})')
  if len(passages) > _MAX_NAMED:
    named.append(f'{len(passages) - _MAX_NAMED} more, see manifest.json')
  total = sum(passage['last'] - passage['first'] + 1 for passage in passages)
  return (
    f'about {total:,} of {read:,} pairs look misaligned, judging by the lengths '
    f'of their sides: {"; ".join(named)}. Translations correlate at 0.5 to 1: '
    'look at these lines, and align the files again.'
  )
