"""Beam search."""

import dataclasses
import functools
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rest_jax.models import network, shared_rows
from rest_jax.sampling import blocks


class Hypotheses(NamedTuple):
  """K hypotheses per source, best first; a score of -inf marks an empty one."""

  scores: Float[Array, 'B K']
  log_probs: Float[Array, 'B K']
  tokens: Int[Array, 'B K T']


class State(NamedTuple):
  position: Int[Array, '']
  live: Hypotheses
  finished: Hypotheses
  caches: network.Caches


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beam(blocks.Decoder):
  """The compile-time settings of beam search.

  Every beam is extended by every token. Of all continuations of a source's K
  beams, the K best without EOS continue, and the K best with EOS are kept by

    score(y) = log pi(y | x) / ((5 + |y|) / 6)^alpha.

  A source is done when no live beam can reach a better score than the finished
  ones, or at the maximum length. Finished hypotheses come before unfinished
  ones.

  Source: Wu et al., Google's Neural Machine Translation System (arXiv
  1609.08144), Eq. 14; the rule for stopping is T5X's `beam_search`.

  Attributes:
    beam_size: K.
    length_penalty: alpha, at least 0; larger values give longer outputs.
  """

  beam_size: int
  length_penalty: float

  def _decoded(
    self, model: blocks.Model, inputs: blocks.BlockInputs
  ) -> blocks.BlockOutputs:
    """Decodes as many outputs per source as `active` has columns, at most K."""
    sources = inputs.encoder_input_tokens
    cross_caches = self.cross_caches(model.params, sources)
    first = self.first_tokens(inputs)
    if first is not None:
      first = jnp.repeat(first, self.beam_size)
    active = jnp.asarray(inputs.active)
    is_wanted = active.any(1)
    state = lax.while_loop(
      lambda state: ~self._is_done(state, is_wanted).all(),
      functools.partial(self._step, model, sources, cross_caches, first),
      self._initial(len(active)),
    )
    return self._outputs(state, active)

  def _initial(self, num_sources: int) -> State:
    shape = (num_sources, self.beam_size)
    none = Hypotheses(
      scores=jnp.full(shape, -jnp.inf),
      log_probs=jnp.full(shape, -jnp.inf),
      tokens=jnp.full(
        (*shape, self.max_target_length), self.ids.pad, jnp.int32
      ),
    )
    # All beams are equal at first, so one is enough.
    first = none.log_probs.at[:, 0].set(0.0)
    return State(
      position=jnp.int32(0),
      live=none._replace(scores=first, log_probs=first),
      finished=none,
      caches=network.init_caches(
        self.policy.config, *shape, self.max_target_length
      ),
    )

  def _allowed(
    self,
    log_probs: Float[Array, 'R V'],
    position: Int[Array, ''],
    first: Int[Array, ' R'] | None,
  ) -> Float[Array, 'R V']:
    """Log-probabilities with -inf for tokens that may not come next."""
    allowed = log_probs.at[:, jnp.asarray(self.forbidden)].set(-jnp.inf)
    if first is None:
      return allowed
    is_forced = jnp.arange(log_probs.shape[-1]) == first[:, None]
    forced = jnp.where(is_forced, log_probs, -jnp.inf)
    return jnp.where(position == 0, forced, allowed)

  def _penalty(self, length: Int[Array, ''] | int) -> Float[Array, '']:
    return jnp.power((5.0 + length) / 6.0, self.length_penalty)

  def _is_done(
    self, state: State, is_wanted: Bool[Array, ' B']
  ) -> Bool[Array, ' B']:
    # Log-probabilities fall and the penalty rises with the length.
    best = state.live.log_probs[:, 0] / self._penalty(self.max_target_length)
    is_beaten = state.finished.scores[:, -1] >= best
    return is_beaten | ~is_wanted | (state.position >= self.max_target_length)

  def _step(
    self, model: blocks.Model, sources, cross_caches, first, state: State
  ) -> State:
    num_beams, position, live = self.beam_size, state.position, state.live
    shape = live.scores.shape
    before = lax.dynamic_index_in_dim(
      live.tokens, jnp.maximum(position - 1, 0), axis=2, keepdims=False
    )
    previous = jnp.where(position > 0, before, self.policy.decoder_start)
    logits, caches = self.apply(
      model.params,
      'decode_step',
      previous,
      state.caches,
      cross_caches,
      sources,
      position,
      shared_rows.OwnRows(*shape),
      model.transposed_embeddings,
    )  # [B * K, V]
    log_probs = self._allowed(
      jax.nn.log_softmax(logits.astype(jnp.float32)), position, first
    )
    # At most 2 K tokens per beam can be among the 2 K best of all.
    found, token = lax.top_k(log_probs, min(2 * num_beams, logits.shape[-1]))
    found = found.reshape(*shape, -1) + live.log_probs[..., None]
    # At most K of the 2 K best end with EOS, so K remain.
    best, chosen = lax.top_k(found.reshape(shape[0], -1), 2 * num_beams)
    beam = chosen // found.shape[-1]  # [B, 2 K]
    token = jnp.take_along_axis(token.reshape(shape[0], -1), chosen, axis=1)
    tokens = jnp.take_along_axis(live.tokens, beam[..., None], axis=1)
    tokens = lax.dynamic_update_index_in_dim(tokens, token, position, axis=2)

    ends = token == self.ids.eos
    ended = Hypotheses(
      scores=jnp.where(ends, best / self._penalty(position + 1), -jnp.inf),
      log_probs=best,
      tokens=tokens,
    )
    finished = _best(_joined(state.finished, ended), num_beams)[0]
    going_on = jnp.where(ends, -jnp.inf, best)
    live, kept = _best(Hypotheses(going_on, going_on, tokens), num_beams)
    beam = jnp.take_along_axis(beam, kept, axis=1)[..., None, None, None]
    caches = jax.tree.map(
      lambda cache: jnp.take_along_axis(cache, beam, axis=1), caches
    )
    return State(position + 1, live, finished, caches)

  def _outputs(
    self, state: State, active: Bool[Array, 'B N']
  ) -> blocks.BlockOutputs:
    both = _joined(state.finished, state.live)
    # Each kind is sorted already; unfinished ones come last.
    rank = jnp.arange(2 * self.beam_size, 0, -1.0)
    rank = jnp.where(jnp.isfinite(both.scores), rank, -jnp.inf)
    both, chosen = _best(both._replace(scores=rank), active.shape[1])
    tokens = jnp.where(active[..., None], both.tokens, self.ids.pad)
    return blocks.BlockOutputs(
      tokens=tokens.astype(self.token_dtype),
      lengths=(tokens != self.ids.pad).sum(-1),
      log_probs=jnp.where(active, both.log_probs, 0.0),
      finished=active & (chosen < self.beam_size),
    )


def _joined(one: Hypotheses, other: Hypotheses) -> Hypotheses:
  return jax.tree.map(lambda x, y: jnp.concatenate([x, y], axis=1), one, other)


def _best(
  hypotheses: Hypotheses, count: int
) -> tuple[Hypotheses, Int[Array, 'B C']]:
  """Returns the best by score, and their indices."""
  scores, chosen = lax.top_k(hypotheses.scores, count)
  return Hypotheses(
    scores=scores,
    log_probs=jnp.take_along_axis(hypotheses.log_probs, chosen, axis=1),
    tokens=jnp.take_along_axis(hypotheses.tokens, chosen[..., None], axis=1),
  ), chosen
