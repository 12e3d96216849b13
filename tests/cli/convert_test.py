"""Policies of other libraries: into a run, and out of one."""

import dataclasses
import json
import pathlib
import random
import shutil
import sys

from absl import flags
from absl.testing import flagsaver
import jax
import numpy as np
import pytest

from rest_jax import experiment_run as run_lib
from rest_jax.cli import convert, dry_run
from rest_jax.data import vocabularies
from rest_jax.interop import (
  hub,
  huggingface,
  t5x_checkpoints,
  tokenizer_files,
)
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import imported, policies
from rest_jax.training import trainer
from tests import smoke
from tests.models import tiny


def _convert(source, target, **values) -> int:
  if not flags.FLAGS.is_parsed():
    flags.FLAGS(['rest_jax'])
  values = {'from': str(source), 'to': str(target), **values}
  with flagsaver.flagsaver(**values):
    return convert.main(['rest_jax'], [])


def _same(a, b):
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), b)


@pytest.fixture(scope='module')
def model():
  config = tiny.config(vocab_size=400, num_heads=3, num_decoder_layers=3)
  params = tiny.lively(tiny.init(policy_lib.Policy(config)), scale=0.02)
  return config, jax.device_get(params)


def _train(path, size) -> pathlib.Path:
  """A vocabulary of its own for each size."""
  draw = random.Random(size)
  letters = 'abcdefghijklmnop'
  texts = [
    ' '.join(''.join(draw.choices(letters, k=4)) for _ in range(8))
    for _ in range(200)
  ]
  config = vocabularies.VocabularyConfig(size=size, num_threads=1)
  vocabularies.train(config, texts, path)
  return path


@pytest.fixture(scope='module')
def vocabulary(tmp_path_factory):
  """That of the text of the runs here, 400 pieces."""
  folder = tmp_path_factory.mktemp('vocabulary')
  run_lib.Run(smoke.settings(), folder).make('data')
  return (folder / 'data/vocab.model').rename(folder / 'spiece.model')


@pytest.fixture(scope='module')
def hugging_face(model, vocabulary, tmp_path_factory):
  folder = tmp_path_factory.mktemp('hugging_face')
  huggingface.save_policy(folder, *model)
  shutil.copy(vocabulary, folder)
  return folder


@pytest.fixture(scope='module')
def stage(hugging_face):
  folder = hugging_face.parent / 'imported'
  assert _convert(hugging_face, folder) == 0
  return folder


def test_there_and_back_through_all_forms(model, stage, vocabulary, tmp_path):
  """Hugging Face -> stage -> T5X -> stage -> Hugging Face, bit for bit."""
  config, params = model
  assert imported.network_of(stage) == config
  _same(
    policies.load(stage, policy_lib.Policy(config), mesh.MeshConfig()), params
  )
  assert _convert(stage, tmp_path / 't5x', format='t5x', step=12) == 0
  assert t5x_checkpoints.find(tmp_path / 't5x').name == 'checkpoint_12'
  sizes = [str(stage / imported.NETWORK_GIN)]
  given = {'network': sizes, 'vocabulary': str(vocabulary)}
  assert _convert(tmp_path / 't5x', tmp_path / 'again', **given) == 0
  assert policies.digest(tmp_path / 'again') == policies.digest(stage)
  assert (
    _convert(tmp_path / 'again', tmp_path / 'hf', format='huggingface') == 0
  )
  read_config, read = huggingface.load_policy(tmp_path / 'hf')
  assert read_config == config
  _same(read, params)


@pytest.mark.parametrize('name', ['untied', 'tied'])
def test_what_t5x_wrote_becomes_a_policy(shared_dir, tmp_path, name):
  vocabulary = _train(tmp_path / 'spiece.model', 40)
  golden = shared_dir / 'golden' / 't5x_tiny'
  sizes = json.loads((golden / 'config.json').read_text())
  gin = tmp_path / 'sizes.gin'
  kept = {k: v for k, v in sizes.items() if k.endswith(('_dim', 's', 'size'))}
  gin.write_text(
    'NETWORK = @NetworkConfig()\n'
    f'NetworkConfig.logits_via_embedding = {name == "tied"}\n'
    + ''.join(f'NetworkConfig.{k} = {v!r}\n' for k, v in kept.items())
  )
  source = golden / f'{name}_checkpoint'
  given = {'network': [str(gin)], 'vocabulary': str(vocabulary)}
  assert _convert(source, tmp_path / 'bc', **given) == 0
  policy = policy_lib.Policy(imported.network_of(tmp_path / 'bc'))
  params = policies.load(tmp_path / 'bc', policy, mesh.MeshConfig())
  with np.load(golden / f'{name}.npz') as arrays:
    batch = {
      key.removeprefix('batch/'): value
      for key, value in arrays.items()
      if key.startswith('batch/')
    }
    np.testing.assert_allclose(
      policy.logits(params, batch), arrays['logits'], atol=1e-5
    )


