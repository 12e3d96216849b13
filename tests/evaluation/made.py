"""Policies and their outputs made up for tests."""

from rest_jax.evaluation import metrics, outputs, policy_names
from rest_jax.evaluation import variant as variant_lib

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


def variant(grow=0, improve=0, **fields):
  """A policy on one split, with as few fields as may be."""
  full = {
    'name': policy_names.of_step(fields.get('loss', 'bc'), grow, improve),
    'loss': 'bc',
    'seed': 0,
    'split': 'validation',
    'decode': variant_lib.Decode(temperature=0.8, samples_per_source=4),
    'reward': metrics.Estimate(70.0, 0.5),
  }
  return variant_lib.Variant(grow=grow, improve=improve, **{**full, **fields})
