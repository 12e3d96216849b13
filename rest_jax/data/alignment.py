"""Detects misaligned pairs by the lengths of their sides.

A long sentence has a long translation. Over 72 pairs, the logarithms of both
lengths in characters correlate at 0.5 to 0.99 where lines correspond (German,
Chinese, short captions), and at -0.4 to 0.5 where they are shifted.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

from jaxtyping import Float, UInt16
import numpy as np

_WINDOW = 72
_STRIDE = 24
_FEWEST = 48  # Minimum number of pairs.
_SHIFTS = tuple(shift for shift in range(-8, 9) if shift)
# Fisher's z of a correlation has a standard deviation of 0.12 in a window.
# Aligned windows of newstest, Multi30k and Tatoeba stay below -0.4, nearly all
# of the shifted ones lie above 0.5.
_MIN_GAIN = 0.5
_MIN_CORRELATION = 0.5
# For any cause: lines that are shuffled, reversed or from another file.
_LONG_WINDOW = 1008
_UNRELATED = 0.4
_SIGMAS = 3.0
# Beyond this ratio a side is a summary, not a translation, and its length is
# free.
_TRANSLATED = np.log(6.0)
_CHUNK = 252 * _LONG_WINDOW  # Pairs processed together, to limit memory.
_LONGEST = 65_535


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stretch:
  """Pairs that look misaligned.

  Attributes:
    first: number of the first pair, from 1; accurate to about 30 pairs.
    last: number of the last pair.
    shift: number of lines by which the reference is later than its source; None
      if no small shift explains it.
    correlation: correlation of the lengths without shift.
    shifted: correlation of the lengths with `shift`; None without one.
  """

  first: int
  last: int
  shift: int | None
  correlation: float
  shifted: float | None

  def to_json(self) -> dict[str, Any]:
    """Returns the JSON values for a manifest."""
    return dataclasses.asdict(self)


class Lengths:
  """Collects the lengths of pairs, and finds the stretches."""

  def __init__(self):
    self._blocks: list[UInt16[np.ndarray, '2 n']] = []

  def add(self, sources: Sequence[str], references: Sequence[str]) -> None:
    """Adds the next pairs, stripped of whitespace, in the order read."""
    lengths = np.array([[*map(len, sources)], [*map(len, references)]])
    self._blocks.append(np.minimum(lengths, _LONGEST).astype(np.uint16))

  def stretches(self) -> list[Stretch]:
    """Returns all stretches that look misaligned, in order."""
    if not self._blocks:
      return []
    lengths = np.concatenate(self._blocks, axis=1)
    return misaligned(lengths)


def misaligned(lengths: UInt16[np.ndarray, '2 n']) -> list[Stretch]:
  """Finds misaligned stretches of pairs; adjacent windows are merged.

  A window of 72 pairs counts as shifted if the lengths correlate poorly, and
  much better when one side is moved by up to 8 lines. A window of 1,008 pairs,
  or all pairs if there are fewer, counts as misaligned if the correlation is
  clearly below 0.4.

  Args:
    lengths: characters of each source and its reference.
  """
  total = lengths.shape[1]
  if total < _FEWEST:
    return []
  shifted: list[Stretch] = []
  unrelated: list[Stretch] = []
  for start in range(0, max(total - _LONG_WINDOW, 1), _CHUNK):
    # Windows that begin in the chunk extend beyond it.
    stop = min(total, start + _CHUNK + _LONG_WINDOW)
    x, y = np.log(np.maximum(lengths[:, start:stop], 1, dtype=np.float64))
    shifted += _shifted(x, y, start)
    unrelated += _unrelated(x, y, start)
  return _combine(_merge(shifted), _merge(unrelated))


def _shifted(
  x: Float[np.ndarray, ' n'], y: Float[np.ndarray, ' n'], offset: int
) -> list[Stretch]:
  """Returns windows that fit better when one side is moved."""
  window, starts = _windows(len(x), _WINDOW, _STRIDE)
  here = _correlations(x, y, 0, starts, window)
  # [shifts, windows]
  moved = np.stack(
    [_correlations(x, y, shift, starts, window) for shift in _SHIFTS]
  )
  best = moved.argmax(axis=0)
  there = moved.max(axis=0)
  gain = _fisher(there) - _fisher(here)
  return [
    Stretch(
      first=offset + int(starts[at]) + 1,
      last=offset + int(starts[at]) + window,
      shift=_SHIFTS[best[at]],
      correlation=float(here[at]),
      shifted=float(there[at]),
    )
    for at in np.flatnonzero((gain >= _MIN_GAIN) & (there >= _MIN_CORRELATION))
  ]


def _unrelated(
  x: Float[np.ndarray, ' n'], y: Float[np.ndarray, ' n'], offset: int
) -> list[Stretch]:
  """Returns long windows whose lengths are hardly correlated."""
  window, starts = _windows(len(x), _LONG_WINDOW, _LONG_WINDOW // 2)
  here = _correlations(x, y, 0, starts, window)
  highest = _fisher(here) + _SIGMAS / np.sqrt(window - 3)
  varies = _deviations(x, starts, window) * _deviations(y, starts, window) > 0
  ratios = np.array(
    [np.mean(x[at : at + window] - y[at : at + window]) for at in starts]
  )
  varies &= np.abs(ratios) < _TRANSLATED
  return [
    Stretch(
      first=offset + int(starts[at]) + 1,
      last=offset + int(starts[at]) + window,
      shift=None,
      correlation=float(here[at]),
      shifted=None,
    )
    for at in np.flatnonzero(varies & (highest < np.arctanh(_UNRELATED)))
  ]


def _windows(total: int, size: int, stride: int) -> tuple[int, np.ndarray]:
  """Returns size and starts of the windows; the last ends with the pairs."""
  size = min(size, total)
  return size, np.unique([*range(0, total - size, stride), total - size])


def _correlations(
  x: Float[np.ndarray, ' n'],
  y: Float[np.ndarray, ' n'],
  shift: int,
  starts: np.ndarray,
  window: int,
) -> Float[np.ndarray, ' windows']:
  """Returns Pearson's r of x[i] and y[i + shift] per window; 0 if constant."""
  first, last = max(0, -shift), len(x) - max(0, shift)
  a, b = x[first:last], y[first + shift : last + shift]
  begin = np.clip(starts - first, 0, last - first)
  end = np.clip(starts + window - first, 0, last - first)
  count = np.maximum(end - begin, 1)

  def total(values: np.ndarray) -> np.ndarray:
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return sums[end] - sums[begin]

  sum_a, sum_b = total(a), total(b)
  var_a = total(a * a) - sum_a**2 / count
  var_b = total(b * b) - sum_b**2 / count
  covariance = total(a * b) - sum_a * sum_b / count
  scale = np.sqrt(np.maximum(var_a, 0) * np.maximum(var_b, 0))
  # Sums of a chunk have rounding errors in constant windows.
  is_constant = scale < 1e-6
  return np.where(
    is_constant, 0.0, covariance / np.where(is_constant, 1, scale)
  )


