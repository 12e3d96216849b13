"""Run by `eight`: collectives of programs for several devices."""

import jax
import jax.numpy as jnp

from rest_jax.planning import measured


def found() -> dict[str, dict[str, int]]:
  kinds = (jax.sharding.AxisType.Auto,)
  mesh = jax.make_mesh((8,), ('data',), axis_types=kinds)
  rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  x = jax.ShapeDtypeStruct((16, 4), jnp.float32, sharding=rows)
  result = {}
  for name, function, out in (
    ('sum', lambda x: x.sum(), whole),
    ('gather', lambda x: x, whole),
    ('alone', lambda x: 2 * x, rows),
  ):
    text = jax.jit(function, out_shardings=out).lower(x).compile().as_text()
    result[name] = measured.collectives(text)
  return result
