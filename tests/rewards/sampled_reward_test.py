"""The reward of sampled outputs, by hand, with and without references."""

import types

import numpy as np
import pytest

from rest_jax.rewards import normalize, sampled_reward


class Reward:
  """Remembers what it is given; scores by the hypothesis' length."""

  name, digest = 'length', ''

  def __init__(self, needs_references, bad=None, needs_samples=False):
    self.needs_references = needs_references
    self.needs_samples = needs_samples
    self.seen = self.peers = None
    self._bad = bad

  def score(self, sources, hypotheses, references=None, peers=None):
    self.seen = (sources, hypotheses, references)
    self.peers = peers
    rewards = np.asarray([len(h) for h in hypotheses], np.float32)
    if self._bad is not None:
      rewards[self._bad] = np.nan
    return rewards


class Sampler:
  """Two outputs for each of two sources."""

  def sample(
    self, params, source_tokens, rows, *, seed, grow_step, progress=None
  ):
    del params, source_tokens, rows, seed, grow_step, progress
    yield types.SimpleNamespace(
      source_ids=np.asarray([0, 3]),
      tokens=[['a', 'aaa'], ['aa', 'aa']],
      finished=np.asarray([[True, True], [True, False]]),
    )


def measure(reward, evidence=None):
  pairs = types.SimpleNamespace(
    source_tokens=None,
    source_text=lambda row: f's{row}',
    reference_text=lambda row: f'r{row}',
  )
  vocabulary = types.SimpleNamespace(decode_batch=list)
  evaluate = sampled_reward.SampledReward(
    sampler=Sampler(),
    pairs=pairs,
    rows=np.arange(2),
    vocabulary=vocabulary,
    reward=reward,
    normalizer=normalize.Normalizer(0.0, 2.0),
    seed=0,
    evidence=evidence,
  )
  return evaluate({}, 0)


@pytest.mark.parametrize('needs_references', [False, True])
def test_by_hand(needs_references):
  reward = Reward(needs_references)
  found = measure(reward)
  # Lengths 1, 3, 2, 2 over 2.
  assert found['reward'] == found['objective'] == pytest.approx(1.0)
  assert found['length'] == 2 and found['unfinished'] == 0.25
  sources, hypotheses, references = reward.seen
  assert sources == ['s0', 's0', 's3', 's3']
  assert hypotheses == ['a', 'aaa', 'aa', 'aa']
  expected = ['r0', 'r0', 'r3', 'r3'] if needs_references else None
  assert references == expected


def test_nan_stops_and_names_the_row():
  with pytest.raises(FloatingPointError, match=r"'length' .* position 2"):
    measure(Reward(False, bad=2))


def test_evidence_is_the_stored_samples_of_each_source():
  reward = Reward(False, needs_samples=True)
  measure(reward, lambda source: [f'{source} a', f'{source} b'])
  assert reward.peers.samples == [['0 a', '0 b'], ['3 a', '3 b']]
  assert reward.peers.group.tolist() == [0, 0, 1, 1]
  assert not reward.peers.is_member.any()
  simple = Reward(False)
  measure(simple, lambda source: ['unused'])
  assert simple.peers is None
