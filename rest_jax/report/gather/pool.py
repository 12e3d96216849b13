"""Results pooled over several seeds."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import pathlib
from typing import Any, NamedTuple

import numpy as np

from rest_jax import rest
from rest_jax.evaluation import metrics
from rest_jax.evaluation import outputs as outputs_lib
from rest_jax.evaluation import variant as variant_lib
from rest_jax.rating import scores as scores_lib
from rest_jax.report.gather import evaluations
from rest_jax.stages import evaluate as evaluate_stage
from rest_jax.stages import outputs as outputs_stage


def variants(
  runs: Sequence[rest.Layout],
) -> Iterator[variant_lib.Variant]:
  """Yields the pooled policies of a variant by split, from a run per seed."""
  gathered = [evaluations.gather(run) for run in runs]
  people = [evaluations.read_people(run) for run in runs]
  seeds = [run.experiment.seed for run in runs]
  names = {
    'reward': runs[0].experiment.reward.name,
    'human': evaluate_stage.HUMAN,
  }
  for split in runs[0].experiment.evaluate.splits:
    bc, previous = None, None
    bc_outputs: Sequence[Outputs] = ()
    for number, step in enumerate(runs[0].reported()):
      of_seeds = [of_run[split][number] for of_run in gathered]
      own = {
        what: Scores.read(runs, number, split, name)
        for what, name in names.items()
        if getattr(of_seeds[0], what) is not None
      }
      if step.is_bc:
        bc = own
      outputs = [
        outputs_stage.read(_evaluation(run, number, split)) for run in runs
      ]
      if step.is_bc:
        bc_outputs = outputs
      # The online baseline and controls only follow BC.
      before = bc if step.is_online or step.control else previous
      pooled = pool(
        of_seeds,
        seeds=seeds,
        own=own,
        bc=None if step.is_bc else bc,
        previous=before,
      )
      pooled = dataclasses.replace(
        pooled,
        outputs=pool_outputs(
          [variant.outputs for variant in of_seeds],
          outputs,
          None if step.is_bc else bc_outputs,
        ),
      )
      previous = own
      # Without a judge, people may have rated samples at the run's temperature.
      if 'human' not in own and step.temperature() is None:
        pooled = _with_people(pooled, runs, people, number)
      yield pooled


def _with_people(
  variant: variant_lib.Variant,
  runs: Sequence[rest.Layout],
  people: Sequence[scores_lib.People],
  number: int,
) -> variant_lib.Variant:
  """Adds people's ratings of a policy, over the seeds that they rated."""
  split = variant.split

  def digest(run: rest.Layout, of: int) -> str:
    return evaluate_stage.policy_digest(_evaluation(run, of, split))

  rated = [
    (ratings, digest(run, number), digest(run, 0))
    for run, ratings in zip(runs, people, strict=True)
  ]
  is_bc = number == 0
  return dataclasses.replace(
    variant,
    human=scores_lib.pooled_mean(
      [(ratings, policy) for ratings, policy, _ in rated], split
    ),
    human_difference_to_bc=(
      None if is_bc else scores_lib.pooled_difference(rated, split)
    ),
  )


def _evaluation(run: rest.Layout, number: int, split: str) -> pathlib.Path:
  """Returns the folder of the evaluation of a policy, by its number."""
  return run.evaluation(run.reported()[number], split).folder


Outputs = Mapping[str, outputs_lib.Scores]


def pool_outputs(
  measured: Sequence[Mapping[str, outputs_lib.Output]],
  own: Sequence[Outputs],
  bc: Sequence[Outputs] | None,
) -> dict[str, outputs_lib.Output]:
  """Pools measurements by decode, as `pool` does.

  Args:
    measured: measurements of each seed's policy.
    own: scores of each seed's policy.
    bc: scores of each seed's BC; None for BC itself.
  """
  pooled = {}
  for decode in measured[0]:
    outputs = [of_seed[decode] for of_seed in measured]
    columns = _columns([of_seed[decode] for of_seed in own])
    changes: dict[str, Any] = {
      name: scores.mean() for name, scores in columns.items()
    }
    if bc is not None and all(decode in of_seed for of_seed in bc):
      of_bc = _columns([of_seed[decode] for of_seed in bc])
      for name in columns.keys() & of_bc.keys():
        prefix = '' if name == 'reward' else f'{name}_'
        changes[f'{prefix}difference_to_bc'] = columns[name].minus(of_bc[name])
    for prefix in outputs_lib.MEASURES:
      differences = [getattr(o, f'{prefix}difference_to_bc') for o in outputs]
      if None not in differences:
        changes[f'{prefix}difference_stderr_across_seeds'] = _spread(
          np.array([difference.mean for difference in differences])
        )
    pooled[decode] = dataclasses.replace(_mean(outputs), **changes)
  return pooled


