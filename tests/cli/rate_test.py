"""`--run_mode=rate` on the built-in task: what is shown, what comes of it."""

import sys

import numpy as np
import pytest

from rest_jax import experiment_run as run_lib
from rest_jax.cli import dry_run, rate
from rest_jax.data import ratings as ratings_lib
from rest_jax.data import sample_store
from rest_jax.evaluation import results as results_lib
from rest_jax.rating import app as app_lib
from rest_jax.rating import export
from rest_jax.rating import store as store_lib
from rest_jax.report.gather import evaluations, pool
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import policies
from rest_jax.storage import files
from tests import smoke

_ITEMS = 12


@pytest.fixture(autouse=True)
def _no_pictures():
  with smoke.without_pictures():
    yield


def rating_run(run, *overrides, folder=None):
  settings = smoke.settings(f'RatingConfig.num_items={_ITEMS}', *overrides)
  return run_lib.Run(settings, folder or run.model_dir)


def test_items_are_samples_of_the_stored_evaluations(run):
  rating = rating_run(run)
  items = rate.items(rating)
  assert len({item.source_id for item in items}) == _ITEMS
  first, last = run.policies()[0], run.policies()[-1]
  for step, name in ((first, 'first'), (last, 'second')):
    store = sample_store.SampleStore.open(
      run.evaluation(step, 'validation').folder
    )
    for item in items:
      rows = np.flatnonzero(store.source_id == item.source_id)
      samples = run.data.vocabulary.decode_batch(
        [store.tokens[int(row)] for row in rows]
      )
      assert getattr(item, f'{name}_output') == samples[0]
      assert getattr(item, f'{name}_policy') == policies.digest(
        step.policy_folder
      )
  pairs = run.data.pairs('validation')
  for item in items:
    assert item.source == pairs.source_text(item.source_id)
  assert items[0].first_name == 'BC'
  assert items[0].second_name == 'ReST G2 I2'
  # More of them contain the fewer.
  more = rate.items(rating_run(run, 'RatingConfig.num_items=20'))
  assert more[:_ITEMS] == items
  assert rate.items(rating_run(run, 'RatingConfig.seed=1')) != items


def test_policies_are_named_by_their_folders(run):
  chosen = "RatingConfig.policies=('improve_2_2', 'bc')"
  items = rate.items(rating_run(run, chosen, "RatingConfig.split='test'"))
  assert items[0].first_name == 'ReST G2 I2'
  assert {item.split for item in items} == {'test'}
  with pytest.raises(ValueError, match=r"two of bc, improve_1_1.* got 'best'"):
    rate.items(rating_run(run, "RatingConfig.policies=('best', 'bc')"))
  with pytest.raises(FileNotFoundError, match='bc-train must hold samples'):
    rate.items(rating_run(run, "RatingConfig.split='train'"))


def test_one_policy_under_two_names_is_refused(run, tmp_path):
  copy = smoke.copied(run, tmp_path)
  give_weights(copy, copy.policies()[-1], policies.digest(copy.folder('bc')))
  with pytest.raises(ValueError, match='bc and improve_2_2 have the same weig'):
    rate.items(copy)


def give_weights(run, step, digest):
  """Lets the evaluation of a policy be one of weights of that digest."""
  path = run.evaluation(step, 'validation').folder / 'manifest.json'
  manifest = files.read_json(path)
  manifest['settings']['policy'] = digest
  files.write_json(path, manifest, sealed=True)


def answer(run, items, scores):
  """Two raters rate items; the second a point less where there is room."""
  store = store_lib.Store(evaluations.ratings_file(run))
  for number, (first, second) in zip(store.add(items), scores, strict=True):
    store.rate('Anna', number, 'scores', first, second)
    store.rate('Bo', number, 'scores', max(first - 1, 0), second)
  store.close()


def without_judge(run):
  for directory in (
    run.evaluation(step, split).folder
    for step in run.policies()
    for split in run.experiment.evaluate.splits
  ):
    smoke.without_judge(directory)
  (run.model_dir / 'results.json').unlink()


def test_ratings_are_human_where_there_is_no_judge(run, tmp_path, capsys):
  copy = smoke.copied(run, tmp_path)
  without_judge(copy)
  give_weights(copy, copy.policies()[1], 'never rated')
  items = rate.items(rating_run(copy))
  scores = [(n % 5, 3 + n % 4) for n in range(_ITEMS)]
  answer(copy, items, scores)
  copy.report()
  results = results_lib.read(copy.model_dir / 'results.json')
  found = {v.name: v for v in results.of_split('validation')}
  first, second = np.array(scores, float).T
  means = (first + np.maximum(first - 1, 0)) / 2
  bc, last = found['BC'], found['ReST G2 I2']
  assert bc.human.mean == pytest.approx(100 * means.mean() / 6)
  # As many ratings of each source: the error is that of the sources' means.
  stderr = means.std(ddof=1) / np.sqrt(_ITEMS)
  assert bc.human.stderr == pytest.approx(100 * stderr / 6)
  assert last.human.mean == pytest.approx(100 * second.mean() / 6)
  difference = second - means
  assert last.human_difference_to_bc.mean == pytest.approx(
    100 * difference.mean() / 6
  )
  assert last.human_difference_to_bc.stderr == pytest.approx(
    100 * difference.std(ddof=1) / np.sqrt(_ITEMS) / 6
  )
  assert found['ReST G1 I1'].human is None
  assert all(v.human is None for v in results.of_split('test'))
  printed = capsys.readouterr().out
  assert f'{bc.human.mean:.2f} ± {bc.human.stderr:.2f}' in printed
  assert '24 ratings (scores) by Anna, Bo' in printed


