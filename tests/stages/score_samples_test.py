"""Scoring a store made by hand: columns, scale, references and vetoes."""

import types

import numpy as np
import pytest

from rest_jax.data import ragged, sample_rewards, sample_store
from rest_jax.filters import for_all_sources
from rest_jax.losses import bc
from rest_jax.rewards import base, consensus, guards, normalize
from rest_jax.rewards import peers as peers_lib
from rest_jax.stages import improve, score_samples
from tests.rewards import fakes

# source, sample, token, finished; a row's text is the letter of its token.
SHARDS = (
  ((0, -1, 'a', True), (0, 0, 'b', True), (0, 1, 'b', True)),
  ((1, -1, 'c', True), (1, 0, 'd', True), (1, 1, 'e', False)),
)
# The texts that hypotheses become; 'x' is too long for its source.
TEXTS = {'a': '?', 'b': 'xxxx', 'c': '?', 'd': 'dd', 'e': 'ee'}
RAW = {'r0': 2.0, 'r1': 3.0, 'xxxx': 9.0, 'dd': 1.0, 'ee': 0.0}
FLOOR = -4.0


class Pairs(fakes.Pairs):
  has_references = True
  source_tokens = ragged.Ragged.from_lists([np.array([5, 1])] * 2)


PAIRS = Pairs(('s0', 'r0'), ('s1', 'r1'))
VOCABULARY = types.SimpleNamespace(
  decode_batch=lambda rows: [TEXTS[chr(int(row[0]))] for row in rows]
)


@pytest.fixture
def folder(tmp_path):
  entries = []
  for shard, rows in enumerate(SHARDS):
    columns = sample_store.SampleRows(
      source_id=np.array([row[0] for row in rows], np.int64),
      sample_id=np.array([row[1] for row in rows], np.int32),
      tokens=[
        np.array([ord(row[2]), 1] if row[3] else [ord(row[2])], np.int32)
        for row in rows
      ],
      log_prob=np.zeros(len(rows), np.float32),
      finished=np.array([row[3] for row in rows]),
    )
    entries.append(
      sample_store.write_shard(tmp_path, shard, len(SHARDS), columns, 128)
    )
  return types.SimpleNamespace(path=tmp_path, entries=entries)


def reward(needs_references=False, raw=RAW):
  table = fakes.Table(
    rewards=tuple(raw.items()), needs_references=needs_references
  )
  config = guards.Guarded(
    reward=table, guards=(guards.LengthRatio(high=1.5),), floor=FLOOR
  )
  return config.load(fakes.resources())


def score(folder, scored, normalizer=None, evidence=None):
  found = score_samples.score(
    score_samples.Store(folder.path, len(SHARDS), PAIRS, VOCABULARY),
    reward=scored,
    normalizer=normalizer,
    description='',
    evidence=evidence,
  )
  sample_store.write_manifest(
    folder.path,
    {
      'num_sources': 2,
      'num_rows': 6,
      'split': 'train',
      'shards': folder.entries,
      'rewards': base.describe(scored),
    },
  )
  return found, sample_store.SampleStore.open(folder.path)


def test_columns_and_the_scale_of_what_passes(folder):
  normalizer, store = score(folder, reward())
  raw, normalised = store.rewards('guarded')
  np.testing.assert_array_equal(raw, [2, FLOOR, FLOOR, 3, 1, 0])
  low, high = np.percentile([2, 3, 1, 0], [0.5, 99.5])
  assert normalizer == normalize.Normalizer(low, high)
  np.testing.assert_allclose(normalised, (raw - low) / (high - low), rtol=1e-5)
  np.testing.assert_array_equal(store.rewards('table')[0], [2, 9, 9, 3, 1, 0])
  np.testing.assert_array_equal(
    store.rewards('guarded_length_ratio')[1], [1, 0, 0, 1, 1, 1]
  )
  assert not list(folder.path.glob('.raw*'))


