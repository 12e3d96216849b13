"""Estimated hours of an experiment on a TPU slice, by kind of work."""

from collections.abc import Mapping
import dataclasses
import math

from rest_jax import rest
from rest_jax.models import network as network_lib
from rest_jax.models import policy as policy_lib
from rest_jax.planning import chips as chips_lib
from rest_jax.planning import counts
from rest_jax.planning import measured as measured_lib
from rest_jax.sampling import decode_config as sampling_config
from rest_jax.stages import grow as grow_stage
from rest_jax.stages import improve as improve_stage

# Assumed share of the roofline bound that programs reach. Not measured.
ASSUMED_SHARE = 0.4

SCORED_SOURCES = 'scorer sources'


@dataclasses.dataclass(frozen=True)
class Part:
  """One kind of work of an experiment.

  Attributes:
    name: name of the work; for a training the name of its program.
    calls: number of calls of the program.
    seconds: time per call at the bound of the chip.
  """

  name: str
  calls: int
  seconds: float

  @property
  def hours(self) -> float:
    return self.calls * self.seconds / ASSUMED_SHARE / 3600


def sampling_seconds(
  network: network_lib.NetworkConfig,
  decode: sampling_config.DecodeConfig,
  chip: chips_lib.Chip,
) -> float:
  """Returns the time of a block on one chip at its bound, in seconds."""
  step = counts.decoding_step(network, decode, decode.source_length_buckets[-1])
  _, seconds = chip.bound(step.flops, step.accessed_bytes)
  return decode.max_target_length * seconds


def blocks(
  decode: sampling_config.DecodeConfig, num_sources: int, num_chips: int
) -> int:
  """Returns the number of blocks per chip that sample for some sources."""
  groups = math.ceil(
    decode.num_samples_per_source / decode.block_samples
  ) * math.ceil(num_sources / decode.block_sources)
  return math.ceil(groups / num_chips)


def parts(
  run: rest.Layout,
  measured: Mapping[str, measured_lib.Measured],
  *,
  policy: policy_lib.Policy,
  num_sources: int,
  chip: chips_lib.Chip,
  num_chips: int,
) -> list[Part]:
  """Returns the work of a run's stages, in their order.

  Assumes the maximum number of training steps (patience may end them earlier),
  batches of the longest shape, and blocks decoded to the maximum length.
  Excludes work of the host, evaluation stages, scoring for the selection of
  checkpoints, controls, and rewards that are not computed on the slice.

  Args:
    run: the run; stages from folders of other runs cost nothing.
    measured: programs that fit, by name; work of other programs is left out.
    policy: network of the run.
    num_sources: number of sources of a Grow step.
    chip: type of the chips.
    num_chips: number of chips.
  """
  parts_by_name: dict[str, Part] = {}

  def add(name: str, calls: int, seconds: float) -> None:
    before = parts_by_name[name].calls if name in parts_by_name else 0
    parts_by_name[name] = Part(name, before + calls, seconds)

  def call(name: str, program: str, calls: int) -> None:
    if program in measured:
      add(name, calls, measured[program].bound(chip)[1])

  def sample(name: str, decode: sampling_config.DecodeConfig, sources, times=1):
    seconds = sampling_seconds(policy.config, decode, chip)
    add(name, times * blocks(decode, sources, num_chips), seconds)

  for stage in (stage for stage in run.stages if not stage.is_given):
    for training in stage.trainings(policy):
      call(training.name, training.name, training.trainer.max_steps)
    if isinstance(stage, grow_stage.Grow):
      decode = stage.config.decode
      sample('Grow, sampling', decode, num_sources)
      candidates = num_sources * (decode.num_samples_per_source + 1)
      for name, program in measured.items():
        if name.startswith('scorer '):
          rows = num_sources if name == SCORED_SOURCES else candidates
          call(f'Grow, {name}', name, math.ceil(rows / program.items))
    if isinstance(stage, improve_stage.Improve):
      trainer, selection = stage.config.trainer, stage.selection
      if selection.max_sources is not None:
        sample(
          'Improve, sampling of evaluations',
          selection.decode,
          selection.max_sources,
          trainer.max_steps // trainer.evaluate_every + 1,
        )
  return list(parts_by_name.values())