def _deviations(
  x: Float[np.ndarray, ' n'], starts: np.ndarray, window: int
) -> Float[np.ndarray, ' windows']:
  return np.array([np.ptp(x[start : start + window]) for start in starts])


def _fisher(r: np.ndarray) -> np.ndarray:
  return np.arctanh(np.clip(r, -0.999, 0.999))


def _merge(windows: list[Stretch]) -> list[Stretch]:
  """Merges adjacent windows; the clearest one describes the result."""
  merged: list[Stretch] = []
  for window in sorted(windows, key=lambda window: window.first):
    if not merged or window.first > merged[-1].last + 1:
      merged.append(window)
      continue
    before = merged.pop()
    clearest = max(before, window, key=lambda found: found.shifted or 0.0)
    merged.append(
      dataclasses.replace(
        clearest, first=before.first, last=max(before.last, window.last)
      )
    )
  return merged


def _combine(shifted: list[Stretch], unrelated: list[Stretch]) -> list[Stretch]:
  """Explains a long stretch by shifts that cover half of it."""
  for stretch in unrelated:
    inside = [
      found
      for found in shifted
      if found.first <= stretch.last and found.last >= stretch.first
    ]
    covered = sum(found.last - found.first + 1 for found in inside)
    if covered < (stretch.last - stretch.first + 1) / 2:
      # To be expected by chance among so many windows.
      shifted = [found for found in shifted if found not in inside]
      shifted.append(stretch)
  return sorted(shifted, key=lambda found: found.first)