def test_a_given_scale_is_used_and_nothing_done_twice(folder):
  given = normalize.Normalizer(0.0, 2.0)
  _, store = score(folder, reward(), given)
  np.testing.assert_allclose(store.rewards('guarded')[1][0], 1.0)
  # With all columns there nothing is asked of the reward, which knows nothing.
  left = folder.path / '.raw-guarded' / '00000.npz'
  left.parent.mkdir()
  left.touch()
  assert score(folder, reward(raw={}), given)[0] == given
  assert not left.parent.exists()
  # One column of one shard is gone: all is scored again.
  next((folder.path / 'rewards').glob('table-00001*')).unlink()
  with pytest.raises(KeyError):
    score(folder, reward(raw={}), given)


def test_references_are_those_of_each_row_s_source(folder):
  seen = []

  class Looks(fakes.Table):
    def score(self, sources, hypotheses, references=None):
      seen.append(list(zip(sources, hypotheses, references, strict=True)))
      return super().score(sources, hypotheses, references)

  looks = Looks(rewards=tuple(RAW.items()), needs_references=True)
  score(folder, looks)
  assert seen == [
    [('s0', 'r0', 'r0'), ('s0', 'xxxx', 'r0'), ('s0', 'xxxx', 'r0')],
    [('s1', 'r1', 'r1'), ('s1', 'dd', 'r1'), ('s1', 'ee', 'r1')],
  ]


def test_samples_of_a_row_s_source_without_the_reference(folder):
  seen = []

  class Looks(fakes.Table):
    def score(self, sources, hypotheses, references=None, peers=None):
      seen.append(peers)
      return super().score(sources, hypotheses)

  looks = Looks(rewards=tuple(RAW.items()), needs_samples=True)
  score(folder, looks)
  assert [peers.samples for peers in seen] == [
    [['xxxx', 'xxxx']], [['dd', 'ee']],
  ]  # fmt: skip
  for peers in seen:
    assert peers.group.tolist() == [0, 0, 0]
    assert peers.is_member.tolist() == [False, True, True]


def test_given_evidence_takes_the_place_of_the_store_s_samples(folder):
  evidence = {0: ['xxxx', 'xxyy'], 1: ['ddd', 'r1']}
  scored = consensus.Consensus().load(fakes.resources())
  _, store = score(
    folder, scored, normalize.Normalizer(0.0, 1.0), evidence.__getitem__
  )
  texts = ['r0', 'xxxx', 'xxxx', 'r1', 'dd', 'ee']
  peers = peers_lib.Peers.fixed([0, 0, 0, 1, 1, 1], evidence.__getitem__)
  np.testing.assert_array_equal(
    store.rewards('consensus')[0], scored.score([''] * 6, texts, peers=peers)
  )
  assert store.rewards('consensus')[0][5] == 0


def test_scoring_that_was_cut_off_goes_on_by_the_same_samples(folder):
  scored = consensus.Consensus().load(fakes.resources())

  class CutOff(consensus.ConsensusReward):
    def score(self, sources, *rest):
      if sources[0] == 's1':
        raise KeyboardInterrupt
      return scored.score(sources, *rest)

  class Second(consensus.ConsensusReward):
    def score(self, sources, *rest):
      assert sources[0] == 's1'
      return scored.score(sources, *rest)

  with pytest.raises(KeyboardInterrupt):
    score(folder, CutOff('consensus', scored._similarity))
  _, store = score(folder, Second('consensus', scored._similarity))
  found = store.rewards('consensus')[0]
  np.testing.assert_allclose(found, [0, 1, 1, 0, 0, 0])


