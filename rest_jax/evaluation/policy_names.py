"""What results, tables and figures call a policy: 'BC', 'ReST G1 I3', 'PPO'."""

import re

# Policies beside those of ReST, by which a gain of its policies is judged.
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
    loss: name of the loss that trained it, or of the online baseline.
    grow: number of Grow steps behind it.
    improve: number of Improve steps since the last Grow step.
    variant: name that the user gave to the variant; '' for none.

  Returns:
    E.g. 'BC', 'PPO', 'ReST G1 I3'. What tells variants apart stands beside it:
    the variant's name, or a loss other than BC, e.g. 'ReST G1 I3 (GOLD)'.
  """
  if not (grow or improve):
    return _with(loss.upper(), variant)
  loss = '' if loss == 'bc' else loss.upper()
  return _with(f'ReST G{grow} I{improve}', variant or loss)


def of_control(control: str, variant: str = '') -> str:
  """Names a control: 'BC trained on' or 'BC at equal entropy'.

  Args:
    control: one of `CONTROLS`.
    variant: whose control it is; '' where there is one variant.
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
  """Returns what stands beside a name, e.g. ' (GOLD)'; '' for nothing."""
  return name[name.index(' (') :] if ' (' in name else ''


def renamed(name: str) -> str:
  """Returns today's name for one that version 0.1 wrote."""
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
