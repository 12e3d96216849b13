"""Sampling of N hypotheses per source, independent of the device layout.

Sources are sorted by length into buckets and split into blocks or queues of
compiled shapes; see `work`. Each device decodes one at a time in its own loop. A
sample depends on the parameters, the shapes, and the seed, Grow step, source id
and sample id of its random numbers. It does not depend on the blocks in flight
or the number of devices. The other sources of the block determine how many rows a
step computes (`DecodeConfig.row_shares` and `compact_shares`) and when a source
enters a queue, and thereby how logits are rounded. Blocks and queues contain
sources of one call only, so equal calls give equal samples.
"""

import collections
from collections.abc import Callable, Iterator
import dataclasses
import itertools
from typing import Any, NamedTuple

import jax
from jaxtyping import Bool, Float32, Int
import numpy as np

from rest_jax import types
from rest_jax.data import ragged, special_ids
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.parallel import processes
from rest_jax.runtime import profiling
from rest_jax.sampling import (
  categorical,
  decode,
  decoders,
  devices,
  estimates,
  first_tokens,
  work,
)
from rest_jax.sampling import decode_config as config_lib

DecodeConfig = config_lib.DecodeConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleBlock:
  """Samples of some sources.

  Attributes:
    tokens: N arrays of token ids per source, ending with EOS if finished.
    log_probs: log π(y | x) of the untempered model, summed over tokens with
      EOS, in nats.
    finished: whether EOS was drawn within the maximum length.
  """

  source_ids: Int[np.ndarray, ' b']
  tokens: list[list[Int[np.ndarray, ' _']]]
  log_probs: Float32[np.ndarray, 'b N']
  finished: Bool[np.ndarray, 'b N']


