"""chrF between all pairs of two lists of texts, as products of matrices.

For each order n, C[i, g] counts n-gram g in text i. The matches of i and j are
sum_g min(C[i, g], C[j, g]) = sum_{k >= 1} B_k[i] . B_k[j], with B_k = [C >= k].
They are whole numbers, so that the order of summation changes nothing.
"""

from collections.abc import Sequence

from jaxtyping import Float, Int
import numpy as np


def chrf(
  hypotheses: Sequence[str],
  references: Sequence[str],
  *,
  char_order: int = 6,
  beta: float = 2.0,
) -> Float[np.ndarray, 'h r']:
  """Returns chrF of each hypothesis to each reference, in [0, 1].

  As sacrebleu's sentence chrF without words: precision and recall are means over
  the orders that both texts have, and white space does not count. A text without
  characters has chrF 0 to every text.

  Source: Popović, chrF: character n-gram F-score (2015).

  Args:
    hypotheses: h texts.
    references: r texts.
    char_order: longest character n-grams.
    beta: weight of recall against precision.
  """
  codes, lengths = _characters([*hypotheses, *references])
  num_texts, split = len(lengths), len(hypotheses)
  owner = np.repeat(np.arange(num_texts), lengths)
  # Characters from each position to the end of its text.
  room = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(codes))
  _, first = np.unique(codes, return_inverse=True)
  num_characters = first.max(initial=-1) + 1
  starts, grams = np.arange(len(codes)), first
  precision = np.zeros((split, num_texts - split))
  recall = np.zeros_like(precision)
  orders = np.zeros_like(precision)
  for n in range(1, char_order + 1):
    if n > 1:
      fits = room[starts] >= n
      starts, grams = starts[fits], grams[fits]
      longer = grams * num_characters + first[starts + n - 1]
      _, grams = np.unique(longer, return_inverse=True)
    if not len(starts):
      break
    num_grams = int(grams.max()) + 1
    counts = (
      np.bincount(
        owner[starts] * num_grams + grams, minlength=num_texts * num_grams
      )
      .reshape(num_texts, num_grams)
      .astype(np.int32)
    )
    matches = _matches(counts[:split], counts[split:])
    sizes = counts.sum(axis=1)
    of_hypotheses, of_references = sizes[:split, None], sizes[None, split:]
    precision += matches / np.maximum(of_hypotheses, 1)
    recall += matches / np.maximum(of_references, 1)
    orders += (of_hypotheses > 0) & (of_references > 0)
  precision /= np.maximum(orders, 1)
  recall /= np.maximum(orders, 1)
  below = beta**2 * precision + recall
  above = (1 + beta**2) * precision * recall
  return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _characters(
  texts: Sequence[str],
) -> tuple[Int[np.ndarray, ' c'], Int[np.ndarray, ' t']]:
  """Code points of all texts without white space, and characters per text."""
  stripped = [''.join(text.split()) for text in texts]
  encoded = ''.join(stripped).encode('utf-32-le', 'surrogatepass')
  lengths = np.asarray([len(text) for text in stripped], np.int64)
  return np.frombuffer(encoded, np.uint32), lengths


def _matches(
  hypotheses: Int[np.ndarray, 'h g'], references: Int[np.ndarray, 'r g']
) -> Float[np.ndarray, 'h r']:
  """Sums the smaller count of each n-gram, for all pairs of rows."""
  matches = np.zeros((len(hypotheses), len(references)), np.float32)
  times = 1
  while hypotheses.size and references.size:
    matches += (hypotheses >= times).astype(np.float32) @ (
      references >= times
    ).astype(np.float32).T
    again = (hypotheses.max(axis=0) > times) & (references.max(axis=0) > times)
    hypotheses, references = hypotheses[:, again], references[:, again]
    times += 1
  return matches.astype(np.float64)
