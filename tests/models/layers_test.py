from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.models import layers, parts


@pytest.mark.parametrize(
  ('distance', 'bucket'),
  # By hand: 16 exact buckets, then bucket 16 + j begins at 16 * 8^(j / 16).
  [
    (0, 0),
    (1, 1),
    (15, 15),
    (16, 16),
    (18, 16),
    (19, 17),
    (20, 17),
    (21, 18),
    (45, 23),
    (46, 24),
    (112, 30),
    (113, 31),
    (128, 31),
  ],
)
def test_buckets_of_one_side(distance, bucket):
  assert layers.relative_position_buckets(32, 128)[distance] == bucket


@pytest.mark.parametrize(
  ('distance', 'bucket'),
  # 8 exact buckets, then bucket 8 + j begins at 8 * 2^(j / 2): 8, 11.3, 16 ...
  [
    (7, 7),
    (8, 8),
    (11, 8),
    (12, 9),
    (15, 9),
    (16, 10),
    (22, 10),
    (23, 11),
    (31, 11),
    (32, 12),
    (63, 13),
    (64, 14),
    (90, 14),
    (91, 15),
    (128, 15),
  ],
)
def test_buckets_of_half_the_table(distance, bucket):
  assert layers.relative_position_buckets(16, 128)[distance] == bucket


def _bias(bidirectional):
  module = layers.RelativePositionBias(3, 32, 128, bidirectional)
  params = nn.unbox(module.init(jax.random.key(0), 2, 2))
  return module.bind(params)


def test_bidirectional_bias_tells_the_sides_apart():
  bias = _bias(True)
  buckets = bias.buckets(200, 200)
  assert buckets[10, 10] == 0
  assert buckets[10, 9] == 1  # One before: the lower half.
  assert buckets[10, 11] == 17  # One after: the upper half.
  assert buckets[199, 0] == 15
  assert buckets[0, 199] == 31
  assert set(np.unique(buckets)) == set(range(32)) - {16}
  values = bias(200, 200)
  table = bias.variables['params']['rel_embedding']
  np.testing.assert_array_equal(values[0], np.asarray(table)[:, buckets])


def test_unidirectional_bias_sees_no_difference_ahead():
  buckets = _bias(False).buckets(150, 150)
  assert np.all(buckets[np.triu_indices(150)] == 0)
  assert buckets[149, 0] == 31
  assert set(np.unique(buckets)) == set(range(32))


@pytest.mark.parametrize('position', [0, 5, 149])
def test_bias_row_equals_the_row_of_the_matrix(position):
  bias = _bias(False)
  row = jax.jit(lambda p: bias.row(p, 150))(jnp.int32(position))
  np.testing.assert_array_equal(row, bias(150, 150)[0, :, position])


@pytest.mark.parametrize('newest', [0, 3, 6])
def test_bias_of_a_ring_goes_by_the_age_of_keys(newest):
  bias = _bias(False)
  ring = jax.jit(lambda p: bias.ring(p, 7))(jnp.int32(newest))
  for place in range(7):
    age = newest - place if place <= newest else newest - place + 7
    np.testing.assert_array_equal(ring[:, place], bias(7, 7)[0, :, 6, 6 - age])


def test_bias_row_refuses_both_directions():
  with pytest.raises(ValueError, match='bidirectional=True'):
    _bias(True).row(0, 4)


def test_rms_norm_by_hand():
  norm = layers.RMSNorm()
  x = jnp.asarray([[3.0, 4.0], [0.0, 0.0]])
  params = {'params': {'scale': jnp.asarray([1.0, 2.0])}}
  # The root mean square of (3, 4) is sqrt(12.5).
  expected = [[3 / 12.5**0.5, 8 / 12.5**0.5], [0.0, 0.0]]
  np.testing.assert_allclose(norm.apply(params, x), expected, rtol=1e-6)


def test_rms_norm_squares_in_float32():
  norm = layers.RMSNorm(jnp.bfloat16)
  params = {'params': {'scale': jnp.ones(256)}}
  # Summed in bfloat16, 256 ones and a small tail would lose the tail.
  x = jnp.linspace(0.5, 1.5, 256).astype(jnp.bfloat16)[None]
  exact = np.asarray(x, np.float64)
  exact = exact / np.sqrt(np.mean(exact**2) + 1e-6)
  y = norm.apply(params, x)
  assert y.dtype == jnp.bfloat16
  np.testing.assert_allclose(np.asarray(y, np.float64), exact, rtol=2**-8)


def _drop(x, rate, dims=(), seed=0):
  dropout = layers.Dropout(rate, dims)
  key = jax.random.key(seed)
  return dropout.apply({}, x, deterministic=False, rngs={'dropout': key})