class Sampler:
  """Samples hypotheses from a policy.

  Samplers with equal settings and policies of equal sizes share compiled
  programs. Each device holds all parameters: devices of a mesh axis that splits
  them in training sample independently.
  """

  def __init__(
    self,
    policy: policy_lib.Policy,
    config: DecodeConfig,
    mesh: jax.sharding.Mesh,
    *,
    vocabulary_size: int | None = None,
    lengths: Int[np.ndarray, ' sources'] | None = None,
    is_shared: bool = False,
  ):
    """Prepares the sampler; nothing is compiled before the first call.

    Args:
      policy: the network.
      config: settings of sampling.
      mesh: its devices on this process are used, whatever its axes.
      vocabulary_size: number of pieces, if the network has more
        ids: the surplus is never drawn.
      lengths: lengths of about all sources that it will sample for, in all
        calls: only the loops that save more time than they take to compile are
        compiled. None compiles all loops of the settings, for long work.
      is_shared: several processes share the work of each call, and each gets
        all samples. Otherwise each call belongs to this process.

    Raises:
      ValueError: `vocabulary_size` is too small to draw anything, or larger
        than the network.
    """
    self.config = config
    self._is_shared = is_shared and processes.count() > 1
    self._meshes = meshes(mesh)
    self._num_devices = sum(mesh.size for mesh in self._meshes)
    self._device = devices.of_mesh(self._meshes[0])
    self._program = decoders.decoder(
      policy, config, vocabulary_size, self._device
    )
    self._shapes = None
    if lengths is not None:
      sizes = estimates.Sizes.of(policy.config)
      self._shapes = work.fitted(config, self._device, sizes, lengths)

  def sample(
    self,
    params: types.Params,
    source_tokens: ragged.Ragged,
    source_ids: Int[np.ndarray, ' n'],
    *,
    seed: int,
    grow_step: int,
    rows: np.ndarray | None = None,
    progress: Callable[[int], None] | None = None,
    trace: profiling.Trace | None = None,
  ) -> Iterator[SampleBlock]:
    """Draws N hypotheses for each source.

    Results are buffered until they can be returned in the order of
    `source_ids`; call it with one shard of a store at a time.

    Args:
      params: parameters of the policy, on any devices.
      source_tokens: token ids with EOS.
      source_ids: ids in [0, 2^63); part of the random key.
      seed: in [0, 2^32).
      grow_step: in [0, 2^32).
      rows: [n] rows of these sources in `source_tokens`, if they differ from
        the ids.
      progress: called with the number of sources finished since the last call.
      trace: trace of the stage; its steps are launches of a block per device.

    Returns:
      An iterator over blocks of up to `block_sources` sources.

    Raises:
      ValueError: ids, seed or lengths are out of range; while iterating, if the
        policy's log-probabilities are not finite.
    """
    # Not a generator itself, so that wrong arguments fail here and not at the
    # first block.
    source_ids = np.asarray(source_ids)
    rows = source_ids if rows is None else np.asarray(rows)
    if rows.shape != source_ids.shape or source_ids.ndim != 1:
      raise ValueError(
        'source_ids and rows must be vectors of one length; got shapes '
        f'{source_ids.shape} and {rows.shape}.'
      )
    first_tokens.check(self._ids, source_tokens)
    # A mesh of the caller's would put the key onto its own devices.
    with jax.set_mesh(self._meshes[0]):
      key = categorical.base_key(seed, grow_step)
    call = _Call(
      words=categorical.split_words(source_ids),
      source_tokens=source_tokens,
      rows=rows,
      arguments=[self._arguments(params, key, mesh) for mesh in self._meshes],
      trace=trace,
    )
    items = self._plan(source_tokens, rows)
    run = self._run_shared if self._is_shared else self._run
    return self._collect(source_ids, run(call, items), progress)

  def sample_all(
    self,
    params: types.Params,
    source_tokens: ragged.Ragged,
    source_ids: Int[np.ndarray, ' n'],
    *,
    seed: int,
    grow_step: int,
    rows: np.ndarray | None = None,
    progress: Callable[[int], None] | None = None,
  ) -> SampleBlock:
    """As `sample`, but returns all sources as one block."""
    blocks = list(
      self.sample(
        params,
        source_tokens,
        source_ids,
        seed=seed,
        grow_step=grow_step,
        rows=rows,
        progress=progress,
      )
    )
    empty = (0, self.config.num_samples_per_source)
    return SampleBlock(
      source_ids=np.asarray(source_ids),
      tokens=[samples for block in blocks for samples in block.tokens],
      log_probs=np.concatenate(
        [np.zeros(empty, np.float32), *(block.log_probs for block in blocks)]
      ),
      finished=np.concatenate(
        [np.zeros(empty, bool), *(block.finished for block in blocks)]
      ),
    )

  @property
  def _ids(self) -> special_ids.SpecialIds:
    return self._program.policy.config.special_ids

  def _arguments(self, params, key, mesh) -> dict[str, Any]:
    """Returns the arguments of `Decodes.decode` shared by a call's blocks."""
    params = self._place(params, mesh)
    turned = None
    if self._device.transposes_embedding:
      with jax.set_mesh(mesh):
        turned = decode.turned_embeddings(self._program.policy, params)
    return {
      'params': params,
      'key': jax.device_put(key, _sharding(mesh)),
      # Greedy decoding ignores it.
      'inverse_temperature': np.float32(1.0 / (self.config.temperature or 1.0)),
      'turned_embeddings': jax.device_put(turned, _sharding(mesh)),
    }

  def _place(
    self, params: types.Params, mesh: jax.sharding.Mesh
  ) -> types.Params:
    """Places all parameters on every device, rounded if requested."""
    everywhere = jax.tree.map(lambda _: _sharding(mesh), params)
    params = processes.place(params, everywhere)
    if self.config.weights_dtype == 'bfloat16':
      with jax.set_mesh(mesh):
        params = decoders.rounded(params)
    return params

  def _plan(self, source_tokens, rows) -> list[work.Item]:
    lengths = source_tokens.lengths[rows]
    found = self._shapes or work.every(self.config, self._device, lengths)
    return work.items(self.config, found, lengths)

  def _run(self, call: '_Call', items: list[work.Item]):
    """Decodes items, several in flight; yields each with its outputs."""
    waiting = collections.deque()
    for launched in self._launches(items):
      while len(waiting) >= self.config.blocks_in_flight:
        yield from self._finish(call, waiting)
      waiting.append((launched, self._traced(call, launched, before=waiting)))
    while waiting:
      yield from self._finish(call, waiting)

  def _launches(self, items: list[work.Item]) -> Iterator[list[work.Item]]:
    """Yields groups of items for one program, one item per device."""
    for _, same in itertools.groupby(items, lambda item: item.shape):
      same = list(same)
      for start in range(0, len(same), self._num_devices):
        yield same[start : start + self._num_devices]

  def _finish(self, call: '_Call', waiting: collections.deque):
    """Waits for the first launch, and yields complete items.

    Hypotheses that were too long for a queue are launched again.
    """
    again = []
    for item, outputs in self._fetch(*waiting.popleft()):
      repeats = item.repeats
      if repeats is not None:
        repeats.put(item, outputs)
        if not repeats.missing:
          yield repeats.item, repeats.outputs
      elif blocks := work.repeated(item, outputs):
        again += blocks
      else:
        yield item, outputs
    for launched in self._launches(again):
      waiting.append((launched, self._traced(call, launched, before=waiting)))

  def _run_shared(self, call: '_Call', items: list[work.Item]):
    """As `_run`, with the items divided among processes."""
    share = processes.share()
    numbers = [number for number in range(len(items)) if number in share]
    places = {id(items[number]): number for number in numbers}
    found = {}
    for item, outputs in self._run(call, [items[n] for n in numbers]):
      for name, array in outputs._asdict().items():
        found[f'{places[id(item)]} {name}'] = array
    gathered = {}
    for part in processes.gather('samples', found):
      gathered |= part
    for number, item in enumerate(items):
      yield (
        item,
        decode.BlockOutputs(
          *(
            gathered[f'{number} {name}'] for name in decode.BlockOutputs._fields
          )
        ),
      )

  def _traced(self, call, items, before) -> list[decode.BlockOutputs]:
    if call.trace is None:
      return self._launch(call, items)
    earlier = [outputs for _, outputs in before]
    return call.trace.step(self._launch, call, items, before=earlier)

  def _launch(
    self, call: '_Call', items: list[work.Item]
  ) -> list[decode.BlockOutputs]:
    """Starts one block on each device; devices without an item get none."""
    waiting, launched = iter(items), []
    for mesh, arguments in zip(self._meshes, call.arguments, strict=True):
      blocks = [
        self._inputs(call, item)
        for item in itertools.islice(waiting, mesh.size)
      ]
      if not blocks:
        break
      nothing = items[0]._replace(positions=items[0].positions[:0])
      idle = self._inputs(call, nothing)
      blocks += [idle] * (mesh.size - len(blocks))
      inputs = jax.tree.map(lambda *arrays: np.concatenate(arrays), *blocks)
      # A mesh of the caller's would clash with ours.
      program = decoders.shaped(self._program, items[0].shape)
      with jax.set_mesh(mesh):
        outputs = decode.compiled(program, mesh)(
          **arguments, inputs=jax.device_put(inputs, _sharding(mesh, 'data'))
        )
      for array in outputs:
        array.copy_to_host_async()
      launched.append(outputs)
    return launched

  def _fetch(self, items: list[work.Item], launched: list[decode.BlockOutputs]):
    """Waits for a launch; yields each item with its rows of the outputs."""
    outputs = decode.BlockOutputs(
      *(np.concatenate(arrays) for arrays in zip(*launched, strict=True))
    )
    wrong = ~np.isfinite(outputs.log_probs)
    if wrong.any():
      raise ValueError(
        "the policy's log-probabilities must be finite; got "
        f'{wrong.sum()} of {wrong.size} hypotheses with others. Its '
        'parameters have diverged, or are not those of this network.'
      )
    for device, item in enumerate(items):
      start = device * item.shape.num_sources
      used = slice(start, start + len(item.positions))
      samples = slice(0, len(item.sample_ids))
      yield (
        item,
        decode.BlockOutputs(*(array[used, samples] for array in outputs)),
      )

  def _inputs(self, call: '_Call', item: work.Item) -> decode.BlockInputs:
    """Returns the arrays of one item, padded to the compiled shape."""
    shape = item.shape
    sources, samples = shape.num_sources, shape.num_samples
    used, used_samples = len(item.positions), len(item.sample_ids)
    ids = self._ids
    tokens = np.full((sources, shape.source_length), ids.pad, np.int32)
    tokens[:, 0] = ids.eos
    tokens[:used] = call.source_tokens.pad(
      call.rows[item.positions], shape.source_length, ids.pad
    )
    words = np.zeros((sources, 2), np.uint32)
    words[:used] = call.words[item.positions]
    sample_ids = np.zeros(samples, np.uint32)
    sample_ids[:used_samples] = item.sample_ids
    active = np.zeros((sources, samples), bool)
    active[:used, :used_samples] = (
      True if item.repeats is None else item.repeats.active(item)
    )
    first = None
    if ids.is_first_given:
      first = first_tokens.of_block(
        call.source_tokens, call.rows[item.positions], sources, ids.pad
      )
    return decode.BlockInputs(tokens, words, sample_ids, active, first)

  def _collect(self, source_ids, results, progress) -> Iterator[SampleBlock]:
    """Restores the order of the call."""
    shape = (len(source_ids), self.config.num_samples_per_source)
    tokens: list[Any] = [[None] * shape[1] for _ in range(shape[0])]
    log_probs = np.zeros(shape, np.float32)
    finished = np.zeros(shape, bool)
    missing = np.full(shape[0], shape[1])
    given = 0
    for item, outputs in results:
      first = int(item.sample_ids[0])
      stop = first + len(item.sample_ids)
      texts = iter(_ragged(outputs.tokens, outputs.lengths))
      for position in item.positions:
        tokens[position][first:stop] = itertools.islice(texts, stop - first)
      log_probs[item.positions, first:stop] = outputs.log_probs
      finished[item.positions, first:stop] = outputs.finished
      missing[item.positions] -= stop - first
      if progress is not None:
        progress(int(np.sum(missing[item.positions] == 0)))
      # Block by block, up to the first missing one.
      while given < shape[0]:
        part = slice(given, given + self.config.block_sources)
        if missing[part].any():
          break
        yield SampleBlock(
          source_ids=source_ids[part],
          tokens=tokens[part],
          log_probs=log_probs[part],
          finished=finished[part],
        )
        tokens[part] = [None] * len(tokens[part])
        given += len(tokens[part])


class _Call(NamedTuple):
  """State shared by the blocks of one call."""

  words: np.ndarray
  source_tokens: ragged.Ragged
  rows: np.ndarray
  arguments: list[dict[str, Any]]  # For each mesh.
  trace: profiling.Trace | None


def meshes(mesh: jax.sharding.Mesh) -> list[jax.sharding.Mesh]:
  """Returns this process's devices of a mesh, grouped for launches.

  Args:
    mesh: mesh with any axes.

  Returns:
    Meshes with one axis, 'data'; see `mesh.groups`.
  """
  return [
    jax.sharding.Mesh(np.array(group), ('data',))
    for group in mesh_lib.groups(mesh.local_devices, jax.device_count())
  ]


def _sharding(
  mesh: jax.sharding.Mesh, *axes: str
) -> jax.sharding.NamedSharding:
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))


def _ragged(tokens: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
  """Removes padding: [b, N, T], [b, N] -> b * N arrays of int32."""
  flat = tokens[np.arange(tokens.shape[-1]) < lengths[..., None]]
  flat = flat.astype(np.int32)
  stops = np.cumsum(lengths.reshape(-1)).tolist()
  return [
    flat[start:stop] for start, stop in zip([0, *stops], stops, strict=False)
  ]
