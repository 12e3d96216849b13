"""Rewards that are right or wrong on purpose, and what probes say of them."""

import json

import numpy as np
import pytest

from rest_jax.rewards import probe_results, probes

SOURCES = ['der hund', 'die katze', 'das haus ist rot', 'die katze']
REFERENCES = ['The dog.', 'The 2 cats.', 'The house is red.', 'The cat is in.']


class Reward:
  """A reward by a function of source and hypothesis."""

  name = 'test'
  needs_references = False

  def __init__(self, score):
    self._score = score

  def score(self, sources, hypotheses, references=None):
    pairs = zip(sources, hypotheses, strict=True)
    return np.asarray([self._score(*pair) for pair in pairs], np.float32)


def report(score, **settings):
  return probe_results.measure(
    probes.ProbeConfig(**settings), Reward(score), SOURCES, REFERENCES, seed=0
  )


def answers(found):
  return {answer.name: answer for answer in found.probed}


def knows_references(source, hypothesis):
  right = {*zip(SOURCES, REFERENCES, strict=True)}
  return 5.0 if (source, hypothesis) in right else 2.0


def test_a_perfect_reward_passes():
  found = report(knows_references)
  for answer in found.probed:
    if answer.count:
      assert (answer.share is None) == answer.is_control
      assert answer.is_control or answer.share.value == 1.0
      assert answer.mean_drop == 3.0
  assert found.missed(1.0) == []
  assert (found.mean, found.std, found.num_pairs) == (5.0, 0.0, 4)


def test_a_reward_of_length_fails_where_texts_get_longer():
  found = report(lambda source, hypothesis: float(len(hypothesis)))
  missed = {answer.name for answer in found.missed(0.99)}
  assert {'repeated', 'added_sentence', 'permuted', 'added_negation'} <= missed
  assert missed.isdisjoint({'empty', 'truncated'})
  by_name = answers(found)
  # A tie is no right answer.
  assert by_name['permuted'].share.value == 0.0
  assert by_name['permuted'].mean_drop == 0.0
  lengths = [len(reference) for reference in REFERENCES]
  assert by_name['repeated'].mean_drop == -np.mean(lengths) - 1
  assert by_name['empty'].mean_drop == np.mean(lengths)
  assert (found.mean, found.std) == (np.mean(lengths), np.std(lengths))


def test_a_reward_of_copying_fails_on_sources():
  found = report(lambda source, hypothesis: float(source == hypothesis))
  assert answers(found)['copied_source'].share.value == 0.0
  assert answers(found)['copied_source'].mean_drop == -1.0


def test_controls_have_the_size_of_the_change():
  # The capital adds one, the full stop one.
  found = report(lambda s, h: float(h[:1].isupper()) - float(h.endswith('.')))
  first = answers(found)['first_case']
  assert (first.count, first.mean_drop, first.share) == (4, 1.0, None)
  assert answers(found)['final_mark'].mean_drop == 1.0
  assert not {answer.name for answer in found.missed(1.0)} & {*probes.CONTROLS}


def test_a_probe_without_cases_is_neither_passed_nor_missed():
  found = report(knows_references)
  untested = {answer.name: answer for answer in found.untested}
  assert 'dropped_negation' in untested and 'swapped_entity' in untested
  assert untested['dropped_negation'].count == 0
  assert untested['dropped_negation'].share is None
  assert 'dropped_negation' not in {a.name for a in found.missed(1.0)}


def test_intervals_are_clustered_by_source():
  # Two of four references are of one source.
  found = answers(report(knows_references))['empty'].share
  assert found.low == pytest.approx(3 / (3 + 1.96**2), abs=1e-4)


def test_the_worst_cases_are_shown():
  scores = dict(zip(REFERENCES, (1.0, 4.0, 2.0, 3.0), strict=True))
  found = report(
    lambda source, hypothesis: scores.get(hypothesis, 0.0), names=('empty',)
  )
  (answer,) = found.probed
  assert [case['drop'] for case in answer.examples] == [1.0, 2.0, 3.0]
  assert answer.examples[0] == {
    'source': 'der hund',
    'reference': 'The dog.',
    'changed': '',
    'drop': 1.0,
  }


def test_json():
  found = report(knows_references)
  written = json.loads(
    json.dumps(probe_results.to_json(found), allow_nan=False)
  )
  again = probe_results.from_json(written)
  assert probe_results.to_json(again) == probe_results.to_json(found)
  assert again.missed(0.5) == [] and len(again.probed) == len(found.probed)


def test_a_reward_that_needs_references_is_given_each_row_s_own():
  class Equal:
    name = 'equal'
    needs_references = True

    def score(self, sources, hypotheses, references=None):
      # Every source has its own reference, which a change leaves.
      pairs = set(zip(SOURCES, REFERENCES, strict=True))
      assert set(zip(sources, references, strict=True)) == pairs
      return np.equal(hypotheses, references).astype(np.float32)

  found = probe_results.measure(
    probes.ProbeConfig(names=('repeated', 'empty')),
    Equal(),
    SOURCES,
    REFERENCES,
    seed=0,
  )
  assert found.mean == 1.0
  assert [answer.share.value for answer in found.probed] == [1.0, 1.0]


def test_changed_references_are_judged_by_the_samples_of_their_source():
  seen = []

  class Looks(Reward):
    needs_samples = True

    def score(self, sources, hypotheses, references=None, peers=None):
      for row, group in enumerate(peers.group):
        seen.append((sources[row], peers.samples[group]))
      return super().score(sources, hypotheses)

  sources = [f'x {n} y' for n in range(3)]
  probe_results.measure(
    probes.ProbeConfig(names=('truncated',)),
    Looks(lambda source, hypothesis: len(hypothesis)),
    sources,
    ['one two three four', 'five six', 'seven eight nine'],
    seed=0,
    evidence=lambda place: [sources[place]],
  )
  assert len(seen) > 3
  assert all(samples == [source] for source, samples in seen)