@pytest.mark.parametrize('rate', [0.1, 0.5])
def test_dropout_rate_and_expectation(rate):
  y = np.asarray(_drop(jnp.ones(100_000), rate))
  kept = y[y != 0]
  np.testing.assert_allclose(kept, 1 / (1 - rate), rtol=1e-6)
  # Five standard deviations of a binomial share.
  deviation = (rate * (1 - rate) / len(y)) ** 0.5
  assert abs(np.mean(y == 0) - rate) < 5 * deviation


def test_dropout_mask_is_shared_along_the_length():
  y = np.asarray(_drop(jnp.ones((4, 7, 50)), 0.3, (-2,)))
  np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1], y.shape))
  assert not np.array_equal(y[0, 0], y[1, 0])


def test_dropout_depends_on_the_key_alone():
  x = jnp.ones((3, 40))
  np.testing.assert_array_equal(_drop(x, 0.3), _drop(x, 0.3))
  assert not np.array_equal(_drop(x, 0.3), _drop(x, 0.3, seed=1))


def test_dropout_without_rate_or_when_deterministic_is_identity():
  x = jnp.arange(12.0).reshape(3, 4)
  np.testing.assert_array_equal(_drop(x, 0.0), x)
  dropout = layers.Dropout(0.5)
  np.testing.assert_array_equal(dropout.apply({}, x, deterministic=True), x)


def test_one_module_called_twice_draws_two_masks():
  class Twice(nn.Module):
    def setup(self):
      self.dropout = layers.Dropout(0.5)

    def __call__(self, x):
      first = self.dropout(x, deterministic=False)
      return first, self.dropout(x, deterministic=False)

  key = jax.random.key(0)
  first, second = Twice().apply({}, jnp.ones(64), rngs={'dropout': key})
  assert not np.array_equal(first, second)


def test_gated_block_by_hand():
  mlp = layers.Mlp(1, ('gelu', 'linear'), 0.0)
  kernels = {'wi_0': [[1.0], [0.0]], 'wi_1': [[0.0], [1.0]], 'wo': [[2.0, 0.0]]}
  params = {
    name: {'kernel': jnp.asarray(kernel)} for name, kernel in kernels.items()
  }
  x = jnp.asarray([[[1.0, 3.0]]])
  y = mlp.apply({'params': params}, x, deterministic=True)
  # gelu(1) = 0.8411920 in the tanh form, times 3, times 2.
  np.testing.assert_allclose(y, [[[5.047152, 0.0]]], rtol=1e-6)


def test_plain_block_has_one_input_kernel():
  mlp = layers.Mlp(5, ('relu',), 0.0)
  x = jnp.ones((1, 1, 2))
  shapes = jax.eval_shape(
    lambda: mlp.init(jax.random.key(0), x, deterministic=True)
  )
  assert set(shapes['params']) == {'wi', 'wo'}


def test_matmul_joins_leading_axes():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 3, 4)).astype(np.float32)
  kernel = rng.normal(size=(4, 5)).astype(np.float32)
  y = layers.matmul(jnp.asarray(x), jnp.asarray(kernel))
  np.testing.assert_allclose(y, x @ kernel, rtol=1e-5, atol=1e-6)


def test_tied_logits_are_scaled():
  embed = layers.Embed(3, 4)
  table = jnp.arange(12.0).reshape(3, 4)
  params = {'params': {'embedding': table}}
  np.testing.assert_array_equal(
    embed.apply(params, jnp.asarray([2, 0])), table[jnp.asarray([2, 0])]
  )
  logits = embed.apply(params, jnp.ones((1, 4)), method='attend')
  np.testing.assert_allclose(logits, [[3.0, 11.0, 19.0]], rtol=1e-6)


def test_initial_scale_of_kernels():
  def deviation(**settings):
    dense = layers.Dense(400, ('embed', 'mlp'), **settings)
    params = dense.init(jax.random.key(0), jnp.ones((1, 300)))
    return np.std(nn.unbox(params)['params']['kernel'])

  np.testing.assert_allclose(deviation(), 300**-0.5, rtol=0.02)
  np.testing.assert_allclose(
    deviation(init_scale=0.25, kernel_init=layers.ATTENTION_INIT),
    0.25 * 300**-0.5,
    rtol=0.02,
  )


def test_a_fixed_embedding_begins_as_zeros_and_has_no_gradient():
  config = parts.EmbeddingConfig(fixed_id=1, divides_logits=False)
  embed = layers.Embed(3, 4, config=config)
  tokens = jnp.array([0, 1])

  def total(variables):
    x = embed.apply(variables, tokens)
    return (x + 1).sum() + embed.apply(variables, x + 1, method='attend').sum()

  variables = nn.unbox(embed.init(jax.random.key(0), tokens))
  gradient = jax.grad(total)(variables)['params']['embedding']
  assert not variables['params']['embedding'][1].any()
  assert (gradient[1] == 0).all()
  assert (gradient[jnp.array([0, 2])] != 0).all()
