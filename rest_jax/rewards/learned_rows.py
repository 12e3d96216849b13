"""Training rows of reward models, from scored texts."""

from collections.abc import Callable, Sequence
import dataclasses

from absl import logging
import numpy as np

from rest_jax import types
from rest_jax.data import ragged, special_ids, vocabularies
from rest_jax.data import words as words_lib
from rest_jax.rewards import corruptions, scoring_plan
from rest_jax.training import loader

# Above these limits a warning is given: much of the text is UNK, is split into
# very short pieces, or exceeds the maximum length.
_MAX_UNKNOWN_SHARE = 0.005
_MAX_PIECES_PER_WORD = 2.0
_MAX_TRUNCATED_SHARE = 0.01
NONE = -1  # Padding of `RewardRows.members`.
# Columns of a batch with one number per hypothesis.
COLUMNS = ('scores', 'score_weights')


@dataclasses.dataclass(frozen=True)
class Scale:
  """Mean and standard deviation of a model's training scores."""

  mean: float
  std: float

  @classmethod
  def of(cls, name: str, scores: np.ndarray) -> 'Scale':
    """Measures scores.

    Args:
      name: what the scores are, for the error.
      scores: float [n].

    Raises:
      ValueError: if they do not vary.
    """
    scores = np.asarray(scores, np.float64)
    if len(scores) < 2 or np.ptp(scores) == 0:
      raise ValueError(
        f'the scores of {name} must vary for a model to learn from them; got '
        f'{len(scores)} row(s), all {scores[:1].tolist()}. Check the column '
        'that they come from.'
      )
    return cls(float(scores.mean()), float(scores.std()))

  def __call__(self, scores: np.ndarray) -> np.ndarray:
    """Returns (scores - mean) / std, as float32."""
    return ((np.asarray(scores, np.float64) - self.mean) / self.std).astype(
      np.float32
    )


@dataclasses.dataclass(frozen=True)
class RewardRows:
  """Training rows of a reward model: n texts, N of a source in each row.

  Attributes:
    source_tokens: source tokens of each text, with EOS.
    target_tokens: target tokens of each text, with EOS.
    scores: float32 [n], standardised.
    weights: float32 [n], mean 1.
    truncated: number of texts whose source or hypothesis was truncated to the
      maximum length.
    members: int64 [rows, N], texts of each row, all of one source, padded with
      `NONE`.
    ids: special ids of the model.
  """

  source_tokens: ragged.Ragged
  target_tokens: ragged.Ragged
  scores: np.ndarray
  weights: np.ndarray
  truncated: int
  members: np.ndarray
  ids: special_ids.SpecialIds = special_ids.T5

  @classmethod
  def of_texts(
    cls,
    name: str,
    texts: corruptions.ScoredTexts,
    *,
    vocabulary: vocabularies.Encoder,
    scoring: scoring_plan.ScoringConfig,
    weights: np.ndarray | None = None,
    hypotheses_per_row: int = 1,
    ids: special_ids.SpecialIds = special_ids.T5,
    warn: Callable[[str], None] | None = None,
  ) -> 'RewardRows':
    """Encodes texts in the same way as scoring.

    Args:
      name: what the texts are, for the warning.
      texts: texts with standardised scores.
      vocabulary: vocabulary of the model.
      scoring: maximum lengths.
      weights: float [n], such as numbers of annotators; None for equal weights.
      hypotheses_per_row: maximum of N.
      ids: special ids of the model.
      warn: called if many rows were truncated; None logs it.

    Returns:
      The rows.
    """
    sources, cut_sources = scoring_plan.encode(
      vocabulary.source, texts.sources, scoring.max_source_length
    )
    targets, cut_targets = scoring_plan.encode(
      vocabulary.target, texts.hypotheses, scoring.max_target_length
    )
    truncated = int(np.sum(cut_sources | cut_targets))
    if truncated > _MAX_TRUNCATED_SHARE * len(sources):
      (warn or _log)(
        f'{name}: {truncated:,} of {len(sources):,} rows are longer than the '
        f'maximum of {scoring.max_source_length} source or '
        f'{scoring.max_target_length} target tokens and were truncated. Raise '
        'max_source_length and max_target_length of the scoring, or widen the '
        'vocabulary.'
      )
    if weights is None:
      weights = np.ones(len(sources))
    weights = np.asarray(weights, np.float64)
    return cls(
      source_tokens=ragged.Ragged.from_lists(sources),
      target_tokens=ragged.Ragged.from_lists(targets),
      scores=np.asarray(texts.scores, np.float32),
      weights=(weights / weights.mean()).astype(np.float32),
      truncated=truncated,
      members=_members(texts.sources, hypotheses_per_row),
      ids=ids,
    )

  @property
  def source_lengths(self) -> np.ndarray:
    """Returns the number of source tokens per row."""
    return self.source_tokens.lengths[self.members[:, 0]]

  @property
  def target_lengths(self) -> np.ndarray:
    """Returns the number of tokens of the longest hypothesis per row."""
    return self.of_members(self.target_tokens.lengths).max(axis=1)

  def of_members(self, values: np.ndarray) -> np.ndarray:
    """Returns the values of the texts of each row, [rows, N], padded with 0."""
    return np.where(self.members == NONE, 0, values[self.members])

  def load(
    self, rows: np.ndarray, source_length: int, target_length: int
  ) -> types.Batch:
    """Returns T5X's four features, `scores` and `score_weights` of rows."""
    texts = self.members[rows].reshape(-1)  # [B * N]
    is_text = texts != NONE
    pad = self.ids.pad
    targets = self.target_tokens.pad(np.maximum(texts, 0), target_length, pad)
    batch = loader.decoder_batch(
      self.source_tokens.pad(self.members[rows, 0], source_length, pad),
      np.where(is_text[:, None], targets, pad),
      self.ids,
    )
    batch['scores'] = np.where(is_text, self.scores[texts], 0)
    batch['score_weights'] = np.where(is_text, self.weights[texts], 0)
    return batch


