"""Classification of a text into two languages by character n-grams."""

import collections
from collections.abc import Iterable
import math


class TwoSides:
  """Naive Bayes between the two sides of parallel text.

  With counts c_s, c_t of the n-grams of sources and references, their totals
  N_s, N_t, and V distinct n-grams, including one for all unseen ones:

    log-odds(g) = log (c_t(g) + 1) / (N_t + V) - log (c_s(g) + 1) / (N_s + V)

  Texts are case-folded and put between spaces, so that word boundaries count.
  """

  def __init__(
    self, sources: Iterable[str], references: Iterable[str], *, order: int
  ):
    """Counts n-grams.

    Args:
      sources: texts in one language.
      references: texts in the other language.
      order: length of the n-grams.

    Raises:
      ValueError: if a side has no n-gram.
    """
    self._order = order
    counts = []
    for name, texts in (('sources', sources), ('references', references)):
      count = collections.Counter()
      for text in texts:
        count.update(self._grams(text))
      if not count:
        raise ValueError(f'{name} must hold some text; got none.')
      counts.append(count)
    source, reference = counts
    grams = source.keys() | reference.keys()
    size = len(grams) + 1
    # log (N_s + V) / (N_t + V)
    self._unseen = math.log(
      (source.total() + size) / (reference.total() + size)
    )
    self._log_odds = {
      gram: math.log((reference[gram] + 1) / (source[gram] + 1)) + self._unseen
      for gram in grams
    }

  def evidence(self, text: str) -> float:
    """Returns the mean log-odds per n-gram, in nats.

    Args:
      text: any text.

    Returns:
      Above 0 if the text resembles the references, below 0 if it resembles the
      sources, 0 for a text without n-grams.
    """
    grams = self._grams(text)
    if not grams:
      return 0.0
    total = sum(self._log_odds.get(gram, self._unseen) for gram in grams)
    return total / len(grams)

  def _grams(self, text: str) -> list[str]:
    text = f' {" ".join(text.casefold().split())} '
    return [
      text[i : i + self._order] for i in range(len(text) - self._order + 1)
    ]
