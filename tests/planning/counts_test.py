"""Tests of FLOPs and bytes, against counts by hand."""

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.models import network
from rest_jax.models import policy as policy_lib
from rest_jax.planning import counts, sampling_programs
from rest_jax.sampling import decoders, sampler

_A, _B = jnp.ones((3, 5)), jnp.ones((5, 7))
_CONFIG = network.NetworkConfig(
  vocab_size=11,
  emb_dim=6,
  num_heads=2,
  head_dim=4,
  num_encoder_layers=3,
  num_decoder_layers=2,
  mlp_dim=10,
)
# B sources of S tokens, N hypotheses of T.
_B_, _S, _N, _T = 2, 5, 3, 4


def _flops(function, *arguments, **options):
  traced = jax.jit(function).trace(*arguments)
  return counts.product_flops(traced.jaxpr, **options)


def test_a_product_has_two_operations_for_each_triple():
  assert _flops(jnp.matmul, _A, _B) == 2 * 3 * 5 * 7
  batch = jnp.ones((4, 3, 5)), jnp.ones((4, 5, 7))
  assert _flops(jnp.matmul, *batch) == 4 * 2 * 3 * 5 * 7
  # Summed over two axes, nothing left of the right side.
  assert _flops(lambda x: jnp.einsum('ij,ij->', x, x), _A) == 2 * 3 * 5


def test_loops_count_as_often_as_they_run():
  square = jnp.ones((5, 5))

  def scan(x):
    return lax.scan(lambda c, _: (c @ x, None), x, None, length=9)[0]

  assert _flops(scan, square) == 9 * 2 * 5**3
  assert _flops(scan, square, loops_once=True) == 2 * 5**3

  def loop(x):
    return lax.while_loop(lambda c: c.sum() > 0, lambda c: c @ x, x)

  assert _flops(loop, square) == 2 * 5**3


def test_of_branches_the_most_costly_counts():
  square = jnp.ones((5, 5))

  def branch(x):
    return lax.cond(x.sum() > 0, lambda x: x @ x @ x, lambda x: x @ x, x)

  assert _flops(branch, square) == 2 * 2 * 5**3


def test_recomputation_counts():
  def loss(x):
    return jax.checkpoint(lambda x: jnp.sin(x @ x).sum())(x)

  square = jnp.ones((5, 5))
  plain = _flops(jax.grad(lambda x: jnp.sin(x @ x).sum()), square)
  # The product is made again for the gradient.
  assert _flops(jax.grad(loss), square) == plain + 2 * 5**3


def _layers_by_hand():
  """FLOPs of a forward pass, term by term."""
  d, w, m, v = 6, 2 * 4, 10, 11
  sources, targets = _B_ * _S, _B_ * _N * _T
  encoder = sources * 2 * (4 * d * w + 3 * d * m) + sources * 4 * _S * w
  # Queries, keys, values and output of the first attention, query and output of
  # the second, feed-forward; keys and values of the sources.
  decoder = targets * 2 * (6 * d * w + 3 * d * m) + sources * 2 * 2 * d * w
  decoder += targets * 4 * _T * w + targets * 4 * _S * w
  logits = targets * 2 * d * v
  # Position biases: a product of [H, buckets] with one-hot columns.
  biases = 2 * 2 * 32 * (_S * _S + _T * _T)
  return 3 * encoder + 2 * decoder + logits + biases


def test_a_forward_pass_equals_a_count_by_hand():
  policy = policy_lib.Policy(_CONFIG)
  batch = {
    'encoder_input_tokens': jnp.ones((_B_, _S), jnp.int32),
    'decoder_input_tokens': jnp.ones((_B_ * _N, _T), jnp.int32),
    'decoder_target_tokens': jnp.ones((_B_ * _N, _T), jnp.int32),
  }
  params = jax.eval_shape(policy.init, jax.random.key(0))
  assert _flops(policy.logits, params, batch) == _layers_by_hand()


def _decode(**changes):
  return sampler.DecodeConfig(
    **{
      'num_samples_per_source': _N,
      'block_sources': _B_,
      'max_target_length': _T,
      'source_length_buckets': (_S,),
      'row_shares': (),
    }
    | changes
  )


def test_the_work_of_a_decoding_step_by_hand():
  work = counts.decoding_step(_CONFIG, _decode(), _S)
  rows, width = _B_ * _N, 8
  weights = 2 * 6 * (6 * width + 3 * 10) + 6 * 11
  mean = (1 + 2 + 3 + 4) / 4
  assert work.weights == 4 * weights
  # Keys and values of two layers, float32.
  assert work.self_cache == 2 * 2 * rows * width * mean * 4
  assert work.cross_cache == 2 * 2 * _B_ * _S * width * 4
  assert work.logits == 2 * rows * 11 * 4
  attention = 2 * rows * 4 * width * (mean + _S)
  assert work.flops == 2 * rows * weights + attention
  assert work.accessed_bytes == (
    work.weights + work.self_cache + work.cross_cache + work.logits
  )
  rounded = counts.decoding_step(_CONFIG, _decode(weights_dtype='bfloat16'), _S)
  assert rounded.weights == 2 * weights


def test_the_step_that_is_compiled_has_that_work_at_its_full_length():
  config = _decode()
  program = decoders.decoder(policy_lib.Policy(_CONFIG), config)
  step, shapes = sampling_programs.decoding_step(program, config)
  rows, width = _B_ * _N, 8
  weights = 2 * 6 * (6 * width + 3 * 10) + 6 * 11
  attention = 2 * rows * 4 * width * (_T + _S)
  assert _flops(step, *shapes) == 2 * rows * weights + attention


@pytest.mark.parametrize('dtype, size', [('float32', 4), ('bfloat16', 2)])
def test_caches_have_the_type_of_the_activations(dtype, size):
  config = network.NetworkConfig(
    **{
      field: getattr(_CONFIG, field)
      for field in ('vocab_size', 'emb_dim', 'num_heads', 'head_dim')
    },
    num_decoder_layers=1,
    dtype=dtype,
  )
  work = counts.decoding_step(config, _decode(), _S)
  assert work.cross_cache == 2 * np.prod((_B_, _S, 8)) * size