def _members(sources: Sequence[str], at_most: int) -> np.ndarray:
  """Distributes the texts of each source over rows of about equal size."""
  of_source: dict[str, list[int]] = {}
  for row, text in enumerate(sources):
    of_source.setdefault(text, []).append(row)
  width = min(at_most, max(map(len, of_source.values())))
  rows = []
  for texts in of_source.values():
    count = -(-len(texts) // width)
    for first in range(count):
      # One in `count`: neighbours are often of one kind.
      row = texts[first::count]
      rows.append(row + [NONE] * (width - len(row)))
  return np.asarray(rows, np.int64)


def coverage(
  vocabulary: vocabularies.Encoder,
  texts: Sequence[str],
  *,
  warn: Callable[[str], None] | None = None,
) -> dict[str, float]:
  """Measures how well a vocabulary covers texts, and warns if it does not.

  A vocabulary trained on captions splits news into 2.5 pieces per word.

  Args:
    vocabulary: vocabulary of the policy and the reward model.
    texts: texts for the reward model.
    warn: called with the warning; None logs it.

  Returns:
    unknown_share: share of UNK among the pieces, in [0, 1]; pieces_per_word:
    pieces over words, where characters of scripts without spaces are words.
  """
  rows = vocabulary.encode_batch(sorted(set(texts)))
  words = sum(len(words_lib.split_words(text)) for text in set(texts))
  pieces = sum(map(len, rows))
  unk = vocabulary.special_ids.unk
  unknown = sum(int(np.sum(row == unk)) for row in rows)
  result = {
    'unknown_share': unknown / max(pieces, 1),
    'pieces_per_word': pieces / max(words, 1),
  }
  if (
    result['unknown_share'] > _MAX_UNKNOWN_SHARE
    or result['pieces_per_word'] > _MAX_PIECES_PER_WORD
  ):
    (warn or _log)(
      'the vocabulary does not fit the text of the ratings: '
      f'{100 * result["unknown_share"]:.2f} % of its pieces are UNK, and a word '
      f"has {result['pieces_per_word']:.2f} pieces. Name text of the ratings' "
      'domain in extra_files of VocabularyConfig, or raise its size.'
    )
  return result


def _log(message: str) -> None:
  logging.warning('%s', message)
