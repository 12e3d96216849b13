"""Ids of a vocabulary that are no pieces of text."""

import dataclasses

from rest_jax import settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpecialIds:
  """Ids of tokens that mean something to the network or its decoding.

  The defaults are those of T5. No other module names one.

  Attributes:
    pad: fills rows up; no token of a source or target is it.
    eos: ends targets, and sources unless the vocabulary says otherwise.
    unk: stands for what has no piece; None if the vocabulary has none.
    decoder_start: the decoder's first input.
    forced_first: the first token of every hypothesis, such as the language that
      is translated into; None if it is drawn.
    is_first_given: whether each source brings the first token of its hypotheses
      instead, in a run with several target languages.
  """

  pad: int = 0
  eos: int = 1
  unk: int | None = 2
  decoder_start: int = 0
  forced_first: int | None = None
  is_first_given: bool = settings.added(default=False)

  def __post_init__(self):
    settings.at_least(self, 0, 'pad', 'eos', 'decoder_start')
    settings.at_least(self, 0, 'unk', 'forced_first', none='none')
    if self.pad == self.eos:
      raise ValueError(
        f'pad and eos must be different ids; both are {self.pad}. Padding would '
        'be read as an end.'
      )
    if self.is_first_given and self.forced_first is not None:
      raise ValueError(
        'forced_first must be None where each source brings its own first token '
        f'(is_first_given); got {self.forced_first}.'
      )

  @property
  def undrawable(self) -> tuple[int, ...]:
    """Ids that no hypothesis has."""
    return tuple(i for i in (self.pad, self.unk) if i is not None)


T5 = SpecialIds()
