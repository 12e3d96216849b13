"""The temperature of equal entropy, and the controls of a run."""

import dataclasses

import jax
import numpy as np
import pytest

from rest_jax import experiment_run as run_lib
from rest_jax.cli import dry_run
from rest_jax.data import ragged, sources
from rest_jax.evaluation import results as results_lib
from rest_jax.report import index_page
from rest_jax.stages import equal_entropy, evaluation, policies
from rest_jax.stages import folder as folder_lib
from rest_jax.training import loader, teacher_forcing
from tests import smoke
from tests.models import tiny
from tests.report import page_reader


@pytest.mark.parametrize(
  ('entropy', 'temperature'),
  [(0.5, 0.5), (0.75, 0.6), (1.0, 0.7), (0.1, 0.5), (2.0, 1.0)],
)
def test_interpolation(entropy, temperature):
  measured = {1.0: 1.6, 0.5: 0.5, 0.7: 1.0}
  found = equal_entropy.interpolate(measured, entropy)
  assert found == pytest.approx(temperature)


def test_noise_does_not_make_it_fall():
  measured = {0.2: 0.1, 0.4: 0.5, 0.6: 0.45, 0.8: 0.9}
  # 0.45 at 0.6 counts as 0.5.
  assert equal_entropy.interpolate(measured, 0.7) == pytest.approx(0.7)


@pytest.mark.parametrize('top_k', [None, 3])
def test_entropies_are_those_of_the_logits(run, top_k):
  params = policies.load(
    run.folder('bc'), run.context.policy, run.experiment.mesh
  )
  pairs = run.data.pairs('validation')
  targets = ragged.Ragged.from_lists([[5, 9, 1], [7, 1]])
  decode = dataclasses.replace(
    run.experiment.evaluate.decode, temperature=0.5, top_k=top_k
  )
  rows = np.arange(2)
  found = teacher_forcing.Rows(
    sources=(pairs.source_tokens, rows),
    targets=(targets, rows),
    mesh_config=run.experiment.mesh,
  ).entropies(run.context.policy, params, decode)
  batch = loader.decoder_batch(
    pairs.source_tokens.pad(rows, 48), targets.pad(rows, 48)
  )
  logits = tiny.jitted(run.context.policy, 'logits')(params, batch)
  logits = np.asarray(logits, np.float64) / 0.5
  if top_k is not None:
    logits = np.sort(logits, -1)[..., -top_k:]
  log_q = np.asarray(jax.nn.log_softmax(logits))
  entropies = -(np.exp(log_q) * log_q).sum(-1)
  expected = [entropies[0, :3].sum(), entropies[1, :2].sum()]
  np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_bc_has_its_own_entropy_at_its_own_temperature(run, tmp_path):
  stage = equal_entropy.EqualEntropy(
    decode=run.experiment.evaluate.decode,
    policy=run.stage('bc'),
    bc=run.stage('bc'),
    data=run.stage('data'),
    max_sources=20,
    seed=3,
    folder=tmp_path / 'equal_entropy',
  )
  found = folder_lib.read_manifest(run.make(stage))
  assert stage.temperature() == pytest.approx(0.8)
  entropies = [point['entropy'] for point in found['entropies']]
  assert entropies == sorted(entropies) and entropies[0] < 0.5 * entropies[-1]


@pytest.fixture(scope='module')
def controlled(run, tmp_path_factory):
  """The smoke run with its controls."""
  copy = smoke.copied(run, tmp_path_factory.mktemp('controls'))
  settings = smoke.settings('CONTROLS=True')
  found = run_lib.Run(settings, copy.model_dir)
  with smoke.without_pictures():
    found.evaluate()
  return found


def test_controls_are_planned_and_can_be_left_out(run, tmp_path):
  asked = run_lib.Run(smoke.settings('CONTROLS=True'), tmp_path)
  assert [step.policy_name for step in asked.controls()] == [
    'bc_trained_on',
    'bc_equal_entropy',
  ]
  without = run_lib.Run(run.experiment, tmp_path).policies()
  assert [p.name for p in asked.policies()] == [p.name for p in without]
  assert asked.reported() == asked.policies()  # None is finished.
  plan = dry_run.describe(asked, 'rest')
  assert f'to do     bc trained on: {asked.variant_dir}/bc_trained_on' in plan
  assert f'to do     equal entropy: {asked.variant_dir}/equal_entropy' in plan
  assert run.controls() == []
  assert 'equal entropy' not in dry_run.describe(run, 'rest')


def test_more_training_is_as_long_as_all_improve_steps(controlled):
  manifest = folder_lib.read_manifest(controlled.variant_dir / 'bc_trained_on')
  steps = sum(
    folder_lib.read_manifest(step.policy_folder)['training']['steps']
    for step in controlled.policies()
    if step.grow_step
  )
  assert manifest['training']['steps'] == steps
  # No choice by a reward, which may not follow quality, or by NLL.
  assert manifest['training']['best_step'] == steps
  bc = policies.digest(controlled.folder('bc'))
  assert manifest['settings']['init'] == bc


@pytest.mark.parametrize(
  ('grow', 'split'),
  [
    (None, 'train'),
    (sources.TextPairs(sources=['a'], references=['b']), 'grow'),
    (sources.TextPairs(sources=['a']), 'train'),
  ],
)
def test_more_training_is_on_references_of_grow_s_sources(
  tmp_path, grow, split
):
  asked = smoke.settings('CONTROLS=True')
  task = dataclasses.replace(asked.task, grow=grow)
  run = run_lib.Run(dataclasses.replace(asked, task=task), tmp_path)
  run.make('data')
  assert run.stage('bc_trained_on').split(run.context) == split
  assert run.stage('bc').split(run.context) == 'train'


def test_controls_are_in_results_table_and_page(controlled):
  results = results_lib.read(controlled.model_dir / 'results.json')
  temperature = controlled.stage('equal_entropy').temperature()
  names = ['BC trained on', 'BC at equal entropy']
  for split in ('validation', 'test'):
    found = {v.name: v for v in results.of_split(split)}
    bc, cooled = found['BC'], found[names[1]]
    assert set(names) < set(found)
    assert cooled.decode.temperature == temperature
    # The same weights: the same greedy output, and other samples.
    assert cooled.bleu == bc.bleu
    assert cooled.outputs['greedy'].human_difference_to_bc.mean == 0
    assert cooled.reward != bc.reward
    assert found['BC trained on'].bleu_difference_to_bc is not None
  page = page_reader.read(
    controlled.model_dir / 'report' / index_page.INDEX_FILE
  )
  rows = page.tables['synthetic, validation: by decode']
  assert {row[0] for row in rows[1:]} == set(found)


def test_finished_controls_are_used_as_they_are(controlled, monkeypatch):
  before = controlled.controls()
  assert controlled.reported()[-2:] == before
  monkeypatch.setattr(
    evaluation, 'Evaluation', lambda **_: pytest.fail('evaluated again')
  )
  with smoke.without_pictures():
    controlled.evaluate()
