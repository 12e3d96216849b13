"""A run whose text is in several language pairs, from gin files to exports."""

import json
import pathlib
import re
import types
from typing import Any

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from rest_jax import experiment_run as run_lib
from rest_jax.cli import checks, modes
from rest_jax.data import sample_store, vocabularies
from rest_jax.interop import huggingface_config, tokenizer_files
from rest_jax.models import policy as policy_lib
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import answers, export, imported
from rest_jax.stages import folder as folder_lib
from tests import smoke
from tests.data import tokenizer_folders

_DOCUMENT = pathlib.Path(__file__).parents[1] / 'docs' / 'own_data.md'
_CODES = {'de': 'deu_Latn', 'en': 'eng_Latn'}
_TEXTS = {
  'de': [f'ein Satz mit der Zahl {n}' for n in range(12)],
  'en': [f'one sentence with number {n}' for n in range(12)],
}
_SIZES = {
  'd_model': 8,
  'encoder_layers': 1,
  'decoder_layers': 1,
  'encoder_attention_heads': 2,
  'decoder_attention_heads': 2,
  'encoder_ffn_dim': 8,
  'decoder_ffn_dim': 8,
  'max_position_embeddings': 128,
  'dropout': 0.0,
}
_CHEAP = (
  'Task.ratings=None',
  'Task.judge=None',
  'NUM_GROW_STEPS=1',
  'NUM_SAMPLES_PER_SOURCE=2',
  'DecodeConfig.row_shares=()',
  'DecodeConfig.compact_shares=()',
  'DecodeConfig.cache_stages=(64,)',
  'DecodeConfig.queue_sources=None',
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Text files, and an untrained NLLB as a finished BC."""
  folder = tmp_path_factory.mktemp('pairs')
  for language, lines in _TEXTS.items():
    (folder / f'train.{language}').write_text('\n'.join(lines))
  rows = ['source\tfrom\treference\tto']
  for source, target in (('de', 'en'), ('en', 'de')):
    for texts in zip(_TEXTS[source][:4], _TEXTS[target], strict=False):
      rows.append(
        '\t'.join((texts[0], _CODES[source], texts[1], _CODES[target]))
      )
  for split in ('validation', 'test'):
    (folder / f'{split}.tsv').write_text('\n'.join(rows))
  text = _DOCUMENT.read_text('utf-8')
  [example] = re.findall(r'```gin\n(DATA = .*?)```', text, re.DOTALL)
  (folder / 'pairs.gin').write_text(example)
  given = tokenizer_folders.nllb(
    folder / 'given',
    [text for lines in _TEXTS.values() for text in lines] * 9,
    extra_special_tokens=list(_CODES.values()),
  )
  size = vocabularies.Vocabulary(given).size
  described = json.loads((given / 'config.json').read_text())
  config = huggingface_config.network_config(
    {**described, **_SIZES, 'vocab_size': size}
  )
  imported.write(
    folder / 'policy',
    config,
    policy_lib.Policy(config).init(jax.random.key(0)),
    vocabulary=given,
    origin='a test',
  )
  return folder


def _settings(folder, *overrides):
  return smoke.settings(
    *_CHEAP,
    f'DATA={folder}',
    f'BC_DIR={folder / "policy"}',
    *overrides,
    gin_files=(
      'gin_configs/rewards/chrf.gin',
      str(folder / 'policy' / imported.POLICY_GIN),
      str(folder / 'pairs.gin'),
    ),
  )


@pytest.fixture(scope='module')
def run(folder):
  """Data, a Grow and the evaluation of BC."""
  made = run_lib.Run(_settings(folder), folder / 'run')
  for stage in ('data', 'grow_1', 'evaluate_bc_validation'):
    made.make(stage)
  return made


def test_samples_begin_with_the_target_of_their_source(run):
  vocabulary = run.data.vocabulary
  pairs = run.data.pairs('train')
  store = sample_store.SampleStore.open(run.folder('grow_1'))
  ids = [
    vocabulary.language_ids[codes.target]
    for codes in pairs.languages_of(store.source_id)
  ]
  assert len(set(ids)) == 2
  assert [tokens[0] for tokens in store.tokens] == ids


def test_the_evaluation_measures_each_pair(run):
  manifest = folder_lib.read_manifest(run.folder('evaluate_bc_validation'))
  measured = manifest['measured']
  of_pairs = measured['languages']
  assert list(of_pairs) == ['deu_Latn-eng_Latn', 'eng_Latn-deu_Latn']
  assert [each['sources'] for each in of_pairs.values()] == [4, 4]
  mean = np.mean([each['reward'] for each in of_pairs.values()])
  assert mean == pytest.approx(measured['reward']['mean'])


def test_parquet_files_name_the_languages(run, tmp_path):
  export.run(
    grow_directory=run.folder('grow_1'),
    reward_name=run.experiment.reward.name,
    data=run.data,
    directory=tmp_path / 'out',
  )
  [path] = (tmp_path / 'out').glob('*.parquet')
  table = pq.read_table(path).to_pydict()
  by_language = dict(
    zip(table['source'], table['source_language'], strict=True)
  )
  assert by_language[_TEXTS['de'][0]] == 'deu_Latn'
  assert by_language[_TEXTS['en'][0]] == 'eng_Latn'


def test_an_exported_tokeniser_has_no_language_by_default(run, tmp_path):
  vocabulary = run.data.vocabulary
  assert vocabulary.languages == vocabularies.OF_EACH_PAIR
  tokenizer_files.write(
    tmp_path, vocabulary.path, vocabulary.size, vocabulary.languages
  )
  settings = json.loads((tmp_path / 'tokenizer_config.json').read_text())
  assert not {'src_lang', 'tgt_lang'} & set(settings)
  generation = json.loads((tmp_path / 'generation_config.json').read_text())
  assert 'forced_bos_token_id' not in generation


def test_answers_are_in_the_language_of_the_flag(run):
  asked = []

  def sample_all(params, tokens, ids, **kwargs):
    asked.append(tokens)
    return sampler_lib.SampleBlock(
      source_ids=ids,
      tokens=[[np.array([9])]],
      log_probs=np.zeros((1, 1), np.float32),
      finished=np.ones((1, 1), bool),
    )

  config = types.SimpleNamespace(
    num_samples_per_source=1, source_length_buckets=(32,), max_target_length=32
  )
  sampler: Any = types.SimpleNamespace(config=config, sample_all=sample_all)
  answerer = answers.Answerer(
    sampler,
    {},
    run.data.vocabulary,
    None,
    seed=0,
    languages=modes.languages_of(run, ['eng_Latn', 'deu_Latn']),
  )
  answerer.answer(['one'])
  ids = run.data.vocabulary.language_ids
  assert asked[0][0][0] == ids['eng_Latn']
  assert asked[0].first_tokens.tolist() == [ids['deu_Latn']]
  with pytest.raises(ValueError, match='--languages must name'):
    modes.languages_of(run, None)


def test_a_guard_cannot_tell_languages_that_are_on_both_sides(folder):
  with pytest.raises(ValueError, match="guard 'language' of reward 'guarded'"):
    _settings(
      folder,
      'Experiment.reward=@Guarded()',
      'Guarded.reward=@Chrf()',
      'Guarded.guards=(@Language(),)',
      'Guarded.floor=-1.0',
    )


@pytest.mark.parametrize(
  ('override', 'message'),
  [
    (
      "en_de/ParallelText.languages=('eng_Latn', 'de')",
      "the train split .* target_language must be one of .* got 'de'",
    ),
    (
      'en_de/ParallelText.languages=None',
      'train must name the languages of all of its text',
    ),
    ("SOURCE_LANGUAGE='deu_Latn'", 'must be None where the pairs of text name'),
    ('Experiment.reward=@Likelihood()', "'likelihood' reads text by the token"),
  ],
)
def test_a_dry_run_refuses(folder, tmp_path, override, message):
  with pytest.raises(ValueError, match=message):
    checks.check(run_lib.Run(_settings(folder, override), tmp_path))
