r"""Consensus of N samples a source: ours, fastChrF, sacrebleu.

  python -m benchmarks.consensus
  python -m benchmarks.consensus --directory=runs/demo/grow_1 \
    --data=runs/demo/data

All compute the mean chrF of each sample to the other samples of its source, of
distinct texts once. fastChrF is also measured with aggregated references, which
is another number: chrF to the mean counts of all samples, itself included.
"""

import functools
import itertools
import json
import pathlib
import tempfile

from absl import app, flags
import numpy as np

from benchmarks import harness

_DIRECTORY = flags.DEFINE_string(
  'directory', None, 'A finished Grow whose samples are compared.'
)
_DATA = flags.DEFINE_string('data', None, 'The prepared data of its run.')
_SYSTEMS = flags.DEFINE_list(
  'systems', ['ours', 'fastchrf', 'aggregated', 'sacrebleu'], 'What to measure.'
)
_SOURCES = flags.DEFINE_integer('sources', 50, 'Sources in all.')
_SAMPLES = flags.DEFINE_integer('samples', 100, 'N, of random sentences.')
_WORDS = flags.DEFINE_integer('words', 12, 'Words of random sentences.')
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Turns of each system.')

_TOLERANCE = 1e-6


def prepare_ours(folder: pathlib.Path):
  """Our reward."""
  from rest_jax.rewards import base, consensus, lexical

  groups = _read(folder)
  reward = consensus.ConsensusReward('consensus', lexical.Chrf())
  texts = list(itertools.chain(*groups))
  ids = np.repeat(np.arange(len(groups)), list(map(len, groups)))

  def run() -> float:
    peers = base.Peers.own(ids, texts)
    rewards = reward.score([''] * len(texts), texts, peers=peers)
    np.save(folder / 'ours.npy', rewards)
    return float(len(texts))

  return run


def prepare_fastchrf(folder: pathlib.Path):
  """fastChrF's table of all pairs."""
  import fastchrf

  return _pairwise(
    folder,
    'fastchrf',
    lambda texts: np.asarray(fastchrf.pairwise_chrf([texts], [texts])[0]),
  )


def prepare_sacrebleu(folder: pathlib.Path):
  """sacrebleu, pair by pair."""
  from sacrebleu import metrics

  score = metrics.CHRF().sentence_score
  return _pairwise(
    folder,
    'sacrebleu',
    lambda texts: np.asarray(
      [[score(one, [other]).score for other in texts] for one in texts]
    ),
  )


def prepare_aggregated(folder: pathlib.Path):
  """fastChrF with aggregated references."""
  import fastchrf

  groups = _read(folder)

  def run() -> float:
    fastchrf.aggregate_chrf([list(dict.fromkeys(g)) for g in groups], groups)
    return float(sum(map(len, groups)))

  return run


def _pairwise(folder: pathlib.Path, name: str, compare):
  """Mean similarity to the others, from a table of distinct texts."""
  groups = _read(folder)

  def run() -> float:
    rewards = []
    for texts in groups:
      distinct = list(dict.fromkeys(texts))
      table = compare(distinct) / 100
      at = [distinct.index(text) for text in texts]
      counts = np.bincount(at, minlength=len(distinct))
      means = (table @ counts - np.diag(table)) / (len(texts) - 1)
      rewards.append(means[at])
    np.save(folder / f'{name}.npy', np.concatenate(rewards))
    return float(sum(map(len, groups)))

  return run


def _read(folder: pathlib.Path) -> list[list[str]]:
  return json.loads((folder / 'groups.json').read_text(encoding='utf-8'))


def _groups() -> list[list[str]]:
  """Samples of each source: a run's, or random sentences with words changed."""
  if _DIRECTORY.value:
    return _stored(_DIRECTORY.value, _DATA.value, _SOURCES.value)
  random = np.random.default_rng(0)
  letters = np.array(list('abcdefghijklmnopqrstuvwxyz'))
  words = [
    ''.join(random.choice(letters, size))
    for size in random.integers(2, 10, 500)
  ]
  groups = []
  for _ in range(_SOURCES.value):
    sentence = random.integers(0, len(words), _WORDS.value)
    drawn = np.tile(sentence, (_SAMPLES.value, 1))
    other = random.random(drawn.shape) < 0.2
    drawn[other] = random.integers(0, len(words), int(other.sum()))
    groups.append([' '.join(words[i] for i in row) for row in drawn])
  return groups


def _stored(directory: str, data: str | None, limit: int) -> list[list[str]]:
  from rest_jax.data import sample_store
  from rest_jax.rewards import base
  from rest_jax.stages import prepare

  if data is None:
    raise app.UsageError(
      '--data must be the folder of the data of --directory.'
    )
  store = sample_store.SampleStore.open(directory)
  rows = np.flatnonzero((store.source_id < limit) & (store.sample_id >= 0))
  vocabulary = prepare.load(data).vocabulary
  texts = vocabulary.decode_batch([store.tokens[row] for row in rows.tolist()])
  return [list(g) for g in base.Peers.own(store.source_id[rows], texts).samples]


def main(argv) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments: {argv[1:]}')
  known = {
    'ours': prepare_ours,
    'fastchrf': prepare_fastchrf,
    'aggregated': prepare_aggregated,
    'sacrebleu': prepare_sacrebleu,
  }
  groups = _groups()
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    (folder / 'groups.json').write_text(json.dumps(groups), encoding='utf-8')
    measured = harness.measure(
      {name: functools.partial(known[name], folder) for name in _SYSTEMS.value},
      num_rounds=_ROUNDS.value,
    )
    difference = _difference(folder)
  ratios = {}
  for theirs in ('fastchrf', 'aggregated', 'sacrebleu'):
    ratios |= harness.rate_ratio(measured, 'ours', theirs)
  settings = {
    'sources': len(groups),
    'samples': len(groups[0]),
    'distinct': round(float(np.mean([len(set(g)) for g in groups])), 2),
    'characters': round(
      float(np.mean([len(text) for g in groups for text in g])), 1
    ),
    'largest_difference': difference,
  }
  harness.report(measured, unit='samples', ratios=ratios, settings=settings)


def _difference(folder: pathlib.Path) -> float | None:
  """The largest difference of rewards to ours, where both were measured."""
  if not (folder / 'ours.npy').is_file():
    return None
  ours, found = np.load(folder / 'ours.npy'), []
  for theirs in ('fastchrf', 'sacrebleu'):
    if (folder / f'{theirs}.npy').is_file():
      found.append(np.abs(ours - np.load(folder / f'{theirs}.npy')).max())
  difference = float(max(found, default=0.0))
  if difference > _TOLERANCE:
    raise RuntimeError(
      f'rewards must agree within {_TOLERANCE}; they differ by {difference}.'
    )
  return difference


if __name__ == '__main__':
  app.run(main)
