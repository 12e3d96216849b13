"""Tests of a whole run: what it leaves, and that nothing is done twice."""

import dataclasses
import itertools
import json
import pathlib

import numpy as np
import pytest

from rest_jax import experiment_run as run_lib
from rest_jax.data import sample_store
from rest_jax.evaluation import results as results_lib
from rest_jax.evaluation import text_metrics
from rest_jax.filters import for_all_sources
from rest_jax.losses import gold
from rest_jax.report import index_page
from rest_jax.report.render import figures
from rest_jax.runtime import memory_maps
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import improve, policies, score_samples
from rest_jax.training import loader
from tests import smoke
from tests.models import tiny


def read(path: pathlib.Path):
  return json.loads(path.read_text(encoding='utf-8'))


def test_the_folder_holds_what_the_design_says(run):
  names = {path.name for path in run.model_dir.iterdir()}
  assert {'data', 'bc', 'reward', 'grow_1', 'variants'} <= names
  assert {'results.json', 'report'} <= names
  variant = {path.name for path in run.variant_dir.iterdir()}
  assert {'improve_1_1', 'improve_1_2', 'grow_2', 'improve_2_2'} <= variant
  for stage in ('data', 'bc', 'reward', 'grow_1'):
    assert (run.model_dir / stage / 'manifest.json').exists()
  pictures = {path.name for path in (run.model_dir / 'report').glob('*.png')}
  assert {'average_reward.png', 'rewards_grow_1.png'} <= pictures


def test_results_are_complete_and_consistent(run):
  results = results_lib.read(run.model_dir / 'results.json')
  expected = {(0, 0), (1, 1), (1, 2), (2, 1), (2, 2)}
  for split in ('validation', 'test'):
    variants = results.of_split(split)
    assert {(v.grow, v.improve) for v in variants} == expected
    bc = next(v for v in variants if v.is_bc)
    for variant in variants:
      assert variant.human is not None
      # The best of one sample is the mean.
      assert variant.best_of_n[1] == pytest.approx(variant.reward.mean)
      assert variant.best_of_n[2] >= variant.best_of_n[1]
      if not variant.is_bc:
        assert variant.difference_to_bc.mean == pytest.approx(
          variant.reward.mean - bc.reward.mean, abs=1e-9
        )
        assert 0 < variant.kept.fraction < 1


def test_the_store_holds_every_sample_and_reference(run):
  store = sample_store.SampleStore.open(run.folder('grow_1'), verify='full')
  pairs = run.data.pairs('train')
  assert len(store) == 5 * len(pairs)
  np.testing.assert_array_equal(
    store.sample_id, np.tile(np.arange(-1, 4), len(pairs))
  )
  references = np.flatnonzero(store.sample_id == -1)
  for row in references[:20]:
    np.testing.assert_array_equal(
      store.tokens[row], pairs.reference_tokens[int(store.source_id[row])]
    )
  raw, reward = store.rewards('learned')
  low, high = np.percentile(raw.astype(np.float64), [0.5, 99.5])
  np.testing.assert_allclose(reward, (raw - low) / (high - low), atol=1e-5)
  manifest = store.manifest
  assert manifest['num_unfinished'] == int((~store.finished).sum())
  assert manifest['temperature'] == 0.8


def test_rows_of_the_network_without_a_piece_are_never_drawn(run):
  pieces = run.data.vocabulary.size
  assert pieces < run.context.policy.config.vocab_size
  store = sample_store.SampleStore.open(run.folder('grow_1'))
  assert max(row.max() for row in store.tokens) < pieces


def test_stored_log_probs_are_those_of_teacher_forcing(run):
  store = sample_store.SampleStore.open(run.folder('grow_1'))
  pairs = run.data.pairs('train')
  params = policies.load(
    run.folder('bc'), run.context.policy, run.experiment.mesh
  )
  rows = np.random.default_rng(0).choice(len(store), 64, replace=False)
  batch = loader.decoder_batch(
    pairs.source_tokens.pad(store.source_id[rows], 48),
    store.tokens.pad(rows, 48),
  )
  expected = tiny.jitted(run.context.policy, 'sequence_log_probs')(
    params, batch
  )
  np.testing.assert_allclose(store.log_prob[rows], expected, atol=1e-4)


