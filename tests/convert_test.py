"""Policies of other libraries: into a run, and out of one."""

import json
import pathlib

from absl import flags
from absl.testing import flagsaver
import jax
import numpy as np
import pytest

from rest_jax import convert
from rest_jax import run as run_lib
from rest_jax.interop import huggingface, t5x_checkpoints, tokenizer_files
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh
from rest_jax.stages import bc as bc_stage
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
  params = tiny.lively(
    policy_lib.Policy(config).init(jax.random.key(0)), scale=0.02
  )
  return config, jax.device_get(params)


@pytest.fixture(scope='module')
def hugging_face(model, tmp_path_factory):
  folder = tmp_path_factory.mktemp('hugging_face')
  huggingface.save_policy(folder, *model)
  return folder


@pytest.fixture(scope='module')
def stage(hugging_face):
  folder = hugging_face.parent / 'imported'
  assert _convert(hugging_face, folder) == 0
  return folder


def test_there_and_back_through_all_forms(model, stage, tmp_path):
  """Hugging Face -> stage -> T5X -> stage -> Hugging Face, bit for bit."""
  config, params = model
  assert imported.network_of(stage) == config
  _same(
    policies.load(stage, policy_lib.Policy(config), mesh.MeshConfig()), params
  )
  assert _convert(stage, tmp_path / 't5x', format='t5x', step=12) == 0
  assert t5x_checkpoints.find(tmp_path / 't5x').name == 'checkpoint_12'
  sizes = [str(stage / imported.NETWORK_GIN)]
  assert _convert(tmp_path / 't5x', tmp_path / 'again', network=sizes) == 0
  assert policies.digest(tmp_path / 'again') == policies.digest(stage)
  assert (
    _convert(tmp_path / 'again', tmp_path / 'hf', format='huggingface') == 0
  )
  read_config, read = huggingface.load_policy(tmp_path / 'hf')
  assert read_config == config
  _same(read, params)


@pytest.mark.parametrize('name', ['untied', 'tied'])
def test_what_t5x_wrote_becomes_a_policy(shared_dir, tmp_path, name):
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
  assert _convert(source, tmp_path / 'bc', network=[str(gin)]) == 0
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
  run.prepare()
  run.improve(1, 1, run.grow(1, run.bc()), run.bc())
  run.evaluate()
  return run


def test_a_run_starts_from_an_imported_policy(run, stage):
  settings = folder_lib.read_manifest(run.grow_directory(1))['settings']
  assert policies.digest(stage) in json.dumps(settings)
  assert not (run.model_dir / 'bc').exists()
  results = json.loads((run.model_dir / 'results.json').read_text())
  assert {entry['improve'] for entry in results['variants']} == {0, 1}


def test_a_policy_of_the_run_goes_out_with_its_results(run, tmp_path):
  step = run.improve_directory(1, 1)
  assert _convert(step, tmp_path / 'hf', format='huggingface') == 0
  config, params = huggingface.load_policy(tmp_path / 'hf')
  assert config == run.policy.config
  _same(policies.load(step, run.policy, mesh.MeshConfig()), params)
  vocabulary = run.model_dir / 'data' / 'vocab.model'
  exported = tmp_path / 'hf' / tokenizer_files.VOCABULARY_FILE
  assert exported.read_bytes() == vocabulary.read_bytes()
  card = (tmp_path / 'hf/README.md').read_text(encoding='utf-8')
  assert 'after Grow step 1, Improve step 1 (`bc`)' in card
  results = json.loads((run.model_dir / 'results.json').read_text())
  for entry in results['variants']:
    assert f'{entry["reward"]["mean"]:.2f} ±' in card


def test_a_vocabulary_is_named_or_left_out(run, stage, tmp_path, capsys):
  vocabulary = str(run.model_dir / 'data' / 'vocab.model')
  for name, given, is_written in (
    ('none', {}, False),
    ('named', {'vocabulary': vocabulary}, True),
  ):
    folder = tmp_path / name
    assert _convert(stage, folder, format='huggingface', **given) == 0
    assert (folder / tokenizer_files.TOKENIZER_FILE).exists() == is_written
    said = 'no tokenizer is written' in capsys.readouterr().err
    assert said != is_written
  step = run.improve_directory(1, 1)
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

  def train(*_, params, **__):
    seen['params'] = params
    raise _Stop

  monkeypatch.setattr(trainer, 'train', train)
  settings = _settings(stage, *[f'BC_INIT_DIR={stage}'] * given)
  with pytest.raises(_Stop):
    bc_stage.run(
      settings.bc,
      policy=run.policy,
      data=run.data,
      mesh_config=settings.mesh,
      directory=tmp_path / 'bc',
      seed=3,
    )
  recorded = json.loads((tmp_path / 'bc/settings.json').read_text())
  assert 'init_dir' not in recorded['bc']
  if given:
    _same(seen['params'], model[1])
    assert recorded['init'] == policies.digest(stage)
  else:
    _same(seen['params'], run.policy.init(jax.random.key(3)))
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
  model, hugging_face, tmp_path, capsys
):
  t5x = t5x_checkpoints.save_policy(tmp_path / 't5x', model[1])
  network = {'is': 'NetworkConfig', 'vocab_size': 8}
  conditioned = {'loss': {'is': 'RewardConditionedBC'}}
  for source, values, message in (
    (tmp_path, {}, 'none is there'),
    (t5x, {}, '--network=gin_configs/models/'),
    (
      t5x,
      {'network': ['gin_configs/models/mt5_small.gin']},
      'vocab_size must be 400',
    ),
    (hugging_face, {'network': ['x.gin']}, 'are for T5X checkpoints'),
    (_manifest(tmp_path / 'data', {}), {}, 'names no network'),
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


def test_the_network_file_builds_the_same_network(model, stage):
  text = pathlib.Path(stage / imported.NETWORK_GIN).read_text(encoding='utf-8')
  assert 'Provides NETWORK' in text
  assert _settings(stage).network == model[0]
