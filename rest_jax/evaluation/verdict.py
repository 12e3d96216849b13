"""The verdict: one sentence on whether ReST helped, from differences to BC.

The recommended policy is chosen on the first split by the judge's score of its
greedy (or beam) outputs, or by their reward without a judge. The sentence is
about test if it was evaluated. As for warnings, a difference counts if it
exceeds two standard errors.
"""

from collections.abc import Iterator, Mapping, Sequence
import math
from typing import NamedTuple, Protocol

from rest_jax.evaluation import metrics, policy_names
from rest_jax.evaluation import outputs as outputs_lib

_ORDINALS = {2: 'second', 3: 'third', 4: 'fourth'}


class Policy(Protocol):
  """The attributes of `variant.Variant` that are read here."""

  @property
  def name(self) -> str: ...
  @property
  def control(self) -> str: ...
  @property
  def is_bc(self) -> bool: ...
  @property
  def grow(self) -> int: ...
  @property
  def split(self) -> str: ...
  @property
  def text(self) -> str: ...
  @property
  def outputs(self) -> Mapping[str, outputs_lib.Output]: ...


class Verdict(NamedTuple):
  """The verdict on a run.

  Attributes:
    recommended: name of the policy to use; BC if none is better.
    by: the measure that chose it: 'judge' or 'reward'.
    split: the split on which it was chosen.
  """

  sentence: str
  recommended: str
  by: str
  split: str


def of_policies(policies: Sequence[Policy]) -> Verdict | None:
  """Returns the verdict; None if no policy is compared with BC.

  Args:
    policies: policies on all splits, in the order of the report.
  """
  splits = list(dict.fromkeys(policy.split for policy in policies))
  if not splits:
    return None
  chosen_on = [p for p in policies if p.split == splits[0]]
  by = outputs_lib.JUDGE
  candidates = list(_with(chosen_on, by))
  if not candidates:
    by = outputs_lib.REWARD
    candidates = list(_with(chosen_on, by))
  bc = next((p for p in chosen_on if p.is_bc), None)
  if bc is None or not candidates:
    return None
  # Without a judge, a fall of BLEU or chrF speaks against a rise of the reward.
  sound = [
    p for p in candidates if by == outputs_lib.JUDGE or not _fallen(p, p.text)
  ]
  best = max(sound or candidates, key=lambda policy: _gain(policy, by).mean)
  is_better = bool(sound) and _gain(best, by).rose
  reported = splits[1] if len(splits) > 1 else splits[0]
  shown = [p for p in policies if p.split == reported]
  # If none is better, the sentence is about the last policy.
  name = best.name if is_better else candidates[-1].name
  subject = next((p for p in _with(shown, by) if p.name == name), None)
  if subject is None:
    subject, shown = (best if is_better else candidates[-1]), chosen_on
  return Verdict(
    _sentence(subject, shown, by),
    best.name if is_better else bc.name,
    by,
    splits[0],
  )


def _sentence(subject: Policy, shown: Sequence[Policy], by: str) -> str:
  gain, output = _gain(subject, by), subject.outputs[subject.text]
  where = f'{subject.text.capitalize()} output on {subject.split}'
  fell = _fallen(subject, subject.text)
  reward = output.differences.get(outputs_lib.REWARD, gain)
  sampled = subject.outputs.get(outputs_lib.SAMPLES)
  sampled_gain = None if sampled is None else sampled.differences.get(by)
  words = f'over BC with {subject.name}'
  is_judged_better = by == outputs_lib.JUDGE and gain.rose
  if reward.rose and fell and not is_judged_better:
    return (
      f'{where}: reward {change(reward)} {words}, but {", ".join(fell)}: the '
      'reward is exploited.'
    )
  if gain.rose:
    parts = [
      f'{where}: {by} {change(gain)} {words}',
      *_control(subject, shown, by),
      *_last_grow(shown, by),
    ]
    return '; '.join(parts) + '.'
  if sampled_gain is not None and sampled_gain.rose:
    parts = [
      f'Sharper, not better: on {subject.split}, {by} of samples '
      f'{change(sampled_gain)} {words}, of {subject.text} output {change(gain)}',
      *_control(subject, shown, by, outputs_lib.SAMPLES),
    ]
    return '; '.join(parts) + '.'
  if reward.rose:
    return (
      f'{where}: only the reward rose, {change(reward)} {words}; {by} '
      f'{change(gain)}.'
    )
  verdict = 'worse than BC' if gain.fell else 'no gain over BC'
  return f'{where}: {verdict}: {by} {change(gain)} with {subject.name}.'


