"""A learned, reference-free reward: a network that reads text.

The encoder reads the source and the decoder the hypothesis; the reward is the
value of a scalar model at EOS, or the result of another `TextModel`. It scores
text, not tokens: a policy may sample a segmentation that the vocabulary would
not choose, and one text has one reward.
"""

import collections
from collections.abc import Iterator, Sequence
import functools
import time
from typing import Any, Protocol, cast

from absl import logging
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int
import numpy as np

from rest_jax import types
from rest_jax.data import vocabularies
from rest_jax.models import network
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.rewards import base, scoring_plan

# Minimum duration of a scoring that is logged at level INFO, in seconds.
_LOG_FROM = 5.0


class TextModel(Protocol):
  """A network that reads a source and returns a number per hypothesis.

  It must be hashable, as the key of its compiled functions.
  """

  @property
  def config(self) -> network.NetworkConfig: ...

  @property
  def module(self) -> Any:
    """A `network.Transformer`; type checkers do not see cached properties."""
    ...

  def logical_axes(self) -> types.Params: ...

  def of_hypotheses(
    self,
    params: types.Params,
    hidden: Float[Array, 'R T D'],
    targets: Int[Array, 'R T'],
  ) -> Float[Array, ' R']:
    """Returns one number per row from the decoder's states.

    Args:
      params: parameters of the network.
      hidden: the decoder's states; the state at t has read the tokens before t.
      targets: tokens, padded after EOS.
    """
    ...


class Scorer:
  """Scores prepared texts with any parameters of one model."""

  def __init__(
    self,
    model: TextModel,
    mesh_config: mesh_lib.MeshConfig,
    *,
    name: str = 'learned',
  ):
    """Takes a model and the devices to run it on.

    Args:
      model: the network.
      mesh_config: devices and sharding rules; blocks are sharded over 'data'.
        Each of several processes scores by itself, on its own meshes in turn.
      name: name of the reward, for the log.
    """
    self._model = model
    self._mesh_config = mesh_config
    self._meshes = mesh_config.build_each_local()
    self._name = name

  def place(self, params: types.Params) -> list[types.Params]:
    """Places parameters on the devices of each mesh."""
    axes, rules = self._model.logical_axes(), self._mesh_config.rules
    return [
      mesh_lib.put_params(params, axes, mesh, rules) for mesh in self._meshes
    ]

  def score(
    self, placed: Sequence[types.Params], plan: scoring_plan.Plan
  ) -> tuple[Float32[np.ndarray, ' n'], scoring_plan.Statistics]:
    """Scores every candidate of a plan once.

    Args:
      placed: parameters of the model, from `place`.
      plan: result of `scoring_plan.plan`.

    Returns:
      The reward of each input of the plan in order, not checked for NaN, and
      statistics.
    """
    began = time.monotonic()
    rewards, computed = scoring_plan.collect(
      self._dispatch(placed, plan),
      len(plan.candidate_tokens),
      calls_in_flight=plan.config.calls_in_flight * len(self._meshes),
      description=f'reward {self._name}',
      unit='candidate',
    )
    real = plan.source_tokens.num_tokens + plan.candidate_tokens.num_tokens
    statistics = scoring_plan.Statistics(
      hypotheses=len(plan.candidate_of),
      distinct=len(rewards),
      truncated={
        'sources': (plan.truncated_sources, len(plan.source_tokens)),
        'hypotheses': (plan.truncated_candidates, len(rewards)),
      },
      real_token_share=real / computed,
      seconds=time.monotonic() - began,
    )
    return rewards[plan.candidate_of], statistics

  def _dispatch(
    self, placed: Sequence[types.Params], plan: scoring_plan.Plan
  ) -> Iterator[tuple[np.ndarray, jax.Array, int]]:
    """Yields candidates [R], rewards [R] and computed tokens of each call."""
    # Each block goes to the mesh that finishes its previous block first.
    blocks = plan.blocks(mesh_lib.num_parts(self._meshes[0]))
    lanes = collections.deque(
      self._calls(mesh, params, plan, blocks)
      for mesh, params in zip(self._meshes, placed, strict=True)
    )
    while lanes:
      lane = lanes.popleft()
      call = next(lane, None)
      if call is not None:
        lanes.append(lane)
        yield call

  def _calls(
    self,
    mesh: jax.sharding.Mesh,
    params: types.Params,
    plan: scoring_plan.Plan,
    blocks: Iterator[scoring_plan.Block],
  ) -> Iterator[tuple[np.ndarray, jax.Array, int]]:
    """Like `_dispatch`, for the blocks of one mesh."""

    def put(rows: np.ndarray) -> jax.Array:
      return mesh_lib.put_batch({'rows': rows}, mesh)['rows']

    ids = self._model.config.special_ids
    for block in blocks:
      held = jnp.zeros(
        (
          block.sources.size,
          block.length,
          self._model.config.encoder_stack.emb_dim,
        ),
        self._model.config.dtype,
        device=mesh_lib.replicated(mesh),
      )
      tokens = 0
      for number, rows in enumerate(block.sources):
        if np.all(rows == scoring_plan.NONE):
          break
        sources = scoring_plan.pad(plan.source_tokens, rows, block.length, ids)
        with mesh_lib.use(mesh, self._mesh_config.rules):
          held = encode(
            self._model, params, held, number * len(rows), put(sources)
          )
        tokens += sources.size
      flat = block.sources.reshape(-1)
      for slots, candidates, length in block.calls:
        sources = scoring_plan.pad(
          plan.source_tokens, flat[slots], block.length, ids
        )
        rows = candidates.reshape(-1)  # [G, C] -> [G * C]
        targets = scoring_plan.pad(plan.candidate_tokens, rows, length, ids)
        # Not around `yield`: the caller may have another mesh.
        with mesh_lib.use(mesh, self._mesh_config.rules):
          rewards = rewards_of(
            self._model,
            params,
            held,
            put(slots.astype(np.int32)),
            put(sources),
            put(targets),
          )
        yield rows, rewards, tokens + targets.size
        tokens = 0


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def encode(
  model: TextModel,
  params: types.Params,
  held: Float[Array, 'R S D'],
  start: int,
  sources: Int[Array, 'B S'],
) -> Float[Array, 'R S D']:
  """Encodes B sources into rows of `held`, beginning at `start`."""
  encoded = model.module.apply({'params': params}, sources, method='encode')
  # Every device holds all of them, so that any call can use any of them.
  encoded = jax.lax.with_sharding_constraint(
    encoded, jax.sharding.PartitionSpec()
  )
  return jax.lax.dynamic_update_slice_in_dim(held, encoded, start, axis=0)


