"""The compiled shapes of blocks and queues, and their loop bodies."""

from collections.abc import Iterator, Sequence
import dataclasses
import math

from rest_jax.sampling import decode_config as config_lib
from rest_jax.sampling import devices

# Granularity of ring positions, for vector units.
_MULTIPLE = 8
# With fewer rows a step takes about as long, since it reads all weights.
_FEWEST_ROWS = 32


@dataclasses.dataclass(frozen=True)
class Loops:
  """The loops of a program; the body of each is compiled.

  Attributes:
    cache_stages: lengths of the self-attention cache, ascending; the last is
      that of the longest hypothesis.
    row_capacities: row counts that a step may compute, ascending, besides all.
    compact_sizes: sizes of compact blocks, descending.
  """

  cache_stages: tuple[int, ...]
  row_capacities: tuple[int, ...] = ()
  compact_sizes: tuple[int, ...] = ()

  @property
  def compact(self) -> 'Loops':
    """The loops of the first compact block: fewer, as its caches are short."""
    *stages, last = self.cache_stages
    return Loops((*stages[1::2], last), (), self.compact_sizes[1:])

  @property
  def num_bodies(self) -> int:
    own = len(self.cache_stages) * (len(self.row_capacities) + 1)
    return own + (self.compact.num_bodies if self.compact_sizes else 0)

  def with_one_more(self, of: 'Loops') -> Iterator['Loops']:
    """Yields these loops with one more stage, capacity or size of others."""
    for field in dataclasses.fields(self):
      own, every = getattr(self, field.name), getattr(of, field.name)
      for new in every:
        if new in own:
          continue
        values = tuple(x for x in every if x in own or x == new)
        yield dataclasses.replace(self, **{field.name: values})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
  """What a device decodes at once: a block or a queue of sources.

  Attributes:
    source_length: S; sources are padded to it.
    num_sources: number of sources that it is compiled for.
    num_samples: number of hypotheses per source that it is compiled for.
    loops: its loops.
    num_places: number of slots of a queue; None for a block.
    longer: block for the hypotheses that do not fit into a queue's slots; None
      for a block.
  """

  source_length: int
  num_sources: int
  num_samples: int
  loops: Loops
  num_places: int | None = None
  longer: 'Shape | None' = None

  @property
  def max_length(self) -> int:
    """Tokens of the longest hypothesis."""
    return self.loops.cache_stages[-1]

  @property
  def num_rows(self) -> int:
    """Hypotheses that are decoded together."""
    return self.num_samples * (self.num_places or self.num_sources)

  @property
  def num_waiting(self) -> int:
    """See `refill.Refill`."""
    return max(1, (self.num_places or 0) // 8)


def block(
  config: config_lib.DecodeConfig, device: devices.Device, source_length: int
) -> Shape:
  """Returns a block with all loops of the settings that the device uses."""
  rows = config.block_sources * config.block_samples

  def parts(shares: Sequence[float]) -> list[int]:
    return sorted({math.ceil(share * rows) for share in shares} - {rows})

  loops = Loops((config.max_target_length,))
  if config.beam_size is None:
    compacts = device.compacts and config.row_shares
    loops = Loops(
      config.stages if device.uses_stages else config.stages[-1:],
      tuple(parts(config.row_shares)) if device.shares_rows else (),
      tuple(parts(config.compact_shares)[::-1]) if compacts else (),
    )
  return Shape(
    source_length=source_length,
    num_sources=config.block_sources,
    num_samples=config.block_samples,
    loops=loops,
  )


def queue(
  config: config_lib.DecodeConfig, device: devices.Device, source_length: int
) -> Shape | None:
  """As `block`, a queue; None where the device or the settings have none.

  Its caches take at most the memory of a block's, and it has up to 4 times the
  sources of a block. Its row counts are finer, since it has one loop for all
  stages.
  """
  if (
    config.queue_sources is None
    or config.beam_size is not None
    or not device.uses_queues
  ):
    return None
  most = config.max_target_length
  length = _MULTIPLE * math.ceil(
    config.queue_length * source_length / _MULTIPLE
  )
  length = min(length, most)
  num_places = math.floor(config.block_sources * min(4, most / length))
  num_places = min(num_places, config.queue_sources)
  # Queues were slower with caches much longer than hypotheses.
  if num_places < 2 * config.block_sources:
    return None
  rows = num_places * config.block_samples
  least = max(_FEWEST_ROWS, math.ceil(rows / 16))
  capacities = tuple(range(least, rows, least)) if config.row_shares else ()
  return Shape(
    source_length=source_length,
    num_sources=num_places * math.ceil(config.queue_sources / num_places),
    num_samples=config.block_samples,
    loops=Loops((length,), capacities),
    num_places=num_places,
    longer=block(config, device, source_length) if length < most else None,
  )
