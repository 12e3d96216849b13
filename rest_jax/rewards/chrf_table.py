"""chrF between all pairs of two lists of texts.

For each order n, C[i, g] counts n-gram g in text i. The matches of i and j are
sum_g min(C[i, g], C[j, g]) = sum_{g, k >= 1} [C[i, g] >= k] [C[j, g] >= k]: the
number of bits that two rows of a bit table share.
"""

from collections.abc import Sequence

from jaxtyping import Bool, Float, Int
import numpy as np

# Number of 64-bit words compared at once (at least one row).
_WORDS_AT_ONCE = 1 << 16


def chrf(
  hypotheses: Sequence[str],
  references: Sequence[str],
  *,
  char_order: int = 6,
  beta: float = 2.0,
) -> Float[np.ndarray, 'h r']:
  """Returns chrF of each hypothesis to each reference, in [0, 1].

  Equals sacrebleu's sentence chrF without words: precision and recall are means
  over the orders that both texts have, and white space does not count. A text
  without characters has chrF 0 to every text.

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
    counts = np.bincount(
      owner[starts] * num_grams + grams, minlength=num_texts * num_grams
    ).reshape(num_texts, num_grams)
    matches = _matches(counts, split)
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
  """Returns code points of all texts without white space, and their lengths."""
  stripped = [''.join(text.split()) for text in texts]
  encoded = ''.join(stripped).encode('utf-32-le', 'surrogatepass')
  lengths = np.asarray([len(text) for text in stripped], np.int64)
  return np.frombuffer(encoded, np.uint32), lengths


def _matches(counts: Int[np.ndarray, 't g'], split: int) -> np.ndarray:
  """Sums the smaller count of each n-gram, for all pairs of rows.

  Args:
    counts: number of occurrences of each n-gram in each text.
    split: number of hypotheses, which are the first rows.

  Returns:
    int64 [hypotheses, references].
  """
  columns, times = [], 1
  while counts.size:
    columns.append(counts >= times)
    counts = counts[:, counts.max(axis=0) > times]
    times += 1
  words = _words(columns, len(counts))
  hypotheses, references = words[:split], words[split:]
  matches = np.empty((split, len(references)), np.int64)
  # A few hypotheses at a time, so that the data stays in the CPU's cache.
  step = max(1, _WORDS_AT_ONCE // max(references.size, 1))
  for start in range(0, split, step):
    shared = hypotheses[start : start + step, None] & references[None]
    np.sum(
      np.bitwise_count(shared),
      axis=-1,
      dtype=np.int64,
      out=matches[start : start + step],
    )
  return matches


def _words(
  columns: Sequence[Bool[np.ndarray, 't g']], num_rows: int
) -> np.ndarray:
  """Packs the columns of each row into words of 64 bits, uint64 [t, w]."""
  width = sum(column.shape[1] for column in columns)
  bits = np.zeros((num_rows, -(-width // 64) * 64), bool)
  if columns:
    np.concatenate(columns, axis=1, out=bits[:, :width])
  return np.packbits(bits, axis=1).view(np.uint64)
