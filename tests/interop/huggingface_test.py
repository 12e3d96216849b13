"""Folders of Hugging Face: written, read back, and refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from rest_jax.interop import huggingface, safetensors_folder
from rest_jax.models import network, scalar
from rest_jax.models import policy as policy_lib
from tests.models import tiny

_SIZES = {
  'gated': {},
  'tied': {'logits_via_embedding': True, 'mlp_activations': ('relu',)},
  # Heads that are wider together than the network, more layers above.
  'wide': {'num_heads': 3, 'head_dim': 8, 'num_decoder_layers': 3},
  'umt5': {'relative_bias_per_layer': True, 'logits_via_embedding': True},
}


@pytest.fixture(params=_SIZES)
def model(request):
  config = tiny.config(**_SIZES[request.param])
  return config, tiny.lively(policy_lib.Policy(config).init(jax.random.key(0)))


def test_reads_what_it_wrote(model, tmp_path):
  config, params = model
  huggingface.save_policy(tmp_path, config, params)
  read_config, read = huggingface.load_policy(tmp_path)
  assert read_config == config
  jax.tree.map(np.testing.assert_array_equal, read, jax.device_get(params))


def test_gives_transformers_the_same_logits(model, tmp_path):
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  config, params = model
  huggingface.save_policy(tmp_path, config, params)
  theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
  random = np.random.default_rng(0)
  sources = random.integers(3, config.vocab_size, (4, 9)).astype(np.int32)
  sources[1, 5:] = 0
  targets = random.integers(3, config.vocab_size, (4, 7)).astype(np.int32)
  inputs = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
  with torch.no_grad():
    expected = theirs.eval()(
      input_ids=torch.tensor(sources, dtype=torch.long),
      attention_mask=torch.tensor(sources > 0).long(),
      decoder_input_ids=torch.tensor(inputs, dtype=torch.long),
    ).logits.numpy()
  ours = policy_lib.Policy(config).logits(
    params,
    {
      'encoder_input_tokens': sources,
      'decoder_input_tokens': inputs,
      'decoder_target_tokens': targets,
    },
  )
  np.testing.assert_allclose(ours, expected, atol=1e-4)


@pytest.mark.parametrize('shard', ['10GB', '20KB'])
@pytest.mark.parametrize('tied', [False, True])
@pytest.mark.parametrize('kind', ['T5', 'MT5', 'UMT5'])
def test_reads_what_transformers_wrote(tmp_path, kind, tied, shard):
  """A random model of transformers: equal logits, in one file or in shards."""
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  if kind == 'UMT5' and not tied:
    pytest.skip('transformers 5 has no umT5 with logits of its own')
  torch.manual_seed(0)
  theirs = getattr(transformers, f'{kind}ForConditionalGeneration')(
    getattr(transformers, f'{kind}Config')(
      vocab_size=40,
      d_model=16,
      d_kv=6,
      d_ff=24,
      num_layers=2,
      num_decoder_layers=3,
      num_heads=2,
      tie_word_embeddings=tied,
    )
  ).eval()
  if not tied:
    # Version 5 ties them all the same.
    theirs.lm_head.weight = torch.nn.Parameter(torch.randn(40, 16))
  theirs.save_pretrained(tmp_path, max_shard_size=shard)
  is_sharded = (tmp_path / safetensors_folder.INDEX_FILE).exists()
  assert is_sharded == (shard == '20KB')
  config, params = huggingface.load_policy(tmp_path)
  sources, inputs = _tokens()
  with torch.no_grad():
    expected = theirs(
      input_ids=torch.tensor(sources, dtype=torch.long),
      attention_mask=torch.tensor(sources > 0).long(),
      decoder_input_ids=torch.tensor(inputs, dtype=torch.long),
    ).logits.numpy()
  ours = policy_lib.Policy(config).module.apply(
    {'params': params}, jnp.asarray(sources), jnp.asarray(inputs)
  )
  assert np.ptp(expected) > 1
  np.testing.assert_allclose(ours, expected, atol=1e-4)
  # And one column of them as the head of a scalar model.
  values = scalar.ScalarModel(config).module.apply(
    {
      'params': huggingface.load_scalar_model(
        safetensors_folder.Folder(tmp_path), 7
      )
    },
    jnp.asarray(sources),
    jnp.asarray(inputs),
  )
  np.testing.assert_allclose(values, expected[..., 7], atol=1e-4)


def _tokens():
  random = np.random.default_rng(0)
  sources = random.integers(3, 40, (4, 9)).astype(np.int32)
  sources[1, 5:] = 0
  inputs = random.integers(3, 40, (4, 7)).astype(np.int32)
  inputs[:, 0] = 0
  return sources, inputs


@pytest.mark.parametrize(
  ('change', 'missing'),
  [
    ({'tie_word_embeddings': False}, True),
    # As version 5 of transformers writes a model without a head of its own.
    ({'tie_word_embeddings': True, 'scale_decoder_outputs': False}, False),
    ({'tie_word_embeddings': True, 'model_type': 'mt5'}, False),
  ],
)
def test_logits_without_a_kernel_of_their_own(folder, change, missing):
  path = folder / huggingface.CONFIG_FILE
  path.write_text(json.dumps(json.loads(path.read_text()) | change))
  own, _ = huggingface.load_policy(folder)
  assert not own.logits_via_embedding
  _change(folder, lambda tensors: tensors.pop('lm_head.weight'))
  if missing:
    with pytest.raises(ValueError, match=r'lm_head\.weight'):
      huggingface.load_policy(folder)
    return
  config, params = huggingface.load_policy(folder)
  assert not config.logits_via_embedding
  np.testing.assert_array_equal(
    params['decoder']['logits_dense']['kernel'],
    params['token_embedder']['embedding'].T,
  )


@pytest.mark.parametrize('name', _SIZES)
def test_a_scalar_model_is_one_column_of_the_logits(name, tmp_path):
  config = tiny.config(**_SIZES[name])
  params = tiny.lively(policy_lib.Policy(config).init(jax.random.key(0)))
  huggingface.save_policy(tmp_path, config, params)
  folder = safetensors_folder.Folder(tmp_path)
  assert huggingface.check_scalar_model(folder, 7) == config
  read = huggingface.load_scalar_model(folder, 7)
  model = scalar.ScalarModel(config)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  assert jax.tree.map(np.shape, read) == jax.tree.map(np.shape, shapes)
  random = np.random.default_rng(0)
  sources, inputs = jnp.asarray(
    random.integers(3, config.vocab_size, (2, 4, 6)), jnp.int32
  )
  logits = policy_lib.Policy(config).module.apply(
    {'params': params}, sources, inputs
  )
  values = model.module.apply({'params': read}, sources, inputs)
  np.testing.assert_allclose(values, logits[..., 7], atol=1e-5)


@pytest.fixture
def folder(tmp_path):
  config = tiny.config()
  params = policy_lib.Policy(config).init(jax.random.key(0))
  huggingface.save_policy(tmp_path, config, params)
  return tmp_path


def _change(folder, change):
  path = folder / huggingface.WEIGHTS_FILE
  tensors = safetensors.load_file(path)
  change(tensors)
  safetensors.save_file(tensors, path)


def test_a_missing_tensor_is_named(folder):
  name = 'decoder.block.0.layer.1.EncDecAttention.k.weight'
  _change(folder, lambda tensors: tensors.pop(name))
  with pytest.raises(ValueError, match=name):
    huggingface.load_policy(folder)


def test_a_tensor_of_another_shape_is_named(folder):
  name = 'encoder.block.0.layer.1.DenseReluDense.wo.weight'
  _change(
    folder, lambda tensors: tensors.update({name: tensors[name].T.copy()})
  )
  with pytest.raises(ValueError, match=name):
    huggingface.load_policy(folder)


def test_a_tensor_too_many_is_named(folder):
  extra = np.zeros(3, np.float32)
  _change(folder, lambda tensors: tensors.update({'adapter.weight': extra}))
  with pytest.raises(ValueError, match=r'adapter\.weight'):
    huggingface.load_policy(folder)


def test_pickles_are_not_read(folder):
  (folder / huggingface.WEIGHTS_FILE).rename(folder / 'pytorch_model.bin')
  with pytest.raises(FileNotFoundError, match=r'no model\.safetensors'):
    huggingface.load_policy(folder)


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('model_type', 'bart'),
    ('feed_forward_proj', 'gated-tanh'),
    ('layer_norm_epsilon', 1e-5),
    ('decoder_start_token_id', 2),
  ],
)
def test_other_architectures_are_refused(folder, name, value):
  path = folder / huggingface.CONFIG_FILE
  described = json.loads(path.read_text())
  path.write_text(json.dumps(described | {name: value}))
  with pytest.raises(ValueError, match=name):
    huggingface.load_policy(folder)


def test_blocks_that_they_lack_are_refused(tmp_path):
  config = network.NetworkConfig(vocab_size=8, mlp_activations=('gelu', 'gelu'))
  with pytest.raises(ValueError, match='mlp_activations'):
    huggingface.save_policy(tmp_path, config, {})


def test_umt5_has_a_bias_in_every_layer(tmp_path):
  config = tiny.config(relative_bias_per_layer=True, logits_via_embedding=True)
  params = tiny.lively(policy_lib.Policy(config).init(jax.random.key(0)))
  huggingface.save_policy(tmp_path, config, params)
  read_config, read = huggingface.load_policy(tmp_path)
  assert read_config == config
  for stack in ('encoder', 'decoder'):
    assert 'relpos_bias' not in read[stack]
    biases = [
      read[stack][f'layers_{i}']['relpos_bias']['rel_embedding']
      for i in range(2)
    ]
    assert biases[0].shape == (config.num_heads, 32)
    assert not np.array_equal(*biases)
  described = json.loads((tmp_path / huggingface.CONFIG_FILE).read_text())
  assert described['model_type'] == 'umt5'


def test_an_umt5_with_logits_of_its_own(tmp_path):
  config = tiny.config(relative_bias_per_layer=True)
  params = policy_lib.Policy(config).init(jax.random.key(0))
  with pytest.raises(ValueError, match='logits_via_embedding must be True'):
    huggingface.save_policy(tmp_path, config, params)
  # It is read as Google published it, and not where the folder contradicts it.
  tied = tiny.config(relative_bias_per_layer=True, logits_via_embedding=True)
  huggingface.save_policy(
    tmp_path, tied, policy_lib.Policy(tied).init(jax.random.key(0))
  )
  kernel = np.ones((tied.vocab_size, tied.emb_dim), np.float32)
  _change(tmp_path, lambda tensors: tensors.update({'lm_head.weight': kernel}))
  with pytest.raises(ValueError, match=r'tie_word_embeddings .* must be false'):
    huggingface.load_policy(tmp_path)
  path = tmp_path / huggingface.CONFIG_FILE
  described = json.loads(path.read_text()) | {'tie_word_embeddings': False}
  path.write_text(json.dumps(described))
  read_config, read = huggingface.load_policy(tmp_path)
  assert read_config == config
  np.testing.assert_array_equal(
    read['decoder']['logits_dense']['kernel'], kernel.T
  )