def test_ratings_of_several_seeds_are_pooled(run, tmp_path):
  copies = [smoke.copied(run, tmp_path / name) for name in ('a', 'b')]
  for copy, own in zip(copies, ((0, 6), (3, 3)), strict=True):
    without_judge(copy)
    give_weights(copy, copy.policies()[1], 'never rated')
    answer(copy, rate.items(rating_run(copy)), [own] * _ITEMS)
  found = {
    (variant.split, variant.name): variant for variant in pool.variants(copies)
  }
  # Bo gave BC 0 and 2, Anna 0 and 3; both gave the last policy 6 and 3.
  bc = found['validation', 'BC']
  last = found['validation', 'ReST G2 I2']
  assert bc.human.mean == pytest.approx(100 * (0 + 0 + 3 + 2) / 4 / 6)
  assert bc.human_difference_to_bc is None
  assert last.human.mean == pytest.approx(100 * 4.5 / 6)
  assert last.human_difference_to_bc.mean == pytest.approx(100 * 3.25 / 6)
  assert found['validation', 'ReST G1 I1'].human is None
  assert found['test', 'BC'].human is None


def test_an_exact_judge_stays_the_judge(run, tmp_path, capsys):
  copy = smoke.copied(run, tmp_path)
  before = results_lib.read(copy.model_dir / 'results.json')
  answer(copy, rate.items(rating_run(copy)), [(0, 6)] * _ITEMS)
  copy.report()
  assert results_lib.read(copy.model_dir / 'results.json') == before
  # People's ratings are shown beside.
  assert 'ReST G2 I2       validation       12  100.00 ± 0.00' in (
    capsys.readouterr().out
  )


def test_ratings_of_other_weights_do_not_count(run, tmp_path):
  copy = smoke.copied(run, tmp_path)
  without_judge(copy)
  answer(copy, rate.items(rating_run(copy)), [(0, 6)] * _ITEMS)
  give_weights(copy, copy.policies()[-1], 'made again')
  copy.report()
  results = results_lib.read(copy.model_dir / 'results.json')
  found = {v.name: v.human for v in results.of_split('validation')}
  assert found['BC'] is not None
  assert found['ReST G2 I2'] is None


def test_the_export_is_written_when_the_page_ends(
  run, tmp_path, monkeypatch, capsys
):
  copy = smoke.copied(run, tmp_path)

  def serve(store, config, items):
    for number in items:
      store.rate('Anna', number, config.kind, 1, 5)

  monkeypatch.setattr(app_lib, 'serve', serve)
  rate.run(rating_run(copy))
  assert '12 ratings (scores) by Anna' in capsys.readouterr().out
  exported = copy.model_dir / 'rating' / 'ratings.tsv'
  read = ratings_lib.RatingsFile(path=exported).read()
  assert set(read.score) <= {1, 3, 5}
  sources = {item.source for item in rate.items(rating_run(copy))}
  assert set(read.source) == sources
  # A run takes it for its ratings.
  trained = smoke.settings(
    'Task.ratings=@RatingsFile()', f"RatingsFile.path='{exported}'"
  )
  assert len(trained.task.ratings.read()) == len(read)


def test_a_reward_model_learns_from_the_export(run, tmp_path):
  copy = smoke.copied(run, tmp_path)
  items = rate.items(rating_run(copy, 'RatingConfig.num_items=30'))
  answer(copy, items, [(n % 3, 4 + n % 3) for n in range(30)])
  exported = tmp_path / 'ratings.tsv'
  people = evaluations.read_people(copy)
  export.write(exported, people.ratings, people.kind)
  learning = run_lib.Run(
    smoke.settings(
      'Task.ratings=@RatingsFile()',
      f"RatingsFile.path='{exported}'",
      *smoke.given(run, 'data', 'bc'),
    ),
    tmp_path / 'learning',
  )
  manifest = folder_lib.read_manifest(learning.make('reward'))
  # Of 30 sources three are for dev and three for test, with two outputs each.
  assert manifest['agreement']['dev']['rows'] == 6
  assert manifest['agreement']['test']['rows'] == 6


def test_missing_libraries_are_named(run, monkeypatch):
  monkeypatch.setitem(sys.modules, 'flask', None)
  monkeypatch.delitem(sys.modules, 'rest_jax.rating.app', raising=False)
  monkeypatch.delattr('rest_jax.rating.app', raising=False)
  monkeypatch.delitem(sys.modules, 'rest_jax.rating.guard', raising=False)
  with pytest.raises(ValueError, match=r"pip install 'flask>=3\.1' 'waitress"):
    rate.run(rating_run(run))


def test_the_plan_says_what_is_rated(run):
  text = dry_run.describe(rating_run(run), 'rate')
  assert 'bc and improve_2_2: 12 sources of validation, scores, at' in text
  assert 'finished: ' in text
  text = dry_run.describe(rating_run(run, "RatingConfig.split='train'"), 'rate')
  assert 'missing, run evaluate first' in text
  assert 'sources of' not in dry_run.describe(rating_run(run), 'bc')
