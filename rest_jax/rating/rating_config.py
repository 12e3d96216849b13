"""Settings of the rating page."""

import dataclasses
import ipaddress

from rest_jax import settings

SCORES = 'scores'
PREFERENCE = 'preference'
KINDS = (SCORES, PREFERENCE)

# Scores are from 0 to this, as in the paper's human evaluation.
HIGHEST_SCORE = 6

_INSTRUCTION = {
  SCORES: 'How well does each output say what the source says?',
  PREFERENCE: 'Which output says better what the source says?',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatingConfig:
  """The settings of `--run_mode=rate`.

  Source: ReST (arXiv 2308.08998), section 4, "Does ReST improve human
  preferences?": a source and two outputs, each scored from 0 to 6.

  Attributes:
    policies: folders of the two compared policies, such as ('bc',
      'improve_1_3'); empty for BC and the last ReST policy of the run.
    split: split of the sources; outputs are samples of the stored evaluations.
    num_items: number of sources per rater. It may be raised later; existing
      ratings are kept.
    kind: 'scores', 0 to 6 for each output, or 'preference' for one output or
      neither.
    instruction: question above the outputs; empty for one about meaning.
    seed: seed of the choice of sources, the order per rater, and the sides.
    host: address to bind. An address other than loopback needs a token, which
      is printed at the start.
    port: port of the page; 0 for a free one.
    host_names: additional names under which browsers reach this machine.
  """

  policies: tuple[str, ...] = ()
  split: str = 'validation'
  num_items: int = 100
  kind: str = SCORES
  instruction: str = ''
  seed: int = 0
  host: str = '127.0.0.1'
  port: int = 8321
  host_names: tuple[str, ...] = ()

  def __post_init__(self):
    settings.make_tuples(self, 'policies', 'host_names')
    if self.policies and (
      len(self.policies) != 2 or self.policies[0] == self.policies[1]
    ):
      raise ValueError(
        'policies must name two different policies, or none for BC and the '
        f"last; got {self.policies}. An example: ('bc', 'improve_1_1')."
      )
    settings.at_least(self, 1, 'num_items')
    settings.one_of(self, KINDS, 'kind')
    settings.inside(self, '[0, 65535]', 'port')
    try:
      ipaddress.ip_address(self.host)
    except ValueError:
      raise ValueError(
        f'host must be an IP address; got {self.host!r}. 127.0.0.1 is this '
        'machine alone, 0.0.0.0 all of its IPv4 addresses.'
      ) from None

  @property
  def question(self) -> str:
    """The question for raters."""
    return self.instruction or _INSTRUCTION[self.kind]

  @property
  def needs_token(self) -> bool:
    """Whether other machines can reach the page."""
    return not ipaddress.ip_address(self.host).is_loopback
