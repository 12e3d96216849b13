"""What a report says of a run's stages: their time, and what filters kept."""

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
  """Seconds of a stage: all of them, and by kind where its version noted them."""

  name: str
  seconds: float
  spent: dict[str, float] | None
  work: str = ''

  @property
  def cells(self) -> tuple[str, ...]:
    if self.spent is None:
      return (table.MISSING,) * (len(time_spent.KINDS) + 1)
    shown = [self.spent[kind] for kind in time_spent.KINDS]
    # Other threads may compile while this one runs.
    shown.append(max(self.seconds - sum(shown), 0.0))
    return tuple(f'{seconds:,.1f}' for seconds in shown)


def times(stages: Stages, *, is_brief: bool = False) -> table.Cells | None:
  """Returns where the time of each stage went.

  Args:
    stages: names and finished folders, in the order they are made.
    is_brief: one row for all evaluations, and no words on the work.

  Returns:
    The table; None if no manifest says how long its stage took.
  """
  found = []
  for name, directory in stages:
    manifest = folder_lib.read_manifest(directory)
    seconds = _seconds(manifest)
    if seconds is not None:
      spent = manifest.get(folder_lib.SPENT)
      found.append(_Time(name, seconds, spent, ', '.join(_work(manifest))))
  total = sum(one.seconds for one in found)
  if not total:
    return None
  rows = _evaluations_together(found) if is_brief else found
  rows = [*rows, _sum('together', found)]
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


def _evaluations_together(found: list[_Time]) -> list[_Time]:
  mode = evaluate_stage.Evaluate.run_mode
  evaluations = [one for one in found if one.name.startswith(f'{mode} ')]
  if len(evaluations) < 2:
    return found
  others = [one for one in found if one not in evaluations]
  return [*others, _sum(f'{mode} ({len(evaluations)})', evaluations)]


def _sum(name: str, found: list[_Time]) -> _Time:
  noted = [one.spent for one in found if one.spent is not None]
  spent = None
  if len(noted) == len(found):
    spent = {kind: sum(one[kind] for one in noted) for kind in time_spent.KINDS}
  return _Time(name, sum(one.seconds for one in found), spent)


def trainings(stages: Stages) -> table.Cells | None:
  """Returns what the time of each stage that trains went to.

  Args:
    stages: names and finished folders, in the order they are made.

  Returns:
    The table; None if no manifest says so.
  """
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
    parts = manifest.get('training', {}).get('parts')
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
  """Returns what the filter of each Improve step of all variants kept."""
  steps = []
  for path in model_dir.glob('variants/*/improve_*_*/manifest.json'):
    grow, improve = path.parent.name.split('_')[1:]
    found = folder_lib.read_manifest(path.parent).get('kept')
    if found:
      steps.append((path.parents[1].name, int(grow), int(improve), found))
  # The variant of the plain loss has no name beside those of its policies.
  plain = (
    {'bc'} if len({step[0] for step in steps}) > 1 else {s[0] for s in steps}
  )
  rows = []
  for variant, grow, improve, found in sorted(steps, key=lambda s: s[:3]):
    rows.append(
      (
        policy_names.of_step(
          'bc', grow, improve, '' if variant in plain else variant
        ),
        f'{found["samples"]:,}',
        table.percent(found['fraction']),
        f'{found["sources_without_samples"]:,}',
        f'{found["mean_length_before"]:.1f} → {found["mean_length_after"]:.1f}',
        f'{100 * found["mean_reward_before"]:.1f} → '
        f'{100 * found["mean_reward_after"]:.1f}',
      )
    )
  if not rows:
    return None
  return table.Cells(
    'What the filter of each Improve step kept',
    (
      'policy',
      'samples kept',
      'share',
      'sources left empty',
      'mean length',
      'mean reward',
    ),
    tuple(rows),
  )


def curves(stages: Stages) -> dict[str, tuple[list[int], list[float]]]:
  """Returns steps and sampled validation rewards x100 of trainings."""
  found = {}
  for name, directory in stages:
    if not (directory / journal.METRICS_FILE).exists():
      continue
    lines = [
      line
      for line in journal.read_metrics(directory)
      if line['split'] == 'validation' and 'reward' in line
    ]
    if lines:
      found[name] = (
        [line['step'] for line in lines],
        [100 * line['reward'] for line in lines],
      )
  return found


def agreement(
  directory: pathlib.Path, reward: str = 'the reward'
) -> table.Cells | None:
  """Returns how a trained reward agrees with ratings, None if not measured.

  Args:
    directory: of stage `reward`, or that in a refresh.
    reward: the words for it.
  """
  if not folder_lib.is_finished(directory):
    return None
  found = folder_lib.read_manifest(directory).get('agreement')
  if not found:
    return None
  measures = [
    name
    for name in (
      *agreement_lib.WITHIN,
      *agreement_lib.LENGTH,
      *agreement_lib.OVERALL,
    )
    if any(name in of_split for of_split in found.values())
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
        *(_interval(of_split.get(name)) for name in measures),
      )
      for split, of_split in found.items()
    ),
  )


def _interval(found: dict[str, float] | None) -> str:
  if not found:
    return table.MISSING
  return f'{found["value"]:.2f} [{found["low"]:.2f}, {found["high"]:.2f}]'


def _seconds(manifest: dict[str, Any]) -> float | None:
  """Of the whole stage; of its parts in folders that older versions wrote."""
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
    yield f'{training["target_tokens_per_second"]:,.0f} target tokens a second'
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
  """Returns what finished stages warned of, each line with the stage's name."""
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
