"""The interface of every reward R(x, y), and the checks that all share."""

from collections.abc import Sequence
from typing import Protocol

from jaxtyping import Float, Float32
import numpy as np

# Characters of a text that an error message shows.
_SHOWN = 120


class Reward(Protocol):
  """Scores hypotheses of sources, as text; higher is better.

  Attributes:
    name: the word for it in file names and results, such as 'learned'.
  """

  name: str

  def score(
    self, sources: Sequence[str], hypotheses: Sequence[str]
  ) -> Float32[np.ndarray, ' n']:
    """Scores each hypothesis of the source at the same position.

    Args:
      sources: n texts.
      hypotheses: n texts; an empty one is a hypothesis like any other.

    Returns:
      n finite rewards in the order of the inputs, unit of the reward.

    Raises:
      ValueError: if the lists differ in length or hold something but text.
      FloatingPointError: if a reward is not finite; the message names the first
        such hypothesis.
    """
    ...


def check_texts(sources: Sequence[str], hypotheses: Sequence[str]) -> None:
  """Raises ValueError unless both are lists of text of one length."""
  for name, texts in (('sources', sources), ('hypotheses', hypotheses)):
    if isinstance(texts, str):
      raise ValueError(
        f'{name} must be a list of texts; got the single text '
        f'{texts[:_SHOWN]!r}. Put it into a list.'
      )
    for position, text in enumerate(texts):
      if not isinstance(text, str):
        raise ValueError(
          f'{name} must hold texts; position {position} is {text!r} of type '
          f'{type(text).__name__}. Decode token ids, and drop rows that have '
          'no text.'
        )
  if len(sources) != len(hypotheses):
    raise ValueError(
      'sources and hypotheses must have one length, a source for each '
      f'hypothesis; got {len(sources)} and {len(hypotheses)}. Repeat a source '
      'for each of its hypotheses.'
    )


def check_finite(
  name: str,
  sources: Sequence[str],
  hypotheses: Sequence[str],
  rewards: Float[np.ndarray, ' n'],
) -> None:
  """Raises FloatingPointError if a reward is NaN or infinite.

  A missing reward is never read as 0: on a normalised scale that is a rating
  like any other.

  Args:
    name: of the reward.
    sources: n texts.
    hypotheses: n texts.
    rewards: n numbers.
  """
  bad = np.flatnonzero(~np.isfinite(rewards))
  if bad.size:
    first = int(bad[0])
    raise FloatingPointError(
      f'reward {name!r} must be finite; it is {rewards[first]} at position '
      f'{first} ({bad.size} such among {len(rewards)}), for the source '
      f'{sources[first][:_SHOWN]!r} and the hypothesis '
      f'{hypotheses[first][:_SHOWN]!r}. Look at the parameters of the reward '
      'model; train it again if they are not finite.'
    )
