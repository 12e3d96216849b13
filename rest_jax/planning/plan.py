"""`--run_mode=plan`: compiles an experiment for a TPU slice.

Reports memory, work and estimated hours. Nothing is executed, and the data need
not be prepared.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
import dataclasses
import math
from typing import Any

from absl import logging
import jax

from rest_jax import experiment as experiment_lib
from rest_jax import experiment_run as run_lib
from rest_jax import rest, settings
from rest_jax.data import task as task_lib
from rest_jax.interop import huggingface, safetensors_folder
from rest_jax.models import policy as policy_lib
from rest_jax.models import scalar
from rest_jax.planning import chips as chips_lib
from rest_jax.planning import hours as hours_lib
from rest_jax.planning import measured as measured_lib
from rest_jax.planning import meshes, run_time, sampling_programs
from rest_jax.planning import programs as programs_lib
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import metricx
from rest_jax.stages import reward as reward_stage

Measure = Callable[[programs_lib.Program], measured_lib.Measured]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """Settings of a plan.

  Attributes:
    topology: TPU slice, such as `v5e:4x4`, or `2xv5e:4x4` for two slices.
    searches: whether to search for the largest batch that fits.
    effort: effort of the compiler; see `measured.measure`.
    num_sources: number of sources of a Grow step, if the data are not
      available.
    only: prefixes of the names of the programs to compile; empty for all.
  """

  topology: str
  searches: bool = True
  effort: float = -1.0
  num_sources: int | None = None
  only: Collection[str] = ()

  def __post_init__(self):
    chips_lib.Slice(self.topology)
    settings.inside(self, '[-1, 1]', 'effort')
    settings.at_least(self, 1, 'num_sources', none='those of the data')

  def wants(self, name: str) -> bool:
    return not self.only or any(name.startswith(each) for each in self.only)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """Results of a plan.

  Attributes:
    mesh: number of devices per axis of the experiment's mesh.
    suggested: suggested mesh; None if the state fits on no mesh of the slice.
    programs: figures of the programs, in the order of compilation.
    largest: size of the largest batch that fits, by program; None if not even
      the smallest fits; absent if it was not searched.
    parts: estimated work of the experiment; empty if `num_sources` is None.
    num_sources: number of sources of a Grow step; None if unknown.
  """

  topology: str
  effort: float
  mesh: Mapping[str, int]
  suggested: meshes.MeshChoice | None
  programs: tuple[measured_lib.Measured, ...]
  largest: Mapping[str, int | None]
  parts: tuple[hours_lib.Part, ...]
  num_sources: int | None

  @property
  def slice(self) -> chips_lib.Slice:
    return chips_lib.Slice(self.topology)

  @property
  def hours(self) -> float:
    return sum(part.hours for part in self.parts)

  def record(self) -> dict[str, Any]:
    """Returns the plan as JSON values."""
    chip = self.slice.chip
    programs = []
    for each in self.programs:
      kind, seconds = each.bound(chip)
      programs.append(
        {
          **dataclasses.asdict(each),
          'memory': each.memory,
          'bound': kind,
          'bound_seconds': seconds,
        }
      )
    return {
      'topology': self.topology,
      'chip': dataclasses.asdict(chip),
      'chips': self.slice.num_chips,
      'compiler_effort': self.effort,
      'mesh': dict(self.mesh),
      'suggested_mesh': self.suggested and dataclasses.asdict(self.suggested),
      'programs': programs,
      'largest': dict(self.largest),
      'sources': self.num_sources,
      'assumed_share': hours_lib.ASSUMED_SHARE,
      'estimated_hours': {part.name: part.hours for part in self.parts},
    }


def make(run: run_lib.Run, settings: Settings) -> Plan:
  """Compiles every program of an experiment.

  Args:
    run: the experiment's run; its folder need not exist.
    settings: settings of the plan.

  Raises:
    ImportError: if libtpu is not installed.
    ValueError: if the mesh or a network does not divide over the slice.
  """
  where = chips_lib.Slice(settings.topology)
  target = programs_lib.Target(
    devices=where.devices(), mesh_config=run.experiment.mesh
  )
  programs = programs_of(run, target)
  chosen = [each for each in programs if settings.wants(each.name)]

  def measure(program: programs_lib.Program) -> measured_lib.Measured:
    logging.info('compile %s, %d %s', program.name, program.size, program.unit)
    return measured_lib.measure(program, settings.effort)

  measured = [measure(each) for each in chosen]
  largest = {}
  if settings.searches:
    for program, first in zip(chosen, measured, strict=True):
      if program.resized is not None:
        largest[program.name] = largest_of(program, first, measure)
  num_sources = _num_sources(run, settings.num_sources)
  parts = []
  if num_sources is not None:
    parts = hours_lib.parts(
      run,
      {each.name: each for each in measured if each.fits},
      policy=policy_of(run),
      num_sources=num_sources,
      chip=where.chip,
      num_chips=where.num_chips,
    )
  return Plan(
    topology=settings.topology,
    effort=settings.effort,
    mesh=dict(target.mesh.shape),
    suggested=suggested(where, programs),
    programs=tuple(measured),
    largest=largest,
    parts=tuple(parts),
    num_sources=num_sources,
  )


def programs_of(
  run: rest.Layout, target: programs_lib.Target
) -> list[programs_lib.Program]:
  """Returns all programs of an experiment, in the order of a run."""
  experiment = run.experiment
  size = run.context.vocabulary_size
  policy = policy_of(run)
  return [
    *(each.program(target) for each in trainings(run, policy)),
    *scorers(experiment, policy, target),
    *sampling_programs.sampling(policy, experiment.grow.decode, size, target),
  ]


def policy_of(run: rest.Layout) -> policy_lib.Policy:
  """Returns the network of a run, whose data need not be prepared."""
  return policy_lib.Policy(
    run.experiment.network.with_vocab(run.context.vocabulary_size)
  )


def trainings(
  run: rest.Layout, policy: policy_lib.Policy
) -> list[programs_lib.Training]:
  """Returns the trainings of a run, each name once."""
  task = run.experiment.task
  longest = max(task.max_source_length, task.max_target_length)
  by_name: dict[str, programs_lib.Training] = {}
  for stage in run.stages:
    for each in () if stage.is_given else stage.trainings(policy):
      training = programs_lib.Training(**vars(each), longest=longest)
      by_name.setdefault(each.name, training)
  return list(by_name.values())


def scorers(
  experiment: experiment_lib.Experiment,
  policy: policy_lib.Policy,
  target: programs_lib.Target,
) -> Iterator[programs_lib.Program]:
  """Yields the programs of the rewards that are computed on the slice."""
  for part in rewards_base.all_parts(experiment.reward):
    if isinstance(part, reward_stage.RewardStage):
      model = scalar.ScalarModel(policy.config)
      yield from programs_lib.learned_scorer(model, part.scoring, target)
    elif isinstance(part, metricx.MetricX):
      folder = safetensors_folder.Folder(part.directory)
      network = huggingface.network_config(folder.config)
      yield programs_lib.metricx_scorer(part, network, target)


def suggested(
  where: chips_lib.Slice, programs: Sequence[programs_lib.Program]
) -> meshes.MeshChoice | None:
  """Suggests a mesh for the largest training state and the largest scorer.

  Sampling replicates its parameters on each chip on any mesh.
  """
  choices: list[meshes.MeshChoice] = []
  for program in programs:
    if not (program.keeps_state or program.name.startswith('scorer')):
      continue
    choice = meshes.suggest(
      where.chip,
      where.num_chips,
      program.model_bytes,
      num_heads=program.network.num_heads,
      emb_dim=program.network.emb_dim,
      can_shard_fully=program.keeps_state,
      num_slices=where.num_slices,
    )
    if choice is None:
      return None
    choices.append(choice)
  return max(
    choices,
    key=lambda each: (each.model, each.is_fully_sharded, each.state_bytes),
  )


def largest_of(
  program: programs_lib.Program,
  first: measured_lib.Measured,
  measure: Measure,
) -> int | None:
  """Returns the largest size of a program that fits, or None."""
  known = {_shapes(program): first.fits}
  resized = program.resized
  assert resized is not None

  def fits(size: int) -> bool:
    if size == program.size:
      return first.fits
    changed = resized(size)
    # Small sizes have equal shapes: a batch has at least one row per device.
    shapes = _shapes(changed)
    if shapes not in known:
      known[shapes] = measure(changed).fits
    return known[shapes]

  return measured_lib.largest(fits, program.size)


def _shapes(program: programs_lib.Program) -> str:
  return str(jax.tree.map(jax.numpy.shape, program.arguments))


def _num_sources(run: run_lib.Run, given: int | None) -> int | None:
  """Returns the number of sources of a Grow step; None if it is unknown."""
  most = run.experiment.grow.max_sources
  if given is None or run.context.is_prepared:
    return run_time.Counts(run, math.inf).of(task_lib.GROW, most)
  return given if most is None else min(given, most)
