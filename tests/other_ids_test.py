"""Runs of networks whose special ids are not those of T5."""

import json

from absl import flags
from absl.testing import flagsaver
import jax
import numpy as np
import pytest

from rest_jax import experiment_run as run_lib
from rest_jax.cli import convert
from rest_jax.data import sample_store, vocabularies
from rest_jax.interop import huggingface, huggingface_config
from rest_jax.models import policy as policy_lib
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import imported, policies
from tests import smoke
from tests.data import tokenizer_folders

_SIZES = {
  'd_model': 16,
  'encoder_layers': 1,
  'decoder_layers': 1,
  'encoder_attention_heads': 2,
  'decoder_attention_heads': 2,
  'encoder_ffn_dim': 16,
  'decoder_ffn_dim': 16,
  'max_position_embeddings': 128,
  'dropout': 0.0,
}
_LISTED = {'extra_special_tokens': ['deu_Latn', 'eng_Latn']}
_LANGUAGES = {
  'marian': (),
  'nllb': ("SOURCE_LANGUAGE='deu_Latn'", "TARGET_LANGUAGE='eng_Latn'"),
}
_CHEAP = (
  'Task.ratings=None',
  # All of them have the best chrF: no threshold lies between them.
  'ImproveConfig.include_references=False',
  'ImproveConfig.include_unfinished=True',
  # One loop to compile in place of a dozen.
  'DecodeConfig.row_shares=()',
  'DecodeConfig.cache_stages=(64,)',
  'DecodeConfig.queue_sources=None',
)


# Ids of other families than NLLB are in sampling/families_test.
@pytest.fixture(
  scope='module',
  params=[pytest.param('marian', marks=pytest.mark.full), 'nllb'],
)
def run(request, tmp_path_factory):
  """BC from an imported policy, Grow and Improve; and its vocabulary."""
  folder = tmp_path_factory.mktemp(request.param)
  pairs = list(smoke.settings().task.train.read())
  texts = [pair.source for pair in pairs] + [pair.reference for pair in pairs]
  given = tokenizer_folders.FAMILIES[request.param](
    folder / 'given', texts, **(_LISTED if request.param == 'nllb' else {})
  )
  size = vocabularies.Vocabulary(given).size
  described = json.loads((given / 'config.json').read_text())
  config = huggingface_config.network_config(
    {**described, **_SIZES, 'vocab_size': size + 2}
  )
  params = policy_lib.Policy(config).init(jax.random.key(0))
  imported.write(
    folder / 'policy', config, params, vocabulary=given, origin='a test'
  )
  settings = smoke.settings(
    *_LANGUAGES[request.param],
    *_CHEAP,
    gin_files=(
      'gin_configs/rewards/chrf.gin',
      str(folder / 'policy' / imported.POLICY_GIN),
    ),
  )
  made = run_lib.Run(settings, folder / 'run')
  for stage in ('data', 'bc', 'grow_1', 'improve_1_1'):
    made.make(stage)
  return made


def test_rows_have_the_special_ids_of_the_vocabulary(run):
  vocabulary = run.data.vocabulary
  special = run.context.policy.config.special_ids
  assert special == vocabulary.special_ids != vocabularies.Encoder.special_ids
  pairs = run.data.pairs('train')
  for number in range(5):
    source, reference = pairs.source_text(number), pairs.reference_text(number)
    [ids] = vocabulary.source.encode_batch([source])
    assert pairs.source_tokens[number].tolist() == [
      *vocabulary.source.before,
      *ids,
      special.eos,
    ]
    row = pairs.reference_tokens[number]
    assert row[-1] == special.eos
    assert special.pad not in row
    if special.forced_first is not None:
      assert row[0] == special.forced_first
    assert vocabulary.decode(row) == vocabulary.decode(
      vocabulary.encode(reference)
    )


def test_samples_end_and_begin_as_references_do(run):
  special = run.context.policy.config.special_ids
  store = sample_store.SampleStore.open(run.folder('grow_1'), verify='full')
  for row, finished in zip(store.tokens, store.finished, strict=True):
    assert special.pad not in row
    assert (row[-1] == special.eos) == finished
    if special.forced_first is not None:
      assert row[0] == special.forced_first
  assert np.isfinite(store.log_prob).all()


def test_improve_trains_on_them(run):
  manifest = folder_lib.read_manifest(run.folder('improve_1_1'))
  assert manifest['training']['steps'] > 0
  assert np.isfinite(manifest['training']['best_objective'])
  assert manifest['vocabulary']['digest'] == run.data.vocabulary.digest


def test_an_export_has_the_ids_and_languages_of_the_run(run, tmp_path):
  if not flags.FLAGS.is_parsed():
    flags.FLAGS(['rest_jax'])
  step, out = run.folder('improve_1_1'), tmp_path / 'out'
  values = {'from': str(step), 'to': str(out), 'format': 'huggingface'}
  with flagsaver.flagsaver(**values):
    assert convert.main(['rest_jax'], []) == 0
  policy = run.context.policy
  config, params = huggingface.load_policy(out)
  assert config == policy.config
  trained = policies.load(step, policy, run.context.mesh)
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(trained), params)
  assert vocabularies.Vocabulary(out).digest == run.data.vocabulary.digest
  generation = json.loads((out / 'generation_config.json').read_text())
  special = policy.config.special_ids
  assert generation['decoder_start_token_id'] == special.decoder_start
  assert generation.get('forced_bos_token_id') == special.forced_first
  settings = json.loads((out / 'tokenizer_config.json').read_text())
  languages = run.data.vocabulary.languages
  assert settings.get('src_lang') == languages.source
  assert settings.get('tgt_lang') == languages.target


def test_only_marian_keeps_the_embedding_of_pad(run):
  policy = run.context.policy
  first, last = (
    policies.load(folder, policy, run.context.mesh)['token_embedder'][
      'embedding'
    ]
    for folder in (run.experiment.bc.init_dir, run.folder('improve_1_1'))
  )
  changed = np.any(np.asarray(first) != np.asarray(last), axis=1)
  is_marian = policy.config.norm.placement == 'post'
  assert changed[policy.config.special_ids.pad] != is_marian
  assert changed.sum() > 10
