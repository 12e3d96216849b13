"""An estimate of how long an experiment takes on a slice, stage by stage."""

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

# The share of a chip's peak, or of its bandwidth where that is the bound, that
# programs are assumed to reach. Not measured.
ASSUMED_SHARE = 0.4

SCORED_SOURCES = 'scorer sources'


@dataclasses.dataclass(frozen=True)
class Part:
  """One kind of work of an experiment.

  Attributes:
    name: of it; for a training that of its program.
    calls: how often its program runs.
    seconds: of a call at the chip's bound.
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
  """Of one block on one chip at its bound, every block to the maximum length."""
  step = counts.decoding_step(network, decode, decode.source_length_buckets[-1])
  _, seconds = chip.bound(step.flops, step.accessed_bytes)
  return decode.max_target_length * seconds


def blocks(
  decode: sampling_config.DecodeConfig, num_sources: int, num_chips: int
) -> int:
  """How often all chips decode a block each, to sample for some sources."""
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
  """The work of a run's stages.

  Steps of training are taken as many as the settings allow, though patience may
  end them earlier. All batches have the longest shape, all blocks decode to the
  maximum length. What the host does, evaluations of the reported kind, scoring
  for the choice of checkpoints, controls and a reward that is not computed here
  are left out.

  Args:
    run: its stages; finished folders of other runs cost nothing.
    measured: programs by name, those that fit; a part without its program is
      left out.
    policy: the run's network.
    num_sources: of a Grow.
    chip: of the slice.
    num_chips: of the slice.

  Returns:
    The parts, in the order they come.
  """
  found: dict[str, Part] = {}

  def add(name: str, calls: int, seconds: float) -> None:
    before = found[name].calls if name in found else 0
    found[name] = Part(name, before + calls, seconds)

  def call(name: str, program: str, calls: int) -> None:
    if program in measured:
      add(name, calls, measured[program].bound(chip)[1])

  def sample(name: str, decode: sampling_config.DecodeConfig, sources, times=1):
    seconds = sampling_seconds(policy.config, decode, chip)
    add(name, times * blocks(decode, sources, num_chips), seconds)

  for stage in run.stages:
    if stage.is_given:
      continue
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
  return list(found.values())
