"""Folders of Hugging Face: written, read back, and refused."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from rest_jax.interop import huggingface, safetensors_folder
from rest_jax.models import network, scalar
from rest_jax.models import policy as policy_lib
from tests.models import families, tiny

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
    (
      {
        'tie_word_embeddings': True,
        'model_type': 'mt5',
        'transformers_version': '5.0.0',
      },
      False,
    ),
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
  logits, values = (
    jax.jit(of.module.apply)({'params': own}, sources, inputs)
    for of, own in ((policy_lib.Policy(config), params), (model, read))
  )
  np.testing.assert_allclose(values, logits[..., 7], atol=1e-5)


@functools.cache
def _made(name):
  """Sizes and parameters; made once, since that is slow."""
  config = tiny.config(**_SIZES[name])
  params = policy_lib.Policy(config).init(jax.random.key(0))
  return config, jax.device_get(params)


@pytest.fixture
def folder(tmp_path):
  huggingface.save_policy(tmp_path, *_made('gated'))
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
    ('model_type', 'bert'),
    ('feed_forward_proj', 'gated-tanh'),
    ('layer_norm_epsilon', 0),
    ('dense_act_fn', 'mish'),
    ('is_gated_act', False),
    ('is_encoder_decoder', False),
    ('quantization_config', {'quant_method': 'bitsandbytes'}),
    ('d_model', 0),
    ('num_layers', '2'),
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


@pytest.mark.parametrize('family', ['t5', 'mt5', 'umt5'])
@pytest.mark.parametrize('version', ['4.46.3', '5.23.0', None])
def test_tied_logits_with_a_matrix_of_their_own(
  tmp_path, caplog, family, version
):
  """As the version of transformers computes them that wrote the folder."""
  config, params = _made('umt5' if family == 'umt5' else 'tied')
  huggingface.save_policy(tmp_path, config, params)
  head = np.random.default_rng(0).normal(size=(config.vocab_size, 16))
  _change(
    tmp_path,
    lambda tensors: tensors.update({'lm_head.weight': np.float32(head)}),
  )
  _describe(
    tmp_path,
    model_type=family,
    tie_word_embeddings=True,
    **({'transformers_version': version} if version else {}),
  )
  if version is None:
    with pytest.raises(ValueError, match=r'transformers_version'):
      huggingface.load_policy(tmp_path)
    return
  read_config, read = huggingface.load_policy(tmp_path)
  # Version 4 ignores the matrix, version 5 uses it; only an mT5 of version 5
  # does not divide by sqrt(16).
  assert read_config.logits_via_embedding == version.startswith('4')
  if version.startswith('5'):
    divisor = 1 if family == 'mt5' else 4
    np.testing.assert_array_equal(
      read['decoder']['logits_dense']['kernel'], np.float32(head).T / divisor
    )
  is_usual = version.startswith('5') and family == 'mt5'
  assert ('lm_head.weight' in caplog.text) != is_usual


@pytest.mark.parametrize(
  ('version', 'scaled'), [('4.30.2', True), ('5.23.0', False)]
)
def test_a_tied_mt5_is_scaled_by_version_4_alone(tmp_path, version, scaled):
  huggingface.save_policy(tmp_path, *_made('tied'))
  _describe(tmp_path, model_type='mt5', transformers_version=version)
  read_config, read = huggingface.load_policy(tmp_path)
  assert read_config.logits_via_embedding == scaled
  if not scaled:
    np.testing.assert_array_equal(
      read['decoder']['logits_dense']['kernel'],
      read['token_embedder']['embedding'].T,
    )


def _describe(folder, **changes):
  path = folder / huggingface.CONFIG_FILE
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
  'names',
  [
    ['decoder.embed_tokens.weight'],
    ['encoder.embed_tokens.weight'],
    ['encoder.embed_tokens.weight', 'decoder.embed_tokens.weight'],
  ],
)
def test_embeddings_under_other_names(folder, names):
  _, expected = huggingface.load_policy(folder)

  def rename(tensors):
    shared = tensors.pop('shared.weight')
    tensors.update({name: shared.copy() for name in names})

  _change(folder, rename)
  _, read = huggingface.load_policy(folder)
  jax.tree.map(np.testing.assert_array_equal, read, expected)
  values = huggingface.load_scalar_model(safetensors_folder.Folder(folder), 7)
  np.testing.assert_array_equal(
    values['token_embedder']['embedding'],
    expected['token_embedder']['embedding'],
  )


def test_the_matrix_of_the_logits_is_no_embedding(folder):
  _change(folder, lambda tensors: tensors.pop('shared.weight'))
  with pytest.raises(ValueError, match=r'lm_head\.weight makes logits'):
    huggingface.load_policy(folder)


def test_embeddings_that_differ_are_refused(folder):
  _change(
    folder,
    lambda tensors: tensors.update(
      {'decoder.embed_tokens.weight': tensors['shared.weight'] + 1}
    ),
  )
  with pytest.raises(ValueError, match=r'shared\.weight and decoder.* differ'):
    huggingface.load_policy(folder)


def test_what_no_loader_uses_is_ignored(folder):
  name = (
    'decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight'
  )
  _, expected = huggingface.load_policy(folder)
  unused = np.ones((32, 4), np.float32)
  _change(folder, lambda tensors: tensors.update({name: unused}))
  _, read = huggingface.load_policy(folder)
  jax.tree.map(np.testing.assert_array_equal, read, expected)
  other = name.replace('block.0', 'block.1')
  _change(folder, lambda tensors: tensors.update({other: unused}))
  with pytest.raises(ValueError, match=other):
    huggingface.load_policy(folder)


@pytest.mark.parametrize('prefix', ['module.', 'transformer.'])
def test_names_of_a_wrapper_are_explained(folder, prefix):
  def wrap(tensors):
    for name in list(tensors):
      tensors[prefix + name] = tensors.pop(name)

  _change(folder, wrap)
  with pytest.raises(ValueError, match=f"begin with '{prefix}'"):
    huggingface.load_policy(folder)


def test_an_encoder_alone_is_named(folder):
  def cut(tensors):
    for name in list(tensors):
      if name.startswith(('decoder', 'lm_head')):
        del tensors[name]

  _change(folder, cut)
  with pytest.raises(ValueError, match='encoder alone'):
    huggingface.load_policy(folder)


def test_quantised_weights_are_named(folder):
  name = 'encoder.block.0.layer.0.SelfAttention.q.weight'
  _change(
    folder,
    lambda tensors: tensors.update({name: tensors[name].astype(np.int8)}),
  )
  with pytest.raises(ValueError, match=f'{name} .* got I8'):
    huggingface.load_policy(folder)


@pytest.mark.parametrize(
  ('file', 'name', 'value', 'read'),
  [
    ('config.json', 'pad_token_id', 2, ('pad', 2)),
    ('config.json', 'eos_token_id', [2, 3], ('eos', 2)),
    ('config.json', 'decoder_start_token_id', 2, ('decoder_start', 2)),
    # It has the last word.
    ('generation_config.json', 'eos_token_id', 2, ('eos', 2)),
    ('generation_config.json', 'forced_bos_token_id', 5, ('forced_first', 5)),
    ('generation_config.json', 'pad_token_id', None, ('pad', 0)),
  ],
)
def test_special_ids_are_those_of_the_folder(folder, file, name, value, read):
  path = folder / file
  described = json.loads(path.read_text()) | {name: value}
  (folder / 'generation_config.json').unlink()
  path.write_text(json.dumps(described))
  ids = huggingface.check_policy(folder).special_ids
  field, expected = read
  assert getattr(ids, field) == expected


@pytest.mark.parametrize('value', ['1', -1, 1.0])
def test_a_special_id_that_is_none_is_named(folder, value):
  _describe(folder, eos_token_id=value)
  (folder / 'generation_config.json').unlink()
  with pytest.raises(ValueError, match=r'eos_token_id of config\.json must be'):
    huggingface.load_policy(folder)


def test_a_scalar_model_pads_as_t5(folder):
  (folder / 'generation_config.json').unlink()
  _describe(folder, pad_token_id=1, eos_token_id=2)
  with pytest.raises(ValueError, match=r'pad of .* must be 0, as in T5'):
    huggingface.check_scalar_model(safetensors_folder.Folder(folder), 7)


def test_special_ids_that_are_left_out_are_t5s(folder):
  path = folder / huggingface.CONFIG_FILE
  described = json.loads(path.read_text())
  del described['pad_token_id']
  path.write_text(json.dumps(described | {'eos_token_id': [1]}))
  huggingface.load_policy(folder)


# What is no parameter of the text network, or has another name for the same.
_NOT_WRITTEN = (
  'model.encoder.vision_tower.',
  'model.encoder.multi_modal_projector.',
)
_RENAMED = {'decoder.embed_tokens.weight': 'shared.weight'}


@pytest.mark.parametrize('family', families.GOLDEN)
def test_families_go_out_as_they_came(shared_dir, tmp_path, family):
  """All tensors bit for bit under their names, and the same network."""
  source = shared_dir / 'golden' / 'families' / family
  config, params = huggingface.load_policy(source)
  huggingface.save_policy(tmp_path, config, params)
  before, after = (
    safetensors.load_file(folder / huggingface.WEIGHTS_FILE)
    for folder in (source, tmp_path)
  )
  before = {
    _RENAMED.get(name, name): tensor
    for name, tensor in before.items()
    if not name.startswith(_NOT_WRITTEN)
  }
  if family == 'pegasus':
    # Computed, and equal to what is computed here.
    for stack in ('encoder', 'decoder'):
      del before[f'model.{stack}.embed_positions.weight']
  assert sorted(after) == sorted(before)
  # Of a token beyond the vocabulary.
  before.pop('model.encoder.embed_tokens.eoi_embedding', None)
  for name, tensor in before.items():
    np.testing.assert_array_equal(after[name], tensor, err_msg=name)
  read_config, read = huggingface.load_policy(tmp_path)
  assert read_config == config
  jax.tree.map(np.testing.assert_array_equal, read, params)
  described, written = (
    json.loads((folder / 'config.json').read_text())
    for folder in (source, tmp_path)
  )
  if family != 'mt5':  # Written as the T5 that it is.
    assert written['architectures'] == described['architectures']


@pytest.mark.parametrize('family', families.GOLDEN)
def test_transformers_reads_an_export_of_each_family(
  shared_dir, tmp_path, family
):
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  source = shared_dir / 'golden' / 'families' / family
  huggingface.save_policy(tmp_path, *huggingface.load_policy(source))
  theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
  with np.load(source / 'io.npz') as arrays:
    given = {
      name: torch.tensor(arrays[name], dtype=torch.long)
      for name in ('input_ids', 'attention_mask', 'decoder_input_ids')
    }
    with torch.no_grad():
      logits = theirs(**given).logits.numpy()
    np.testing.assert_allclose(logits, arrays['logits'], atol=1e-4)


def test_an_umt5_with_logits_of_its_own(tmp_path):
  config = tiny.config(relative_bias_per_layer=True)
  params = policy_lib.Policy(config).init(jax.random.key(0))
  huggingface.save_policy(tmp_path / 'own', config, params)
  read_config, read = huggingface.load_policy(tmp_path / 'own')
  assert read_config == config
  jax.tree.map(np.testing.assert_array_equal, read, params)
  described = json.loads((tmp_path / 'own/config.json').read_text())
  assert described['tie_word_embeddings'] is False
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
