"""Samples of several policies for the same sources, to browse in a report."""

from collections.abc import Sequence
import dataclasses
from typing import Any

from rest_jax.runtime import control_characters

MAX_CHARACTERS = 2000  # Longer texts are cut.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
  """One distinct output of a policy for a source.

  Attributes:
    reward: normalised reward x100.
    judge: the independent judge's score x100; None without a judge.
    length: number of tokens, EOS included.
    finished: whether EOS was reached.
    count: number of samples with this text.
  """

  text: str
  reward: float
  judge: float | None
  length: int
  finished: bool
  count: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Browsed:
  """One source with the candidates of each policy.

  Attributes:
    source_id: row of the source in its split.
    reference: its reference; None without one.
  """

  source_id: int
  source: str
  reference: str | None
  candidates: tuple[tuple[Candidate, ...], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Samples:
  """Samples of some sources of a split.

  Attributes:
    policies: names of the policies, in the order they were made.
    sources: some sources of the split, evenly spread.
    num_sources: number of sources that were sampled for.
    samples_per_source: number of samples per source and policy.
  """

  split: str
  policies: tuple[str, ...]
  sources: tuple[Browsed, ...]
  num_sources: int
  samples_per_source: int

  def content(self) -> dict[str, Any]:
    """Returns the input of the page's script, see web/page.js."""
    return {
      'policies': [control_characters.visible(name) for name in self.policies],
      'sources': [_source(browsed) for browsed in self.sources],
    }


def merge(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
  """Merges equal texts, and sorts by reward, best first.

  Args:
    candidates: samples of one policy for one source. Equal texts have equal
      rewards, because each is scored once.
  """
  merged: dict[tuple[str, bool], Candidate] = {}
  for one in candidates:
    key = (one.text, one.finished)
    count = merged[key].count if key in merged else 0
    merged[key] = dataclasses.replace(one, count=count + one.count)
  return tuple(sorted(merged.values(), key=lambda one: -one.reward))


def _source(browsed: Browsed) -> dict[str, Any]:
  return {
    'id': browsed.source_id,
    'source': _shown(browsed.source),
    'reference': (
      None if browsed.reference is None else _shown(browsed.reference)
    ),
    'candidates': [
      [
        [
          _shown(one.text),
          round(one.reward, 2),
          None if one.judge is None else round(one.judge, 2),
          one.length,
          int(one.finished),
          one.count,
        ]
        for one in of_policy
      ]
      for of_policy in browsed.candidates
    ],
  }


def _shown(text: str) -> str:
  if len(text) > MAX_CHARACTERS:
    text = f'{text[:MAX_CHARACTERS]}… ({len(text):,} characters)'
  return control_characters.visible(text)
