"""A run whose reward compares the samples of each source."""

import dataclasses
import json
import types
from typing import Any

import numpy as np
import pytest

from rest_jax import experiment_run as run_lib
from rest_jax.cli import dry_run
from rest_jax.data import sample_store
from rest_jax.rewards import consensus
from rest_jax.rewards import peers as peers_lib
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import evidence as evidence_lib
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import policies
from tests import smoke

CONSENSUS = ('gin_configs/rewards/consensus.gin',)
OVERRIDES = (
  'Task.ratings=None',
  'NUM_GROW_STEPS=1',
  'NUM_IMPROVE_STEPS=1',
  # As many as evaluations draw: one compilation.
  'NUM_EVIDENCE_SAMPLES=2',
  'ImproveConfig.include_references=False',
)


@pytest.fixture(scope='session')
def finished(tmp_path_factory):
  return smoke.finished(tmp_path_factory.getbasetemp())


@pytest.fixture(scope='module')
def run(finished, tmp_path_factory):
  settings = smoke.settings(
    *OVERRIDES,
    *smoke.given(finished, 'data', 'bc'),
    gin_files=CONSENSUS,
  )
  run = run_lib.Run(settings, tmp_path_factory.mktemp('consensus'))
  run.make('grow_1')
  run.make('improve_1_1')
  with smoke.without_pictures():
    run.evaluate()
  return run


def stored(run, split):
  return evidence_lib.load(run.stage(f'evidence_{split}'), run.context)


def texts(run, store):
  return run.data.vocabulary.decode_batch(list(store.tokens))


def test_evidence_is_of_the_text_of_its_split(tmp_path, monkeypatch):
  monkeypatch.setattr(policies, 'digest', lambda _: 'a policy')
  data = types.SimpleNamespace(
    digest_of=lambda split: f'with {split}', pairs=lambda _: range(3)
  )
  context: Any = types.SimpleNamespace(
    data=data, policy=types.SimpleNamespace(config=None)
  )
  bc: Any = types.SimpleNamespace(folder=tmp_path)
  stage = evidence_lib.Evidence(
    config=evidence_lib.EvidenceConfig(),
    split='test_2017',
    limits=[None],
    bc=bc,
    data=bc,
    seed=0,
    folder=tmp_path / 'evidence',
  )
  assert stage.settings(context)['data'] == 'with test_2017'


def test_a_grow_is_judged_by_its_own_samples(run):
  store = sample_store.SampleStore.open(run.folder('grow_1'))
  found, hypotheses = store.rewards('consensus')[0], texts(run, store)
  for number in (0, 7):
    rows = np.flatnonzero((store.source_id == number) & (store.sample_id >= 0))
    np.testing.assert_array_equal(
      found[rows], consensus.utilities([hypotheses[row] for row in rows])
    )
    reference = run.data.pairs('train').reference_text(number)
    [row] = np.flatnonzero((store.source_id == number) & (store.sample_id < 0))
    expected = [
      consensus.CHRF.score([''], [reference], [hypotheses[r]])[0] for r in rows
    ]
    np.testing.assert_allclose(found[row], np.mean(expected), rtol=1e-5)


@pytest.mark.parametrize('split', ['validation', 'test'])
def test_all_policies_are_judged_by_the_same_samples_of_bc(run, split):
  evidence = stored(run, split)
  assert len(evidence(0)) == 2
  for step in run.policies():
    directory = run.evaluation(step, split).folder
    store = sample_store.SampleStore.open(directory)
    hypotheses = texts(run, store)
    expected = run.reward_model.score(
      [''] * len(store),
      hypotheses,
      peers=peers_lib.Peers.fixed(store.source_id, evidence),
    )
    np.testing.assert_array_equal(store.rewards('consensus')[0], expected)
    manifest = folder_lib.read_manifest(directory)
    assert manifest['settings']['evidence'] == evidence.digest
    assert manifest['measured']['collapse']['collapsed'] < 0.5
  improved = folder_lib.read_manifest(run.folder('improve_1_1'))
  chosen_by = stored(run, 'validation').digest
  assert improved['settings']['evaluation']['evidence'] == chosen_by
  results = json.loads((run.model_dir / 'results.json').read_text())
  assert {v['improve'] for v in results['variants']} == {0, 1}


