"""`config.json` of families other than T5, and which tensors they have."""

import copy
import json

import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors

from rest_jax.interop import (
  bart_config,
  gemma_config,
  huggingface,
  huggingface_config,
)
from rest_jax.models import policy as policy_lib
from tests.models import families as tiny_families


@pytest.mark.parametrize(
  'name', [*bart_config.FAMILIES, *gemma_config.FAMILIES]
)
def test_missing_keys_are_those_of_transformers(name):
  sections = {'encoder': {'text_config': {}}, 'decoder': {}}
  if name == 't5gemma':
    sections['encoder'] = {}
  is_gemma = name in ('t5gemma', 't5gemma2')
  config = huggingface_config.network_config(
    {'model_type': name, **(sections if is_gemma else {})}
  )
  if is_gemma:
    assert (config.emb_dim, config.num_decoder_layers) == (2304, 26)
    stack = config.decoder_stack
    assert stack.num_key_value_heads == 4 and stack.head_dim == 256
    every = 2 if name == 't5gemma' else 6
    assert stack.attention.window == (4095, 0)
    has_window = [stack.attention.has_window(i) for i in range(26)]
    assert has_window == [(i + 1) % every != 0 for i in range(26)]
    windows = {'t5gemma': (4096, 4096), 't5gemma2': (2047, 2048)}
    assert config.encoder_stack.attention.window == windows[name]
    thetas = {'t5gemma': 1e4, 't5gemma2': 1e6}
    assert stack.positions.theta == thetas[name]
    assert stack.positions.window_theta == 1e4
    assert config.special_ids.decoder_start == 2
    return
  assert (config.emb_dim, config.num_decoder_layers) == (1024, 12)
  ids = config.special_ids
  expected = {
    'bart': (1, 2, 2),
    'm2m_100': (1, 2, 2),
    'marian': (58100, 0, 58100),
    'mbart': (1, 2, 2),
    'pegasus': (0, 1, 0),
  }
  assert (ids.pad, ids.eos, ids.decoder_start) == expected[name]
  assert config.embeddings.is_scaled == (name == 'm2m_100')
  relu = name == 'm2m_100'
  assert config.mlp_activations == (('relu',) if relu else ('gelu_erf',))


@pytest.mark.parametrize(
  ('name', 'before', 'embedding'),
  # The norms of each family in transformers' code.
  [
    ('bart', False, True),
    ('marian', False, False),
    ('mbart', True, True),
    ('nllb', True, False),
    ('pegasus', True, False),
  ],
)
def test_norms_are_written_as_ctranslate2_reads_them(name, before, embedding):
  described = huggingface_config.describe(tiny_families.config(name))
  assert described['normalize_before'] is before
  assert described['normalize_embedding'] is embedding


@pytest.mark.parametrize(
  ('start', 'expected'), [(2, 'MBart50Tokenizer'), (9, 'MBartTokenizer')]
)
def test_mbart_names_the_tokenizer_of_its_first_input(start, expected):
  described = {**tiny_families.DESCRIBED['mbart'], 'eos_token_id': 2}
  config = huggingface_config.network_config(
    {**described, 'decoder_start_token_id': start}
  )
  found = huggingface_config.describe(config)
  assert found['tokenizer_class'] == expected


def _changed(name, path, value):
  described = copy.deepcopy(tiny_families.DESCRIBED[name])
  *sections, key = path.split('.')
  section = described
  for each in sections:
    section = section[each]
  section[key] = value
  return described


@pytest.mark.parametrize(
  ('name', 'path', 'value'),
  [
    ('bart', 'activation_function', 'mish'),
    ('bart', 'decoder_attention_heads', 3),
    ('bart', 'd_model', 0),
    ('bart', 'dropout', 1.5),
    ('bart', 'scale_embedding', 'yes'),
    ('bart', 'is_encoder_decoder', False),
    ('bart', 'quantization_config', {'bits': 4}),
    ('bart', 'pad_token_id', 'one'),
    ('t5gemma', 'encoder', None),
    ('t5gemma', 'decoder.num_key_value_heads', 3),
    ('t5gemma', 'decoder.rope_scaling', {'rope_type': 'yarn', 'factor': 2}),
    ('t5gemma', 'encoder.layer_types', ['full_attention']),
    ('t5gemma', 'encoder.layer_types', ['chunked_attention'] * 3),
    ('t5gemma', 'decoder.query_pre_attn_scalar', -1),
    ('t5gemma', 'decoder.attn_logit_softcapping', 'fifty'),
    ('t5gemma2', 'encoder.text_config.hidden_activation', 'mish'),
    (
      't5gemma2',
      'decoder.rope_parameters',
      {'full_attention': {'rope_type': 'dynamic', 'factor': 2}},
    ),
  ],
)
def test_values_that_no_part_covers_are_named(name, path, value):
  named = path
  if isinstance(value, dict) and 'rope' in path:
    named = 'rope_type'
  with pytest.raises(ValueError, match=f'{named} of config.json must be'):
    huggingface_config.network_config(_changed(name, path, value))


