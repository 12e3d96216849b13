"""Differences of corpus BLEU and chrF, with a standard error paired by source.

Both scores are functions of counts that are summed over sentences: resampling a
corpus needs only the counts of its sentences, not the texts.
"""

import collections
from collections.abc import Callable, Sequence

from jaxtyping import Int
import numpy as np
from sacrebleu import metrics as sacrebleu_metrics

from rest_jax.evaluation import metrics

_BLEU_ORDER = 4
_CHRF_ORDER = 6
_CHRF_BETA = 2

Score = Callable[[np.ndarray], float]


def bleu_counts(
  hypotheses: Sequence[str], references: Sequence[str], *, tokenize: str = '13a'
) -> Int[np.ndarray, 'n 10']:
  """Returns the counts of BLEU for each sentence.

  Returns:
    For each text: numbers of matching n-grams and of all n-grams of order 1 to
    4, and the lengths of hypothesis and reference.
  """
  # `effective_order` only silences a remark; it does not change the counts.
  metric = sacrebleu_metrics.BLEU(tokenize=tokenize, effective_order=True)
  rows = []
  for hypothesis, reference in zip(hypotheses, references, strict=True):
    stats = metric.sentence_score(hypothesis, [reference])
    rows.append([*stats.counts, *stats.totals, stats.sys_len, stats.ref_len])
  return np.asarray(rows, np.int64)


def bleu(counts: Int[np.ndarray, ' 10']) -> float:
  """Corpus BLEU in [0, 100] of summed counts, as sacrebleu computes it."""
  matching, total = counts[:_BLEU_ORDER], counts[_BLEU_ORDER : 2 * _BLEU_ORDER]
  result = sacrebleu_metrics.BLEU.compute_bleu(
    matching.tolist(),
    total.tolist(),
    *counts[-2:].tolist(),
    smooth_method='exp',
  )
  return float(result.score)


def chrf_counts(
  hypotheses: Sequence[str], references: Sequence[str]
) -> Int[np.ndarray, 'n 18']:
  """Returns the counts of chrF for each sentence.

  Returns:
    For each text and order 1 to 6: numbers of character n-grams in the
    hypothesis, in the reference, and in both, without spaces.
  """
  rows = []
  of, theirs = None, []
  for hypothesis, reference in zip(hypotheses, references, strict=True):
    if reference != of:  # Often the outputs of a source are adjacent.
      of, theirs = reference, _characters(reference)
    row = []
    for own, other in zip(_characters(hypothesis), theirs, strict=True):
      both = sum([min(n, other.get(gram, 0)) for gram, n in own.items()])
      # As in sacrebleu, orders longer than the reference do not count.
      row += [own.total() if other else 0, other.total(), both]
    rows.append(row)
  return np.asarray(rows, np.int64)


def chrf(counts: Int[np.ndarray, ' 18']) -> float:
  """Corpus chrF2 in [0, 100] of summed counts, as sacrebleu computes it.

  Source: Popović, chrF: character n-gram F-score (2015).

  It is F2 of precision and recall, both averaged over the orders that occur on
  both sides.
  """
  ours, theirs, both = counts.reshape(_CHRF_ORDER, 3).T
  occurs = (ours > 0) & (theirs > 0)
  if not both.any():
    return 0.0
  precision = np.mean(both[occurs] / ours[occurs])
  recall = np.mean(both[occurs] / theirs[occurs])
  factor = _CHRF_BETA**2
  return float(
    100 * (1 + factor) * precision * recall / (factor * precision + recall)
  )


def paired_difference(
  score: Score,
  a: Int[np.ndarray, 'n counts'],
  b: Int[np.ndarray, 'n counts'],
  *,
  num_resamples: int = 1000,
) -> metrics.Difference:
  """Difference a - b of a corpus score, paired by source.

  The standard error is the standard deviation of the difference over bootstrap
  resamples of the sources, the same for both sides.

  Source: Koehn, Statistical Significance Tests for Machine Translation
  Evaluation (2004).

  Args:
    score: `bleu` or `chrf`.
    a: counts of one policy, one row per source.
    b: counts of another policy on the same sources.
    num_resamples: number of bootstrap resamples, at least 2.

  Raises:
    ValueError: the two sides have different numbers of sources.
  """
  if a.shape != b.shape or not len(a):
    raise ValueError(
      'a and b must be counts of the same sources to be paired; got shapes '
      f'{a.shape} and {b.shape}. Evaluate both policies on the same sources.'
    )
  difference = score(a.sum(axis=0)) - score(b.sum(axis=0))
  generator = np.random.default_rng(0)
  differences = np.empty(num_resamples)
  for resample in range(num_resamples):
    rows = generator.integers(len(a), size=len(a))
    counts = np.bincount(rows, minlength=len(a))
    differences[resample] = score(counts @ a) - score(counts @ b)
  return metrics.Difference(difference, float(differences.std(ddof=1)))


def _characters(text: str) -> list[collections.Counter[str]]:
  """Returns the n-grams of a text without spaces, by order."""
  text = ''.join(text.split())
  return [
    collections.Counter([text[i : i + n] for i in range(len(text) - n + 1)])
    for n in range(1, _CHRF_ORDER + 1)
  ]
