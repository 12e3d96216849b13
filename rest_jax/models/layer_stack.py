"""A stack of equal layers: one after the other, rematerialised, or scanned.

Whatever is chosen, each layer has parameters of its own in the tree
(`layers_0`, `layers_1`, ...), as in T5X's unscanned checkpoints.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array
import numpy as np

from rest_jax.models import network_config as config_lib

# T5X's names: what the backward pass finds again instead of computing it.
_POLICIES: dict[str, Callable[..., bool] | None] = {
  'minimal': jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims,
  'full': None,
}


def apply(
  parent: nn.Module,
  layers: Sequence[nn.Module],
  config: config_lib.NetworkConfig,
  x: Array,
  own: Sequence[Any],
  *inputs: Array,
  deterministic: bool,
) -> Array:
  """Takes x through all layers.

  Args:
    parent: the module that owns the layers.
    layers: of equal sizes.
    config: says how.
    x: the first one's input.
    own: what each layer reads beside it; few different objects, of equal shapes.
    *inputs: what every layer reads beside these.
    deterministic: no dropout.

  Returns:
    The last one's output.
  """
  if parent.is_initializing():
    config = config_lib.NetworkConfig()
  if config.scan_layers:
    return _scanned(parent, layers, config, x, own, inputs, deterministic)

  def one(layer, x, *inputs):
    return layer(x, *inputs, deterministic=deterministic)

  if config.remat != 'none':
    one = nn.remat(one, policy=_POLICIES[config.remat])
  for layer, each in zip(layers, own, strict=True):
    x = one(layer, x, each, *inputs)
  return x


def _scanned(
  parent: nn.Module,
  layers: Sequence[nn.Module],
  config: config_lib.NetworkConfig,
  x: Array,
  own: Sequence[Any],
  inputs: tuple[Array, ...],
  deterministic: bool,
) -> Array:
  """As a loop that is compiled once, over parameters stacked for it."""
  kinds = list({id(each): each for each in own}.values())
  kind_of = [next(i for i, k in enumerate(kinds) if k is each) for each in own]
  by_kind = kinds[0]
  if len(kinds) > 1:
    by_kind = jax.tree.map(lambda *leaves: jnp.stack(leaves), *kinds)
  params = [layer.variables['params'] for layer in layers]
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
  layer = layers[0].clone(parent=None)
  keys = None
  if not deterministic and config.dropout_rate > 0:
    keys = jax.random.split(parent.make_rng('dropout'), len(layers))

  def one(x: Array, scanned: Any) -> tuple[Array, None]:
    params, key, kind = scanned
    each = by_kind
    if len(kinds) > 1:
      each = jax.tree.map(lambda leaf: leaf[kind], by_kind)
    output = layer.apply(
      {'params': params},
      x,
      each,
      *inputs,
      deterministic=deterministic,
      rngs={} if key is None else {'dropout': key},
    )
    return cast(Array, output), None  # Only with `mutable` is it a pair.

  if config.remat != 'none':
    policy = _POLICIES[config.remat]
    one = jax.checkpoint(one, policy=policy, prevent_cse=False)
  return jax.lax.scan(one, x, (stacked, keys, np.asarray(kind_of)))[0]