def test_the_second_grow_uses_the_first_normaliser_and_other_draws(run):
  first = folder_lib.read_manifest(run.folder('grow_1'))
  second = folder_lib.read_manifest(run.folder('grow_2'))
  assert first['normalizer'] == second['normalizer']
  assert first['grow_step'] == 1 and second['grow_step'] == 2


def test_each_improve_step_starts_from_the_previous_policy(run):
  steps = run.policies()
  for before, step in itertools.pairwise(steps):
    made = folder_lib.read_manifest(step.policy_folder)['settings']
    assert made['init'] == policies.digest(before.policy_folder)
    rate = made['improve']['trainer']['optimizer']['learning_rate']
    first = run.experiment.improve.trainer.optimizer.learning_rate
    assert rate == pytest.approx(first * 0.5 ** (step.improve_step - 1))


def test_a_finished_run_is_left_alone(run, monkeypatch):
  # The pages and pictures that others read stay those of the run itself.
  monkeypatch.setattr(index_page, 'write', lambda *_: None)
  monkeypatch.setattr(figures, 'write_all', lambda *_: None)

  def state():
    return {
      path: path.stat().st_mtime_ns
      for path in run.model_dir.rglob('*')
      if path.is_file()
      and 'report' not in path.parts
      and path.name not in ('results.json', 'evaluation.json')
    }

  before, results = state(), read(run.model_dir / 'results.json')
  run.rest()
  assert state() == before
  assert read(run.model_dir / 'results.json') == results


def test_other_settings_are_refused_with_the_difference(run):
  other = smoke.settings('GROW_TEMPERATURE=0.9')
  changed = type(run)(other, run.model_dir)
  with pytest.raises(
    folder_lib.SettingsChangedError, match=r'grow\.decode\.temperature: 0\.8'
  ):
    changed.make('grow_1')


def test_a_grow_cut_off_ends_with_the_same_bytes(run, tmp_path, monkeypatch):
  again = type(run)(
    smoke.settings(*smoke.given(run, 'bc', 'reward', 'data')), tmp_path
  )
  written = []
  write_shard = sample_store.write_shard

  def cut_after_one(*args, **kwargs):
    if written:
      raise KeyboardInterrupt
    written.append(args[1])
    return write_shard(*args, **kwargs)

  monkeypatch.setattr(sample_store, 'write_shard', cut_after_one)
  with pytest.raises(KeyboardInterrupt):
    again.make('grow_1')
  monkeypatch.undo()
  with pytest.raises(FileNotFoundError):
    sample_store.SampleStore.open(again.folder('grow_1'))

  # Then once more while it scores.
  write_raw = score_samples._write_raw

  def cut_at_the_third(path, raw):
    if path.name.startswith('00002'):
      raise KeyboardInterrupt
    write_raw(path, raw)

  monkeypatch.setattr(score_samples, '_write_raw', cut_at_the_third)
  with pytest.raises(KeyboardInterrupt):
    again.make('grow_1')
  monkeypatch.undo()
  again.make('grow_1')

  whole, resumed = run.folder('grow_1'), again.folder('grow_1')
  arrows = sorted(path.relative_to(whole) for path in whole.rglob('*.arrow'))
  assert arrows == sorted(
    path.relative_to(resumed) for path in resumed.rglob('*.arrow')
  )
  assert len(arrows) == 2 * len(read(whole / 'manifest.json')['shards'])
  for path in arrows:
    assert (whole / path).read_bytes() == (resumed / path).read_bytes(), path


def test_an_improve_step_cut_off_ends_with_the_same_arrays(run, tmp_path):
  again = type(run)(
    smoke.settings(*smoke.given(run, 'bc', 'reward', 'data', 'grow_1')),
    tmp_path,
  )
  with smoke.killed_at_checkpoint(2):
    again.make('improve_1_1')
  again.make('improve_1_1')
  whole = folder_lib.read_manifest(run.folder('improve_1_1'))
  resumed = folder_lib.read_manifest(again.folder('improve_1_1'))
  for name in ('params_digest', 'best_step', 'steps', 'evaluation'):
    assert whole['training'][name] == resumed['training'][name]
  assert whole['kept'] == resumed['kept']