@functools.partial(jax.jit, static_argnums=0)
def rewards_of(
  model: TextModel,
  params: types.Params,
  held: Float[Array, 'R S D'],
  slots: Int[Array, ' G'],
  sources: Int[Array, 'G S'],
  targets: Int[Array, 'GC T'],
) -> Float[Array, ' GC']:
  """Returns the rewards of C hypotheses for each of G held sources."""
  encoded = jnp.take(held, slots, axis=0, mode='clip')  # [G, S, D]
  inputs = jnp.pad(
    targets[:, :-1],
    ((0, 0), (1, 0)),
    constant_values=model.config.special_ids.decoder_start,
  )
  hidden = model.module.apply(
    {'params': params},
    encoded,
    sources,
    inputs,
    targets,
    method='decode_hidden',
  )  # [G * C, T, D]
  return model.of_hypotheses(params, cast(Array, hidden), targets)


class LearnedReward(base.NeedsOfParts):
  """The reward of one set of parameters; see `base.Reward`.

  Attributes:
    name: name of the reward.
    digest: digest of its parameters, for manifests.
    config: shapes and lengths of scoring.
    refusal: see `base.check_agreement`.
  """

  refusal: str | None = None

  def __init__(
    self,
    model: TextModel,
    params: types.Params,
    vocabulary: vocabularies.Encoder,
    mesh_config: mesh_lib.MeshConfig,
    *,
    config: scoring_plan.ScoringConfig | None = None,
    name: str = 'learned',
    digest: str = '',
  ):
    """Places the parameters on the devices.

    Args:
      model: the network.
      params: its parameters.
      vocabulary: vocabulary that the model was trained with.
      mesh_config: devices and sharding rules.
      config: shapes; the defaults suit a CPU.
      name: name of the reward.
      digest: digest of the parameters.
    """
    self.name = name
    self.digest = digest
    self.config = config or scoring_plan.ScoringConfig()
    self._vocabulary = vocabulary
    self._scorer = Scorer(model, mesh_config, name=name)
    self._params = self._scorer.place(params)

  def score(
    self,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: base.References = None,
  ) -> Float32[np.ndarray, ' n']:
    """Scores each hypothesis; see `base.Reward.score`."""
    del references
    return self.measured_score(sources, hypotheses)[0]

  def measured_score(
    self, sources: Sequence[str], hypotheses: Sequence[str]
  ) -> tuple[Float32[np.ndarray, ' n'], scoring_plan.Statistics | None]:
    """Like `score`, with statistics; None for no hypotheses."""
    base.check_texts(sources, hypotheses)
    if not len(sources):
      return np.zeros(0, np.float32), None
    plan = scoring_plan.plan(self.config, self._vocabulary, sources, hypotheses)
    rewards, statistics = self._scorer.score(self._params, plan)
    base.check_finite(self.name, sources, hypotheses, rewards)
    # Online training scores few texts at a time, thousands of times.
    level = logging.INFO if statistics.seconds > _LOG_FROM else logging.DEBUG
    statistics.log(self.name, level)
    return rewards, statistics
