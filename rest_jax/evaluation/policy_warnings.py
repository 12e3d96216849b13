"""Warnings about a policy, from its differences to BC by decode."""

from collections.abc import Mapping

from rest_jax.evaluation import hacking
from rest_jax.evaluation import outputs as outputs_lib

# The samples of a source are nearly equal up to this share of distinct samples
# after the first, or from this self-BLEU on.
_FEW_DISTINCT = 0.1
_SELF_BLEU = 90.0


def warning(
  policy: str,
  outputs: Mapping[str, outputs_lib.Output],
  *,
  text: str,
  num_samples: int,
  self_bleu: float | None = None,
  rater: str = outputs_lib.JUDGE,
) -> str | None:
  """Returns the first of these warnings that applies to a policy.

  - Search outputs: reward above BC's, and judge, BLEU or chrF below.
  - Samples better and search outputs worse than BC's: sharper, not better.
  - Samples nearly equal, and search outputs no better than BC's.
  - Samples: reward above BC's, and judge, BLEU or chrF below.

  A difference counts if it exceeds two standard errors. There is no warning if
  the judge's score rose in search outputs and in samples.

  Args:
    policy: name of the policy.
    outputs: measurements of its outputs, by decode.
    text: name of the search: greedy or beam search.
    num_samples: number of samples per source.
    self_bleu: self-BLEU of its samples; None if unknown.
    rater: name of the judge, see `variant.Variant.rater`.
  """
  samples, searched = outputs.get(outputs_lib.SAMPLES), outputs.get(text)
  if samples is None or searched is None:
    return None
  if all(outputs_lib.JUDGE in _rose(output) for output in (samples, searched)):
    return None
  share = (samples.distinct - 1) / max(num_samples - 1, 1)
  is_alike = num_samples > 1 and (
    share <= _FEW_DISTINCT or (self_bleu or 0.0) >= _SELF_BLEU
  )
  alike = f'{samples.distinct:.1f} of {num_samples} samples per source differ'
  if self_bleu is not None:
    alike += f', self-BLEU {self_bleu:.1f}'
  return (
    _exploits(f'{policy}, {text}', searched, rater)
    or _sharper(policy, text, samples, searched)
    or (_collapsed(policy, text, searched, alike) if is_alike else None)
    or _exploits(f'{policy}, {outputs_lib.SAMPLES}', samples, rater)
  )


def _sharper(
  policy: str,
  text: str,
  samples: outputs_lib.Output,
  searched: outputs_lib.Output,
) -> str | None:
  both = [
    f'{name} of samples {_change(samples, name)}, {text} '
    f'{_change(searched, name)}'
    for name in _rose(samples)
    if name in _fell(searched)
  ]
  if not both:
    return None
  return f'{policy}: sharper, not better: {"; ".join(both)} over BC'


def _exploits(
  policy: str, output: outputs_lib.Output, rater: str
) -> str | None:
  others = {
    rater if name == outputs_lib.JUDGE else name: difference
    for name, difference in output.differences.items()
  }
  return hacking.warning(policy, others.pop(outputs_lib.REWARD, None), others)


def _collapsed(
  policy: str, text: str, searched: outputs_lib.Output, alike: str
) -> str | None:
  known = searched.differences
  names = (
    [outputs_lib.JUDGE] if outputs_lib.JUDGE in known else ['BLEU', 'chrF']
  )
  compared = [name for name in names if name in known]
  if not compared or set(compared) & set(_rose(searched)):
    return None
  changes = ', '.join(f'{name} {_change(searched, name)}' for name in compared)
  return (
    f'{policy}: collapsed onto one output: {alike}, and {text} output is no '
    f'better than that of BC: {changes}'
  )


def _rose(output: outputs_lib.Output) -> list[str]:
  return [name for name, d in output.differences.items() if d.rose]


def _fell(output: outputs_lib.Output) -> list[str]:
  return [name for name, d in output.differences.items() if d.fell]


def _change(output: outputs_lib.Output, name: str) -> str:
  return output.differences[name].shown
