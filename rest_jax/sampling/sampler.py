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
from jaxtyping import Bool, Float32, Int, Shaped
import numpy as np

from rest_jax import types
from rest_jax.data import ragged
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.parallel import processes
from rest_jax.runtime import profiling
from rest_jax.sampling import (
  blocks,
  categorical,
  decoders,
  devices,
  estimates,
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


class Drawn(NamedTuple):
  """Some hypotheses of a call.

  Attributes:
    positions: positions of their sources in the call.
    sample_ids: indices of the samples.
  """

  positions: Int[np.ndarray, ' k']
  sample_ids: Int[np.ndarray, ' k']
  tokens: Shaped[np.ndarray, 'k T']
  lengths: Int[np.ndarray, ' k']
  log_probs: Float32[np.ndarray, ' k']
  finished: Bool[np.ndarray, ' k']

  def texts(self) -> list[Int[np.ndarray, ' _']]:
    """Returns the tokens without padding."""
    is_token = np.arange(self.tokens.shape[1]) < self.lengths[:, None]
    flat = self.tokens[is_token].astype(np.int32)
    stops = np.cumsum(self.lengths).tolist()
    return [flat[start:stop] for start, stop in itertools.pairwise([0, *stops])]


class _Call(NamedTuple):
  """State shared by the blocks of one call."""

  words: np.ndarray
  source_tokens: ragged.Ragged
  rows: np.ndarray
  models: list[blocks.Model]  # For each mesh.
  trace: profiling.Trace | None


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
    self._meshes = [
      jax.sharding.Mesh(np.array(group), ('data',))
      for group in mesh_lib.groups(mesh.local_devices, jax.device_count())
    ]
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
      source_ids: ids in [0, 2^63); part of the random key, as are the seed and
        the Grow step, in [0, 2^32).
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
    # Not a generator itself, so that wrong arguments fail here.
    source_ids = np.asarray(source_ids)
    rows = source_ids if rows is None else np.asarray(rows)
    if rows.shape != source_ids.shape or source_ids.ndim != 1:
      raise ValueError(
        'source_ids and rows must be vectors of one length; got shapes '
        f'{source_ids.shape} and {rows.shape}.'
      )
    is_first_given = self._program.ids.is_first_given
    if is_first_given and source_tokens.first_tokens is None:
      raise ValueError(
        'source_tokens must have first tokens, as the targets of this policy '
        'begin with their language; got none. Use those of the prepared pairs, '
        'or see Ragged.with_first_tokens.'
      )
    # A mesh of the caller's would put the key onto its own devices.
    with jax.set_mesh(self._meshes[0]):
      key = categorical.base_key(seed, grow_step)
    models = [self._model(params, key, mesh) for mesh in self._meshes]
    words = categorical.split_words(source_ids)
    call = _Call(words, source_tokens, rows, models, trace)
    items = self._plan(source_tokens, rows)
    run = self._run_shared if self._is_shared else self._run
    return self._collect(source_ids, run(call, items), progress)

  def sample_all(
    self,
    params: types.Params,
    source_tokens: ragged.Ragged,
    source_ids: Int[np.ndarray, ' n'],
    **settings: Any,
  ) -> SampleBlock:
    """As `sample`, but returns all sources as one block."""
    found = list(self.sample(params, source_tokens, source_ids, **settings))
    empty = np.zeros((0, self.config.num_samples_per_source), bool)
    return SampleBlock(
      source_ids=np.asarray(source_ids),
      tokens=[samples for block in found for samples in block.tokens],
      log_probs=np.concatenate(
        [empty.astype(np.float32), *(block.log_probs for block in found)]
      ),
      finished=np.concatenate([empty, *(block.finished for block in found)]),
    )

  def _model(self, params, key, mesh) -> blocks.Model:
    """Places what the blocks of a call share on every device of a mesh."""
    whole = _sharding(mesh)
    params = processes.place(params, jax.tree.map(lambda _: whole, params))
    transposed = None
    with jax.set_mesh(mesh):
      if self.config.weights_dtype == 'bfloat16':
        params = decoders.rounded(params)
      if self._device.transposes_embedding:
        transposed = blocks.transpose_embeddings(self._program.policy, params)
    # Greedy decoding ignores it.
    inverse_temperature = np.array(
      1.0 / (self.config.temperature or 1.0), np.float32
    )
    key, transposed = jax.device_put((key, transposed), whole)
    return blocks.Model(params, key, inverse_temperature, transposed)

  def _plan(self, source_tokens, rows) -> list[work.Item]:
    lengths = source_tokens.lengths[rows]
    found = self._shapes or work.every(self.config, self._device, lengths)
    return work.items(self.config, found, lengths)

  def _run(self, call: _Call, items: list[work.Item]) -> Iterator[Drawn]:
    """Decodes items, several in flight.

    Hypotheses that are too long for a queue are decoded again, in blocks.
    """
    pending = collections.deque(self._groups(items))
    launched = collections.deque()
    while pending or launched:
      if pending and len(launched) < self.config.blocks_in_flight:
        group = pending.popleft()
        launched.append((group, self._traced(call, group, launched)))
        continue
      again = []
      for item, outputs in self._fetch(*launched.popleft()):
        drawn = item.active
        if item.shape.longer is not None:
          again += work.again(item, drawn & ~outputs.finished)
          drawn = drawn & outputs.finished
        source, sample = np.nonzero(drawn)
        yield Drawn(
          item.positions[source],
          item.sample_ids[sample],
          *(np.asarray(array[source, sample]) for array in outputs),
        )
      pending.extendleft(reversed(list(self._groups(again))))

  def _groups(self, items: list[work.Item]) -> Iterator[list[work.Item]]:
    """Yields groups of items for one program, one item per device."""
    for _, same in itertools.groupby(items, lambda item: item.shape):
      same = list(same)
      for start in range(0, len(same), self._num_devices):
        yield same[start : start + self._num_devices]

  def _run_shared(self, call: _Call, items: list[work.Item]) -> Iterator[Drawn]:
    """As `_run`, with the items divided among processes."""
    share = processes.share()
    own = [item for number, item in enumerate(items) if number in share]
    found = {
      f'{name} {number}': array
      for number, part in enumerate(self._run(call, own))
      for name, array in part._asdict().items()
    }
    for arrays in processes.gather('samples', found):
      for number in range(len(arrays) // len(Drawn._fields)):
        yield Drawn(*(arrays[f'{name} {number}'] for name in Drawn._fields))

  def _traced(self, call, items, before) -> list[blocks.BlockOutputs]:
    if call.trace is None:
      return self._launch(call, items)
    earlier = [outputs for _, outputs in before]
    return call.trace.step(self._launch, call, items, before=earlier)

  def _launch(
    self, call: _Call, items: list[work.Item]
  ) -> list[blocks.BlockOutputs]:
    """Starts one block on each device; devices without an item get none."""
    waiting, launched = iter(items), []
    first = items[0]
    nothing = first._replace(
      positions=first.positions[:0], active=first.active[:0]
    )
    for mesh, model in zip(self._meshes, call.models, strict=True):
      own = list(itertools.islice(waiting, mesh.size))
      if not own:
        break
      own += [nothing] * (mesh.size - len(own))
      inputs = [self._inputs(call, item) for item in own]
      inputs = jax.tree.map(lambda *arrays: np.concatenate(arrays), *inputs)
      # A mesh of the caller's would clash with ours.
      program = decoders.shaped(self._program, first.shape)
      with jax.set_mesh(mesh):
        outputs = blocks.compiled(program, mesh)(
          **model._asdict(),
          inputs=jax.device_put(inputs, _sharding(mesh, 'data')),
        )
      for array in outputs:
        array.copy_to_host_async()
      launched.append(outputs)
    return launched

  def _fetch(self, items: list[work.Item], launched: list[blocks.BlockOutputs]):
    """Waits for a launch; yields each item with its rows of the outputs."""
    outputs = blocks.BlockOutputs(
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
        blocks.BlockOutputs(*(array[used, samples] for array in outputs)),
      )

  def _inputs(self, call: _Call, item: work.Item) -> blocks.BlockInputs:
    """Returns the arrays of one item, padded to the compiled shape."""
    shape, ids = item.shape, self._program.ids
    sources, samples = shape.num_sources, shape.num_samples
    rows = call.rows[item.positions]

    def padded(array, *sizes, fill=0):
      missing = np.subtract(sizes, array.shape)
      return np.pad(array, [(0, n) for n in missing], constant_values=fill)

    tokens = call.source_tokens.pad(rows, shape.source_length, ids.pad)
    tokens = padded(tokens, sources, shape.source_length, fill=ids.pad)
    # Padding rows have a token, too.
    tokens[len(rows) :, 0] = ids.eos
    words = padded(call.words[item.positions], sources, 2)
    sample_ids = padded(item.sample_ids.astype(np.uint32), samples)
    active = padded(item.active, sources, samples)
    given, first = call.source_tokens.first_tokens, None
    if ids.is_first_given and given is not None:
      first = padded(given[rows], sources, fill=ids.pad)
    return blocks.BlockInputs(tokens, words, sample_ids, active, first)

  def _collect(
    self, source_ids, results: Iterator[Drawn], progress
  ) -> Iterator[SampleBlock]:
    """Restores the order of the call."""
    shape = (len(source_ids), self.config.num_samples_per_source)
    tokens: list[Any] = [[None] * shape[1] for _ in range(shape[0])]
    log_probs = np.zeros(shape, np.float32)
    finished = np.zeros(shape, bool)
    missing = np.full(shape[0], shape[1])
    given = 0
    for found in results:
      at = found.positions, found.sample_ids
      for position, sample, text in zip(*at, found.texts(), strict=True):
        tokens[position][sample] = text
      log_probs[at] = found.log_probs
      finished[at] = found.finished
      positions, counts = np.unique(found.positions, return_counts=True)
      missing[positions] -= counts
      if progress is not None:
        progress(int(np.sum(missing[positions] == 0)))
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


def _sharding(
  mesh: jax.sharding.Mesh, *axes: str
) -> jax.sharding.NamedSharding:
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
