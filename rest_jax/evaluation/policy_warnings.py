"""What a policy is warned of, from its differences to BC decode by decode."""

from collections.abc import Mapping

from rest_jax.evaluation import hacking, metrics
from rest_jax.evaluation import outputs as outputs_lib

# Samples of a source are nearly all alike from here on: of those that could
# differ from the first, the share that does; or their BLEU to each other.
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
  """Returns what a policy is warned of, the first of these that holds.

  - Reward above, and judge, BLEU or chrF below BC's, of outputs of search.
  - Samples better and outputs of search worse than BC's: sharper, not better.
  - Samples nearly all alike, with outputs of search no better than BC's.
  - Reward above, and judge, BLEU or chrF below BC's, of samples.

  A difference counts from two standard errors on. A policy whose judge rises in
  outputs of search and in samples has no warning.

  Args:
    policy: its name.
    outputs: what was measured of its outputs, by decode.
    text: the decode that is greedy or beam search.
    num_samples: samples per source.
    self_bleu: of its samples, see `hacking.self_bleu`; None if not known.
    rater: whose scores those of the judge are, see `results.Variant.rater`.

  Returns:
    A line; None for no warning.
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
  return [name for name, d in output.differences.items() if d.z > hacking.MANY]


def _fell(output: outputs_lib.Output) -> list[str]:
  return [name for name, d in output.differences.items() if d.z < -hacking.MANY]


def _change(output: outputs_lib.Output, name: str) -> str:
  difference: metrics.Difference = output.differences[name]
  return f'{difference.mean:+.2f} ± {difference.stderr:.2f}'
