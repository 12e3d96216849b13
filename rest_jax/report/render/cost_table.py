"""Costs of ReST and of online learning as a table for the terminal."""

from collections.abc import Sequence

from rest_jax.evaluation import costs
from rest_jax.report import table

_HEADERS = (
  'policy', 'reward', 'samples', 'distinct', 'sampled tokens',
  'trained tokens', 'TFLOP', 'seconds', 'peak MB',
)  # fmt: skip
_NOTE = (
  'Validation reward x100 of the samples that chose the checkpoint. Costs\n'
  'since BC, without evaluations and the reward model; TFLOP are estimates,\n'
  '"peak MB" is of the process so far. "online to there": costs of online\n'
  'learning when it first had that reward.'
)


def render(reached: Sequence[costs.Reached]) -> str:
  """Formats each policy, and below it the cost of online learning to reach it.

  Args:
    reached: the policies, online learning last.
  """
  rows: list[list[str]] = [list(_HEADERS)]
  for one in reached:
    rows.append([one.policy, f'{one.reward:.2f}', *_cells(one.cost)])
    if one is not reached[-1]:
      numbers = ['not reached'] if one.online is None else _cells(one.online)
      rows.append(['  online to there', '', *numbers])
  rows = [row + [''] * (len(_HEADERS) - len(row)) for row in rows]
  return f'{table.columns(rows)}\n\n{_NOTE}'


def _cells(cost: costs.Cost) -> list[str]:
  return [
    f'{cost.samples:,.0f}',
    f'{cost.distinct_samples:,.0f}',
    f'{cost.sampled_tokens:,.0f}',
    f'{cost.trained_tokens:,.0f}',
    f'{cost.flops / 1e12:,.2f}',
    f'{cost.seconds:,.0f}',
    f'{cost.peak_rss_mb:,.0f}',
  ]
