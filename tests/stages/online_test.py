"""Tests of the online baseline in a whole run."""

import math

import pytest

from rest_jax import experiment_run as run_lib
from rest_jax.data import sample_store
from rest_jax.evaluation import results as results_lib
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import policies
from rest_jax.storage import files
from rest_jax.training import digests, journal
from tests import smoke

_SETTINGS = (
  'ONLINE_SOURCES_PER_ITERATION=60',
  'ONLINE_EVALUATE_EVERY=2',
  'ONLINE_EPOCHS=2',
)
_PPO = ('gin_configs/online/ppo.gin',)


@pytest.fixture(scope='module')
def online(run, tmp_path_factory):
  """The smoke run with a baseline, which is all that is left to do."""
  copy = smoke.copied(run, tmp_path_factory.mktemp('online'))
  settings = smoke.settings(*_SETTINGS, gin_files=_PPO)
  made = run_lib.Run(settings, copy.model_dir)
  with smoke.without_pictures():
    made.rest()
  return made


def test_it_stands_beside_bc_and_rest(run, online):
  before = results_lib.read(run.model_dir / 'results.json')
  results = results_lib.read(online.model_dir / 'results.json')
  for split in ('validation', 'test'):
    variants = {variant.name: variant for variant in results.of_split(split)}
    assert set(variants) == {
      'PPO', *(variant.name for variant in before.of_split(split)),
    }  # fmt: skip
    found, bc = variants['PPO'], variants['BC']
    assert (found.loss, found.grow, found.improve) == ('ppo', 0, 0)
    assert bc.is_bc and not found.is_bc
    assert found.filter is None and found.kept is None
    assert found.difference_to_bc.mean == pytest.approx(
      found.reward.mean - bc.reward.mean, abs=1e-9
    )
    assert bc.difference_to_bc is None
    assert found.seconds.grow > 0 and found.seconds.improve > 0
    for number in (
      found.reward.mean, found.reward.stderr, found.bleu, found.chrf,
      found.human.mean, found.length_ratio,
    ):  # fmt: skip
      assert math.isfinite(number)
  # The other rows are what they were.
  kept = [v for v in results.variants if v.name != 'PPO']
  assert kept == list(before.variants)


def test_its_budget_is_that_of_a_grow(online):
  grown = folder_lib.read_manifest(online.folder('grow_1'))
  manifest = folder_lib.read_manifest(online.folder('online_ppo'))
  cost = manifest['cost']
  assert cost['samples'] == grown['num_sources'] * 4 == 960
  assert 0 < cost['distinct_samples'] <= cost['samples']
  assert manifest['training']['iterations'] == 4
  assert cost['trained_target_tokens'] == 2 * cost['sampled_tokens']
  assert cost['flops']['total'] > cost['flops']['train'] > 0
  assert cost['peak_rss_mb'] > 0
  evaluation = manifest['training']['evaluation']
  assert evaluation['kl_sequence'] >= evaluation['kl_token'] >= 0
  lines = journal.read_metrics(online.folder('online_ppo'))
  assert [line['step'] for line in lines if line['split'] == 'validation'] == [
    0, 2, 4,
  ]  # fmt: skip
  # Before the first update the policy is BC.
  assert lines[0]['kl_sequence'] == lines[1]['kl_sequence'] == 0.0
  assert lines[-1]['kl_sequence'] > 0.0


def test_what_it_cost_stands_beside_what_rest_cost(online):
  found = files.read_json(online.variant_dir / 'costs.json')
  assert [one['policy'] for one in found] == [
    'ReST G1 I1', 'ReST G1 I2', 'ReST G2 I1', 'ReST G2 I2', 'PPO',
  ]  # fmt: skip
  store = sample_store.SampleStore.open(online.folder('grow_1'))
  is_sample = store.sample_id >= 0
  drawn = [
    (int(source), tuple(store.tokens[int(row)].tolist()))
    for row, source in enumerate(store.source_id)
    if is_sample[row]
  ]
  first, second, grown_again, last, ppo = (one['cost'] for one in found)
  assert first['samples'] == len(drawn)
  assert first['distinct_samples'] == len(set(drawn))
  assert first['sampled_tokens'] == sum(len(tokens) for _, tokens in drawn)
  # A second Improve step trains and does not sample.
  assert second['samples'] == first['samples']
  assert second['trained_tokens'] > first['trained_tokens'] > 0
  assert grown_again['samples'] == 2 * first['samples']
  assert last['flops'] > grown_again['flops'] > second['flops'] > first['flops']
  manifest = folder_lib.read_manifest(online.folder('online_ppo'))
  evaluated = manifest['course']
  assert [entry['samples'] for entry in evaluated] == [0, 480, 960]
  best = max(entry['objective'] for entry in evaluated)
  assert found[-1]['reward'] == pytest.approx(100 * best)
  assert ppo['samples'] == next(
    entry['samples'] for entry in evaluated if entry['objective'] == best
  )
  for one in found[:-1]:
    reached = [e for e in evaluated if 100 * e['objective'] >= one['reward']]
    assert (one['online'] is None) == (not reached)
    if reached:
      assert one['online']['samples'] == reached[0]['samples']


