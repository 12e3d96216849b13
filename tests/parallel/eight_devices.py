"""Run by `eight`: a network, its arrays and its errors on several meshes."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np

from rest_jax.models import network
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib
from tests.models import tiny

KEY = jax.random.key(0)
BATCH = tiny.batch(0, [4, 3, 2, 4, 1, 3, 3, 2], [5, 2, 4, 3, 5, 1, 2, 5])
# One layer each: what takes time here is to compile.
POLICY = policy_lib.Policy(
  tiny.config(num_encoder_layers=1, num_decoder_layers=1, dropout_rate=0.2)
)


def difference(a, b) -> float:
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return max(
    float(np.max(np.abs(jax.device_get(x) - jax.device_get(y))))
    for x, y in pairs
  )


def log_probs(params, batch, dropout_key):
  return POLICY.log_probs(params, batch, dropout_key=dropout_key)


@jax.jit
def outputs(params, batch):
  """All that is compared, in one program."""
  return {
    'plain': log_probs(params, batch, None),
    'dropped': log_probs(params, batch, jax.random.key(1)),
    'logits': POLICY.logits(params, batch),
  }


def spec(array) -> list[str]:
  return [str(axis) for axis in array.sharding.spec]


def put(params, mesh, *rules):
  return mesh_lib.put_params(params, POLICY.logical_axes(), mesh, *rules)


def on_mesh(mesh, params, expected) -> dict:
  """Applies the network on a mesh; compares with one device."""
  sharded = put(params, mesh)
  batch = mesh_lib.put_batch(BATCH, mesh)
  with mesh_lib.use(mesh):
    found = outputs(sharded, batch)
  layer = sharded['decoder']['layers_0']
  return {
    'put_difference': difference(sharded, params),
    'log_probs_difference': difference(found['plain'], expected['plain']),
    'dropout_difference': difference(found['dropped'], expected['dropped']),
    'specs': {
      'wi_0': spec(layer['mlp']['wi_0']['kernel']),
      'query': spec(layer['self_attention']['query']['kernel']),
      'embedding': spec(sharded['token_embedder']['embedding']),
      'logits': spec(found['logits']),
      'batch': spec(batch['encoder_input_tokens']),
    },
  }


def in_shard_map(mesh, params) -> dict:
  """Each device decodes one step of its own rows, under active rules or not."""

  def step(params, sources):
    def apply(method, *arguments):
      return POLICY.module.apply({'params': params}, *arguments, method=method)

    rows = sources.shape[0]
    logits, _ = apply(
      'decode_step',
      jnp.zeros((rows, 2), jnp.int32),
      network.init_caches(POLICY.config, rows, 2, 3),
      apply('cross_attention_cache', apply('encode', sources)),
      sources,
      0,
    )
    return logits

  sources = jnp.asarray(BATCH['encoder_input_tokens'])
  expected = jax.jit(step)(params, sources)
  data = jax.sharding.PartitionSpec('data')

  def mapped(params, sources):
    whole = jax.sharding.PartitionSpec()
    return jax.jit(
      jax.shard_map(step, mesh=mesh, in_specs=(whole, data), out_specs=data)
    )(params, sources)

  without = mapped(params, sources)
  with mesh_lib.use(mesh):
    inside = mapped(params, sources)
  return {
    'without rules': difference(without, expected),
    'with rules': difference(inside, expected),
  }


def message(function) -> str:
  try:
    function()
  except ValueError as error:
    return str(error)
  return 'no error'


def found() -> dict:
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    warnings.filterwarnings('default', 'Error reading persistent')
    return _found()


def _found() -> dict:
  params = jax.jit(POLICY.init)(KEY)
  expected = outputs(params, BATCH)
  devices = jax.devices()
  config = mesh_lib.MeshConfig
  wide = config().build()
  result = {
    '8x1': on_mesh(wide, params, expected),
    '4x2': on_mesh(config(model=2).build(), params, expected),
    '1x2': on_mesh(config(model=2).build(devices[:2]), params, expected),
  }
  rules = (('embed', 'data'), *mesh_lib.DEFAULT_RULES)
  split = put(params, config(model=2).build(), rules)
  result['fully_sharded'] = spec(
    split['decoder']['layers_0']['mlp']['wi_0']['kernel']
  )
  result['shard_map'] = in_shard_map(wide, params)
  tall = config(data=1, model=8).build()
  result['errors'] = {
    'axis': message(lambda: put(params, tall)),
    'rows': message(
      lambda: mesh_lib.put_batch({'rows': np.zeros((6, 3))}, wide)
    ),
    'model': message(lambda: config(model=3).build()),
    'both': message(lambda: config(data=2, model=2).build()),
  }
  return result
