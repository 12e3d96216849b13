"""MetricX: the numbers of the authors' model, and what is refused."""

import gzip
import json
import shutil

import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors

from rest_jax.data import vocabularies
from rest_jax.interop import huggingface
from rest_jax.models import network
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.rewards import base, metricx
from tests.models import tiny

FORMS = {
  '23_qe': (23, False),
  '23_ref': (23, True),
  '24_qe': (24, False),
  '24_ref': (24, True),
}


@pytest.fixture(scope='module')
def golden(shared_dir, tmp_path_factory):
  """The folder of the tiny model, as Hugging Face would have it."""
  given = shared_dir / 'golden/metricx_tiny'
  folder = tmp_path_factory.mktemp('metricx')
  for name in ('config.json', 'spiece.model', 'texts.json', 'expected.npz'):
    shutil.copy(given / name, folder / name)
  with gzip.open(given / 'model.safetensors.gz') as packed:
    (folder / 'model.safetensors').write_bytes(packed.read())
  return folder


def load(folder, **settings):
  config = metricx.MetricX(
    directory=str(folder),
    **{'length_buckets': (16, 48, 96), 'tokens_per_call': 200, **settings},
    **({} if 'max_input_length' in settings else {'max_input_length': 96}),
  )
  return metricx.MetricXReward(config, mesh_lib.MeshConfig())


def test_golden_scores_of_token_ids(golden):
  expected = np.load(golden / 'expected.npz')
  lengths = expected['attention_mask'].sum(axis=1)
  rows = [
    row[:length]
    for row, length in zip(expected['input_ids'], lengths, strict=True)
  ]
  scores = load(golden).scores(rows)
  np.testing.assert_allclose(scores, expected['predictions'], atol=1e-4)
  # The clamp was used at both ends.
  assert {0.0, 25.0} <= set(expected['predictions'].tolist())


@pytest.mark.parametrize('form', FORMS)
def test_golden_scores_of_texts(golden, form):
  texts = json.loads((golden / 'texts.json').read_text())
  version, with_reference = FORMS[form]
  reward = load(golden, version=version, with_reference=with_reference)
  sides = texts['source'], texts['hypothesis'], texts['reference']
  tokens, cut = reward.encode(reward.inputs(*sides))
  assert [row.tolist() for row in tokens] == texts['input_ids'][form]
  assert cut == sum(len(row) == 95 for row in tokens) > 0
  rewards = reward.score(*sides)
  # Lower is better there, higher here.
  expected = -np.asarray(texts['predictions'][form])
  np.testing.assert_allclose(rewards, expected, atol=1e-4)
  assert rewards.dtype == np.float32


def test_bfloat16_is_near(golden):
  texts = json.loads((golden / 'texts.json').read_text())
  rewards = load(golden, dtype='bfloat16').score(
    texts['source'], texts['hypothesis']
  )
  expected = -np.asarray(texts['predictions']['24_qe'])
  difference = np.abs(rewards - expected)
  assert 0 < difference.max() < 0.5


def test_a_model_that_is_to_be_split_over_one_chip_is_refused(
  golden, monkeypatch
):
  one = mesh_lib.MeshConfig().build(jax.devices()[:1])
  monkeypatch.setattr(mesh_lib.MeshConfig, 'build_local', lambda self: one)
  config = metricx.MetricX(directory=str(golden))
  with pytest.raises(ValueError, match=r'model = 4 cannot split metricx'):
    metricx.MetricXReward(config, mesh_lib.MeshConfig(model=4))


def test_shapes_and_repeats_do_not_matter(golden):
  random = np.random.default_rng(0)
  words = ['Hund', 'dog', 'ein', 'the', 'xyz', ',']
  sources, hypotheses = (
    [' '.join(random.choice(words, random.integers(0, 9))) for _ in range(40)]
    for _ in range(2)
  )
  many, statistics = load(golden).measured_score(sources * 2, hypotheses * 2)
  assert statistics.hypotheses == 80
  distinct = len(set(zip(sources, hypotheses, strict=True)))
  assert statistics.distinct == distinct
  assert statistics.truncated == {'inputs': (0, distinct)}
  wide = load(golden, length_buckets=(96,), tokens_per_call=96)
  alone = [
    wide.score([source], [hypothesis])[0]
    for source, hypothesis in zip(sources[:5], hypotheses[:5], strict=True)
  ]
  np.testing.assert_array_equal(many[:40], many[40:])
  np.testing.assert_allclose(many[:5], alone, atol=1e-4)


def test_truncated_text_is_counted_and_not_read(golden):
  reward = load(golden, max_input_length=16)
  rewards, statistics = reward.measured_score(
    ['ein sehr langer Satz'] * 2, ['one', 'another']
  )
  assert statistics.truncated == {'inputs': (2, 2)}
  assert rewards[0] == rewards[1]