def test_the_cost_of_an_improve_step_by_hand(online):
  directory = online.folder('improve_1_1')
  training = folder_lib.read_manifest(directory)['training']
  lines = journal.read_metrics(directory)
  # Every row is a hypothesis with a weight for each token: BC's normaliser.
  trained = [line for line in lines if line['split'] == 'train']
  steps = [0, *(line['step'] for line in trained)]
  weights = sum(
    line['normalizer'] * (step - before)
    for line, before, step in zip(trained, steps, steps[1:], strict=False)
  )
  assert training['target_tokens'] == pytest.approx(weights, rel=1e-5)
  assert training['source_tokens'] > 0


def test_its_policy_is_the_best_checkpoint(online):
  directory = online.folder('online_ppo')
  params = policies.load(
    directory, online.context.policy, online.experiment.mesh
  )
  assert digests.digest(params) == policies.digest(directory)
  settings = folder_lib.read_manifest(directory)['settings']
  assert settings['init'] == policies.digest(online.folder('bc'))


# Of the training alone in online/ppo_test.
@pytest.mark.full
def test_cut_off_it_ends_with_the_same_arrays(run, online, tmp_path):
  again = run_lib.Run(
    smoke.settings(
      *_SETTINGS,
      *smoke.given(run, 'bc', 'reward', 'data', 'grow_1'),
      gin_files=_PPO,
    ),
    tmp_path,
  )
  with smoke.killed_at_checkpoint(3):
    again.make('online_ppo')
  assert not (again.folder('online_ppo') / 'manifest.json').exists()
  again.make('online_ppo')

  whole = folder_lib.read_manifest(online.folder('online_ppo'))
  resumed = folder_lib.read_manifest(again.folder('online_ppo'))
  for name in ('params_digest', 'best_step', 'steps', 'evaluation'):
    assert whole['training'][name] == resumed['training'][name]
  for name in ('samples', 'distinct_samples', 'sampled_tokens', 'flops'):
    assert whole['cost'][name] == resumed['cost'][name]
  assert whole['settings'] == resumed['settings']
  assert journal.read_metrics(online.folder('online_ppo')) == (
    journal.read_metrics(again.folder('online_ppo'))
  )


def test_other_settings_are_refused(online):
  other = smoke.settings(*_SETTINGS, 'ONLINE_KL=0.5', gin_files=_PPO)
  changed = run_lib.Run(other, online.model_dir)
  with pytest.raises(
    folder_lib.SettingsChangedError, match=r'online\.kl_coefficient: 0\.'
  ):
    changed.make('online_ppo')


def test_a2c_and_named_variants_have_folders_and_names_of_their_own(tmp_path):
  a2c = run_lib.Run(
    smoke.settings(gin_files=('gin_configs/online/a2c.gin',)), tmp_path
  )
  step = a2c.policies()[-1]
  assert step.is_online and not step.is_bc
  assert step.policy_folder == tmp_path / 'variants/bc/online_a2c'
  assert a2c.evaluation(step, 'test').folder.name == 'online_a2c-test'
  named = run_lib.Run(
    smoke.settings('VARIANT=no_kl', 'ONLINE_KL=0.0', gin_files=_PPO), tmp_path
  )
  assert named.folder('online_ppo') == tmp_path / 'variants/no_kl/online_ppo'


def test_without_a_gin_file_there_is_none(run):
  assert not any(step.is_online for step in run.policies())
  with pytest.raises(ValueError, match=r'gin_configs/online/ppo\.gin'):
    run.make_mode('online')
