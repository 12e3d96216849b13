"""Tables on finished stages: time, kept samples, agreement, warnings."""

from collections.abc import Iterator
import pathlib
from typing import Any, NamedTuple

from rest_jax.evaluation import policy_names
from rest_jax.report import table
from rest_jax.rewards import reward_agreement as agreement_lib
from rest_jax.runtime import time_spent
from rest_jax.stages import evaluate as evaluate_stage
from rest_jax.stages import folder as folder_lib
from rest_jax.training import journal, loop

Stages = list[tuple[str, pathlib.Path]]


class _Time(NamedTuple):
  """Seconds of a stage, in all and by kind; earlier versions have no kinds."""

  name: str
  seconds: float
  spent: dict[str, float] | None
  work: str = ''

  @property
  def cells(self) -> tuple[str, ...]:
    if self.spent is None:
      return (table.MISSING,) * (len(time_spent.KINDS) + 1)
    shown = [self.spent[kind] for kind in time_spent.KINDS]
    # Other threads may compile while the stage runs.
    shown.append(max(self.seconds - sum(shown), 0.0))
    return tuple(f'{seconds:,.1f}' for seconds in shown)


def times(stages: Stages, *, is_brief: bool = False) -> table.Cells | None:
  """Returns the time of each stage by kind; None if no manifest has it.

  Args:
    is_brief: whether all evaluations have one row, and no row has its work.
  """
  stage_times = []
  for name, directory in stages:
    manifest = folder_lib.read_manifest(directory)
    seconds = _seconds(manifest)
    if seconds is not None:
      spent = manifest.get(folder_lib.SPENT)
      work = ', '.join(_work(manifest))
      stage_times.append(_Time(name, seconds, spent, work))
  total = sum(one.seconds for one in stage_times)
  if not total:
    return None
  rows = _evaluations_together(stage_times) if is_brief else stage_times
  rows = [*rows, _sum('together', stage_times)]
  title, last = ('Time', ()) if is_brief else ('Time and work', ('work',))
  return table.Cells(
    f'{title} by stage, in seconds',
    ('stage', 'seconds', 'share', *time_spent.KINDS, 'running', *last),
    tuple(
      (
        one.name,
        f'{one.seconds:,.1f}',
        table.percent(one.seconds / total),
        *one.cells,
        *(() if is_brief else (one.work,)),
      )
      for one in rows
    ),
  )


def _evaluations_together(times: list[_Time]) -> list[_Time]:
  mode = evaluate_stage.Evaluate.run_mode
  evaluations = [one for one in times if one.name.startswith(f'{mode} ')]
  if len(evaluations) < 2:
    return times
  others = [one for one in times if one not in evaluations]
  return [*others, _sum(f'{mode} ({len(evaluations)})', evaluations)]


def _sum(name: str, times: list[_Time]) -> _Time:
  by_kind = [one.spent for one in times if one.spent is not None]
  spent = None
  if len(by_kind) == len(times):
    spent = {
      kind: sum(one[kind] for one in by_kind) for kind in time_spent.KINDS
    }
  return _Time(name, sum(one.seconds for one in times), spent)


def trainings(stages: Stages) -> table.Cells | None:
  """Returns what the time of each training went to; None if unknown."""
  kinds = (
    loop.STEPS,
    loop.EVALUATION,
    loop.SAVING,
    loop.READING,
    time_spent.COMPILING,
  )
  rows = []
  for name, directory in stages:
    manifest = folder_lib.read_manifest(directory)
    parts = manifest.get('training', {}).get('seconds_by_part')
    if parts is None:
      continue
    seconds = [parts.get(kind, 0.0) for kind in kinds]
    # More than the last start took, if the stage was cut off.
    whole = max(manifest['stage_seconds'], sum(seconds))
    shown = [f'{value:,.1f}' for value in (*seconds, whole - sum(seconds))]
    rows.append((name, table.percent(seconds[0] / whole), *shown))
  if not rows:
    return None
  return table.Cells(
    'Time of trainings, in seconds',
    ('stage', 'step share', *kinds, 'other'),
    tuple(rows),
  )


