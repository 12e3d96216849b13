"""Signs that a policy exploits its reward, from its outputs alone.

A policy that exploits the reward repeats itself, gives every source the same
output, leaves the language, copies the source, or moves far from its initial
policy. None of these numbers is good or bad alone: compare each with that of BC
(G=0, I=0).
"""

import collections
from collections.abc import Hashable, Iterable, Mapping, Sequence
import math

from jaxtyping import Float, Int, Shaped
import numpy as np
from sacrebleu import metrics as sacrebleu_metrics

from rest_jax.data import words as words_lib
from rest_jax.evaluation import metrics

# Order of the word n-grams whose repetition counts.
REPETITION_ORDER = 3
_CHARACTERS = 3


def repetition(texts: Iterable[str], order: int = REPETITION_ORDER) -> float:
  r"""Share of word n-grams that occurred before in the same text.

  $$ 1 - \sum_y |\{g \in y\}| \Big/ \sum_y |y|_n $$

  with the distinct n-grams g of a text y and the number $|y|_n$ of all its
  n-grams.

  Source: Welleck et al., Neural Text Generation with Unlikelihood Training
  (arXiv 1908.04319), seq-rep-n; there it is a mean over texts, which is
  undefined for short texts without n-grams.

  Args:
    texts: outputs.
    order: n, at least 1.

  Returns:
    The share, in [0, 1]; 0 if no text has n words.
  """
  total = distinct = 0
  for text in texts:
    grams = _grams(words_lib.split_words(text), order)
    total += len(grams)
    distinct += len(set(grams))
  return 1 - distinct / total if total else 0.0


def distinct(texts: Iterable[str], order: int) -> float:
  """Share of distinct word n-grams, over all texts together.

  It falls with the number of texts: compare only equal numbers of texts.

  Source: Li et al., A Diversity-Promoting Objective Function (arXiv
  1510.03055), section 5.2, distinct-1 and distinct-2.

  Args:
    texts: outputs.
    order: n, at least 1.

  Returns:
    The share, in [0, 1]; 0 if no text has n words.
  """
  total, seen = 0, set()
  for text in texts:
    grams = _grams(words_lib.split_words(text), order)
    total += len(grams)
    seen.update(grams)
  return len(seen) / total if total else 0.0


def self_bleu(
  samples: Sequence[Sequence[str]], *, tokenize: str = '13a'
) -> float | None:
  """Similarity of the samples of one source.

  The BLEU of a sample with the other samples of its source as references,
  averaged over samples and sources: 100 if all are equal.

  Source: Zhu et al., Texygen (arXiv 1802.01886), self-BLEU; there over the
  whole corpus.

  Args:
    samples: the samples of each source.
    tokenize: sacrebleu's tokeniser.

  Returns:
    The mean, in [0, 100]; None if no source has two samples.
  """
  metric = sacrebleu_metrics.BLEU(tokenize=tokenize, effective_order=True)
  scores = [
    metric.sentence_score(text, [*group[:index], *group[index + 1 :]]).score
    for group in samples
    if len(group) > 1
    for index, text in enumerate(group)
  ]
  return float(np.mean(scores)) if scores else None


def copied(sources: Sequence[str], texts: Sequence[str]) -> float:
  """Share of texts that equal their source, case and spaces aside.

  Args:
    sources: n texts, n at least 1.
    texts: n outputs.
  """
  pairs = zip(sources, texts, strict=True)
  return float(
    np.mean([_plain(source) == _plain(text) for source, text in pairs])
  )


