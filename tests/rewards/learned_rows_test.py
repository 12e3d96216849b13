"""Tests of the rows that a reward model is trained on."""

from absl import logging
import numpy as np
import pytest

from rest_jax.data import special_ids, vocabularies
from rest_jax.rewards import corruptions, learned_rows, scoring_plan


class _Characters(vocabularies.Encoder):
  """A vocabulary of lower case letters; the rest is UNK (2)."""

  size = 30

  def encode_batch(self, texts):
    return [
      np.asarray(
        [3 + ord(c) - ord('a') if c.islower() else 2 for c in text], np.int32
      )
      for text in texts
    ]


_SCORING = scoring_plan.ScoringConfig(
  max_source_length=4, max_target_length=3, length_buckets=(4,)
)


@pytest.fixture
def warnings(monkeypatch):
  found = []
  monkeypatch.setattr(
    logging, 'warning', lambda message, *args: found.append(message % args)
  )
  return found


def _rows(texts, **settings):
  scores = learned_rows.Scale(1.0, 2.0)(texts.scores)
  return learned_rows.RewardRows.of_texts(
    'toys',
    texts._replace(scores=scores),
    scoring=_SCORING,
    **{'vocabulary': _Characters(), **settings},
  )


def test_scale_by_hand():
  scale = learned_rows.Scale.of('x', np.asarray([1.0, 3.0], np.float32))
  assert (scale.mean, scale.std) == (2.0, 1.0)
  standardised = scale(np.asarray([1.0, 3.0, 5.0]))
  assert standardised.dtype == np.float32
  np.testing.assert_array_equal(standardised, [-1.0, 1.0, 3.0])


@pytest.mark.parametrize('scores', [[], [1.0], [2.0, 2.0, 2.0]])
def test_scores_that_do_not_vary_are_refused(scores):
  with pytest.raises(ValueError, match='scores of toys must vary'):
    learned_rows.Scale.of('toys', np.asarray(scores))


def test_a_batch_by_hand(warnings):
  texts = corruptions.ScoredTexts(
    ['ab', 'c', 'a'], ['d', '', 'ef'], np.asarray([3.0, 1.0, -1.0])
  )
  rows = _rows(texts, weights=np.asarray([1.0, 2.0, 3.0]))
  batch = rows.load(np.asarray([1, 0]), 4, 3)
  assert batch['encoder_input_tokens'].tolist() == [[5, 1, 0, 0], [3, 4, 1, 0]]
  assert batch['decoder_target_tokens'].tolist() == [[1, 0, 0], [6, 1, 0]]
  assert batch['decoder_input_tokens'].tolist() == [[0, 1, 0], [0, 6, 1]]
  assert batch['decoder_loss_weights'].tolist() == [[1, 0, 0], [1, 1, 0]]
  np.testing.assert_array_equal(batch['scores'], [0.0, 1.0])
  np.testing.assert_array_equal(batch['score_weights'], [1.0, 0.5])
  assert rows.truncated == 0
  assert not warnings


def test_hypotheses_of_a_source_share_a_row():
  texts = corruptions.ScoredTexts(
    ['a', 'b', 'a', 'a', 'b'],
    ['c', 'd', 'ef', 'g', 'h'],
    np.asarray([3.0, 1.0, -1.0, 5.0, 7.0]),
  )
  rows = _rows(texts, hypotheses_per_row=2)
  # Three hypotheses of a: first and third, then the second alone.
  assert rows.members.tolist() == [[0, 3], [2, learned_rows.NONE], [1, 4]]
  assert rows.source_lengths.tolist() == [2, 2, 2]
  assert rows.target_lengths.tolist() == [2, 3, 2]
  batch = rows.load(np.asarray([1, 0]), 2, 3)
  assert batch['encoder_input_tokens'].tolist() == [[3, 1], [3, 1]]
  assert batch['decoder_target_tokens'].tolist() == [
    [7, 8, 1], [0, 0, 0], [5, 1, 0], [9, 1, 0],
  ]  # fmt: skip
  np.testing.assert_array_equal(batch['scores'], [-1.0, 0.0, 1.0, 2.0])
  np.testing.assert_array_equal(batch['score_weights'], [1.0, 0.0, 1.0, 1.0])
  # As wide as the source with most hypotheses at most.
  assert _rows(texts, hypotheses_per_row=8).members.shape == (2, 3)


def test_long_rows_are_cut_counted_and_warned_of(warnings):
  texts = corruptions.ScoredTexts(
    ['abcd', 'a', 'abc'], ['a', 'abc', 'ab'], np.zeros(3)
  )
  rows = _rows(texts)
  assert rows.truncated == 2
  assert rows.source_tokens[0].tolist() == [3, 4, 5, 1]
  assert rows.target_tokens[1].tolist() == [3, 4, 1]
  np.testing.assert_array_equal(rows.weights, [1.0, 1.0, 1.0])
  assert len(warnings) == 1
  assert '2 of 3 rows' in warnings[0]


def test_coverage_by_hand(warnings):
  # Distinct texts count once: 5 pieces, 1 of them UNK, in 3 words.
  found = learned_rows.coverage(_Characters(), ['ab', 'c D', 'ab'])
  assert found == {'unknown_share': 2 / 5, 'pieces_per_word': 5 / 3}
  assert len(warnings) == 1 and 'UNK' in warnings[0]


def test_good_coverage_is_not_warned_of(warnings):
  found = learned_rows.coverage(_Characters(), ['ab', 'c'])
  assert found == {'unknown_share': 0.0, 'pieces_per_word': 1.5}
  assert not warnings
  learned_rows.coverage(_Characters(), ['abcdefg'])
  assert len(warnings) == 1


def test_rows_of_other_special_ids():
  ids = special_ids.SpecialIds(pad=29, eos=0, unk=1, decoder_start=29)
  vocabulary = _Characters()
  vocabulary.special_ids = ids

  texts = corruptions.ScoredTexts(
    ['a', 'a', 'b'], ['c', 'de', 'f'], np.asarray([1.0, 2.0, 3.0])
  )
  rows = _rows(texts, vocabulary=vocabulary, ids=ids, hypotheses_per_row=2)
  batch = rows.load(np.asarray([1]), 3, 3)
  assert batch['encoder_input_tokens'].tolist() == [[4, 0, 29]]
  assert batch['decoder_target_tokens'].tolist() == [[8, 0, 29], [29, 29, 29]]
  assert batch['decoder_input_tokens'].tolist() == [[29, 8, 0], [29, 29, 29]]
  assert batch['decoder_loss_weights'].tolist() == [[1, 1, 0], [0, 0, 0]]