def _settings(stage, *overrides):
  return smoke.settings(
    'Task.ratings=None',
    'NUM_GROW_STEPS=1',
    'NUM_IMPROVE_STEPS=1',
    # All of them have the best chrF: no threshold lies between them.
    'ImproveConfig.include_references=False',
    "EvaluateConfig.splits=('validation',)",
    # One loop to compile in place of a dozen.
    'DecodeConfig.row_shares=()',
    'DecodeConfig.cache_stages=(64,)',
    'DecodeConfig.queue_sources=None',
    f'VocabularyConfig.model_file={stage}/vocab.model',
    *overrides,
    gin_files=(
      'gin_configs/rewards/chrf.gin',
      str(stage / imported.NETWORK_GIN),
    ),
  )


@pytest.fixture(scope='module')
def run(stage, tmp_path_factory):
  """ReST from an imported policy, up to its evaluation."""
  settings = _settings(stage, f'BC_DIR={stage}')
  run = run_lib.Run(settings, tmp_path_factory.mktemp('run'))
  run.make('data')
  for stage in ('bc', 'grow_1', 'improve_1_1'):
    run.make(stage)
  with smoke.without_pictures():
    run.evaluate()
  return run


def test_a_run_starts_from_an_imported_policy(run, stage):
  settings = folder_lib.read_manifest(run.folder('grow_1'))['settings']
  assert policies.digest(stage) in json.dumps(settings)
  assert not (run.model_dir / 'bc').exists()
  results = json.loads((run.model_dir / 'results.json').read_text())
  assert {entry['improve'] for entry in results['variants']} == {0, 1}


def test_a_policy_of_the_run_goes_out_with_its_results(run, tmp_path):
  step = run.folder('improve_1_1')
  assert _convert(step, tmp_path / 'hf', format='huggingface') == 0
  config, params = huggingface.load_policy(tmp_path / 'hf')
  assert config == run.context.policy.config
  _same(policies.load(step, run.context.policy, mesh.MeshConfig()), params)
  vocabulary = run.model_dir / 'data' / 'vocab.model'
  exported = tmp_path / 'hf' / tokenizer_files.VOCABULARY_FILE
  assert exported.read_bytes() == vocabulary.read_bytes()
  card = (tmp_path / 'hf/README.md').read_text(encoding='utf-8')
  assert 'after Grow step 1, Improve step 1 (`bc`)' in card
  results = json.loads((run.model_dir / 'results.json').read_text())
  for entry in results['variants']:
    assert f'{entry["reward"]["mean"]:.2f} ±' in card


def test_a_vocabulary_is_named_or_left_out(
  run, stage, vocabulary, tmp_path, capsys
):
  for name, given, is_written in (
    ('own', {}, True),
    ('none', {'vocabulary': ''}, False),
    ('named', {'vocabulary': str(vocabulary)}, True),
  ):
    folder = tmp_path / name
    assert _convert(stage, folder, format='huggingface', **given) == 0
    assert (folder / tokenizer_files.TOKENIZER_FILE).exists() == is_written
    said = 'no tokenizer is written' in capsys.readouterr().err
    assert said != is_written
  step = run.folder('improve_1_1')
  assert (
    _convert(step, tmp_path / 'off', format='huggingface', vocabulary='') == 0
  )
  assert not (tmp_path / 'off' / tokenizer_files.TOKENIZER_FILE).exists()