def test_the_evidence_is_drawn_anew(run):
  """Not what BC is evaluated on, which would agree with itself."""
  evidence = stored(run, 'test')
  store = sample_store.SampleStore.open(
    run.evaluation(run.policies()[0], 'test').folder
  )
  drawn = texts(run, store)
  own = peers_lib.Peers.own(store.source_id, drawn).samples
  others = [evidence(number) for number in range(len(own))]
  assert any(set(a) != set(b) for a, b in zip(own, others, strict=True))
  number = len(own)
  with pytest.raises(ValueError, match='evidence was drawn for'):
    evidence(number)


def test_finished_evidence_is_used_and_other_settings_are_refused(run):
  folder = run.folder('evidence_test')
  before = {p: p.stat().st_mtime_ns for p in folder.rglob('*')}
  assert run_lib.Run(run.experiment, run.model_dir).make('evidence_test')
  assert {p: p.stat().st_mtime_ns for p in folder.rglob('*')} == before
  assert folder in run.folders()
  decode = run.experiment.evidence.decode
  other = dataclasses.replace(
    run.experiment,
    evidence=evidence_lib.EvidenceConfig(
      decode=dataclasses.replace(decode, num_samples_per_source=6)
    ),
  )
  with pytest.raises(folder_lib.SettingsChangedError, match='num_samples'):
    run_lib.Run(other, run.model_dir).make('evidence_test')


def test_a_reward_of_single_hypotheses_has_none(finished):
  assert not finished.of_kind(evidence_lib.Evidence)
  assert not (finished.model_dir / 'evidence').exists()


def test_probes_and_the_plan(run):
  run.make_mode('test_reward')
  report = folder_lib.read_manifest(run.folder('probe'))
  assert report['settings']['evidence'] == stored(run, 'validation').digest
  plan = dry_run.describe(run, 'rest')
  assert f'finished  evidence test: {run.folder("evidence_test")}' in plan


def test_a_policy_of_one_output_is_warned_of(run, tmp_path):
  evidence = stored(run, 'test')
  number = 12
  columns = sample_store.SampleRows(
    source_id=np.repeat(np.arange(number), 2),
    sample_id=np.tile(np.arange(2, dtype=np.int32), number),
    tokens=[np.append(run.data.vocabulary.encode('same'), 1)] * 2 * number,
    log_prob=np.zeros(2 * number, np.float32),
    finished=np.ones(2 * number, bool),
  )
  entry = sample_store.write_shard(tmp_path, 0, 1, columns, 1 << 15)
  folder = folder_lib.StageFolder(tmp_path, {}, False)
  store = sample_store.SampleStore.unfinished(
    tmp_path, [dataclasses.asdict(entry)]
  )
  found = evidence_lib.measure_collapse(
    folder, store, evidence, run.data.vocabulary
  )
  assert found['collapsed'] == 1.0 and found['onto_medoid'] == 0.0
  assert 'the policy has collapsed' in folder.warnings[0]


@pytest.mark.parametrize(
  ('overrides', 'files', 'message'),
  [
    (('NUM_SAMPLES_PER_SOURCE=1',), (), 'must draw at least two; got 1'),
    ((), ('gin_configs/online/ppo.gin',), 'online does not support the reward'),
  ],
)
def test_what_cannot_work_is_refused_at_the_start(overrides, files, message):
  with pytest.raises(ValueError, match=message):
    smoke.settings(*OVERRIDES, *overrides, gin_files=(*CONSENSUS, *files))


def test_evidence_needs_a_temperature():
  decode = sampler_lib.DecodeConfig(num_samples_per_source=1, temperature=0.0)
  with pytest.raises(ValueError, match='positive temperature'):
    evidence_lib.EvidenceConfig(decode=decode)


def test_a_policy_that_says_one_thing_has_collapsed():
  evidence = [
    ['a cat', 'a cat', 'a dog'],
    ['x', 'x', 'x'],
    ['one', 'two', 'two'],
  ]
  samples = [['a cat', 'a cat'], ['x', 'x'], ['one', 'one']]
  assert evidence_lib.collapse(samples, evidence) == {
    'sources': 2, 'collapsed': 1.0, 'onto_medoid': 0.5,
  }  # fmt: skip
  varied = [['a cat', 'a dog'], ['x', 'x'], ['two', 'one']]
  assert evidence_lib.collapse(varied, evidence)['collapsed'] == 0
  # Where the evidence never varies, nothing is said.
  assert evidence_lib.collapse(samples[1:2], evidence[1:2]) == {
    'sources': 0, 'collapsed': 0.0, 'onto_medoid': 0.0,
  }  # fmt: skip
