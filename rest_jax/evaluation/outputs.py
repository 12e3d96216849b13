"""Measurements of a policy's outputs by decode, such as greedy or samples.

A policy with a sharper distribution has better samples, but not always a better
greedy output. Every measure is therefore computed for each decode, and compared
with BC's outputs of the same decode, paired by source.
"""

from collections.abc import Mapping
import dataclasses
from typing import NamedTuple

from jaxtyping import Float, Int
import numpy as np

from rest_jax import settings
from rest_jax.evaluation import metrics, paired_text

GREEDY = 'greedy'
SAMPLES = 'samples'
REWARD, JUDGE = 'reward', 'judge'
# Names of the measures by prefix of their fields in `Output` and `Variant`.
MEASURES = {'': REWARD, 'human_': JUDGE, 'bleu_': 'BLEU', 'chrf_': 'chrF'}
_TEXT_SCORES = {'bleu': paired_text.bleu, 'chrf': paired_text.chrf}


def beam(size: int) -> str:
  """Returns the name of beam search with `size` beams."""
  return f'beam {size}'


def best_of(num_samples: int) -> str:
  """Returns the name of the best of N samples by reward."""
  return f'best of {num_samples}'


def mbr(num_samples: int) -> str:
  """Returns the name of minimum Bayes risk decoding from N samples."""
  return f'MBR {num_samples}'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Output:
  """Measurements of one policy's outputs by one decode.

  Attributes:
    reward: mean reward x100, clustered by source.
    human: mean score x100 of the independent judge, or of people; None without
      either.
    bleu: corpus BLEU in [0, 100]; each sample of a source is a sentence.
    chrf: corpus chrF in [0, 100], likewise.
    distinct: mean number of distinct outputs per source, at least 1.
    seconds: wall-clock seconds to make the outputs, compilation included; for a
      choice among samples, sampling and scoring included. None if the
      evaluation was interrupted.
    difference_to_bc: reward x100 minus BC's by the same decode, paired by
      source; None for BC itself.
    human_difference_to_bc: likewise for `human`.
    bleu_difference_to_bc: likewise for `bleu`, with a bootstrap standard error.
    chrf_difference_to_bc: likewise for `chrf`.
    difference_stderr_across_seeds: standard error of the difference to BC from
      the differences of the seeds; None for one run.
    human_difference_stderr_across_seeds: likewise.
    bleu_difference_stderr_across_seeds: likewise.
    chrf_difference_stderr_across_seeds: likewise.
  """

  reward: metrics.Estimate
  human: metrics.Estimate | None = None
  bleu: float
  chrf: float
  distinct: float = 1.0
  seconds: float | None = None
  difference_to_bc: metrics.Difference | None = None
  human_difference_to_bc: metrics.Difference | None = None
  bleu_difference_to_bc: metrics.Difference | None = None
  chrf_difference_to_bc: metrics.Difference | None = None
  difference_stderr_across_seeds: float | None = None
  human_difference_stderr_across_seeds: float | None = None
  bleu_difference_stderr_across_seeds: float | None = None
  chrf_difference_stderr_across_seeds: float | None = None

  def __post_init__(self):
    for field in ('bleu', 'chrf'):
      value = getattr(self, field)
      # Rounding may put the score of equal texts slightly above 100.
      if not 0 <= value <= 100 + 1e-6:
        raise ValueError(f'{field} must be in [0, 100]; got {value}.')
    settings.at_least(self, 1, 'distinct')

  @property
  def differences(self) -> Mapping[str, metrics.Difference]:
    """The known differences to BC, by name of the measure."""
    return {
      name: difference
      for prefix, name in MEASURES.items()
      if (difference := getattr(self, f'{prefix}difference_to_bc')) is not None
    }


class Scores(NamedTuple):
  """Scores of the outputs by one decode, one row per source.

  Attributes:
    sources: int64 [n], rows of the split.
    reward: float64 [n], mean normalised reward of each source's outputs.
    human: float64 [n], mean score of the judge; None without a judge.
    bleu: int64 [n, 10], sums of `paired_text.bleu_counts` over the outputs.
    chrf: int64 [n, 18], sums of `paired_text.chrf_counts` over the outputs.
  """

  sources: Int[np.ndarray, ' n']
  reward: Float[np.ndarray, ' n']
  human: Float[np.ndarray, ' n'] | None
  bleu: Int[np.ndarray, 'n 10']
  chrf: Int[np.ndarray, 'n 18']

  def measure(self) -> dict[str, metrics.Estimate | float]:
    """Returns the fields reward, human, bleu and chrf of `Output`.

    Sources have equally many outputs: standard errors are clustered by source.
    """
    measured: dict[str, metrics.Estimate | float] = {
      'reward': metrics.clustered_mean(self.reward).scaled(100)
    }
    if self.human is not None:
      measured['human'] = metrics.clustered_mean(self.human).scaled(100)
    for name, score in _TEXT_SCORES.items():
      measured[name] = score(getattr(self, name).sum(axis=0))
    return measured


def differences(own: Scores, bc: Scores) -> dict[str, metrics.Difference]:
  """Compares the outputs of two policies, paired by source.

  Args:
    own: scores of a policy.
    bc: scores of BC by the same decode, on the same sources.

  Returns:
    The fields `…difference_to_bc` of `Output`; for rewards and the judge's
    scores x100.

  Raises:
    ValueError: the sources differ.
  """
  compared = {
    'difference_to_bc': _paired(own.reward, bc.reward, own, bc),
  }
  if own.human is not None and bc.human is not None:
    compared['human_difference_to_bc'] = _paired(own.human, bc.human, own, bc)
  for name, score in _TEXT_SCORES.items():
    compared[f'{name}_difference_to_bc'] = paired_text.paired_difference(
      score, getattr(own, name), getattr(bc, name)
    )
  return compared


def _paired(
  a: np.ndarray, b: np.ndarray, own: Scores, bc: Scores
) -> metrics.Difference:
  return metrics.paired_difference(a, b, own.sources, bc.sources).scaled(100)
