"""Plans what is compiled for sampling, and splits sources into work items."""

from collections.abc import Sequence
import dataclasses
import math
from typing import NamedTuple

from jaxtyping import Bool, Int
import numpy as np

from rest_jax.sampling import decode_config as config_lib
from rest_jax.sampling import devices, estimates, shapes

# Seconds to run per second to compile from which all loops are compiled.
_LONG = 20


class Item(NamedTuple):
  """A unit of work for a device: sources of one block or queue.

  Attributes:
    positions: positions of the sources in the call.
    sample_ids: indices of the samples per source.
    shape: what decodes them.
    active: which of these hypotheses are decoded.
  """

  positions: Int[np.ndarray, ' b']
  sample_ids: Int[np.ndarray, ' N']
  shape: shapes.Shape
  active: Bool[np.ndarray, 'b N']


def again(item: Item, unfinished: Bool[np.ndarray, 'b N']) -> list[Item]:
  """Returns blocks for the hypotheses that were too long for a queue."""
  block = item.shape.longer
  assert block is not None
  return [
    Item(item.positions[part], item.sample_ids, block, unfinished[part])
    for part in _cut(np.flatnonzero(unfinished.any(1)), block.num_sources)
  ]


def every(
  config: config_lib.DecodeConfig,
  device: devices.Device,
  lengths: Int[np.ndarray, ' n'],
) -> tuple[shapes.Shape, ...]:
  """Returns a shape per bucket, with all loops of the settings.

  Args:
    config: settings of sampling.
    device: kind of device.
    lengths: lengths of the sources; few in a bucket have no queue.
  """
  found = []
  bucket = np.searchsorted(config.source_length_buckets, lengths)
  for index, length in enumerate(config.source_length_buckets):
    shape = shapes.queue(config, device, length)
    # Queues were slower with few sources.
    if shape is None or np.sum(bucket == index) < 2 * (shape.num_places or 0):
      shape = shapes.block(config, device, length)
    found.append(shape)
  return tuple(found)


def fitted(
  config: config_lib.DecodeConfig,
  device: devices.Device,
  sizes: estimates.Sizes,
  lengths: Int[np.ndarray, ' n'],
) -> tuple[shapes.Shape, ...]:
  """Returns the shapes that take the least time to compile and to run.

  Long work has all loops of the settings. Otherwise a bucket may be joined with
  the next longer one, and a shape has the loops that save more time than they
  take to compile; see `estimates`.

  Args:
    config: settings of sampling.
    device: kind of device.
    sizes: sizes of the network.
    lengths: lengths of all sources that the shapes are used for.
  """
  buckets = config.source_length_buckets
  groups = math.ceil(config.num_samples_per_source / config.block_samples)
  bucket = np.searchsorted(buckets, lengths)
  parts = [
    estimates.Part(groups * len(inside), float(inside.mean()))
    if (inside := lengths[bucket == index]).size
    else None
    for index in range(len(buckets))
  ]
  full = every(config, device, lengths)
  compiling, running = 0.0, 0.0
  for part, shape in zip(parts, full, strict=True):
    if part is not None:
      estimate = estimates.Estimate(sizes, device, (part,))
      running += estimate.running(shape)
      for one in (shape, shape.longer):
        compiling += 0.0 if one is None else estimate.compiling(one.loops)
  if running > _LONG * compiling:
    return full
  # The least seconds for the buckets up to each, and their shapes.
  best: list[tuple[float, tuple[shapes.Shape, ...]]] = [(0.0, ())]
  for last, length in enumerate(buckets):
    choices = []
    for first in range(last + 1):
      joined = tuple(part for part in parts[first : last + 1] if part)
      estimate = estimates.Estimate(sizes, device, joined)
      seconds, shape = _best(config, device, length, estimate)
      before, others = best[first]
      choices.append((before + seconds, (*others, shape)))
    best.append(min(choices, key=lambda choice: choice[0]))
  found = best[-1][1]
  # One block for the hypotheses that are too long for any of the queues.
  longest = found[-1].longer or found[-1]
  return tuple(
    dataclasses.replace(shape, longer=longest) if shape.longer else shape
    for shape in found
  )


def _best(
  config: config_lib.DecodeConfig,
  device: devices.Device,
  source_length: int,
  estimate: estimates.Estimate,
) -> tuple[float, shapes.Shape]:
  """Returns the least seconds for a bucket's sources, and the shape."""
  block = shapes.block(config, device, source_length)
  queue = shapes.queue(config, device, source_length)
  found = [
    _grown(_plain(shape), shape.loops, estimate)
    for shape in (block, queue)
    if shape is not None
  ]
  return min(found, key=lambda pair: pair[0])


def _plain(shape: shapes.Shape) -> shapes.Shape:
  """Returns a shape with a single loop."""
  loops = shapes.Loops(shape.loops.cache_stages[-1:])
  longer = None if shape.longer is None else _plain(shape.longer)
  return dataclasses.replace(shape, loops=loops, longer=longer)


def _grown(
  shape: shapes.Shape, loops: shapes.Loops, estimate: estimates.Estimate
) -> tuple[float, shapes.Shape]:
  """Adds the loops that save the most, one by one, while any saves time."""
  seconds = estimate.seconds(shape)
  while True:
    more = [
      dataclasses.replace(shape, loops=each)
      for each in shape.loops.with_one_more(loops)
    ]
    best = min(more, key=estimate.seconds, default=shape)
    if (least := estimate.seconds(best)) >= seconds:
      return seconds, shape
    seconds, shape = least, best


def items(
  config: config_lib.DecodeConfig,
  found: Sequence[shapes.Shape],
  lengths: Int[np.ndarray, ' n'],
) -> list[Item]:
  """Splits sources into items of similar length, longest first.

  Longest first, so that blocks that do not fit into memory fail at once, and
  devices wait for a short block at the end.

  Args:
    config: settings of sampling.
    found: shapes, by ascending length of their sources.
    lengths: lengths of the sources.

  Raises:
    ValueError: a source is empty or too long.
  """
  longest = found[-1].source_length
  if lengths.size and (lengths.min() < 1 or lengths.max() > longest):
    raise ValueError(
      f'sources must have between 1 and {longest} tokens, EOS included; got '
      f'{lengths.min()} to {lengths.max()}. Add a longer bucket to '
      'source_length_buckets, or drop such sources when tokenising.'
    )
  order = np.argsort(-lengths, kind='stable')
  bucket = np.searchsorted(
    [shape.source_length for shape in found], lengths[order]
  )
  groups = _cut(np.arange(config.num_samples_per_source), config.block_samples)
  result = []
  for index in np.unique(bucket)[::-1]:
    shape, positions = found[index], order[bucket == index]
    if shape.num_places is None:
      parts = _cut(positions, shape.num_sources)
    else:
      most = config.queue_sources or shape.num_sources
      # Alike in size, so that none is short.
      parts = np.array_split(positions, math.ceil(len(positions) / most))
    result += [
      Item(part, ids, shape, np.ones((len(part), len(ids)), bool))
      for part in parts
      for ids in groups
    ]
  return result


def _cut(array: np.ndarray, size: int) -> list[np.ndarray]:
  return [array[i : i + size] for i in range(0, len(array), size)]