@pytest.mark.parametrize('references', [False, True])
def test_a_first_threshold_below_the_mean_reward_is_a_warning(run, references):
  store = sample_store.SampleStore.open(run.folder('grow_1'))
  _, rewards = store.rewards(run.reward_model.name)
  # The mean is of the rows that may be trained on.
  eligible = store.finished & (references | (store.sample_id >= 0))
  assert 0 < eligible.sum() < len(store)
  mean = float(rewards[eligible].mean())

  def warned(*values, grow_step=1, improve_step=1):
    config = dataclasses.replace(
      run.experiment.improve,
      filter=for_all_sources.Fixed(values=values),
      include_references=references,
      include_unfinished=False,
    )
    messages = []
    improve.select_rows(
      config,
      grow_step=grow_step,
      improve_step=improve_step,
      grow_directory=run.folder('grow_1'),
      reward_name=run.reward_model.name,
      data=run.data,
      warn=messages.append,
    )
    return messages

  (message,) = warned(mean - 0.01)
  assert f'{mean - 0.01:.3f} is not above {mean:.3f}' in message
  assert not warned(mean + 0.01)
  assert not warned(mean - 0.02, mean - 0.01, improve_step=2)
  # Values of the second Grow step are compared there.
  (message,) = warned((mean + 0.01,), (mean - 0.01,), grow_step=2)
  assert 'D_2' in message
  assert not warned((mean - 0.01,), (mean + 0.01,), grow_step=2)
  # gin_configs/filters/none.gin keeps everything by design.
  assert not warned(-1e30)