class LanguageClassifier:
  r"""Classifies texts as the references' or the sources' language.

  Naive Bayes over trigrams g of lower-case characters, with a space at each end
  of the text and counts c smoothed by one:

  $$ s(y) = \sum_{g \in y} \log \frac{(c_T(g) + 1) / (n_T + V)}
                                     {(c_S(g) + 1) / (n_S + V)} $$

  with $n$ trigrams on a side and V distinct ones on both. A text is in the
  wrong language if s < 0.
  """

  def __init__(self, sources: Iterable[str], references: Iterable[str]):
    """Counts the trigrams of both sides.

    Args:
      sources: texts in the sources' language.
      references: texts in the references'.
    """
    wrong, right = _count(sources), _count(references)
    known = {*wrong, *right}
    size = max(len(known), 1)
    # Score of a trigram of neither side.
    self._unknown = math.log((wrong.total() + size) / (right.total() + size))
    self._scores = {
      gram: math.log((right[gram] + 1) / (wrong[gram] + 1)) + self._unknown
      for gram in known
    }

  def score(self, text: str) -> float:
    """s(y) in nats: positive for the references' language."""
    return sum(self._scores.get(g, self._unknown) for g in _trigrams(text))

  def wrong(self, texts: Iterable[str]) -> float:
    """Share of texts in the wrong language, of at least one text."""
    return float(np.mean([self.score(text) < 0 for text in texts]))


def divergence(
  divergences: Float[np.ndarray, ' n'],
  lengths: Int[np.ndarray, ' n'],
  clusters: Shaped[np.ndarray, ' n'],
) -> tuple[metrics.Estimate, float]:
  r"""KL(pi || pi_BC) from samples of the policy.

  $$ \frac1n \sum_i d_i, \qquad \sum_i d_i \Big/ \sum_i |y_i|, \qquad
     d_i = \sum_t KL(\pi(\cdot|y_{i,<t}, x_i) \| \pi_{BC}(\cdot|y_{i,<t}, x_i)) $$

  The first is unbiased if the samples are drawn at temperature 1. The sum over
  the vocabulary at each position has less variance than log pi - log pi_BC of
  the drawn tokens, and is never negative.

  Args:
    divergences: d of each sample in nats.
    lengths: number of tokens of each sample, EOS included, at least 1.
    clusters: the source of each sample.

  Returns:
    The mean in nats per sequence, with its standard error clustered by source;
    and nats per token.
  """
  exact = np.asarray(divergences, np.float64)
  mean = metrics.clustered_mean(exact, clusters)
  return mean, float(exact.sum() / np.sum(lengths))


def warning(
  policy: str,
  reward: metrics.Difference | None,
  others: Mapping[str, metrics.Difference | None],
) -> str | None:
  """Returns a warning if a policy's reward rose and another measure fell.

  Args:
    policy: name of the policy.
    reward: its reward minus that of BC, x100; None if unknown.
    others: likewise of measures outside the reward, by name.

  Returns:
    One line, if the reward is more than two standard errors above BC and one of
    the others more than two below; else None.
  """
  if reward is None or not reward.rose:
    return None
  known = {name: other for name, other in others.items() if other is not None}
  fell = [f'{n} {d.shown}' for n, d in known.items() if d.fell]
  rose = [f'{n} {d.shown}' for n, d in known.items() if d.rose]
  if not fell:
    return None
  # A judge's score that rose speaks against the warning.
  though = f' (though {", ".join(rose)})' if rose else ''
  return (
    f'{policy}: reward {reward.shown} over BC, but {", ".join(fell)}{though}: it '
    'may exploit the reward'
  )


def _grams(items: Sequence[Hashable], order: int) -> list[tuple[Hashable, ...]]:
  return [
    tuple(items[start : start + order])
    for start in range(len(items) - order + 1)
  ]


def _plain(text: str) -> str:
  return ' '.join(text.split()).casefold()


def _trigrams(text: str) -> list[str]:
  text = f' {text.strip().lower()} '
  last = len(text) - _CHARACTERS + 1
  return [text[start : start + _CHARACTERS] for start in range(last)]


def _count(texts: Iterable[str]) -> collections.Counter[str]:
  return collections.Counter(g for text in texts for g in _trigrams(text))
