"""An estimate of how long an experiment takes on a slice, stage by stage."""

from collections.abc import Mapping
import dataclasses
import math

from rest_jax import experiment as experiment_lib
from rest_jax.planning import chips as chips_lib
from rest_jax.planning import counts
from rest_jax.planning import measured as measured_lib
from rest_jax.sampling import decode_config as sampling_config

# The share of a chip's peak, or of its bandwidth where that is the bound, that
# programs are assumed to reach. Not measured.
ASSUMED_SHARE = 0.4

SCORED_SOURCES, SCORED = 'scorer sources', 'scorer candidates'


@dataclasses.dataclass(frozen=True)
class Part:
  """One kind of work of an experiment.

  Attributes:
    name: of it.
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
  experiment: experiment_lib.Experiment,
  decode: sampling_config.DecodeConfig,
  chip: chips_lib.Chip,
  vocabulary_size: int,
) -> float:
  """Of one block on one chip at its bound, every block to the maximum length."""
  network = experiment.network.with_vocab(vocabulary_size)
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
  experiment: experiment_lib.Experiment,
  measured: Mapping[str, measured_lib.Measured],
  *,
  num_sources: int,
  vocabulary_size: int,
  chip: chips_lib.Chip,
  num_chips: int,
) -> list[Part]:
  """The work of BC, reward, G Grow and G * I Improve steps.

  Steps of training are taken as many as the settings allow, though patience may
  end them earlier. All batches have the longest shape, all blocks decode to the
  maximum length. What the host does, evaluations of the reported kind, scoring
  for the choice of checkpoints and a reward that is not computed here are left
  out.

  Args:
    experiment: the settings.
    measured: programs by name, those that fit; a part without its program is
      left out.
    num_sources: of a Grow.
    vocabulary_size: pieces.
    chip: of the slice.
    num_chips: of the slice.

  Returns:
    The parts, in the order they come.
  """
  grows, improves = experiment.num_grow_steps, experiment.total_improve_steps
  improve = experiment.improve.trainer
  found = []

  def add(name: str, program: str, calls: int):
    if program in measured:
      _, seconds = measured[program].bound(chip)
      found.append(Part(name, calls, seconds))

  def sample(name: str, decode: sampling_config.DecodeConfig, sources, times):
    seconds = sampling_seconds(experiment, decode, chip, vocabulary_size)
    calls = times * blocks(decode, sources, num_chips)
    found.append(Part(name, calls, seconds))

  add('BC', 'bc', experiment.bc.trainer.max_steps)
  reward = experiment.trained_reward
  if reward is not None:
    pretraining = reward.pretrain.max_steps if reward.pretrain else 0
    add('reward pre-training', 'reward pre-training', pretraining)
    add('reward ratings', 'reward ratings', reward.finetune.max_steps)
  decode = experiment.grow.decode
  sample('Grow, sampling', decode, num_sources, grows)
  candidates = num_sources * (decode.num_samples_per_source + 1)
  for name, rows in ((SCORED_SOURCES, num_sources), (SCORED, candidates)):
    if name in measured:
      calls = grows * math.ceil(rows / measured[name].items)
      add(f'Grow, {name}', name, calls)
  for name in measured:
    if name.startswith('scorer ') and name not in (SCORED_SOURCES, SCORED):
      calls = grows * math.ceil(candidates / measured[name].items)
      add(f'Grow, {name}', name, calls)
  if experiment.needs_value and experiment.value is not None:
    add('value', 'value', grows * experiment.value.trainer.max_steps)
  add('Improve', 'improve', improves * improve.max_steps)
  selected = experiment.evaluate.max_selection_sources
  if selected is not None:
    evaluations = improve.max_steps // improve.evaluate_every + 1
    sample(
      'Improve, sampling of evaluations',
      experiment.evaluate.selection,
      selected,
      improves * evaluations,
    )
  return found
