"""Decoding of a queue of sources in slots that are refilled when finished.

A slot ("place") holds the N hypotheses of one source. When all of them are
finished, the next source of the queue takes the slot while other slots
continue. So all steps have about the same number of rows, and only the end of
the queue waits for the longest hypotheses.

All slots step together, each at its own position, so caches are ring buffers: a
step writes the same ring position of all of them.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Int

from rest_jax.sampling import blocks
from rest_jax.sampling import decode as decode_lib
from rest_jax.sampling import sharing as sharing_lib


class Queue(NamedTuple):
  """A queue of Q sources, some of which are in the B slots.

  Attributes:
    number: index in the queue of each slot's source; Q for an empty slot.
    sources: inputs of the slots' sources, with uniforms in ring order.
    state: state of the slots' hypotheses.
    outputs: hypotheses of the sources that are finished.
    following: index of the next source to load.
  """

  number: Int[Array, ' B']
  sources: decode_lib.Sources
  state: decode_lib.State
  outputs: blocks.BlockOutputs
  following: Int[Array, '']


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refill(decode_lib.Program):
  """The compile-time settings of sampling a queue.

  As many sources as slots are encoded at once, just before the first of them is
  needed, so that memory does not grow with the length of the queue. Sources
  without an active hypothesis must be last.

  Its loops have one cache stage: M, the positions of the rings. Hypotheses that
  reach it without EOS are returned unfinished.

  Attributes:
    num_places: B, number of slots; it divides the number of sources of a queue.
    num_waiting: number of empty slots before new sources are loaded. Each
      loading costs a pass over the stored inputs, and each empty slot a read of
      its caches.
  """

  num_places: int
  num_waiting: int

  def _decoded(
    self, model: blocks.Model, inputs: blocks.BlockInputs
  ) -> blocks.BlockOutputs:
    num_sources = len(inputs.active)
    num_wanted = jnp.sum(jnp.any(inputs.active, 1))
    encoded_from = functools.partial(self._encoded, model, inputs)

    def decode_part(queue):
      """Loads the sources that are encoded together, and steps in between."""
      first = queue.following
      encoded = encoded_from(first)
      stop = jnp.minimum(first + self.num_places, num_wanted)
      is_last = stop == num_wanted

      def refilled(queue):
        queue = self._given_out(queue)
        queue = self._taken_in(queue, inputs, encoded, first, stop)
        at_end = is_last & (queue.following == stop)

        def go_on(state):
          empty = jnp.sum(jnp.all(state.done, 1))
          return ~jnp.all(state.done) & (at_end | (empty < self.num_waiting))

        step = functools.partial(
          self.step, model, queue.sources, length=self.max_target_length
        )
        return queue._replace(state=self.loop(step, queue.state, go_on))

      def has_more(queue):
        is_left = jnp.any(queue.number < num_sources)
        return (queue.following < stop) | (is_last & is_left)

      return lax.while_loop(has_more, refilled, queue)

    queue = lax.while_loop(
      lambda queue: queue.following < num_wanted,
      decode_part,
      self._empty(jax.eval_shape(encoded_from, 0), inputs),
    )
    return queue.outputs

  def _encoded(self, model, inputs, first) -> decode_lib.Sources:
    """Encodes B sources of a queue from `first` on."""
    part = functools.partial(
      lax.dynamic_slice_in_dim, start_index=first, slice_size=self.num_places
    )
    sample_ids = inputs.sample_ids
    inputs = jax.tree.map(part, inputs._replace(sample_ids=None))
    return self.sources(model, inputs._replace(sample_ids=sample_ids))

  def _empty(self, sources, inputs: blocks.BlockInputs) -> Queue:
    """Returns a queue of which nothing is decoded, given shapes of sources."""
    num_sources, num_samples = inputs.active.shape
    nobody = jnp.zeros((self.num_places, num_samples), bool)
    return Queue(
      number=jnp.full(self.num_places, num_sources, jnp.int32),
      sources=jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), sources
      ),
      state=self.initial(nobody)._replace(
        ring_positions=jnp.zeros(self.num_places, jnp.int32)
      ),
      outputs=self.outputs(self.initial(jnp.zeros_like(inputs.active))),
      following=jnp.int32(0),
    )

  def _given_out(self, queue: Queue) -> Queue:
    """Moves hypotheses of finished slots to the outputs and empties them."""
    num_sources, state = len(queue.outputs.lengths), queue.state
    is_done = jnp.all(state.done, 1)
    at = jnp.where(is_done, queue.number, num_sources)
    # [M, B]: position in the ring.
    assert state.ring_positions is not None
    first = state.position - state.ring_positions
    length = self.max_target_length
    lies = (first + jnp.arange(length)[:, None]) % length
    tokens = jnp.take_along_axis(state.tokens, lies[..., None], axis=0)
    outputs = jax.tree.map(
      lambda all_, new: all_.at[at].set(new, mode='drop'),
      queue.outputs,
      self.outputs(state._replace(tokens=tokens)),
    )
    number = jnp.where(is_done, num_sources, queue.number)
    return queue._replace(number=number, outputs=outputs)

  def _taken_in(
    self,
    queue: Queue,
    inputs: blocks.BlockInputs,
    encoded: decode_lib.Sources,
    first: Int[Array, ''],
    stop: Int[Array, ''],
  ) -> Queue:
    """Loads the next of the sources from `first` to `stop` into empty slots."""
    state = queue.state
    empty = queue.number == len(inputs.active)
    number = queue.following + jnp.cumsum(empty) - 1
    is_new = empty & (number < stop)
    number = jnp.where(is_new, number, queue.number).astype(jnp.int32)
    assert state.ring_positions is not None

    def chosen(new, old, axis=0):
      is_taken = jnp.expand_dims(
        is_new, [i for i in range(new.ndim) if i != axis]
      )
      return jnp.where(is_taken, new, old)

    def taken(new, old, axis=0):
      return chosen(jnp.take(new, number - first, axis, mode='clip'), old, axis)

    def rolled(new, old):
      """Rolls axis 0 into ring order; sources are along axis 1."""
      return taken(jnp.roll(new, state.position, axis=0), old, axis=1)

    before = queue.sources
    uniforms = jax.tree.map(rolled, encoded.uniforms, before.uniforms)
    encoded = encoded._replace(uniforms=None)
    sources = jax.tree.map(taken, encoded, before._replace(uniforms=None))
    new = self.initial(jnp.take(inputs.active, number, axis=0, mode='clip'))
    done = chosen(new.done, state.done)
    alike = jnp.zeros_like(state.previous)
    state = state._replace(
      ring_positions=jnp.where(is_new, 0, state.ring_positions),
      previous=chosen(new.previous, state.previous),
      done=done,
      tokens=chosen(new.tokens, state.tokens, axis=1),
      lengths=chosen(new.lengths, state.lengths),
      log_probs=chosen(new.log_probs, state.log_probs),
      finished=chosen(new.finished, state.finished),
      sharing=sharing_lib.after(
        chosen(alike, state.sharing.row_of), alike, done
      ),
    )
    return queue._replace(
      number=number,
      sources=sources._replace(uniforms=uniforms),
      state=state,
      following=queue.following + jnp.sum(is_new),
    )
