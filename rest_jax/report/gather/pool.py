"""Evaluations of several seeds, put together."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import pathlib
from typing import Any, NamedTuple

import numpy as np

from rest_jax import rest
from rest_jax.evaluation import metrics
from rest_jax.evaluation import outputs as outputs_lib
from rest_jax.evaluation import results as results_lib
from rest_jax.rating import scores as scores_lib
from rest_jax.report.gather import evaluations
from rest_jax.stages import evaluate as evaluate_stage
from rest_jax.stages import outputs as outputs_stage


def variants(
  runs: Sequence[rest.Layout],
) -> Iterator[results_lib.Variant]:
  """Yields the policies of one variant on every split, over all seeds.

  Args:
    runs: a finished run for each seed.
  """
  gathered = [evaluations.gather(run) for run in runs]
  people = [evaluations.read_people(run) for run in runs]
  seeds = [run.experiment.seed for run in runs]
  names = {'reward': runs[0].reward_model.name, 'human': evaluate_stage.HUMAN}
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
      # The online baseline and controls follow no other policy but BC.
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
      # Without a judge, people may have rated, at the temperature of them all.
      if 'human' not in own and step.temperature() is None:
        pooled = _with_people(pooled, runs, people, number)
      yield pooled


def _with_people(
  variant: results_lib.Variant,
  runs: Sequence[rest.Layout],
  people: Sequence[scores_lib.People],
  number: int,
) -> results_lib.Variant:
  """Puts in what people said of a policy, over the seeds they rated."""
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
  """Returns the evaluation's folder of one of the run's policies."""
  return run.evaluation(run.reported()[number], split).folder


Outputs = Mapping[str, outputs_lib.Scores]


def pool_outputs(
  measured: Sequence[Mapping[str, outputs_lib.Output]],
  own: Sequence[Outputs],
  bc: Sequence[Outputs] | None,
) -> dict[str, outputs_lib.Output]:
  """Pools what was measured by decode, as `pool` does.

  Args:
    measured: what was measured of each seed's policy.
    own: the scores of its outputs.
    bc: those of each seed's BC; None if it is BC itself.

  Returns:
    The pooled measures, by decode.
  """
  found = {}
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
    found[decode] = dataclasses.replace(_mean(outputs), **changes)
  return found


def _columns(seeds: Sequence[outputs_lib.Scores]) -> dict[str, 'Scores']:
  """Rewards, and the judge's scores if there are any, of each seed's outputs."""
  sources = [scores.sources for scores in seeds]
  found = {'reward': Scores([scores.reward for scores in seeds], sources)}
  judged = [scores.human for scores in seeds if scores.human is not None]
  if len(judged) == len(seeds):
    found['human'] = Scores(judged, sources)
  return found


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
    found = [
      evaluate_stage.read_scores(_evaluation(run, number, split), name)
      for run in runs
    ]
    return cls([scores for scores, _ in found], [ids for _, ids in found])

  def mean(self) -> metrics.Estimate:
    """Over seeds and samples. The seeds saw the same sources."""
    return metrics.clustered_mean(
      np.concatenate(self.values), np.concatenate(self.sources)
    ).scaled(100)

  def minus(self, other: 'Scores') -> metrics.Difference:
    """Paired by source."""
    return metrics.paired_difference(
      np.concatenate(self.values),
      np.concatenate(other.values),
      np.concatenate(self.sources),
      np.concatenate(other.sources),
    ).scaled(100)

  def means(self) -> np.ndarray:
    """Of each seed, x100."""
    return np.array([values.mean() * 100 for values in self.values])


def pool(
  variants: Sequence[results_lib.Variant],
  *,
  seeds: Sequence[int],
  own: Mapping[str, Scores],
  bc: Mapping[str, Scores] | None,
  previous: Mapping[str, Scores] | None,
) -> results_lib.Variant:
  """One entry for the same policy of several seeds.

  Standard errors of rewards and judgements are clustered by source over all
  seeds: they say how sure the mean of *these* trainings is.
  `stderr_across_seeds` says how much trainings differ. Everything else is the
  mean over seeds, standard errors too: the seeds saw the same sources, so their
  errors need not cancel.

  Args:
    variants: the entries, one a seed.
    seeds: theirs.
    own: the policy's scores by 'reward' and, with a judge, 'human'.
    bc: those of BC; None if it is BC itself.
    previous: those of the policy before it, which it was trained from unless
      `ImproveConfig.init` is 'initial'; None for BC.

  Returns:
    The entry.
  """
  reward = own['reward']
  changes: dict[str, Any] = {}
  for name in ('bleu', 'chrf'):
    found = [getattr(v, f'{name}_difference_to_bc') for v in variants]
    if None not in found:
      changes[f'{name}_difference_stderr_across_seeds'] = _spread(
        np.array([difference.mean for difference in found])
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
  """The mean of numbers, and of what is made of numbers, part by part."""
  first = values[0]
  if any(value is None for value in values):
    return None
  if all(value == first for value in values):
    return first  # Sums of floats need not give it back.
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
  return first  # Words, which are the same in all.


def _spread(means: np.ndarray) -> float | None:
  """The standard error of a mean over seeds; None of one seed."""
  if len(means) < 2:
    return None
  return float(means.std(ddof=1) / np.sqrt(len(means)))
