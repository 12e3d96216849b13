"""Tests of low-rank adapters: what they compute, train, save and refuse."""

from typing import Any, cast

from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rest_jax.losses import bc
from rest_jax.models import policy as policy_lib
from rest_jax.models import scalar
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.stages import bc as bc_stage
from rest_jax.training import checkpoints, digests, lora, optimizers, trainer
from rest_jax.training import step as step_lib
from tests.models import tiny
from tests.training import step_test, toy

MESH = mesh_lib.MeshConfig()
TOKENS = toy.make_tokens()
LORA = lora.LoraConfig(
  rank=2, alpha=6.0, matrices=('query', 'decoder/layers_0/mlp/wo')
)
OPTIMIZER = optimizers.OptimizerConfig(
  learning_rate=1e-2, parameter_scale=False
)
EVERYTHING = lora.LoraConfig(
  rank=3,
  matrices=('query', 'key', 'value', 'out', 'mlp', 'logits_dense'),
)


class Cut(Exception):
  """Stands for a killed process."""


def adapters_of(policy, config, seed=0):
  """Adapters whose B is not 0."""
  adapters = lora.Adapters(policy, config).init(jax.random.key(seed))
  return tiny.lively(adapters, seed, 0.05)


def kernels(params) -> dict[str, Any]:
  """Leaves by path."""
  return cast(Any, traverse_util.flatten_dict(params, sep='/'))


def test_merged_by_hand():
  base = {'wo': {'kernel': jnp.array([[1.0, 2.0], [3.0, 4.0]])}, 'x': 5.0}
  adapters = {
    'wo': {
      'kernel': {
        'lora_a': jnp.array([[1.0], [2.0]]),
        'lora_b': jnp.array([[10.0, 20.0]]),
      }
    }
  }
  merged = lora.LoraConfig(rank=1, alpha=0.5).merge(base, adapters)
  assert merged['wo']['kernel'].tolist() == [[6.0, 12.0], [13.0, 24.0]]
  assert merged['x'] == 5.0


def test_training_starts_at_the_base_bit_for_bit():
  policy = toy.make_policy()
  params = tiny.init(policy)
  training = lora.Training(policy, EVERYTHING, params, MESH)
  merged = training.merged(training.init(0))
  assert digests.digest(merged) == digests.digest(params)


@pytest.mark.parametrize(
  'changes',
  [{}, {'scan_layers': True}, {'mlp_activations': ('relu',)}],
  ids=['layers', 'scanned', 'plain'],
)
def test_merged_equals_adapters_beside_the_matrices(changes):
  policy = policy_lib.Policy(tiny.config(**changes))
  params = tiny.init(policy)
  adapters = adapters_of(policy, EVERYTHING)
  flat = kernels(adapters)
  merged = EVERYTHING.merge(params, adapters)
  batch = tiny.batch(0, [4, 3], [5, 2])

  def beside(call, arguments, keywords, context):
    y = call(*arguments, **keywords)
    path = '/'.join((*context.module.path, 'kernel', 'lora_'))
    if context.method_name != '__call__' or f'{path}a' not in flat:
      return y
    x = arguments[0]
    return y + EVERYTHING.scale * (x @ flat[f'{path}a']) @ flat[f'{path}b']

  expected = tiny.jitted(policy, 'logits')(merged, batch)
  unscanned = policy_lib.Policy(
    tiny.config(**{**changes, 'scan_layers': False})
  )
  with nn.intercept_methods(beside):
    found = jax.jit(unscanned.logits)(params, batch)
  without = tiny.jitted(unscanned, 'logits')(params, batch)
  assert np.abs(found - without).max() > 0.02
  np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


def test_gradients_are_those_of_the_chain_rule():
  policy, batch = toy.make_policy(), step_test.make_batch()
  base, adapters = tiny.init(policy), adapters_of(policy, LORA)
  step = jax.jit(
    step_lib.make_train_step(
      model=policy, loss=bc.BC(), optimizer=optax.sgd(1.0), lora=LORA
    )
  )
  state = step_lib.init_state(adapters, bc.BC(), optax.sgd(1.0), {})
  after, _ = step(state, batch, jnp.float32(1.0), None, None, {'base': base})

  def nll(params):
    weights = batch['decoder_loss_weights']
    return -(policy.log_probs(params, batch) * weights).sum() / weights.sum()

  whole = kernels(jax.jit(jax.grad(nll))(LORA.merge(base, adapters)))
  before, moved = kernels(adapters), kernels(after.params)
  assert before.keys() == moved.keys()
  for path in (name[: -len('/lora_a')] for name in before if name[-1] == 'a'):
    a, b = before[f'{path}/lora_a'], before[f'{path}/lora_b']
    for name, gradient in (
      ('lora_a', LORA.scale * whole[path] @ b.T),
      ('lora_b', LORA.scale * a.T @ whole[path]),
    ):
      found = before[f'{path}/{name}'] - moved[f'{path}/{name}']
      np.testing.assert_allclose(found, gradient, atol=1e-5)


def test_the_optimiser_holds_adapters_alone():
  policy = toy.make_policy()
  adapters = lora.Adapters(policy, LORA)
  state = step_lib.init_state(
    adapters.init(jax.random.key(0)), bc.BC(), OPTIMIZER.direction(), {}
  )
  # 3 attentions have a query 16 x 16, and the decoder's wo is 32 x 16.
  expected = 2 * (3 * (16 + 16) + 32 + 16)
  assert adapters.num_params == expected
  sizes = [leaf.size for leaf in jax.tree.leaves(state.optimizer)]
  # Two moments each; besides there are counts of steps.
  assert sum(size for size in sizes if size > 1) == 2 * expected
  assert policy_lib.num_params(state.params) == expected


