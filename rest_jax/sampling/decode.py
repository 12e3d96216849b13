"""Decoding of one block of sources on one device."""

from collections.abc import Callable
import dataclasses
import functools
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from rest_jax.models import network, shared_rows
from rest_jax.models import policy as policy_lib
from rest_jax.sampling import blocks, categorical, compaction
from rest_jax.sampling import sharing as sharing_lib


class Sources(NamedTuple):
  """The inputs of the steps of a block.

  Attributes:
    uniforms: one uniform number per token; None if greedy.
    first_tokens: the first token of each hypothesis; None if it is drawn.
    rows: rows of a compact block, whose hypotheses, with [T, C, 1] uniforms and
      [C, 1] first tokens, differ from the sources'.
  """

  encoder_input_tokens: Int[Array | np.ndarray, 'B S']
  cross_caches: network.CrossCaches
  uniforms: Float[Array, 'T B N'] | None
  first_tokens: Int[Array, 'B N'] | None
  rows: shared_rows.CompactRows | None = None


class State(NamedTuple):
  """State of a block between two steps; a compact block has B = C and N = 1.

  Attributes:
    position: where the caches are written next.
    ring_positions: steps since each source started, where caches are rings, see
      `Transformer.decode_step`; None where all sources started together.
  """

  position: Int[Array, '']
  ring_positions: Int[Array, ' B'] | None
  previous: Int[Array, 'B N']
  done: Bool[Array, 'B N']
  tokens: Int[Array, 'T B N']
  lengths: Int[Array, 'B N']
  log_probs: Float[Array, 'B N']
  finished: Bool[Array, 'B N']
  sharing: sharing_lib.Sharing
  caches: network.Caches


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program(blocks.Decoder):
  """The compile-time settings of sampling a block.

  Every source is encoded once, and its cross-attention keys and values are
  computed once, for any N. Later stages read more of the self-attention cache.
  The loop of a stage ends as soon as all rows are done, and then no later stage
  takes a step. It also ends when few hypotheses are open, which continue in a
  compact block.

  Attributes:
    greedy: take the most likely token.
    grows_caches: whether caches have the length of their stage and are copied
      for the next. Otherwise they have full length from the start, and a stage
      reads a part of them, which suits devices that read a part in place.
  """

  greedy: bool
  grows_caches: bool = True
  top_k: int | None = None
  top_p: float = 1.0

  def _decoded(
    self, model: blocks.Model, inputs: blocks.BlockInputs
  ) -> blocks.BlockOutputs:
    sources = self.sources(model, inputs)
    return self.outputs(self._run(model, sources, self.initial(inputs.active)))

  def sources(self, model: blocks.Model, inputs: blocks.BlockInputs) -> Sources:
    """Encodes the sources and draws the uniform numbers of a block."""
    tokens, uniforms = inputs.encoder_input_tokens, None
    cross_caches = self.cross_caches(model.params, tokens)
    if not self.greedy:
      uniforms = categorical.uniforms(
        model.key,
        inputs.source_words,
        inputs.sample_ids,
        self.max_target_length,
      )
    first = self.first_tokens(inputs)
    if first is not None:
      first = jnp.broadcast_to(first[:, None], inputs.active.shape)
    return Sources(tokens, cross_caches, uniforms, first)

  def initial(self, active: Bool[Array | np.ndarray, 'B N']) -> State:
    """Returns the initial state: no tokens, empty caches."""
    stages = self.loops.cache_stages
    num_sources, num_samples = rows = active.shape
    done = jnp.logical_not(active)
    return State(
      position=jnp.int32(0),
      ring_positions=None,
      previous=jnp.full(rows, self.policy.decoder_start, jnp.int32),
      done=done,
      tokens=jnp.full((self.max_target_length, *rows), self.ids.pad, jnp.int32),
      lengths=jnp.zeros(rows, jnp.int32),
      log_probs=jnp.zeros(rows, jnp.float32),
      finished=jnp.zeros(rows, bool),
      sharing=sharing_lib.first(done),
      caches=network.init_caches(
        self.policy.config,
        num_sources,
        num_samples,
        stages[0 if self.grows_caches else -1],
      ),
    )

  def outputs(self, state: State) -> blocks.BlockOutputs:
    """Returns the hypotheses of a state."""
    return blocks.BlockOutputs(
      # [T, B, N] -> [B, N, T]
      tokens=jnp.moveaxis(state.tokens.astype(self.token_dtype), 0, -1),
      lengths=state.lengths,
      log_probs=state.log_probs,
      finished=state.finished,
    )

  def _run(self, model: blocks.Model, sources: Sources, state: State) -> State:
    """Decodes a block to the end; returns no caches."""

    def run(state, stage, *later):
      def go_on(state):
        return (state.position < stage) & self._has_many(state)

      def grown(state):
        caches = network.grow_caches(state.caches, later[0])
        return run(state._replace(caches=caches), *later)

      step = functools.partial(self.step, model, sources, length=stage)
      state = self.loop(step, state, go_on)
      if not later:
        return self._left(state)
      if not self.grows_caches:
        return run(state, *later)
      return lax.cond(self._has_many(state), grown, self._left, state)

    state = run(state, *self.loops.cache_stages)
    if self.loops.compact_sizes:
      return self._run_compact(model, sources, state)
    return state

  def loop(
    self,
    step: Callable[..., State],
    state: State,
    go_on: Callable[[State], Bool[Array, '']],
  ) -> State:
    """Steps while it should, each time with the fewest rows that suffice.

    It uses one loop per row count instead of branches in one loop: loop carries
    are updated in place, while results of branches are copied.

    Args:
      step: takes a state and `capacity`, see `step`.
      state: the first state.
      go_on: returns whether a state has another step.
    """
    capacities = self.loops.row_capacities

    def steps(state):
      for least, capacity in zip(
        (0, *capacities), (*capacities, None), strict=True
      ):

        def fits(state, least=least, capacity=capacity):
          rows = state.sharing.num_rows
          fits = go_on(state) & (rows > least)
          return fits if capacity is None else fits & (rows <= capacity)

        body = functools.partial(step, capacity=capacity)
        state = lax.while_loop(fits, body, state)
      return state

    only = functools.partial(step, capacity=None)
    return lax.while_loop(go_on, steps if capacities else only, state)

  def _has_many(self, state: State) -> Bool[Array, '']:
    if not self.loops.compact_sizes:
      return ~jnp.all(state.done)
    return jnp.sum(~state.done) > self.loops.compact_sizes[0]

  def _left(self, state: State) -> State:
    """Returns the state with the caches for a compact block.

    They have the length of the longest stage, since branches return arrays of
    one shape.
    """
    if not self.loops.compact_sizes:
      return state._replace(caches=())
    few = compaction.first(state.done, self.loops.compact_sizes[0])
    caches = jax.tree.map(few.take, state.caches)
    caches = network.grow_caches(caches, self.max_target_length)
    return state._replace(caches=caches)

  def _run_compact(
    self, model: blocks.Model, sources: Sources, state: State
  ) -> State:
    """Runs the open hypotheses of a block separately, and puts them back."""
    few = compaction.first(state.done, self.loops.compact_sizes[0])
    each = jax.vmap(few.take)  # of [T, B, N]
    done = few.done(state.done)
    program = dataclasses.replace(
      self, loops=self.loops.compact, grows_caches=False
    )
    end = program._run(
      model,
      sources._replace(
        uniforms=jax.tree.map(each, sources.uniforms),
        first_tokens=jax.tree.map(few.take, sources.first_tokens),
        rows=few.rows(state.done.shape, sources.rows),
      ),
      state._replace(
        previous=few.take(state.previous),
        done=done,
        tokens=each(state.tokens),
        lengths=few.take(state.lengths),
        log_probs=few.take(state.log_probs),
        finished=few.take(state.finished),
        sharing=sharing_lib.first(done),
      ),
    )
    return state._replace(
      tokens=jax.vmap(few.put)(state.tokens, end.tokens),
      lengths=few.put(state.lengths, end.lengths),
      log_probs=few.put(state.log_probs, end.log_probs),
      finished=few.put(state.finished, end.finished),
      caches=(),
    )

  def step(
    self,
    model: blocks.Model,
    sources: Sources,
    state: State,
    capacity: int | None,
    length: int,
  ) -> State:
    """Draws the next token of all hypotheses.

    `capacity` is the number of rows to compute, at least as many as there are;
    None for one per hypothesis. `length` is the length of the stage.
    """
    rings, row_of = state.ring_positions, None
    rows = sources.rows or shared_rows.OwnRows(*state.previous.shape)
    if capacity is not None:
      rows = state.sharing.rows(capacity)
      row_of = state.sharing.row_of.reshape(-1)
    logits, caches = self.apply(
      model.params,
      'decode_step',
      state.previous,
      state.caches,
      sources.cross_caches,
      sources.encoder_input_tokens,
      state.position,
      rows,
      model.transposed_embeddings,
      length,
      rings,
    )  # [R, V]
    token, log_prob = self._drawn(model, sources, state, logits, rows, row_of)
    token = jnp.where(state.done, self.ids.pad, token)
    ended = token == self.ids.eos
    done = state.done | ended
    position, written = state.position + 1, token
    if rings is not None:
      # There is no room for one more; finished rows stay unchanged until their
      # place is given to another source, which may be after a turn of the ring.
      done |= (rings + 1 >= length)[:, None]
      position %= length
      kept = lax.dynamic_index_in_dim(state.tokens, state.position, 0, False)
      written = jnp.where(state.done, kept, token)
    sharing = state.sharing
    if self.loops.row_capacities:
      sharing = sharing_lib.after(sharing.row_of, token, done)
    return State(
      position=position,
      ring_positions=None if rings is None else rings + 1,
      previous=token,
      done=done,
      sharing=sharing,
      tokens=lax.dynamic_update_index_in_dim(
        state.tokens, written, state.position, 0
      ),
      lengths=state.lengths + ~state.done,
      log_probs=state.log_probs + jnp.where(state.done, 0.0, log_prob),
      finished=state.finished | ended,
      caches=caches,
    )

  def _drawn(self, model, sources: Sources, state: State, logits, rows, row_of):
    """Returns the token [B, N] and log-probability of each hypothesis.

    Log-probabilities are over all tokens, forbidden ones too, as teacher forcing
    gives them.
    """
    shape, position = state.previous.shape, state.position

    def of_hypotheses(*of_rows):
      if row_of is None:
        return of_rows
      return [jnp.take(x, row_of, mode='clip') for x in of_rows]

    if self.greedy:
      drawn = of_hypotheses(
        *categorical.greedy(logits, forbidden=self.forbidden)
      )
    else:
      draw = categorical.draw
      if self.top_k is not None or self.top_p < 1:
        draw = functools.partial(
          categorical.draw_likeliest, top_k=self.top_k, top_p=self.top_p
        )
      uniform = lax.dynamic_index_in_dim(
        sources.uniforms, position, keepdims=False
      )
      drawn = draw(
        logits,
        uniform.reshape(-1),
        model.inverse_temperature,
        forbidden=self.forbidden,
        row_of=row_of,
      )
    token, log_prob = (x.reshape(shape) for x in drawn)
    if (first := sources.first_tokens) is None:
      return token, log_prob
    if state.ring_positions is not None:
      position = state.ring_positions[:, None]
    # The first token is not drawn.
    found = policy_lib.target_log_probs(logits, rows.select(first))
    (found,) = of_hypotheses(found)
    return (
      jnp.where(position == 0, first, token),
      jnp.where(position == 0, found.reshape(shape), log_prob),
    )
