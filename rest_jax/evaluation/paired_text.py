"""Differences of corpus BLEU and chrF, with an error paired by source.

Both are functions of counts that add up over sentences, so that a resampled corpus
needs its sentences' counts alone and no text.
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
  """What BLEU counts in each sentence.

  Args:
    hypotheses: n texts.
    references: n texts.
    tokenize: sacrebleu's tokeniser.

  Returns:
    For each text the right n-grams and all n-grams of order 1 to 4, and the
    lengths of hypothesis and reference.
  """
  # Only to leave out a remark: it does not change the counts.
  metric = sacrebleu_metrics.BLEU(tokenize=tokenize, effective_order=True)
  rows = []
  for hypothesis, reference in zip(hypotheses, references, strict=True):
    found = metric.sentence_score(hypothesis, [reference])
    rows.append([*found.counts, *found.totals, found.sys_len, found.ref_len])
  return np.asarray(rows, np.int64)


def bleu(counts: Int[np.ndarray, ' 10']) -> float:
  """Corpus BLEU in [0, 100] of summed counts, as sacrebleu computes it."""
  right, total = counts[:_BLEU_ORDER], counts[_BLEU_ORDER : 2 * _BLEU_ORDER]
  found = sacrebleu_metrics.BLEU.compute_bleu(
    right.tolist(), total.tolist(), *counts[-2:].tolist(), smooth_method='exp'
  )
  return float(found.score)


def chrf_counts(
  hypotheses: Sequence[str], references: Sequence[str]
) -> Int[np.ndarray, 'n 18']:
  """What chrF counts in each sentence.

  Args:
    hypotheses: n texts.
    references: n texts.

  Returns:
    For each text and order 1 to 6 the character n-grams of the hypothesis, of
    the reference, and in both; blanks do not count.
  """
  rows = []
  for hypothesis, reference in zip(hypotheses, references, strict=True):
    row = []
    for order in range(1, _CHRF_ORDER + 1):
      ours, theirs = (
        _characters(hypothesis, order),
        _characters(reference, order),
      )
      both = sum(min(n, theirs[gram]) for gram, n in ours.items())
      # As in sacrebleu, an order that the reference is too short for is left out.
      row += [ours.total() if theirs else 0, theirs.total(), both]
    rows.append(row)
  return np.asarray(rows, np.int64)


def chrf(counts: Int[np.ndarray, ' 18']) -> float:
  """Corpus chrF2 in [0, 100] of summed counts, as sacrebleu computes it.

  Source: Popović, chrF: character n-gram F-score (2015).

  Args:
    counts: sums of `chrf_counts`.

  Returns:
    F2 of precision and recall, both averaged over the orders that occur on both
    sides.
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
  seed: int = 0,
) -> metrics.Difference:
  """Difference of a corpus score, paired by source.

  The standard error is the standard deviation of the difference over corpora
  whose sources are drawn with replacement, the same ones for both sides.

  Source: Koehn, Statistical Significance Tests for Machine Translation Evaluation
  (2004).

  Args:
    score: `bleu` or `chrf`.
    a: counts of one policy, a row for each source.
    b: of another, of the same sources.
    num_resamples: of the bootstrap, at least 2.
    seed: same seed, same standard error.

  Returns:
    The difference a - b.

  Raises:
    ValueError: if the two sides are not of as many sources.
  """
  if a.shape != b.shape or not len(a):
    raise ValueError(
      'a and b must be counts of the same sources to be paired; got shapes '
      f'{a.shape} and {b.shape}. Evaluate both policies on the same sources.'
    )
  difference = score(a.sum(axis=0)) - score(b.sum(axis=0))
  generator = np.random.default_rng(seed)
  drawn = np.empty(num_resamples)
  for resample in range(num_resamples):
    rows = generator.integers(len(a), size=len(a))
    times = np.bincount(rows, minlength=len(a))
    drawn[resample] = score(times @ a) - score(times @ b)
  return metrics.Difference(difference, float(drawn.std(ddof=1)))


def _characters(text: str, order: int) -> collections.Counter[str]:
  text = ''.join(text.split())
  return collections.Counter(
    text[start : start + order] for start in range(len(text) - order + 1)
  )
