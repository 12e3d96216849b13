"""Names of policies in results and figures: 'BC', 'ReST G1 I3', 'PPO'."""

import re

# Controls: policies that the gain of ReST is compared with.
TRAINED_ON = 'trained on'
EQUAL_ENTROPY = 'equal entropy'
CONTROLS = (TRAINED_ON, EQUAL_ENTROPY)

_STEPS = re.compile(r' G\d+ I\d+')
_IMPROVE = re.compile(r'(?<=\d) I\d+')
# Names of version 0.1, as in 'GOLD (G=1, I=2) weighted' and 'BC at T=0.52'.
_OLD_STEPS = re.compile(r'(\w+) \(G=(\d+), I=(\d+)\)(?: (.+))?')
_OLD_COOLED = re.compile(r'BC at T=[\d.]+(?: (.+))?')
_OLD_TRAINED = re.compile(r'BC trained on ([^(].*)')


def of_step(loss: str, grow: int, improve: int, variant: str = '') -> str:
  """Names a policy by its Grow and Improve steps, as the paper counts them.

  Source: ReST (arXiv 2308.08998), section 4, Nomenclature.

  Args:
    loss: name of its loss, or of the online baseline.
    grow: number of Grow steps before it.
    improve: number of Improve steps since the last Grow step.
    variant: the user's name of the variant; '' for none.

  Returns:
    E.g. 'BC', 'PPO', 'ReST G1 I3'. The variant's name, or a loss other than BC,
    follows in brackets, e.g. 'ReST G1 I3 (GOLD)'.
  """
  if not (grow or improve):
    return _with(loss.upper(), variant)
  loss = '' if loss == 'bc' else loss.upper()
  return _with(f'ReST G{grow} I{improve}', variant or loss)


def of_control(control: str, variant: str = '') -> str:
  """Names a control: 'BC trained on' or 'BC at equal entropy'.

  Args:
    control: one of `CONTROLS`.
    variant: name of the variant; '' if there is only one.
  """
  at = 'at ' if control == EQUAL_ENTROPY else ''
  return _with(f'BC {at}{control}', variant)


def family(name: str) -> str:
  """Returns a name without its Grow and Improve steps, e.g. 'ReST (GOLD)'."""
  return _STEPS.sub('', name)


def of_grow(name: str) -> str:
  """Returns a name without its Improve step, e.g. 'ReST G1 (GOLD)'."""
  return _IMPROVE.sub('', name)


def variant_of(name: str) -> str:
  """Returns the variant in a name with its brackets, e.g. ' (GOLD)', or ''."""
  return name[name.index(' (') :] if ' (' in name else ''


def renamed(name: str) -> str:
  """Returns the present name for a name of version 0.1."""
  if old := _OLD_STEPS.fullmatch(name):
    loss, grow, improve, variant = old.groups()
    return of_step(loss.lower(), int(grow), int(improve), variant or '')
  if old := _OLD_COOLED.fullmatch(name):
    return of_control(EQUAL_ENTROPY, old[1] or '')
  if old := _OLD_TRAINED.fullmatch(name):
    return of_control(TRAINED_ON, old[1])
  return name


def _with(name: str, variant: str) -> str:
  return f'{name} ({variant})' if variant else name