def kept(model_dir: pathlib.Path) -> table.Cells | None:
  """Returns the samples kept by each Improve step's filter, of all variants."""
  steps = []
  for path in model_dir.glob('variants/*/improve_*_*/manifest.json'):
    grow, improve = path.parent.name.split('_')[1:]
    statistics = folder_lib.read_manifest(path.parent).get('kept')
    if statistics:
      steps.append((path.parents[1].name, int(grow), int(improve), statistics))
  if not steps:
    return None
  # A single variant, or that of the loss BC, is not in the names of policies.
  variants = {variant for variant, *_ in steps}
  unnamed = {'bc'} if len(variants) > 1 else variants
  return table.Cells(
    'Samples kept by the filter of each Improve step',
    (
      'policy',
      'samples kept',
      'share',
      'sources with no kept sample',
      'mean length',
      'mean reward',
    ),
    tuple(
      (
        policy_names.of_step(
          'bc', grow, improve, '' if variant in unnamed else variant
        ),
        f'{s["samples"]:,}',
        table.percent(s['fraction']),
        f'{s["sources_without_samples"]:,}',
        f'{s["mean_length_before"]:.1f} → {s["mean_length_after"]:.1f}',
        f'{100 * s["mean_reward_before"]:.1f} → '
        f'{100 * s["mean_reward_after"]:.1f}',
      )
      for variant, grow, improve, s in sorted(steps, key=lambda step: step[:3])
    ),
  )


def curves(stages: Stages) -> dict[str, tuple[list[int], list[float]]]:
  """Returns the steps and sampled validation rewards x100 of trainings."""
  by_name = {}
  for name, directory in stages:
    if not (directory / journal.METRICS_FILE).exists():
      continue
    lines = [
      line
      for line in journal.read_metrics(directory)
      if line['split'] == 'validation' and 'reward' in line
    ]
    if lines:
      by_name[name] = (
        [line['step'] for line in lines],
        [100 * line['reward'] for line in lines],
      )
  return by_name


def agreement(
  directory: pathlib.Path, reward: str = 'the reward'
) -> table.Cells | None:
  """Returns a trained reward's agreement with ratings; None if not measured.

  Args:
    directory: folder of stage `reward`, or of a refreshed model.
  """
  if not folder_lib.is_finished(directory):
    return None
  by_split = folder_lib.read_manifest(directory).get('agreement')
  if not by_split:
    return None
  measures = [
    name
    for name in (
      *agreement_lib.WITHIN,
      *agreement_lib.LENGTH,
      *agreement_lib.OVERALL,
    )
    if any(name in of_split for of_split in by_split.values())
  ]
  return table.Cells(
    f'Agreement of {reward} with ratings on held-out sources, with 95 % '
    'bootstrap intervals over sources. First within a source, then with the '
    "source's length, then over all rows",
    ('ratings', 'rows', 'sources', *(m.replace('_', ' ') for m in measures)),
    tuple(
      (
        split,
        f'{of_split["rows"]:,}',
        f'{of_split["sources"]:,}',
        *(table.interval(of_split.get(name)) for name in measures),
      )
      for split, of_split in by_split.items()
    ),
  )


def _seconds(manifest: dict[str, Any]) -> float | None:
  """Returns the seconds of a stage, or of its parts in earlier versions."""
  if 'stage_seconds' in manifest:
    return manifest['stage_seconds']
  if 'training' in manifest:
    return manifest['training']['seconds']
  if 'seconds' in manifest:
    return sum(manifest['seconds'].values())
  return None


def _work(manifest: dict[str, Any]) -> Iterator[str]:
  training = manifest.get('training', {})
  if 'steps' in training:
    yield f'{training["steps"]:,} steps'
  if 'rows' in training:
    yield f'{training["rows"]:,} rows'
  if 'target_tokens_per_second' in training:
    yield f'{training["target_tokens_per_second"]:,.0f} target tokens per second'
  if 'num_params' in manifest:
    yield f'{manifest["num_params"]:,} parameters'
  if 'num_tokens' in manifest:
    yield f'{manifest["num_rows"]:,} rows of {manifest["num_tokens"]:,} tokens'
  for name, seconds in manifest.get('seconds', {}).items():
    yield f'{name} {seconds:,.1f} s'
  distinct = manifest.get('measured', {}).get('distinct_samples')
  if distinct is not None:
    yield f'{manifest["num_rows"]:,} samples, {distinct:,} distinct'


def warnings(stages: Stages) -> list[str]:
  """Returns the warnings of finished stages, with the names of the stages."""
  return [
    f'{name}: {message}'
    for name, directory in finished(stages)
    for message in folder_lib.read_manifest(directory).get(
      folder_lib.WARNINGS, ()
    )
  ]


def finished(stages: Stages) -> Stages:
  """Returns the stages whose folders are complete."""
  return [
    (name, directory)
    for name, directory in stages
    if folder_lib.is_finished(directory)
  ]
