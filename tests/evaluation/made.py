"""Outputs of a policy made up for tests."""

from rest_jax.evaluation import metrics, outputs

# Prefixes of the fields of an output by the name of the measure.
_PREFIXES = {name: prefix for prefix, name in outputs.MEASURES.items()}


def output(distinct=1.0, **differences):
  """Outputs of a policy, with (mean, stderr) of its differences to BC."""
  return outputs.Output(
    reward=metrics.Estimate(70.0, 0.5),
    bleu=40.0,
    chrf=60.0,
    distinct=distinct,
    **{
      f'{_PREFIXES[name]}difference_to_bc': metrics.Difference(*difference)
      for name, difference in differences.items()
    },
  )