def _fallen(policy: Policy, decode: str) -> list[str]:
  return [
    f'{name} {change(difference)}'
    for name, difference in policy.outputs[decode].differences.items()
    if difference.fell
  ]


def _control(
  subject: Policy, shown: Sequence[Policy], by: str, decode: str = ''
) -> Iterator[str]:
  """Compares the policy's gain with that of the better control.

  Both are differences to the same BC. Their errors are combined as if they were
  independent, which is conservative compared with pairing.
  """
  gain = _gain(subject, by, decode)
  variant = policy_names.variant_of(subject.name)
  # BC at another temperature has the greedy output of BC.
  kinds = policy_names.CONTROLS if decode else (policy_names.TRAINED_ON,)
  controls = [
    p for p in shown if p.control in kinds and _known(p, by, decode) is not None
  ]
  own = [p for p in controls if policy_names.variant_of(p.name) == variant]
  if not controls:
    return
  best = max(own or controls, key=lambda p: _gain(p, by, decode).mean)
  control_gain = _gain(best, by, decode)
  words = policy_names.of_control(best.control)
  if best.control == policy_names.TRAINED_ON:
    words += ' for as many steps'
  difference = _minus(gain, control_gain)
  if difference.fell:
    amount = 'more'
  elif not difference.rose:
    amount = 'about as much'
  else:
    amount = 'less' if control_gain.rose else 'nothing'
  yield f'{words} gains {amount}, {change(control_gain)}'


def _last_grow(shown: Sequence[Policy], by: str) -> Iterator[str]:
  """Describes a last Grow step that did not raise the measure."""
  candidates = list(_with(shown, by))
  last = max(policy.grow for policy in candidates)
  grown = [
    [policy for policy in candidates if policy.grow == g]
    for g in (last - 1, last)
  ]
  if last < 2 or not all(grown):
    return
  before, after = (max(ps, key=lambda p: _gain(p, by).mean) for ps in grown)
  rose = [
    name
    for name in dict.fromkeys((outputs_lib.REWARD, by))
    if None not in (_known(before, name), _known(after, name))
    and _minus(_gain(after, name), _gain(before, name)).rose
  ]
  words = f'the {_ORDINALS[last]} Grow' if last in _ORDINALS else f'Grow {last}'
  if not rose:
    yield f'{words} added nothing'
  elif by not in rose:
    yield f'{words} raised only the reward'


def _with(policies: Sequence[Policy], by: str) -> Iterator[Policy]:
  """Yields the policies, without controls, that a measure compares with BC."""
  for policy in policies:
    if not policy.control and _known(policy, by) is not None:
      yield policy


def _known(
  policy: Policy, by: str, decode: str = ''
) -> metrics.Difference | None:
  output = policy.outputs.get(decode or policy.text)
  return None if output is None else output.differences.get(by)


def _gain(policy: Policy, by: str, decode: str = '') -> metrics.Difference:
  """Returns the difference to BC, which is known."""
  difference = _known(policy, by, decode)
  assert difference is not None
  return difference


def _minus(a: metrics.Difference, b: metrics.Difference) -> metrics.Difference:
  return metrics.Difference(a.mean - b.mean, math.hypot(a.stderr, b.stderr))


def change(difference: metrics.Difference) -> str:
  """Formats a difference with one decimal, or two if its error is small."""
  places = 1 if difference.stderr >= 0.05 else 2
  return f'{difference.mean:+.{places}f} ± {difference.stderr:.{places}f}'