def test_a_card_without_results_says_so(stage, tmp_path):
  assert _convert(stage, tmp_path / 'hf', format='huggingface') == 0
  card = (tmp_path / 'hf/README.md').read_text(encoding='utf-8')
  assert 'Not measured.' in card
  assert 'vocabulary 400.' in card


class _Stop(Exception):
  pass


@pytest.mark.parametrize('given', [True, False])
def test_bc_starts_from_what_it_is_given(
  run, stage, model, tmp_path, monkeypatch, given
):
  seen = {}

  def train(_, learner, **__):
    seen['params'] = learner.params
    raise _Stop

  monkeypatch.setattr(trainer, 'train', train)
  settings = _settings(stage, *[f'BC_INIT_DIR={stage}'] * given)
  with pytest.raises(_Stop):
    run.make(
      dataclasses.replace(
        run.stage('bc'),
        config=settings.bc,
        folder=tmp_path / 'bc',
        is_given=False,
        seed=3,
      )
    )
  recorded = json.loads((tmp_path / 'bc/settings.json').read_text())
  assert 'init_dir' not in recorded['bc']
  if given:
    _same(seen['params'], model[1])
    assert recorded['init'] == policies.digest(stage)
  else:
    _same(seen['params'], run.context.policy.init(jax.random.key(3)))
    assert 'init' not in recorded


def test_converting_again_changes_nothing_and_another_policy_is_refused(
  model, stage, hugging_face, tmp_path, capsys
):
  before = (stage / folder_lib.MANIFEST).read_bytes()
  assert _convert(hugging_face, stage) == 0
  assert (stage / folder_lib.MANIFEST).read_bytes() == before
  config, params = model
  huggingface.save_policy(
    tmp_path / 'other', config, jax.tree.map(lambda x: x + 1, params)
  )
  shutil.copy(hugging_face / 'spiece.model', tmp_path / 'other')
  assert _convert(tmp_path / 'other', stage) == 1
  assert 'other settings' in capsys.readouterr().err
  assert (stage / folder_lib.MANIFEST).read_bytes() == before


def test_a_conversion_that_was_cut_off_is_finished(
  model, hugging_face, tmp_path
):
  assert _convert(hugging_face, tmp_path / 'bc') == 0
  manifest = tmp_path / 'bc' / folder_lib.MANIFEST
  settings = json.loads(manifest.read_text())['settings']
  manifest.rename(tmp_path / 'manifest.json')
  (tmp_path / 'bc/settings.json').write_text(json.dumps(settings))
  assert _convert(hugging_face, tmp_path / 'bc') == 0
  policy = policy_lib.Policy(model[0])
  _same(policies.load(tmp_path / 'bc', policy, mesh.MeshConfig()), model[1])


def _manifest(folder, settings):
  folder.mkdir()
  (folder / folder_lib.MANIFEST).write_text(json.dumps({'settings': settings}))
  return folder


def test_what_cannot_be_converted_is_refused(
  model, hugging_face, vocabulary, tmp_path, capsys
):
  named = {'vocabulary': str(vocabulary)}
  t5x = t5x_checkpoints.save_policy(tmp_path / 't5x', model[1])
  network = {'is': 'NetworkConfig', 'vocab_size': 8}
  conditioned = {'loss': {'is': 'RewardConditionedBC'}}
  for source, values, message in (
    (tmp_path, {}, 'none is there'),
    (t5x, {}, '--vocabulary=/path/to/spiece.model'),
    (t5x, named, '--network=gin_configs/models/'),
    (
      t5x,
      {**named, 'network': ['gin_configs/models/mt5_small.gin']},
      'vocab_size must be 400',
    ),
    (hugging_face, {'network': ['x.gin']}, 'are for T5X checkpoints'),
    (_manifest(tmp_path / 'data', {}), {}, 'its manifest has no network'),
    (
      _manifest(
        tmp_path / 'conditioned', {'network': network, 'improve': conditioned}
      ),
      {},
      'RewardConditionedBC',
    ),
  ):
    assert _convert(source, tmp_path / 'out', **values) == 1
    assert message in capsys.readouterr().err
  assert not (tmp_path / 'out').exists()
  assert _convert(hugging_face, t5x.parent, format='t5x') == 1
  assert 'checkpoint_0 exists' in capsys.readouterr().err


