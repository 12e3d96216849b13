"""The network with one scalar a decoder position.

Read at the end of a hypothesis it is a reward model; read at every position,
a value function.
"""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rest_jax import settings, types
from rest_jax.models import network
from rest_jax.models import policy as policy_lib


@dataclasses.dataclass(frozen=True)
class ScalarModel:
  """The source in the encoder, a hypothesis in the decoder, scalars out.

  The parameter tree is the policy's without `decoder/logits_dense`, with
  `decoder/value_dense/kernel` [D, 1] in its place.

  Attributes:
    config: sizes; `vocab_size` must be set.
    pooling: what a reward is made of: 'last', the value at EOS, which has read
      all; 'mean', the mean value over the tokens, each of which judges what it
      has read: a text of many parts then needs no summary in one state;
      'likelihood', the mean over the tokens of value + log pi(y_t | y_<t, x) in
      nats: from a policy's weights it starts as what the policy finds likely
      (Liu et al., BRIO, arXiv 2203.16804, train such a model to rank).
  """

  config: network.NetworkConfig
  pooling: str = 'last'

  def __post_init__(self):
    settings.one_of(self, POOLINGS, 'pooling')
    policy_lib.check_vocab_size(self.config)

  @functools.cached_property
  def module(self) -> network.Transformer:
    head = 'judgement' if self._is_likelihood else 'value'
    return network.Transformer(self.config, head=head)

  @property
  def _is_likelihood(self) -> bool:
    return self.pooling == 'likelihood'

  def init(self, key: Array) -> types.Params:
    return policy_lib.init_params(self.module, key)

  def init_from_policy(
    self, policy_params: types.Params, key: Array
  ) -> types.Params:
    """The policy's weights under a fresh head.

    Args:
      policy_params: of a `Policy` with the same sizes.
      key: for the head.

    Returns:
      Parameters of this model; the arrays of the body are shared.

    Raises:
      ValueError: the policy's tree or shapes are not those of this model.
    """
    own = jax.eval_shape(self.init, key)
    decoder = dict(policy_params['decoder'])
    if not self._is_likelihood:
      decoder.pop('logits_dense', None)
      decoder.pop('logits_bias', None)
    decoder['value_dense'] = jax.jit(
      lambda key: self.init(key)['decoder']['value_dense']
    )(key)
    params = {**policy_params, 'decoder': decoder}
    _check_same(own, params)
    return params

  def logical_axes(self) -> types.Params:
    """The logical names of each parameter's axes, a PartitionSpec each."""
    return policy_lib.logical_axes(self.module)

  def values(
    self,
    params: types.Params,
    batch: Mapping[str, Any],
    *,
    dropout_key: Array | None = None,
  ) -> Float[Array, 'R T']:
    """A float32 scalar for every decoder position.

    The scalar at t has read the decoder's inputs up to t, so the tokens
    before target t, and the whole source.
    """
    return policy_lib.apply(self.module, params, batch, dropout_key)

  def rewards(
    self,
    params: types.Params,
    batch: Mapping[str, Any],
    *,
    dropout_key: Array | None = None,
  ) -> Float[Array, ' R']:
    """The values at the positions of weight > 0, pooled; 0 if there is none."""
    values = self.values(params, batch, dropout_key=dropout_key)
    pool = POOLINGS[self.pooling]
    return pool(values, jnp.asarray(batch['decoder_loss_weights']))

  def of_hypotheses(
    self,
    params: types.Params,
    hidden: Float[Array, 'R T D'],
    targets: Int[Array, 'R T'],
  ) -> Float[Array, ' R']:
    """`rewards` of rows whose decoder states are known, padded behind EOS."""
    variables = {'params': params}
    if self._is_likelihood:
      values = self.module.apply(
        variables, hidden, targets, method='judgements'
      )
    else:
      values = self.module.apply(variables, hidden, method='values')
    is_token = targets != self.config.special_ids.pad
    weights = is_token.astype(jnp.float32)
    return POOLINGS[self.pooling](jnp.asarray(values), weights)


def last_value(
  values: Float[Array, 'R T'], weights: Float[Array, 'R T']
) -> Float[Array, ' R']:
  """Each row's value at its last position of weight > 0; 0 if it has none."""
  positions = jnp.arange(1, values.shape[1] + 1)
  last = jnp.max(jnp.where(weights > 0, positions, 0), axis=1, keepdims=True)
  return jnp.sum(jnp.where(positions == last, values, 0.0), axis=1)


def mean_value(
  values: Float[Array, 'R T'], weights: Float[Array, 'R T']
) -> Float[Array, ' R']:
  """Each row's mean value over its positions of weight > 0; 0 if it has none."""
  is_real = weights > 0
  total = jnp.sum(jnp.where(is_real, values, 0.0), axis=1)
  return total / jnp.maximum(is_real.sum(axis=1), 1)


POOLINGS = {
  'last': last_value,
  'mean': mean_value,
  'likelihood': mean_value,
}


def _check_same(expected: types.Params, params: types.Params):
  """Raises unless two trees have the same names and shapes."""

  def shapes(tree):
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
      jax.tree_util.keystr(path, simple=True, separator='/'): leaf.shape
      for path, leaf in flat
    }

  ours, theirs = shapes(expected), shapes(params)
  for name in sorted(set(ours) | set(theirs)):
    if ours.get(name) != theirs.get(name):
      raise ValueError(
        f"policy_params must have this model's sizes; {name} is "
        f'{theirs.get(name, "missing")} there and '
        f'{ours.get(name, "missing")} here. Use one NetworkConfig for both.'
      )
