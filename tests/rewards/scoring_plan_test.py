"""Tests of the plan of scoring: distinct texts in fixed shapes."""

import hypothesis
from hypothesis import strategies
import numpy as np
import pytest

from rest_jax.data import ragged, special_ids, vocabularies
from rest_jax.rewards import scoring_plan
from tests.rewards import fakes


def _config(**settings):
  defaults = {
    'max_source_length': 8,
    'max_target_length': 8,
    'length_buckets': (4, 8),
    'candidate_buckets': (1, 3),
    'tokens_per_call': 12,
    'held_tokens': 16,
  }
  return scoring_plan.ScoringConfig(**(defaults | settings))


def _plan(pairs, **settings):
  sources, hypotheses = zip(*pairs, strict=True)
  return scoring_plan.plan(
    _config(**settings), fakes.Characters(), sources, hypotheses
  )


def test_each_distinct_text_of_a_source_is_one_candidate():
  plan = _plan(
    [('a', 'xyz'), ('b', 'xyz'), ('a', 'xyz'), ('a', ''), ('b', 'xyz')]
  )
  assert len(plan.source_tokens) == 2
  assert len(plan.candidate_tokens) == 3
  of = plan.candidate_of
  assert of[0] == of[2] and of[1] == of[4]
  assert len({of[0], of[1], of[3]}) == 3
  # Shorter first, and each ends in EOS (1).
  np.testing.assert_array_equal(plan.starts, [0, 2, 3])
  assert plan.candidate_tokens[0].tolist() == [1]
  assert plan.candidate_tokens[1].tolist()[-1] == 1
  assert plan.source_tokens[0].tolist() == [3 + ord('a') % 29, 1]


def test_long_texts_are_cut_before_eos_and_counted():
  plan = _plan(
    [('a' * 7, 'b' * 7), ('a' * 8, 'b' * 9), ('c', 'b' * 9), ('c', 'x')]
  )
  assert plan.source_tokens.lengths.tolist() == [8, 8, 2]
  assert plan.truncated_sources == 1
  assert plan.truncated_candidates == 2
  assert plan.candidate_tokens.lengths.max() == 8
  assert all(row[-1] == 1 for row in plan.candidate_tokens)


def test_shapes_by_hand():
  pairs = [('a', 'x' * n) for n in range(7)]
  pairs += [('b' * 5, 'y'), ('c', 'z' * 6), ('c', 'z'), ('d', 'w')]
  plan = _plan(pairs)
  found = list(plan.blocks())
  # 12 tokens a call are 3 sources of 4 or 1 of 8; 16 are held: 1 x 3, 2 x 1.
  assert [block.length for block in found] == [4, 8]
  short, long = found
  assert short.sources.tolist() == [[0, 2, 3]]
  assert long.sources.tolist() == [[1], [-1]]
  # Candidates: 0-6 of 'a', the first four of them with EOS in 4 tokens; 7 of
  # 'b'; 8 (short) and 9 of 'c'; 10 of 'd'.
  got = [
    (call.length, call.slots.tolist(), call.candidates.tolist())
    for call in short.calls
  ]
  assert got == [
    (4, [0], [[0, 1, 2]]),
    (4, [0, 1, 2], [[3], [8], [10]]),
    (8, [0], [[4, 5, 6]]),
    (8, [1], [[9]]),
  ]
  assert [call.candidates.tolist() for call in long.calls] == [
    [[7], [-1], [-1]]
  ]
  assert long.calls[0].length == 4


_PAIRS = strategies.lists(
  strategies.tuples(
    strategies.text('ab', max_size=9), strategies.text('xyz', max_size=9)
  ),
  min_size=1,
  max_size=40,
)


