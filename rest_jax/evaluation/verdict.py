"""What a policy's differences to BC say, each taken of outputs of one decode."""

from collections.abc import Iterator, Mapping

from rest_jax.evaluation import hacking, metrics
from rest_jax.evaluation import outputs as outputs_lib

# Samples of a source are nearly all alike from here on: of those that could
# differ from the first, the share that does; or their BLEU to each other.
_FEW_DISTINCT = 0.1
_SELF_BLEU = 90.0


def warnings(
  policy: str,
  outputs: Mapping[str, outputs_lib.Output],
  *,
  text: str,
  num_samples: int,
  self_bleu: float | None = None,
) -> tuple[str, ...]:
  """Returns what a policy is warned of, a line each.

  - Samples better and outputs of search worse than BC's: sharper, not better.
  - Reward above, and judge, BLEU or chrF below BC's, by the same decode.
  - Samples nearly all alike, with outputs of search no better than BC's.

  A difference counts from two standard errors on. A policy whose judge rises in
  outputs of search and in samples has no warning.

  Args:
    policy: its name.
    outputs: what was measured of its outputs, by decode.
    text: the decode that is greedy or beam search.
    num_samples: samples per source.
    self_bleu: of its samples, see `hacking.self_bleu`; None if not known.
  """
  samples, searched = outputs.get(outputs_lib.SAMPLES), outputs.get(text)
  if samples is None or searched is None:
    return ()
  if all('human' in _rose(output) for output in (samples, searched)):
    return ()
  lines = [
    *_sharper(policy, text, samples, searched),
    *_exploits(policy, {text: searched, outputs_lib.SAMPLES: samples}),
  ]
  share = (samples.distinct - 1) / max(num_samples - 1, 1)
  is_alike = num_samples > 1 and (
    share <= _FEW_DISTINCT or (self_bleu or 0.0) >= _SELF_BLEU
  )
  if is_alike:
    lines += _collapsed(policy, text, samples, searched, num_samples, self_bleu)
  return tuple(lines)


def _sharper(
  policy: str,
  text: str,
  samples: outputs_lib.Output,
  searched: outputs_lib.Output,
) -> Iterator[str]:
  both = [
    f'{name} of samples {_change(samples, name)}, {text} '
    f'{_change(searched, name)}'
    for name in _rose(samples)
    if name in _fell(searched)
  ]
  if both:
    yield f'{policy}: sharper, not better: {"; ".join(both)} over BC'


def _exploits(
  policy: str, outputs: Mapping[str, outputs_lib.Output]
) -> Iterator[str]:
  for decode, output in outputs.items():
    others = dict(output.differences)
    reward = others.pop('reward', None)
    line = hacking.warning(f'{policy}, {decode}', reward, others)
    if line is not None:
      yield line


def _collapsed(
  policy: str,
  text: str,
  samples: outputs_lib.Output,
  searched: outputs_lib.Output,
  num_samples: int,
  self_bleu: float | None,
) -> Iterator[str]:
  known = searched.differences
  names = ['human'] if 'human' in known else ['BLEU', 'chrF']
  compared = [name for name in names if name in known]
  if not compared or set(compared) & set(_rose(searched)):
    return
  alike = f'{samples.distinct:.1f} of {num_samples} samples per source differ'
  if self_bleu is not None:
    alike += f', self-BLEU {self_bleu:.1f}'
  changes = ', '.join(f'{name} {_change(searched, name)}' for name in compared)
  yield (
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