@pytest.mark.parametrize('num_shards', [1, 2, 3])
def test_any_sharding_gives_the_same_consensus(tmp_path, num_shards):
  random = np.random.default_rng(0)
  letters = random.integers(ord('a'), ord('d'), (6, 4))
  names = {chr(c): f'a {chr(c)} of {c}' for c in range(ord('a'), ord('d'))}
  for shard, (start, stop) in enumerate(
    sample_store.shard_ranges(6, 6 // num_shards)
  ):
    ids = np.repeat(np.arange(start, stop), 4)
    columns = sample_store.SampleRows(
      source_id=ids,
      sample_id=np.tile(np.arange(4, dtype=np.int32), stop - start),
      tokens=[np.array([c, 1]) for c in letters[start:stop].reshape(-1)],
      log_prob=np.zeros(len(ids), np.float32),
      finished=np.ones(len(ids), bool),
    )
    sample_store.write_shard(tmp_path, shard, num_shards, columns, 128)
  store = score_samples.Store(
    tmp_path,
    num_shards,
    types.SimpleNamespace(source_text=str),
    types.SimpleNamespace(
      decode_batch=lambda rows: [names[chr(int(row[0]))] for row in rows]
    ),
  )
  score_samples.score(
    store,
    reward=consensus.Consensus().load(fakes.resources()),
    normalizer=normalize.Normalizer(0.0, 1.0),
    description='',
  )
  found = np.concatenate(
    [
      sample_rewards.read_rewards(
        sample_store.rewards_path(tmp_path, 'consensus', shard, num_shards),
        rows=24 // num_shards,
        samples_sha256=sample_store.shard_info(
          sample_store.shard_path(tmp_path, shard, num_shards)
        ).sha256,
      )[0]
      for shard in range(num_shards)
    ]
  )
  expected = [
    consensus.utilities([names[chr(c)] for c in row]) for row in letters
  ]
  np.testing.assert_array_equal(found, np.concatenate(expected))


def test_nan_stops_and_nothing_is_written(folder):
  with pytest.raises(FloatingPointError, match=r"'table' .*position 1 \(1"):
    score(folder, reward(raw={**RAW, 'dd': np.nan}))
  assert not (folder.path / 'rewards').exists()


def test_what_is_vetoed_is_not_trained_on(folder):
  """Here source 0 has samples that are vetoed alone."""
  score(folder, reward())
  config = types.SimpleNamespace(
    include_references=False,
    include_unfinished=True,
    filter=for_all_sources.Fixed(values=(float('-inf'),)),
    loss=bc.BC(),
    reference_weight=1.0,
    balance_sources=False,
  )
  rows = improve.select_rows(
    config,
    improve_step=1,
    grow_directory=folder.path,
    reward_name='guarded',
    data=types.SimpleNamespace(pairs=lambda split: PAIRS),
  )
  assert rows.statistics['samples'] == 2
  batch = rows.load(np.arange(2), 2, 2)
  assert sorted(batch['decoder_target_tokens'][:, 0].tolist()) == [
    ord('d'), ord('e'),
  ]  # fmt: skip


def test_a_split_without_references_is_named():
  pairs = types.SimpleNamespace(has_references=False)
  score_samples.check_references(fakes.Table(rewards=()), pairs, 'grow')
  needy = fakes.Table(rewards=(), needs_references=True)
  with pytest.raises(ValueError, match=r"'table' .* the grow split has none"):
    score_samples.check_references(needy, pairs, 'grow')


@pytest.mark.parametrize('damage', ['whole', 'cut', 'empty', 'flipped'])
def test_raw_rewards_are_kept_if_they_are_whole(tmp_path, damage):
  path = tmp_path / 'raw' / '00000.npz'
  path.parent.mkdir()
  assert not score_samples._is_raw(path)
  score_samples._write_raw(
    path, {'r': np.linspace(0, 1, 7), 'part': np.arange(7)}
  )
  content = bytearray(path.read_bytes())
  if damage == 'flipped':
    content[content.index(np.float32(6).tobytes())] ^= 1
  path.write_bytes({'cut': content[:-9], 'empty': b''}.get(damage, content))
  assert score_samples._is_raw(path) == (damage == 'whole')
  if damage == 'whole':
    stored = score_samples._read_raw(path)
    assert list(stored) == ['r', 'part']
    assert all(column.dtype == np.float32 for column in stored.values())
    np.testing.assert_array_equal(stored['part'], np.arange(7))
  assert [p.name for p in path.parent.iterdir()] == ['00000.npz']
