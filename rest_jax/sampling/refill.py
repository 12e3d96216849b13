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

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key
import numpy as np

from rest_jax import types
from rest_jax.models import network
from rest_jax.models import policy as policy_lib
from rest_jax.sampling import categorical, first_tokens
from rest_jax.sampling import decode as decode_lib
from rest_jax.sampling import sharing as sharing_lib


class Sources(NamedTuple):
  """Decoding inputs of sources, along an axis of E or B sources."""

  encoder_input_tokens: Int[Array | np.ndarray, 'B S']
  cross_caches: network.CrossCaches
  uniforms: Float[Array, 'M B N'] | None
  first_tokens: Int[Array, ' B'] | None


class Places(NamedTuple):
  """A block whose sources started at different times.

  Attributes:
    number: index in the queue of each slot's source; Q for an empty slot.
    ring_positions: steps since each slot's source started.
    sources: inputs of the slots' sources, with uniforms in ring order.
    state: state of the hypotheses; its `position` is that of the rings.
  """

  number: Int[Array, ' B']
  ring_positions: Int[Array, ' B']
  sources: Sources
  state: decode_lib.State


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refill:
  """The compile-time settings of decoding a queue.

  Attributes:
    program: settings of a step. Its stages and compact sizes are not used, and
      its row capacities are those of the slots.
    num_places: B, number of slots; it divides the number of sources of a queue.
    length: M, positions of the rings. Hypotheses that reach it without EOS are
      returned unfinished.
    num_waiting: number of empty slots before new sources are loaded. Each
      loading costs a pass over the stored inputs, and each empty slot a read of
      its caches.
  """

  program: decode_lib.Program
  num_places: int
  length: int
  num_waiting: int

  @property
  def policy(self) -> policy_lib.Policy:
    return self.program.policy

  def decode(
    self,
    params: types.Params,
    key: Key[Array, ''],
    inverse_temperature: Float[Array, ''],
    inputs: decode_lib.BlockInputs,
    turned_embeddings: Float[Array, 'D V'] | None = None,
  ) -> decode_lib.BlockOutputs:
    """Decodes the sources of a queue of Q, in order, on one device.

    As many sources as slots are encoded at once, just before the first of them
    is needed, so that memory does not grow with the length of the queue.

    Args:
      params: parameters of the policy.
      key: result of `categorical.base_key`.
      inverse_temperature: 1/τ; ignored if greedy.
      inputs: the queue; sources without an active hypothesis are last.
      turned_embeddings: result of `decode_lib.turned_embeddings`; None to
        compute it here.

    Returns:
      The hypotheses, with up to M tokens.
    """
    with nn.logical_axis_rules(()):
      return self._run(
        functools.partial(
          decode_lib.Given,
          params=params,
          turned_embeddings=decode_lib.within_block(
            self.policy, params, turned_embeddings
          ),
          inverse_temperature=inverse_temperature,
        ),
        functools.partial(self._sources, params, key, inputs),
        inputs,
      )

  def _sources(self, params, key, inputs, first) -> Sources:
    """Encodes the E = B sources of a queue from `first` on."""
    part = functools.partial(
      lax.dynamic_slice_in_dim, start_index=first, slice_size=self.num_places
    )
    tokens = part(inputs.encoder_input_tokens)
    uniforms = None
    if not self.program.greedy:
      uniforms = categorical.uniforms(
        key, part(inputs.source_words), inputs.sample_ids, self.length
      )
    return Sources(
      tokens,
      self.program.cross_caches(params, tokens),
      uniforms,
      jax.tree.map(part, inputs.first_tokens),
    )

  def _empty(self, sources: Sources, inputs: decode_lib.BlockInputs) -> Places:
    num_sources, num_samples = inputs.active.shape
    shape = (self.num_places, num_samples)
    done = jnp.ones(shape, bool)
    zero = jnp.zeros(shape, jnp.int32)
    return Places(
      number=jnp.full(self.num_places, num_sources, jnp.int32),
      ring_positions=jnp.zeros(self.num_places, jnp.int32),
      sources=sources,
      state=decode_lib.State(
        position=jnp.int32(0),
        previous=zero,
        done=done,
        tokens=jnp.full((self.length, *shape), self.program.ids.pad, jnp.int32),
        lengths=zero,
        log_probs=jnp.zeros(shape, jnp.float32),
        finished=jnp.zeros(shape, bool),
        sharing=sharing_lib.first(done),
        caches=network.init_caches(self.policy.config, *shape, self.length),
      ),
    )

  def _run(self, given, sources_from, inputs) -> decode_lib.BlockOutputs:
    num_sources = inputs.active.shape[0]
    num_wanted = jnp.sum(jnp.any(inputs.active, 1))

    def decode_part(carry):
      """Loads the sources that are encoded together, and steps in between."""
      places, outputs, following = carry
      encoded, first = sources_from(following), following
      stop = jnp.minimum(first + self.num_places, num_wanted)
      is_last = stop == num_wanted

      def go_on(following, state):
        empty = jnp.sum(jnp.all(state.done, 1))
        at_end = is_last & (following == stop)
        return ~jnp.all(state.done) & (at_end | (empty < self.num_waiting))

      def refilled(carry):
        places, outputs, following = carry
        places, outputs = self._given_out(places, outputs)
        places, following = self._taken_in(
          places, inputs, encoded, first, following, stop
        )
        places = self._steps(given, functools.partial(go_on, following), places)
        return places, outputs, following

      def has_more(carry):
        places, _, following = carry
        left = jnp.any(places.number < num_sources)
        return (following < stop) | (is_last & left)

      return lax.while_loop(has_more, refilled, (places, outputs, following))

    shape = inputs.active.shape
    outputs = decode_lib.BlockOutputs(
      tokens=jnp.full((*shape, self.length), self.program.ids.pad, jnp.int32),
      lengths=jnp.zeros(shape, jnp.int32),
      log_probs=jnp.zeros(shape, jnp.float32),
      finished=jnp.zeros(shape, bool),
    )
    nothing = jax.tree.map(
      lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
      jax.eval_shape(sources_from, 0),
    )
    _, outputs, _ = lax.while_loop(
      lambda carry: carry[2] < num_wanted,
      decode_part,
      (self._empty(nothing, inputs), outputs, jnp.int32(0)),
    )
    tokens = outputs.tokens.astype(self.program.token_dtype)
    return outputs._replace(tokens=tokens)

  def _given_out(
    self, places: Places, outputs: decode_lib.BlockOutputs
  ) -> tuple[Places, decode_lib.BlockOutputs]:
    """Moves hypotheses of finished slots to the outputs and empties them."""
    num_sources, state = outputs.lengths.shape[0], places.state
    is_done = jnp.all(state.done, 1)
    at = jnp.where(is_done, places.number, num_sources)
    # [M, B]: position in the ring.
    first = state.position - places.ring_positions
    lies = (first + jnp.arange(self.length)[:, None]) % self.length
    tokens = jnp.take_along_axis(state.tokens, lies[..., None], axis=0)
    ended = decode_lib.BlockOutputs(
      tokens=jnp.moveaxis(tokens, 0, -1),
      lengths=state.lengths,
      log_probs=state.log_probs,
      finished=state.finished,
    )
    outputs = jax.tree.map(
      lambda all_, new: all_.at[at].set(new, mode='drop'), outputs, ended
    )
    number = jnp.where(is_done, num_sources, places.number)
    return places._replace(number=number), outputs

  def _taken_in(
    self, places: Places, inputs, encoded: Sources, first, following, stop
  ) -> tuple[Places, Int[Array, '']]:
    """Loads the next sources into empty slots; returns the source after them.

    `encoded` has the sources from `first` to `stop`.
    """
    state, num_sources = places.state, inputs.active.shape[0]
    empty = places.number == num_sources
    number = following + jnp.cumsum(empty) - 1
    is_new = empty & (number < stop)
    number = jnp.where(is_new, number, places.number).astype(jnp.int32)

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

    before = places.sources
    sources = Sources(
      taken(encoded.encoder_input_tokens, before.encoder_input_tokens),
      jax.tree.map(taken, encoded.cross_caches, before.cross_caches),
      jax.tree.map(rolled, encoded.uniforms, before.uniforms),
      jax.tree.map(taken, encoded.first_tokens, before.first_tokens),
    )
    active = jnp.take(inputs.active, number, axis=0, mode='clip')
    zero = jnp.zeros_like(state.lengths)
    done = chosen(~active, state.done)
    row_of = chosen(zero, state.sharing.row_of)
    start = jnp.full_like(state.previous, self.policy.decoder_start)
    state = state._replace(
      previous=chosen(start, state.previous),
      done=done,
      tokens=chosen(
        jnp.full_like(state.tokens, self.program.ids.pad), state.tokens, 1
      ),
      lengths=chosen(zero, state.lengths),
      log_probs=chosen(jnp.zeros_like(state.log_probs), state.log_probs),
      finished=chosen(jnp.zeros_like(state.finished), state.finished),
      sharing=sharing_lib.after(row_of, zero, done),
    )
    places = Places(
      number=number,
      ring_positions=jnp.where(is_new, 0, places.ring_positions),
      sources=sources,
      state=state,
    )
    return places, following + jnp.sum(is_new)

  def _steps(self, given, go_on, places: Places) -> Places:
    """Steps until sources must be loaded or all are done."""
    sources = places.sources
    given = functools.partial(
      given,
      encoder_input_tokens=sources.encoder_input_tokens,
      cross_caches=sources.cross_caches,
      uniforms=sources.uniforms,
      first_tokens=first_tokens.of_hypotheses(
        sources.first_tokens, places.state.done.shape
      ),
    )

    def step(carry, capacity):
      ring_positions, state = carry
      state = self.program.step(
        given(ring_positions=ring_positions), state, capacity, self.length
      )
      return ring_positions + 1, state

    def has_step(carry):
      return go_on(carry[1])

    steps = sharing_lib.steps_by_rows(
      self.program.row_capacities,
      lambda carry: carry[1].sharing.num_rows,
      has_step,
      step,
    )
    ring_positions, state = lax.while_loop(
      has_step, steps, (places.ring_positions, places.state)
    )
    return places._replace(ring_positions=ring_positions, state=state)
