"""A run: makes, evaluates and reports the stages of one experiment."""

from collections.abc import Sequence
import pathlib
import time

from absl import logging

from rest_jax import rest
from rest_jax.data import vocabularies
from rest_jax.parallel import processes
from rest_jax.report import summary
from rest_jax.runtime import memory_maps
from rest_jax.runtime import progress as progress_lib
from rest_jax.stages import answers, base, evaluate, probe
from rest_jax.stages import folder as folder_lib


class Run(rest.Layout):
  """One experiment in one folder; `rest.Layout` has its stages."""

  def make(self, stage: str | base.Stage) -> pathlib.Path:
    """Makes a stage unless its folder is finished.

    Args:
      stage: the stage, or its name, such as 'improve_1_2'; its inputs are
        finished.
    """
    if isinstance(stage, str):
      stage = self.stage(stage)
    return base.run_stage(stage, self.context)

  def rest(self) -> None:
    """Runs Algorithm 1, and writes results and figures.

    Raises:
      ValueError: there are several processes, and a stage allows only one.
    """
    todo = [s for s in self.stages if not (s.is_extra or s.is_on_demand)]
    for stage in todo:
      if stage.alone and processes.count() > 1:
        raise ValueError(stage.alone.format(count=processes.count()))
    with progress_lib.Stages(len(todo)) as progress:
      for number, stage in enumerate(todo):
        before, began = _version(stage), time.monotonic()
        if before is None:
          progress.begin(stage.title)
        self.make(stage)
        memory_maps.bound()  # Many variants may run in one process.
        is_made = _version(stage) != before
        later = [s for s in todo[number + 1 :] if not s.is_finished]
        progress.end(
          stage.title,
          time.monotonic() - began if is_made else None,
          following=later[0].title if later else '',
          left=_left(todo, later) if is_made else '',
        )
    self.report()

  def make_mode(
    self, mode: str, grow_step: int = 1, improve_step: int = 1
  ) -> bool:
    """Makes the stages of a run mode; returns whether rewards passed tests.

    A single stage is made, or an error says which input is missing. Of several
    stages, those with finished policies are made.

    Raises:
      ValueError: the run has no such stage.
      FileNotFoundError: an input is not finished.
    """
    stages = self._of_mode(mode, grow_step, improve_step)
    if len(stages) == 1:
      self.make(stages[0])
    elif stages:
      self._make_ready(stages)
    if any(isinstance(stage, evaluate.Evaluate) for stage in stages):
      self.report()
    tests = [stage for stage in stages if isinstance(stage, probe.Probe)]
    return all([summary.write_probes(self, test) for test in tests])

  def _of_mode(
    self, mode: str, grow_step: int, improve_step: int
  ) -> list[base.Stage]:
    of_mode = [
      s for s in self.stages if s.run_mode == mode and not s.is_on_demand
    ]
    selected = [
      stage
      for stage in of_mode
      if stage.grow_step in (0, grow_step)
      and stage.improve_step in (0, improve_step)
    ]
    if of_mode and not selected:
      steps = [
        f'--grow_step={stage.grow_step}'
        + (
          f' --improve_step={stage.improve_step}' if stage.improve_step else ''
        )
        for stage in of_mode
      ]
      raise ValueError(
        f'grow_step {grow_step}, improve_step {improve_step} is not part of '
        f'this experiment; --run_mode={mode} has {", ".join(steps)}.'
      )
    if not selected:
      if message := missing(mode):
        raise ValueError(message)
      logging.info('%s: nothing to do in this experiment', mode)
    return selected

  def _make_ready(self, stages: Sequence[base.Stage]) -> None:
    """Makes the stages whose policies are all finished."""
    policies = self.policies()
    if not any(policy.is_finished for policy in policies):
      names = ', '.join(policy.policy_name for policy in policies)
      raise FileNotFoundError(
        f'{self.model_dir} must hold a finished policy to be evaluated; it has '
        f'none of {names}. Train one first: --run_mode=bc, or --run_mode=rest '
        'for all stages.'
      )
    for stage in stages:
      needed = [
        s for s in stage.inputs.values() if isinstance(s, base.PolicyStage)
      ]
      if all(policy.is_finished for policy in needed):
        self.make(stage)

  def evaluate(self) -> None:
    """Evaluates finished policies, and, once all are finished, the controls.

    Raises:
      FileNotFoundError: no policy is finished.
    """
    self.make_mode(evaluate.Evaluate.run_mode)

  def report(self) -> None:
    """Writes results and figures of finished evaluations."""
    processes.by_main('report', lambda: summary.write(self))

  def answerer(
    self,
    policy: str = '',
    *,
    at_once: bool = False,
    languages: vocabularies.Languages | None = None,
  ) -> answers.Answerer:
    """Loads an answerer, which answers text with the best of N samples.

    Args:
      policy: see `policy_named`.
      at_once: whether lines are answered one at a time, not in batches.
      languages: those of the lines and of the answers, in a run with several
        language pairs.

    Raises:
      FileNotFoundError: the policy is not finished.
      ValueError: there is no reward for ranking N samples, or `languages` do
        not fit the run.
    """
    return answers.of_policy(
      self.experiment.sample,
      policy=self.policy_named(policy),
      reward=self.reward,
      context=self.context,
      run_seed=self.experiment.seed,
      at_once=at_once,
      languages=languages,
    )


def _version(stage: base.Stage) -> bytes | None:
  """Returns the manifest of a stage, with its times; None without one."""
  if not stage.is_finished:
    return None
  return (stage.folder / folder_lib.MANIFEST).read_bytes()


def _left(stages: Sequence[base.Stage], later: Sequence[base.Stage]) -> str:
  """Estimates the time of later stages from finished stages of their kinds."""
  known: dict[type[base.Stage], list[float]] = {}
  for stage in stages:
    if stage.is_finished and not stage.is_given:
      seconds = stage.manifest().get('stage_seconds')
      if seconds is not None:
        known.setdefault(type(stage), []).append(seconds)
  seconds = sum(
    sum(known[type(stage)]) / len(known[type(stage)])
    for stage in later
    if type(stage) in known
  )
  if not seconds:
    return ''
  is_all = all(type(stage) in known for stage in later)
  return f'{"about" if is_all else "at least"} {progress_lib.interval(seconds)}'


def missing(mode: str) -> str:
  """Returns the error for a run without stages of a mode; '' for none."""
  kinds = base.kinds()
  return next((k.missing for k in kinds if k.run_mode == mode), '')
