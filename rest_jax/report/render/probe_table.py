"""Results of probes as a table for the terminal."""

import dataclasses

from rest_jax.report import table
from rest_jax.rewards import probe_results

# Columns of a table of agreement: the statistics within a source are three.
_STATISTICS_PER_TABLE = 3


def render(
  report: probe_results.Report, title: str, minimum: float | None
) -> str:
  """Formats every probe and control, and whether the minimum was met."""
  tested = [
    (answer.name, _count(answer), _share(answer), _number(answer.mean_drop))
    for answer in report.probed
    if not answer.is_control
  ]
  controls = [
    (answer.name, _count(answer), '', _number(answer.mean_drop))
    for answer in report.probed
    if answer.is_control
  ]
  blocks = [
    f'{title}: reward {report.reward!r}, {report.num_pairs:,} references, '
    f'R(x, reference) {report.mean:.3f} with standard deviation '
    f'{report.std:.3f}',
    *_agreement(report),
  ]
  if tested:
    header = ('probe', 'cases', 'R(reference) > R(changed), %', 'mean drop')
    blocks.append(table.columns([header, *tested]))
  if controls:
    header = ('control', 'cases', '', 'mean |change|')
    blocks.append(table.columns([header, *controls]))
  blocks.append('\n'.join(_verdict(report, minimum)))
  return '\n\n'.join(blocks)


def _agreement(report: probe_results.Report) -> list[str]:
  """Formats the agreement of each split: within a source, then the rest."""
  blocks = []
  for split, rewards in report.agreement.items():
    names = list(
      dict.fromkeys(
        name
        for of_reward in rewards.values()
        for name, entry in of_reward.items()
        if isinstance(entry, dict)
      )
    )
    first = next(iter(rewards.values()))
    title = (
      f'agreement with ratings, {split}: {first["rows"]:,} rows of '
      f'{first["sources"]:,} sources'
    )
    if not names:
      blocks.append(f'{title}, too few to measure agreement')
    for start in range(0, len(names), _STATISTICS_PER_TABLE):
      chosen = names[start : start + _STATISTICS_PER_TABLE]
      rows = [('reward', *(name.replace('_', ' ') for name in chosen))]
      rows += [
        (reward, *(table.interval(of_reward.get(name), 3) for name in chosen))
        for reward, of_reward in rewards.items()
      ]
      head = f'{title}\n' if start == 0 else ''
      blocks.append(head + table.columns(rows))
  if report.weights:
    shown = ', '.join(f'{n} {w:.3g}' for n, w in report.weights.items())
    blocks.append(f'weights that order the dev ratings best: {shown}')
  return blocks


def _verdict(report: probe_results.Report, minimum: float | None) -> list[str]:
  lines = []
  if report.untested:
    names = ', '.join(answer.name for answer in report.untested)
    lines.append(f'no case, so not tested: {names}')
  if minimum is None:
    return [*lines, 'no minimum was set (ProbeConfig.minimum)']
  missed = report.missed(minimum)
  if not missed:
    met = sum(answer.share is not None for answer in report.probed)
    return [*lines, f'minimum {100 * minimum:g} %: met by {met} probes']
  named = ', '.join(
    f'{answer.name} {100 * answer.share.value:.1f} %'
    for answer in missed
    if answer.share is not None
  )
  return [*lines, f'FAILED minimum {100 * minimum:g} %: {named}']


def _count(answer: probe_results.Probed) -> str:
  return f'{answer.count:,}'


def _share(answer: probe_results.Probed) -> str:
  if answer.share is None:
    return 'no case'
  value, low, high = (100 * x for x in dataclasses.astuple(answer.share))
  return f'{value:.1f} [{low:.1f}, {high:.1f}]'


def _number(value: float | None) -> str:
  return table.MISSING if value is None else f'{value:.3f}'