@hypothesis.settings(deadline=None, derandomize=True, max_examples=100)
@hypothesis.given(_PAIRS, strategies.integers(1, 40), strategies.integers(1, 4))
def test_every_candidate_is_in_one_call(pairs, tokens, multiple):
  plan = _plan(pairs, tokens_per_call=tokens, held_tokens=3 * tokens)
  seen_sources, seen, shapes = [], [], set()
  for block in plan.blocks(multiple):
    assert block.sources.shape[1] % multiple == 0
    shapes.add((block.length, *block.sources.shape))
    flat = block.sources.reshape(-1)
    real = flat[flat != scoring_plan.NONE]
    seen_sources.extend(real)
    assert plan.source_tokens.lengths[real].max() <= block.length
    for slots, candidates, length in block.calls:
      assert candidates.shape[0] == len(slots)
      assert candidates.shape[0] % multiple == 0
      assert candidates.shape[1] in plan.config.candidate_buckets
      shapes.add((block.length, length, *candidates.shape))
      for source, row in zip(flat[slots], candidates, strict=True):
        # A group is whole, or it fills the call up.
        assert np.all(row == scoring_plan.NONE) or np.all(
          row != scoring_plan.NONE
        )
        row = row[row != scoring_plan.NONE]
        assert np.all(plan.starts[source] <= row)
        assert np.all(row < plan.starts[source + 1])
        seen.extend(row)
        assert np.all(plan.candidate_tokens.lengths[row] <= length)
  # At most one shape for each bucket pair and C, and one for each encoding.
  assert len(shapes) <= 2 * 2 * 2 + 2
  assert sorted(seen_sources) == list(range(len({s for s, _ in pairs})))
  assert sorted(seen) == list(range(len(set(pairs))))
  # Inputs stand for the candidate of their own texts.
  by_pair = {}
  for pair, candidate in zip(pairs, plan.candidate_of, strict=True):
    assert by_pair.setdefault(pair, candidate) == candidate
    tokens = fakes.Characters().encode_batch([pair[1]])[0][:7]
    np.testing.assert_array_equal(plan.candidate_tokens[candidate][:-1], tokens)
  assert len(set(by_pair.values())) == len(by_pair)


def test_padding_is_a_lone_eos():
  plan = _plan([('a', 'xy')])
  padded = scoring_plan.pad(plan.candidate_tokens, np.asarray([-1, 0]), 4)
  assert padded.dtype == np.int32
  assert padded.tolist()[0] == [1, 0, 0, 0]
  assert padded.tolist()[1][2:] == [1, 0]


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'length_buckets': (8, 4)}, 'length_buckets must be rising'),
    ({'length_buckets': ()}, 'length_buckets must be rising'),
    ({'candidate_buckets': (0, 4)}, 'candidate_buckets must be rising'),
    ({'max_source_length': 9}, 'max_source_length must be'),
    ({'max_target_length': 1}, 'max_target_length must be'),
    ({'candidate_buckets': (2, 4)}, 'candidate_buckets must begin with 1'),
    ({'tokens_per_call': 0}, 'tokens_per_call must be'),
    ({'held_tokens': 0}, 'held_tokens must be'),
    ({'calls_in_flight': 0}, 'calls_in_flight must be'),
  ],
)
def test_bad_shapes_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    _config(**settings)


@pytest.mark.parametrize('num_devices', [2, 8])
def test_a_device_computes_the_same_whatever_their_number(num_devices):
  pairs = [('ab' * (n % 3), 'xyz'[: n % 4] + 'x' * n) for n in range(6)]
  plan = _plan(pairs)

  def shapes(devices):
    return {
      (block.length, block.sources.shape[1] // devices)
      for block in plan.blocks(devices)
    } | {
      (block.length, call.length, len(call.slots) // devices, width)
      for block in plan.blocks(devices)
      for call in block.calls
      for width in call.candidates.shape[1:]
    }

  assert shapes(num_devices) == shapes(1)


def test_many_truncated_texts_are_logged(monkeypatch):
  said = []
  monkeypatch.setattr(
    scoring_plan.logging,
    'log_first_n',
    lambda level, message, number, *args: said.append(message % args),
  )
  for cut, total in ((0, 0), (0, 10), (1, 10)):
    scoring_plan.warn_of_cut('learned', cut, total)
  assert not said
  scoring_plan.warn_of_cut('learned', 18, 25)
  assert len(said) == 1
  assert said[0].startswith('reward learned: 18 of 25 texts (72 %) exceed')


def test_special_ids_of_a_model():
  ids = special_ids.SpecialIds(pad=9, eos=0, unk=1, decoder_start=9)
  padded = scoring_plan.pad(
    ragged.Ragged.from_lists([[5, 0]]), np.asarray([-1, 0]), 3, ids
  )
  assert padded.tolist() == [[0, 9, 9], [5, 0, 9]]
  side = vocabularies.Side(
    fakes.Characters().encode_batch, before=(7, 8), after=(0,)
  )
  [row], [cut] = scoring_plan.encode(side, ['abc'], 5)
  bare = fakes.Characters().encode_batch(['abc'])[0].tolist()
  assert row.tolist() == [7, 8, *bare[:2], 0]
  assert cut
