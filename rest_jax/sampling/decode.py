"""Decoding of one block of sources on one device."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, NamedTuple, Protocol, runtime_checkable

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key
import numpy as np

from rest_jax import types
from rest_jax.models import network, shared_rows
from rest_jax.models import policy as policy_lib
from rest_jax.sampling import blocks, categorical, compaction, shapes
from rest_jax.sampling import first_tokens as first_lib
from rest_jax.sampling import sharing as sharing_lib

BlockInputs = blocks.BlockInputs
BlockOutputs = blocks.BlockOutputs


@runtime_checkable
class Decodes(Protocol):
  """A hashable program for `compiled`."""

  @property
  def policy(self) -> policy_lib.Policy: ...

  def decode(
    self,
    params: types.Params,
    key: Key[Array, ''],
    inverse_temperature: Float[Array, ''],
    inputs: BlockInputs,
    turned_embeddings: Float[Array, 'D V'] | None = None,
  ) -> BlockOutputs: ...


class Given(NamedTuple):
  """The constant inputs of the steps of a block.

  Attributes:
    turned_embeddings: transposed embeddings, see the network's method.
    inverse_temperature: 1/τ.
    uniforms: one uniform number per token; None if greedy.
    rows: rows of a compact block, whose hypotheses differ from the sources'.
    ring_positions: see `Transformer.decode_step`.
    first_tokens: the first token of each hypothesis, where sources bring it.
  """

  params: types.Params
  turned_embeddings: Float[Array, 'D V'] | None
  inverse_temperature: Float[Array, '']
  encoder_input_tokens: Int[Array | np.ndarray, 'B S']
  cross_caches: network.CrossCaches
  uniforms: Float[Array, 'T B N'] | None
  rows: shared_rows.CompactRows | None = None
  ring_positions: Int[Array, ' B'] | None = None
  first_tokens: Int[Array, 'B N'] | None = None


class State(NamedTuple):
  """State of a block between two steps; a compact block has B = C and N = 1."""

  position: Int[Array, '']
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
  """The compile-time settings of decoding.

  Attributes:
    cache_stages: `DecodeConfig.stages`.
    greedy: take the most likely token.
    row_capacities: `DecodeConfig.row_capacities`.
    compact_sizes: `DecodeConfig.compact_sizes`.
    grows_caches: whether caches have the length of their stage and are copied
      for the next. Otherwise they have full length from the start, and a stage
      reads a part of them, which suits devices that read a part in place.
  """

  cache_stages: tuple[int, ...]
  greedy: bool
  row_capacities: tuple[int, ...] = ()
  compact_sizes: tuple[int, ...] = ()
  grows_caches: bool = True
  top_k: int | None = None
  top_p: float = 1.0

  def decode(
    self,
    params: types.Params,
    key: Key[Array, ''],
    inverse_temperature: Float[Array, ''],
    inputs: BlockInputs,
    turned_embeddings: Float[Array, 'D V'] | None = None,
  ) -> BlockOutputs:
    """Decodes one block on one device.

    Every source is encoded once, and its cross-attention keys and values are
    computed once, for any N. Later stages read more of the self-attention
    cache. The loop of a stage ends as soon as all rows are done, and then no
    later stage takes a step. It also ends when few hypotheses are open, which
    continue in a compact block.

    Args:
      params: parameters of the policy.
      key: result of `categorical.base_key`.
      inverse_temperature: 1/τ; ignored if greedy.
      inputs: the block.
      turned_embeddings: result of `turned_embeddings`, shared by many blocks;
        None to compute it here.

    Returns:
      The hypotheses; inactive rows are empty.
    """
    # Sharding names raise under `shard_map`.
    with nn.logical_axis_rules(()):
      first, shape = inputs.first_tokens, inputs.active.shape
      given = Given(
        params=params,
        turned_embeddings=within_block(self.policy, params, turned_embeddings),
        inverse_temperature=inverse_temperature,
        encoder_input_tokens=inputs.encoder_input_tokens,
        cross_caches=self.cross_caches(params, inputs.encoder_input_tokens),
        uniforms=self._uniforms(key, inputs),
        first_tokens=first_lib.of_hypotheses(first, shape),
      )
      state = self._run(given, self.initial(inputs))
    return BlockOutputs(
      # [T, B, N] -> [B, N, T]
      tokens=jnp.moveaxis(state.tokens.astype(self.token_dtype), 0, -1),
      lengths=state.lengths,
      log_probs=state.log_probs,
      finished=state.finished,
    )

  def _uniforms(self, key, inputs):
    if self.greedy:
      return None
    return categorical.uniforms(
      key, inputs.source_words, inputs.sample_ids, self.max_target_length
    )

  def initial(self, inputs: BlockInputs) -> State:
    """Returns the initial state: no tokens, empty caches."""
    stages = self.cache_stages
    num_sources, num_samples = rows = inputs.active.shape
    done = jnp.logical_not(inputs.active)
    return State(
      position=jnp.int32(0),
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
        stages[0] if self.grows_caches else stages[-1],
      ),
    )

  def _run(self, given: Given, state: State) -> State:
    """Decodes a block to the end; returns no caches."""
    step = functools.partial(self.step, given)
    if self.grows_caches:
      state = self._run_growing(step, state, self.cache_stages)
    else:
      for stage in self.cache_stages:
        state = self._run_stage(step, state, stage)
      state = self._left(state)
    return self._run_compact(given, state) if self.compact_sizes else state

  def _run_stage(
    self, step: Callable[..., State], state: State, stage: int
  ) -> State:
    """Steps up to a position, or until few rows are open."""

    def go_on(state):
      return (state.position < stage) & self._has_many(state)

    step = functools.partial(step, length=stage)
    steps = sharing_lib.steps_by_rows(
      self.row_capacities, lambda state: state.sharing.num_rows, go_on, step
    )
    return lax.while_loop(go_on, steps, state)

  def _has_many(self, state: State) -> Bool[Array, '']:
    if not self.compact_sizes:
      return ~jnp.all(state.done)
    return jnp.sum(~state.done) > self.compact_sizes[0]

  def _run_growing(
    self,
    step: Callable[..., State],
    state: State,
    stages: tuple[int, ...],
  ) -> State:
    """Runs the loop of the first stage, then later stages if rows are left."""
    stage, later = stages[0], stages[1:]

    def grown(state):
      caches = network.grow_caches(state.caches, later[0])
      return self._run_growing(step, state._replace(caches=caches), later)

    state = self._run_stage(step, state, stage)
    if not later:
      return self._left(state)
    return lax.cond(self._has_many(state), grown, self._left, state)

  def _left(self, state: State) -> State:
    """Returns the state with the caches for a compact block.

    They have the length of the longest stage, since branches return arrays of
    one shape.
    """
    if not self.compact_sizes:
      return state._replace(caches=())
    few = compaction.first(state.done, self.compact_sizes[0])
    caches = jax.tree.map(few.take, state.caches)
    caches = network.grow_caches(caches, self.cache_stages[-1])
    return state._replace(caches=caches)

  def _run_compact(self, given: Given, state: State) -> State:
    """Runs the open hypotheses of a block separately, and puts them back."""
    few = compaction.first(state.done, self.compact_sizes[0])
    each = jax.vmap(few.take)  # of [T, B, N]
    done = few.done(state.done)
    end = dataclasses.replace(
      self,
      cache_stages=shapes.compact_stages(self.cache_stages),
      grows_caches=False,
      row_capacities=(),
      compact_sizes=self.compact_sizes[1:],
    )._run(
      given._replace(
        uniforms=None if given.uniforms is None else each(given.uniforms),
        rows=few.rows(state.done.shape, given.rows),
        first_tokens=jax.tree.map(few.take, given.first_tokens),
      ),
      State(
        position=state.position,
        previous=few.take(state.previous),
        done=done,
        tokens=each(state.tokens),
        lengths=few.take(state.lengths),
        log_probs=few.take(state.log_probs),
        finished=few.take(state.finished),
        sharing=sharing_lib.first(done),
        caches=state.caches,
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
    given: Given,
    state: State,
    capacity: int | None,
    length: int,
  ) -> State:
    """Draws the token at `state.position` for all hypotheses.

    `capacity` is the number of rows to compute, at least the number of rows;
    None for one row per hypothesis. `length` is the length of the stage.
    """
    shape = state.previous.shape
    rows, row_of = given.rows or shared_rows.OwnRows(*shape), None
    if capacity is not None:
      rows = state.sharing.rows(capacity)
      row_of = state.sharing.row_of.reshape(-1)
    logits, caches = self.apply(
      given.params,
      'decode_step',
      state.previous,
      state.caches,
      given.cross_caches,
      given.encoder_input_tokens,
      state.position,
      rows,
      given.turned_embeddings,
      length,
      given.ring_positions,
    )  # [R, V]
    token, log_prob = self._drawn(given, state.position, logits, row_of)
    token, log_prob = token.reshape(shape), log_prob.reshape(shape)
    first = self.ids.forced_first
    if self.ids.is_first_given:
      first = given.first_tokens
    if first is not None:
      number = given.ring_positions
      number = state.position if number is None else number[:, None]
      found = first_lib.log_probs(logits, first, rows, row_of).reshape(shape)
      # It is not drawn.
      token = jnp.where(number == 0, first, token)
      log_prob = jnp.where(number == 0, found, log_prob)
    token = jnp.where(state.done, self.ids.pad, token)
    ended = token == self.ids.eos
    done = state.done | ended
    position, written = state.position + 1, token
    if given.ring_positions is not None:
      # There is no room for one more; finished rows stay unchanged until their
      # place is given to another source, which may be after a turn of the ring.
      done |= (given.ring_positions + 1 >= length)[:, None]
      position %= length
      kept = lax.dynamic_index_in_dim(state.tokens, state.position, 0, False)
      written = jnp.where(state.done, kept, token)
    sharing = state.sharing
    if self.row_capacities:
      sharing = sharing_lib.after(sharing.row_of, token, done)
    return State(
      position=position,
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

  def _drawn(self, given: Given, position, logits, row_of):
    """Token and log-probability of each hypothesis.

    Log-probabilities are over all tokens, forbidden ones too, as teacher forcing
    gives them.
    """
    if self.greedy:
      token, log_prob = categorical.greedy(logits, forbidden=self.never_drawn)
      if row_of is not None:
        token = jnp.take(token, row_of, mode='clip')
        log_prob = jnp.take(log_prob, row_of, mode='clip')
      return token, log_prob
    uniform = lax.dynamic_index_in_dim(given.uniforms, position, keepdims=False)
    draw = categorical.draw
    if self.top_k is not None or self.top_p < 1:
      draw = functools.partial(
        categorical.draw_likeliest, top_k=self.top_k, top_p=self.top_p
      )
    return draw(
      logits,
      uniform.reshape(-1),
      given.inverse_temperature,
      forbidden=self.never_drawn,
      row_of=row_of,
    )


@functools.partial(jax.jit, static_argnums=0)
def turned_embeddings(policy: policy_lib.Policy, params: types.Params) -> Any:
  """Returns transposed embeddings [D, V]; None if logits have a kernel."""
  return policy.module.apply({'params': params}, method='turned_embeddings')


def within_block(policy, params, turned):
  """Returns `turned_embeddings`, computed here if not given."""
  if turned is not None:
    return turned
  # Otherwise transposed again in each step.
  return lax.optimization_barrier(turned_embeddings(policy, params))


@functools.lru_cache(maxsize=64)
def compiled(program: Decodes, mesh: jax.sharding.Mesh):
  """Compiles `program.decode` for every device of a mesh, each looping alone.

  Cached for the life of the process, so that all samplers of one shape, and all
  policies of one size, share compiled programs.

  Args:
    program: the program.
    mesh: mesh with one axis, 'data'.

  Returns:
    A compiled function of the arguments of `Decodes.decode` whose inputs and
    outputs hold one block per device, concatenated along the first axis.
  """
  each = jax.sharding.PartitionSpec('data')
  whole = jax.sharding.PartitionSpec()
  on_each_device = jax.shard_map(
    program.decode,
    mesh=mesh,
    in_specs=(whole, whole, whole, each, whole),
    out_specs=each,
    # Loop states start as constants and become different on each device.
    check_vma=False,
  )

  def decode(params, key, inverse_temperature, inputs, turned_embeddings=None):
    return on_each_device(
      params, key, inverse_temperature, inputs, turned_embeddings
    )

  return jax.jit(decode)