def train(folder, *, config=LORA, cut_at=None, **settings):
  policy = toy.make_policy()
  trainer_config = toy.make_config(
    optimizer=OPTIMIZER, lora=config, max_steps=8, **settings
  )

  def evaluate(params, step):
    if step == cut_at:
      raise Cut
    assert jax.tree.structure(params) == jax.tree.structure(tiny.init(policy))
    return {'objective': float(step)}

  return toy.train(folder, trainer_config, policy=policy, evaluate_fn=evaluate)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A training that nothing cuts off, and its folder."""
  folder = tmp_path_factory.mktemp('whole')
  return train(folder), folder


def test_nothing_but_the_adapted_matrices_changes(whole):
  before = kernels(tiny.init(toy.make_policy()))
  after = kernels(whole[0].params)
  changed = {path for path in before if (before[path] != after[path]).any()}
  assert changed == {
    'encoder/layers_0/attention/query/kernel',
    'decoder/layers_0/self_attention/query/kernel',
    'decoder/layers_0/encoder_decoder_attention/query/kernel',
    'decoder/layers_0/mlp/wo/kernel',
  }


def test_checkpoints_hold_adapters_and_the_stage_ends_with_a_policy(whole):
  result, folder = whole
  policy = toy.make_policy()
  params = checkpoints.load_params(folder, 8, tiny.init(policy))
  assert digests.digest(params) == result.summary['params_digest']
  like = lora.Adapters(policy, LORA).init(jax.random.key(0))
  adapters = checkpoints.load_params(folder / trainer.TRAINING, 8, like)
  merged = LORA.merge(tiny.init(policy), adapters)
  np.testing.assert_allclose(
    merged['decoder']['layers_0']['mlp']['wo']['kernel'],
    params['decoder']['layers_0']['mlp']['wo']['kernel'],
    atol=1e-6,
  )
  assert result.summary['trained_params'] == policy_lib.num_params(like)


@pytest.mark.parametrize('cut_at', [4, 8])
def test_an_interrupted_training_ends_with_the_same_arrays(
  whole, tmp_path, cut_at
):
  with pytest.raises(Cut):
    train(tmp_path, cut_at=cut_at)
  assert not (tmp_path / 'checkpoints').exists()
  resumed = train(tmp_path)
  assert digests.digest(resumed.params) == digests.digest(whole[0].params)


def test_a_finished_training_is_merged_once(whole, tmp_path, monkeypatch):
  save = checkpoints.save_params

  def fail(*arguments):
    raise Cut

  with monkeypatch.context() as patched:
    patched.setattr(checkpoints, 'save_params', fail)
    with pytest.raises(Cut):
      train(tmp_path)
  for _ in range(2):  # The second time it is there.
    resumed = train(tmp_path)
    assert digests.digest(resumed.params) == digests.digest(whole[0].params)
  assert checkpoints.save_params is save


def test_a_lagged_policy_is_one_of_adapters():
  policy, loss = toy.make_policy(), toy.EverythingLoss()
  batch = step_test.make_batch(hypotheses=2)
  base = tiny.init(policy)
  adapters = adapters_of(policy, LORA)

  def take(params, config, given):
    state = step_lib.init_state(params, loss, optax.sgd(1.0), {})
    step = step_lib.make_train_step(
      model=policy, loss=loss, optimizer=optax.sgd(1.0), lora=config
    )
    return jax.jit(step)(state, batch, jnp.float32(1.0), None, None, given)

  state, metrics = take(adapters, LORA, {'base': base})
  _, expected = take(LORA.merge(base, adapters), None, {})
  assert metrics['loss'] == pytest.approx(float(expected['loss']), rel=1e-5)
  lagged = state.auxiliary.carried['lagged']
  assert jax.tree.structure(lagged) == jax.tree.structure(adapters)


def test_an_unknown_matrix_is_told_with_those_there_are():
  config = lora.LoraConfig(matrices=('query', 'queries'))
  adapters = lora.Adapters(toy.make_policy(), config)
  with pytest.raises(
    ValueError,
    match=r"got 'queries'. It has: key, logits_dense, out, query, value, wi_0, ",
  ):
    adapters.init(jax.random.key(0))


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: lora.LoraConfig(rank=0), 'rank must be at least 1'),
    (lambda: lora.LoraConfig(alpha=0.0), 'alpha must be positive'),
    (lambda: lora.LoraConfig(matrices=()), 'matrices must name at least one'),
    (lambda: lora.LoraConfig(matrices='query'), 'matrices must be a sequence'),
    (
      lambda: toy.make_config(lora=LORA),
      r'parameter_scale must be False .*/training/lora\.gin',
    ),
    (
      lambda: bc_stage.BCConfig(
        trainer=toy.make_config(lora=LORA, optimizer=OPTIMIZER)
      ),
      'init_dir must name a finished policy',
    ),
    (
      lambda: lora.Adapters(
        cast(Any, scalar.ScalarModel(toy.make_policy().config)), LORA
      ),
      'got it for a ScalarModel',
    ),
  ],
)
def test_what_cannot_be_adapted(make, message):
  with pytest.raises(ValueError, match=message):
    make()