def test_a_reference_must_be_given(golden):
  reward = load(golden, with_reference=True)
  assert reward.needs_references
  with pytest.raises(ValueError, match="'metricx' compares with references"):
    reward.score(['a'], ['b'])
  assert not load(golden).needs_references


def test_an_empty_list_is_scored(golden):
  rewards, statistics = load(golden).measured_score([], [])
  assert rewards.shape == (0,) and statistics is None


def test_check_describes_the_model(golden):
  config = metricx.MetricX(directory=str(golden), version=23)
  assert config.check() == (f'MetricX-23 of {golden}, reference-free, float32')
  assert isinstance(config, base.RewardConfig)


def test_the_digest_depends_on_weights_and_settings(golden, tmp_path):
  first = load(golden).digest
  copy = tmp_path / 'copy'
  shutil.copytree(golden, copy)
  assert load(copy).digest == first
  assert load(copy, version=23).digest != first
  tensors = safetensors.load_file(copy / 'model.safetensors')
  tensors['shared.weight'][5, 0] += 1
  safetensors.save_file(tensors, copy / 'model.safetensors')
  assert load(copy).digest != first


# What follows needs no golden numbers: a random network with all pieces.
@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """A folder of ours, its policy and parameters."""
  folder = tmp_path_factory.mktemp('made')
  config = network.NetworkConfig(
    vocab_size=metricx.SCORE_PIECE + 1,
    emb_dim=4,
    num_heads=1,
    head_dim=4,
    mlp_dim=4,
    num_encoder_layers=1,
    num_decoder_layers=1,
  )
  params = tiny.init(policy_lib.Policy(config))
  huggingface.save_policy(folder, config, params)
  return folder, config, params


@pytest.fixture
def folder(made, tmp_path):
  copy = tmp_path / 'folder'
  shutil.copytree(made[0], copy)
  return copy


def check(folder):
  metricx.MetricX(directory=str(folder)).check()


def change(folder, edit):
  path = folder / 'model.safetensors'
  tensors = safetensors.load_file(path)
  edit(tensors)
  safetensors.save_file(tensors, path)


def test_a_missing_tensor_is_named(folder):
  change(folder, lambda tensors: tensors.pop('lm_head.weight'))
  with pytest.raises(ValueError, match=r'lm_head\.weight'):
    check(folder)


@pytest.mark.parametrize(
  'name',
  ['lm_head.weight', 'decoder.block.0.layer.1.EncDecAttention.o.weight'],
)
def test_a_wrong_shape_is_named(folder, name):
  change(
    folder, lambda tensors: tensors.update({name: np.ones((3, 4), np.float32)})
  )
  with pytest.raises(ValueError, match=rf'{name} .*got \(3, 4\)'):
    check(folder)


def test_a_pickle_alone_is_named(folder):
  (folder / 'model.safetensors').rename(folder / 'pytorch_model.bin')
  with pytest.raises(FileNotFoundError, match=r'It has pytorch_model\.bin'):
    check(folder)


def test_a_missing_vocabulary_is_named(folder):
  with pytest.raises(FileNotFoundError, match=r'spiece\.model'):
    check(folder)


def _vocabulary(path, *texts):
  config = vocabularies.VocabularyConfig(size=16, num_threads=1)
  vocabularies.train(config, texts, path)
  return str(path)


def test_the_vocabulary_may_lie_elsewhere(folder, tmp_path):
  texts = ('one sentence', 'and another')
  given = _vocabulary(tmp_path / 'mt5.model', *texts)
  config = metricx.MetricX(directory=str(folder), vocabulary_file=given)
  assert config.check().startswith('MetricX-24')
  # One beside the weights is theirs.
  _vocabulary(folder / 'spiece.model', *texts)
  config.check()
  _vocabulary(folder / 'spiece.model', 'ein Satz', 'noch einer')
  with pytest.raises(ValueError, match=r'mt5\.model is another vocabulary'):
    config.check()


def test_a_vocabulary_without_the_piece_is_refused(folder):
  change(
    folder,
    lambda tensors: tensors.update(
      {
        name: tensors[name][:100]
        for name in ('shared.weight', 'lm_head.weight')
      }
    ),
  )
  path = folder / 'config.json'
  described = json.loads(path.read_text())
  path.write_text(json.dumps(described | {'vocab_size': 100}))
  with pytest.raises(ValueError, match=f'more than {metricx.SCORE_PIECE}'):
    check(folder)


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'version': 25}, 'version must be 23 or 24'),
    ({'dtype': 'float16'}, 'dtype must be'),
    ({'length_buckets': (8, 8)}, 'length_buckets must be rising'),
    ({'length_buckets': (8,), 'max_input_length': 10}, 'EOS is dropped'),
    ({'tokens_per_call': 0}, 'tokens_per_call must be at least 1'),
  ],
)
def test_settings_are_checked(settings, message):
  with pytest.raises(ValueError, match=message):
    metricx.MetricX(directory='x', **settings)