def test_rotary_positions_as_version_4_wrote_them():
  changed = _changed(
    't5gemma2', 'decoder.rope_scaling', {'rope_type': 'linear', 'factor': 8.0}
  )
  changed['decoder'] |= {'rope_theta': 5e5, 'rope_local_base_freq': 2e4}
  config = huggingface_config.network_config(changed)
  found = config.decoder_stack.positions
  assert (found.theta, found.stretch) == (5e5, 8.0)
  assert (found.window_theta, found.window_stretch) == (2e4, 1.0)
  assert config.encoder_stack.positions.theta == 1e6


def _write(folder, name):
  """A checkpoint of a family."""
  described = tiny_families.DESCRIBED[name]
  policy, params = tiny_families.made(name)
  (folder / 'config.json').write_text(json.dumps(described))
  tensors = huggingface.to_tensors(policy.config, params)
  tensors = {name: np.ascontiguousarray(t) for name, t in tensors.items()}
  safetensors.save_file(tensors, folder / 'model.safetensors')
  return params, tensors


def _read(folder):
  return huggingface.load_policy(folder)


def _same(found, expected):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected
  )


@pytest.mark.parametrize('change', ['copies', 'renamed', 'half', 'base'])
def test_forms_of_one_checkpoint(tmp_path, change):
  expected, tensors = _write(tmp_path, 'bart')
  expected = jax.device_get(expected)
  shared = tensors['model.shared.weight']
  if change == 'copies':
    tensors['model.encoder.embed_tokens.weight'] = shared.copy()
    tensors['lm_head.weight'] = shared.copy()
  elif change == 'renamed':
    del tensors['model.shared.weight']
    tensors['model.decoder.embed_tokens.weight'] = shared
  elif change == 'base':
    # Without the head's prefix, nor a bias, and with what no loader uses.
    del tensors['final_logits_bias']
    tensors = {n.removeprefix('model.'): t for n, t in tensors.items()}
    tensors['encoder.version'] = np.zeros(1, np.float32)
    expected['decoder']['logits_bias'] = np.zeros(tiny_families.VOCAB)
  else:
    tensors = {name: t.astype(np.float16) for name, t in tensors.items()}
    expected = jax.tree.map(
      lambda leaf: leaf.astype(np.float16).astype(np.float32), expected
    )
  safetensors.save_file(tensors, tmp_path / 'model.safetensors')
  config, params = _read(tmp_path)
  assert config == tiny_families.config('bart')
  if change == 'half':
    # Query kernels are rounded before they are scaled.
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-6),
      params,
      expected,
    )
  else:
    _same(params, expected)


def test_embeddings_and_logits_of_their_own(tmp_path):
  _, tensors = _write(tmp_path, 'bart')
  shape = tensors['model.shared.weight'].shape
  own = {
    name: np.full(shape, i + 1, np.float32)
    for i, name in enumerate(
      ('model.encoder.embed_tokens.weight', 'lm_head.weight')
    )
  }
  safetensors.save_file(tensors | own, tmp_path / 'model.safetensors')
  config, params = _read(tmp_path)
  assert not config.embeddings.is_shared and not config.logits_via_embedding
  assert np.all(params['encoder_embedder']['embedding'] == 1)
  assert np.all(params['decoder']['logits_dense']['kernel'] == 2)
  shapes = jax.eval_shape(policy_lib.Policy(config).init, jax.random.key(0))
  assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, shapes)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda t: t.pop('model.shared.weight'), 'must have the embeddings'),
    (lambda t: t.pop('model.decoder.layers.1.fc1.bias'), r'fc1\.bias'),
    (
      lambda t: t.update({'model.extra.weight': np.zeros(2, np.float32)}),
      r'network lacks: model\.extra\.weight',
    ),
    (
      lambda t: t.update(
        {'model.decoder.layers.1.fc1.bias': np.zeros(3, np.float32)}
      ),
      r'must have the shape \(12,\); got \(3,\)',
    ),
  ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, change, message):
  _, tensors = _write(tmp_path, 'bart')
  change(tensors)
  safetensors.save_file(tensors, tmp_path / 'model.safetensors')
  with pytest.raises(ValueError, match=message):
    _read(tmp_path)


def test_a_head_that_is_missing_is_named(tmp_path):
  _write(tmp_path, 'bart')
  path = tmp_path / 'config.json'
  described = json.loads(path.read_text()) | {'tie_word_embeddings': False}
  path.write_text(json.dumps(described))
  with pytest.raises(ValueError, match=r'must have the tensor lm_head\.weight'):
    _read(tmp_path)


def test_changed_sinusoids_are_learned_positions(tmp_path):
  _, tensors = _write(tmp_path, 'pegasus')
  for stack in ('encoder', 'decoder'):
    vectors = np.random.default_rng(0).normal(size=(40, 16))
    tensors[f'model.{stack}.embed_positions.weight'] = np.float32(vectors)
  safetensors.save_file(tensors, tmp_path / 'model.safetensors')
  config, params = _read(tmp_path)
  assert config.positions.kind == 'learned'
  np.testing.assert_array_equal(
    params['decoder']['position_embedder']['embedding'], np.float32(vectors)
  )