def test_another_vocabulary_is_refused_before_anything_is_made(stage, tmp_path):
  other = _train(tmp_path / 'other.model', 40)
  for name in ('BC_DIR', 'BC_INIT_DIR'):
    for given in (f'"{other}"', 'None'):
      settings = _settings(
        stage, f'{name}={stage}', f'VocabularyConfig.model_file={given}'
      )
      run = run_lib.Run(settings, tmp_path / 'run')
      message = rf'{name} = .*vocab\.model .*, and this run has .*model_file='
      with pytest.raises(ValueError, match=message):
        dry_run.describe(run, 'rest')
      with pytest.raises(ValueError, match=message):
        run.make('data')
      assert not (tmp_path / 'run').exists()


def test_another_vocabulary_is_refused_where_data_are_prepared(stage, tmp_path):
  other = _train(tmp_path / 'other.model', 40)
  override = f'VocabularyConfig.model_file={other}'
  run_lib.Run(_settings(stage, override), tmp_path / 'run').make('data')
  settings = _settings(stage, override, f'BC_INIT_DIR={stage}')
  run = run_lib.Run(settings, tmp_path / 'run')
  with pytest.raises(ValueError, match='BC_INIT_DIR'):
    run.make('bc')
  assert not (tmp_path / 'run/bc').exists()
  # As another run that uses these data.
  directory = tmp_path / 'run/data'
  for given, name in (
    (stage / 'vocab.model', 'DATA_DIR'),
    ('None', 'BC_DIR'),
  ):
    settings = _settings(
      stage,
      f'BC_DIR={stage}',
      f'DATA_DIR={directory}',
      f'VocabularyConfig.model_file={given}',
    )
    run = run_lib.Run(settings, tmp_path / 'next')
    with pytest.raises(ValueError, match=f'{name} = .*, and this run has'):
      dry_run.describe(run, 'rest')


def test_an_import_without_a_record_is_to_be_made_again(
  stage, hugging_face, tmp_path
):
  old = tmp_path / 'old'
  shutil.copytree(stage, old)
  manifest = json.loads((old / folder_lib.MANIFEST).read_text())
  for part in (
    manifest,
    manifest['settings'],
  ):
    del part['vocabulary']
  del manifest['seal']
  (old / folder_lib.MANIFEST).write_text(json.dumps(manifest))
  run = run_lib.Run(_settings(stage, f'BC_DIR={old}'), tmp_path / 'run')
  with pytest.raises(ValueError, match=r'Import it again: .* --replace'):
    dry_run.describe(run, 'rest')
  assert _convert(hugging_face, old, replace=True) == 0
  assert 'bc ' in dry_run.describe(run, 'rest')


def test_the_vocabulary_of_a_folder(model, vocabulary, tmp_path, capsys):
  source, target = tmp_path / 'hf', tmp_path / 'bc'
  huggingface.save_policy(source, *model)
  (source / 'tokenizer.json').write_text('{}')
  assert _convert(source, target) == 1
  said = capsys.readouterr().err
  assert 'cannot be read' in said and 'tokenizer.json' in said
  assert '--vocabulary=/path/to/spiece.model' in said
  given = {'vocabulary': str(vocabulary)}
  assert _convert(source, target, **given) == 0
  assert (target / 'vocab.model').read_bytes() == vocabulary.read_bytes()
  _train(source / 'spiece.model', 40)
  assert _convert(source, tmp_path / 'other', **given) == 1
  assert 'must be the vocabulary of the policy' in capsys.readouterr().err
  # That of a stage may not be another one either.
  given = {'vocabulary': str(source / 'spiece.model')}
  for form in ('huggingface', 'rest_jax'):
    assert _convert(target, tmp_path / 'out', format=form, **given) == 1
    assert 'that it was made with' not in capsys.readouterr().out
  assert not (tmp_path / 'other').exists() and not (tmp_path / 'out').exists()


@pytest.mark.parametrize('kind', ['too large', 'pointer', 'folder'])
def test_vocabularies_that_cannot_be_used(model, tmp_path, capsys, kind):
  source, path = tmp_path / 'hf', tmp_path / 'hf/spiece.model'
  huggingface.save_policy(source, *model)
  if kind == 'too large':
    _train(path, 440)
  elif kind == 'pointer':
    path.write_text('version https://git-lfs.github.com/spec/v1\n')
  else:
    path.mkdir()
  assert _convert(source, tmp_path / 'bc') == 1
  expected = {
    'too large': 'at most the 400 pieces',
    'pointer': 'git lfs pull',
    'folder': 'it holds nothing',
  }
  assert expected[kind] in capsys.readouterr().err
  assert not (tmp_path / 'bc').exists()