@pytest.mark.parametrize(
  ('loss', 'metric'),
  [
    # As gold_s; as a variant of compare_test; and as bvmpo.
    pytest.param('gold_p', 'importance', marks=pytest.mark.full),
    ('gold_s', 'return'),
    ('dpo', 'accuracy'),
    pytest.param('reward_weighted_bc', 'reward_weight', marks=pytest.mark.full),
    pytest.param('oac', 'advantage', marks=pytest.mark.full),
    ('bvmpo', 'kl_to_bc'),
    ('bve', 'action_value'),
    ('reward_conditioned', 'nll'),
  ],
)
def test_a_loss_is_one_more_gin_file(run, tmp_path, loss, metric):
  needs_value = loss in ('oac', 'bvmpo')
  variant = type(run)(
    smoke.settings(
      *(('VALUE_STEPS=4',) if needs_value else ()),
      *smoke.given(run, 'bc', 'reward', 'data', 'grow_1'),
      gin_files=(f'gin_configs/losses/{loss}.gin',),
    ),
    tmp_path,
  )
  # From a policy that is not BC, which the loss keeps beside it.
  if needs_value:
    variant.make('value_1')
  folder = variant.make(
    dataclasses.replace(
      variant.stage('improve_1_2'), start=run.stage('improve_1_1')
    )
  )
  assert folder.relative_to(tmp_path).parts[:2] == ('variants', loss)
  lines = (folder / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()
  found = [
    entry[key]
    for entry in map(json.loads, lines)
    for key in entry
    if key.split('/')[-1] == metric
  ]
  assert found, lines[0]
  assert np.isfinite(found).all()
  settings = read(folder / 'manifest.json')['settings']
  assert ('bc' in settings) == (loss in ('gold_p', 'gold_s', 'dpo', 'bvmpo'))
  assert ('value' in settings) == needs_value
  if needs_value:
    value = read(variant.folder('value_1') / 'manifest.json')
    assert settings['value'] == value['training']['params_digest']


def test_the_policy_that_a_step_starts_from_is_not_evaluated_again(run):
  first, second = run.stage('improve_1_1'), run.stage('improve_1_2')
  known = improve._start_metrics(second, run.context)
  assert known == first.manifest()['training']['evaluation']
  lines = (second.folder / 'metrics.jsonl').read_text(encoding='utf-8')
  written = json.loads(lines.splitlines()[0])
  assert written == {'step': 0, 'split': 'validation', **known}
  # It would be the same numbers.
  policy = second.network(run.context)
  params = policies.load(first.policy_folder, policy, run.context.mesh)
  measured = second.selection.evaluate_fn(run.context, policy)(params, 0)
  assert measured == known
  selection = dataclasses.replace(second.selection, seed=99)
  config = dataclasses.replace(second.config, loss=gold.GoldS())
  for other in (
    {'selection': selection},
    {'config': config},
    {'start': run.stage('bc')},
  ):
    changed = dataclasses.replace(second, **other)
    assert improve._start_metrics(changed, run.context) is None


def test_a_policy_that_is_told_the_reward_is_sampled_with_the_best(
  run, tmp_path
):
  variant = type(run)(
    smoke.settings(
      *smoke.given(run, 'bc', 'reward', 'data', 'grow_1'),
      gin_files=('gin_configs/losses/reward_conditioned.gin',),
    ),
    tmp_path,
  )
  folder = variant.make('improve_1_1')
  grown = variant.make(
    dataclasses.replace(
      variant.stage('grow_2'), policy=variant.stage('improve_1_1')
    )
  )
  store = sample_store.SampleStore.open(grown)
  rows = np.flatnonzero(store.sample_id >= 0)[:40]
  policy = variant.context.policy
  params = policies.load(folder, policy, variant.experiment.mesh)

  def log_probs(start):
    source_tokens = variant.data.pairs('train').source_tokens
    batch = loader.decoder_batch(
      source_tokens.pad(np.asarray(store.source_id)[rows], 64),
      store.tokens.pad(rows, 64),
    )
    batch['decoder_input_tokens'][:, 0] = start
    return tiny.jitted(policy, 'sequence_log_probs')(params, batch)

  stored = np.asarray(store.log_prob)[rows]
  best = policy.config.vocab_size - 1
  np.testing.assert_allclose(log_probs(best), stored, atol=1e-3)
  assert np.abs(log_probs(0) - stored).max() > 0.1
  # BC and the first Grow are as they are without it.
  assert variant.context.policy.decoder_start == 0


def test_bleu_may_be_that_of_beam_search(run, tmp_path):
  copy = smoke.copied(run, tmp_path)
  settings = smoke.settings(
    'EvaluateConfig.beam_size=3', "EvaluateConfig.splits=('validation',)"
  )
  beam = type(run)(settings, copy.model_dir / 'beam')
  for name in ('data', 'bc', 'reward', 'grow_1'):
    (copy.model_dir / 'beam').mkdir(exist_ok=True)
    (copy.model_dir / name).rename(copy.model_dir / 'beam' / name)
  [bc] = [step for step in beam.policies() if step.is_bc]
  with smoke.without_pictures():
    beam.evaluate()  # No other policy is finished there.
  folder = beam.evaluation(bc, 'validation').folder
  outputs = (folder / 'beam_3.txt').read_text(encoding='utf-8').splitlines()
  greedy = (run.evaluation(bc, 'validation').folder / 'greedy.txt').read_text(
    encoding='utf-8'
  )
  assert len(outputs) == len(greedy.splitlines())
  assert outputs != greedy.splitlines()
  [found] = results_lib.read(beam.model_dir / 'results.json').variants
  [plain] = [
    variant
    for variant in results_lib.read(run.model_dir / 'results.json').variants
    if variant.is_bc and variant.split == 'validation'
  ]
  assert (found.decode.text, plain.decode.text) == ('beam 3', 'greedy')
  # The draws are the same, and so are greedy outputs.
  assert found.reward == plain.reward
  assert list(found.outputs) == ['greedy', 'beam 3', 'samples', 'best of 2']
  assert found.outputs['greedy'].bleu == pytest.approx(plain.bleu)
  assert found.outputs['beam 3'].bleu == pytest.approx(found.bleu)
  pairs = run.data.pairs('validation')
  references = [pairs.reference_text(row) for row in range(len(pairs))]
  expected, _ = text_metrics.corpus_bleu(outputs, references, tokenize='13a')
  assert found.bleu == pytest.approx(expected)


def test_compiled_programs_are_bounded_after_every_stage(tmp_path, monkeypatch):
  order = []
  monkeypatch.setattr(run_lib.Run, 'make', lambda _, stage: order.append(stage))
  monkeypatch.setattr(run_lib.Run, 'report', lambda _: order.append('report'))
  monkeypatch.setattr(memory_maps, 'bound', lambda: order.append('bound'))
  run = run_lib.Run(smoke.settings(), tmp_path)
  run.rest()
  made = [stage for stage in run.stages if not stage.is_extra]
  assert len(made) == 3 + 2 * 3 + 5 * 2
  assert order == [
    *(step for stage in made for step in (stage, 'bound')), 'report',
  ]  # fmt: skip
