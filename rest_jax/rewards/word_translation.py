"""IBM model 1: the probability of a word given the words of its translation.

Source: Brown et al., The Mathematics of Statistical Machine Translation (1993),
section 4.
"""

from collections.abc import Sequence

from jaxtyping import Float
import numpy as np

# Longer sides are left out: the number of cells is the product of both.
_LONGEST = 80
# Added to the count of a word: the table of a rare word sums to less than 1.
_SMOOTHING = 1.0
_SMALLEST = 1e-5  # Smaller entries of the table are dropped.
_COPIED = 0.3  # Probability that a word that no table knows is copied.
_UNSEEN = 1e-6  # Frequency of an unknown target word.
_FREQUENCY_SHARE = 0.02  # Share of the word's frequency in its probability.
_FREQUENT = 1e-3  # Words above this frequency say little about the meaning.
_FLOOR = 1e-4  # Floor of the best table entry, for its logarithm.
_EMPTY = 0  # The empty source word, from which any target word may come.

# Names of the results of `WordTranslation.measure`.
MEASURES = ('log_prob', 'content_log_prob', 'content_best')


class WordTranslation:
  """Probabilities t(v | u) of target words v given source words u."""

  def __init__(
    self,
    sources: Sequence[Sequence[str]],
    targets: Sequence[Sequence[str]],
    *,
    num_steps: int = 4,
  ):
    """Fits t by expectation maximisation.

    Args:
      sources: words of n texts.
      targets: words of their translations.
      num_steps: number of EM steps.
    """
    self._source_ids: dict[str | None, int] = {None: _EMPTY}
    self._target_ids: dict[str, int] = {}
    cells, positions, words = [], [], [np.zeros(0, np.int64)]
    count = 0
    for source, target in zip(sources, targets, strict=True):
      if not 0 < len(source) <= _LONGEST or not 0 < len(target) <= _LONGEST:
        continue
      rows = _number(self._source_ids, [None, *source])
      columns = _number(self._target_ids, target)
      cells.append(_keys(rows, columns).ravel())
      last = count + len(columns)
      positions.append(
        np.repeat(np.arange(count, last, dtype=np.int32), len(rows))
      )
      words.append(columns)
      count = last
    if not cells:
      raise ValueError(
        'word translation is learned from pairs of texts, each with 1 to '
        f'{_LONGEST} words; got none among {len(sources)}. Give more pairs.'
      )
    frequency = np.bincount(np.concatenate(words)) / count
    self._frequency = np.append(frequency, _UNSEEN)  # At -1: an unknown word.
    self._keys, cell = np.unique(np.concatenate(cells), return_inverse=True)
    self._fit(cell.astype(np.int32), np.concatenate(positions), num_steps)

  def _fit(self, cell: np.ndarray, position: np.ndarray, num_steps: int):
    """Fits the table at `_keys`; a cell is a source word at a target position."""
    given = self._keys >> 32
    table = np.ones(len(self._keys))
    for _ in range(num_steps):
      posterior = table[cell]
      posterior /= np.bincount(position, posterior)[position]
      expected = np.bincount(cell, posterior)
      table = expected / (np.bincount(given, expected) + _SMOOTHING)[given]
    kept = table > _SMALLEST
    self._keys, self._table = self._keys[kept], table[kept]

  def probabilities(
    self, source: Sequence[str], target: Sequence[str]
  ) -> Float[np.ndarray, 'T S+1']:
    """Returns t(v | u) of all pairs of words, the empty source word first."""
    rows = _look_up(self._source_ids, [None, *source])
    columns = _look_up(self._target_ids, target)
    wanted = _keys(rows, columns)
    at = np.searchsorted(self._keys, wanted)
    at = np.minimum(at, len(self._keys) - 1)
    table = np.where(self._keys[at] == wanted, self._table[at], 0.0)
    unknown = (columns < 0)[:, None] | (rows < 0)[None]
    same = np.array([[u == v for u in (None, *source)] for v in target], bool)
    return np.where(unknown, _COPIED * same.reshape(unknown.shape), table)

  def measure(
    self, source: Sequence[str], target: Sequence[str]
  ) -> tuple[float, float, float]:
    """Measures how well a target is explained by a source.

    Args:
      source: words.
      target: words.

    Returns:
      Means over target words, in nats; 0 for an empty target. `log_prob`: log
      p(v | source); `content_log_prob`: the same of the rarer words;
      `content_best`: log max_u t(v | u) of the rarer words.
    """
    if not target:
      return 0.0, 0.0, 0.0
    table = self.probabilities(source, target)
    frequency = self._frequency[_look_up(self._target_ids, target)]
    mixed = (1 - _FREQUENCY_SHARE) * table.mean(axis=1)
    log_prob = np.log(mixed + _FREQUENCY_SHARE * frequency)
    best = np.log(np.maximum(table[:, 1:].max(axis=1, initial=0.0), _FLOOR))
    is_content = frequency < _FREQUENT
    share = is_content / max(is_content.sum(), 1)
    return log_prob.mean(), log_prob @ share, best @ share


def _number(ids: dict, words: Sequence) -> np.ndarray:
  """Returns the number of each word; new words get the next number."""
  return np.array([ids.setdefault(word, len(ids)) for word in words], np.int64)


def _look_up(ids: dict, words: Sequence) -> np.ndarray:
  """Returns the number of each word; -1 for unknown words."""
  return np.array([ids.get(word, -1) for word in words], np.int64)


def _keys(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
  """Returns a key for each pair of words, [columns, rows]."""
  return (rows[None] << 32) + columns[:, None]