def test_special_ids_of_another_vocabulary_are_refused(
  hugging_face, tmp_path, capsys
):
  folder = shutil.copytree(hugging_face, tmp_path / 'other')
  for name in ('config.json', 'generation_config.json'):
    described = json.loads((folder / name).read_text())
    described |= {'pad_token_id': 1, 'eos_token_id': 2}
    (folder / name).write_text(json.dumps(described))
  assert _convert(folder, tmp_path / 'bc') == 1
  # The id that is left for UNK by these is no piece's of its vocabulary.
  assert 'unk of the vocabulary must be 0' in capsys.readouterr().err
  assert not (tmp_path / 'bc').exists()


def test_a_model_of_the_hub_is_imported_with_a_command_to_use_it(
  hugging_face, tmp_path, capsys, monkeypatch
):
  monkeypatch.setattr(hub, 'fetch', {'google/some-t5': hugging_face}.get)
  assert _convert('google/some-t5', tmp_path / 'bc') == 0
  output = capsys.readouterr().out
  assert f'--gin_file={tmp_path}/bc/policy.gin' in output
  assert f'--gin.BC_DIR={tmp_path}/bc' in output
  assert 'LANGUAGE' not in output


def test_folders_that_hold_no_checkpoint(
  hugging_face, tmp_path, capsys, monkeypatch
):
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  cache = tmp_path / 'models--google--t5'
  (cache / 'snapshots/abc').mkdir(parents=True)
  (cache / 'snapshots/abc/config.json').write_text('{}')
  for source, message in (
    ('google/flan-t5-small', 'hf download google/flan-t5-small'),
    (tmp_path / 'none', 'There is no such folder'),
    (hugging_face / 'model.safetensors', f'name its folder, {hugging_face}'),
    (cache, 'a folder of'),
  ):
    assert _convert(source, tmp_path / 'bc') == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize('cause', ['tokenizer', 'results', 'disk'])
def test_an_export_that_fails_leaves_nothing(
  stage, tmp_path, capsys, monkeypatch, cause
):
  given = {}
  if cause == 'results':
    given['results'] = str(tmp_path / 'no_results.json')
  else:
    module, name = {
      'tokenizer': (tokenizer_files, 'check'),
      'disk': (tokenizer_files, 'write'),
    }[cause]

    def fail(*_):
      raise ValueError('as planned')

    monkeypatch.setattr(module, name, fail)
  folder = tmp_path / 'out'
  assert _convert(stage, folder, format='huggingface', **given) == 1
  assert 'error: ' in capsys.readouterr().err
  assert list(tmp_path.iterdir()) == []


def test_an_export_replaces_another_only_if_asked(stage, tmp_path, capsys):
  given = {'format': 'huggingface'}
  assert _convert(stage, tmp_path / 'out', **given) == 0
  assert _convert(stage, tmp_path / 'out', vocabulary='', **given) == 1
  assert 'a new or an empty folder' in capsys.readouterr().err
  assert (
    _convert(stage, tmp_path / 'out', vocabulary='', replace=True, **given) == 0
  )
  # The tokenizer of the earlier one is gone as well.
  names = {path.name for path in (tmp_path / 'out').iterdir()}
  weights = {'config.json', 'generation_config.json', 'model.safetensors'}
  assert names == {*weights, 'README.md'}
  assert [path.name for path in tmp_path.iterdir()] == ['out']
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'mine/letter.txt').write_text('kept')
  assert _convert(stage, tmp_path / 'mine', replace=True, **given) == 1
  assert (tmp_path / 'mine/letter.txt').read_text() == 'kept'


def test_the_network_file_builds_the_same_network(model, stage):
  text = pathlib.Path(stage / imported.NETWORK_GIN).read_text(encoding='utf-8')
  assert 'Provides NETWORK' in text
  assert _settings(stage).network == model[0]