def _columns(seeds: Sequence[outputs_lib.Scores]) -> dict[str, 'Scores']:
  """Returns the rewards, and any scores of the judge, of each seed's outputs."""
  sources = [scores.sources for scores in seeds]
  columns = {'reward': Scores([scores.reward for scores in seeds], sources)}
  judged = [scores.human for scores in seeds if scores.human is not None]
  if len(judged) == len(seeds):
    columns['human'] = Scores(judged, sources)
  return columns


class Scores(NamedTuple):
  """Normalised scores of all seeds: float [seeds][n], source ids [seeds][n]."""

  values: list[np.ndarray]
  sources: list[np.ndarray]

  @classmethod
  def read(
    cls,
    runs: Sequence[rest.Layout],
    number: int,
    split: str,
    name: str,
  ) -> 'Scores':
    read = [
      evaluate_stage.read_scores(_evaluation(run, number, split), name)
      for run in runs
    ]
    return cls([scores for scores, _ in read], [ids for _, ids in read])

  def mean(self) -> metrics.Estimate:
    """Returns the mean over seeds and samples, clustered by source."""
    return metrics.clustered_mean(
      np.concatenate(self.values), np.concatenate(self.sources)
    ).scaled(100)

  def minus(self, other: 'Scores') -> metrics.Difference:
    """Returns the difference, paired by source."""
    return metrics.paired_difference(
      np.concatenate(self.values),
      np.concatenate(other.values),
      np.concatenate(self.sources),
      np.concatenate(other.sources),
    ).scaled(100)

  def means(self) -> np.ndarray:
    """Returns the mean of each seed, x100."""
    return np.array([values.mean() * 100 for values in self.values])


def pool(
  variants: Sequence[variant_lib.Variant],
  *,
  seeds: Sequence[int],
  own: Mapping[str, Scores],
  bc: Mapping[str, Scores] | None,
  previous: Mapping[str, Scores] | None,
) -> variant_lib.Variant:
  """Pools the entries of the same policy of several seeds.

  Standard errors of rewards and judgements are clustered by source over all
  seeds: they are of the mean of *these* trainings. `stderr_across_seeds` is the
  variation between trainings. All other fields are means over seeds, including
  other standard errors: the seeds have the same sources, so their errors need
  not cancel.

  Args:
    variants: the entries, one per seed.
    seeds: the seeds.
    own: scores of the policy by 'reward' and, with a judge, 'human'.
    bc: scores of BC; None for BC itself.
    previous: scores of the previous policy, which is the initial policy of the
      training unless `ImproveConfig.init` is 'initial'; None for BC.
  """
  reward = own['reward']
  changes: dict[str, Any] = {}
  for name in ('bleu', 'chrf'):
    differences = [getattr(v, f'{name}_difference_to_bc') for v in variants]
    if None not in differences:
      changes[f'{name}_difference_stderr_across_seeds'] = _spread(
        np.array([difference.mean for difference in differences])
      )
  if bc is not None:
    changes['difference_to_bc'] = reward.minus(bc['reward'])
    changes['difference_stderr_across_seeds'] = _spread(
      reward.means() - bc['reward'].means()
    )
    if 'human' in own:
      changes['human_difference_to_bc'] = own['human'].minus(bc['human'])
      changes['human_difference_stderr_across_seeds'] = _spread(
        own['human'].means() - bc['human'].means()
      )
  if previous is not None:
    changes['difference_to_previous'] = reward.minus(previous['reward'])
  return dataclasses.replace(
    _mean(variants),
    seed=seeds[0],
    seeds=tuple(seeds),
    reward=reward.mean(),
    stderr_across_seeds=_spread(reward.means()),
    human=own['human'].mean() if 'human' in own else None,
    **changes,
  )


def _mean(values: Sequence[Any]) -> Any:
  """Returns the mean of numbers; of dataclasses and mappings, part by part."""
  first = values[0]
  if any(value is None for value in values):
    return None
  if all(value == first for value in values):
    return first  # A mean of equal floats may be rounded.
  if dataclasses.is_dataclass(first) and not isinstance(first, type):
    return dataclasses.replace(
      first,
      **{
        field.name: _mean([getattr(value, field.name) for value in values])
        for field in dataclasses.fields(first)
      },
    )
  if isinstance(first, Mapping):
    return {key: _mean([value[key] for value in values]) for key in first}
  if isinstance(first, int):
    return round(np.mean(values))
  if isinstance(first, float):
    return float(np.mean(values))
  return first  # Texts, which are equal in all seeds.


def _spread(means: np.ndarray) -> float | None:
  """Returns the standard error of a mean over seeds; None for one seed."""
  if len(means) < 2:
    return None
  return float(means.std(ddof=1) / np.sqrt(len(means)))
