"""`results.json`: round trip, order, merging, and errors that name the field."""

import copy
import dataclasses
import json
import math

import numpy as np
import pytest

from rest_jax.evaluation import metrics, outputs, policy_names
from rest_jax.evaluation import results as results_lib
from rest_jax.evaluation import variant as variant_lib
from tests.evaluation import made
from tests.report import pages

# Every field that readers of the file rely on.
DOCUMENTED = {
  'schema': 1,
  'task': 'demo',
  'variants': [
    {
      'name': 'BC',
      'loss': 'bc',
      'grow': 0,
      'improve': 0,
      'seed': 0,
      'filter': {'kind': 'fixed', 'value': 0.7},
      'split': 'validation',
      'decode': {'temperature': 0.8, 'samples_per_source': 4},
      'reward': {'mean': 70.9, 'stderr': 0.1},
      'human': {'mean': 61.0, 'stderr': 0.2},
      'bleu': 0.0,
      'chrf': 0.0,
      'length_ratio': 1.0,
      'distinct_samples': 0,
      'best_of_n': {'1': 70.9, '8': 80.1},
      'kept': {'samples': 0, 'fraction': 0.0, 'sources_without_samples': 0},
      'seconds': {'grow': 0, 'score': 0, 'improve': 0},
    }
  ],
}


def make_output(**fields):
  full = {
    'reward': metrics.Estimate(80.0, 0.5),
    'human': metrics.Estimate(66.0, 0.25),
    'bleu': 31.5,
    'chrf': 55.25,
    'seconds': 1.5,
  }
  return outputs.Output(**{**full, **fields})


def make_variant(grow=1, improve=2, split='validation', **fields):
  """A full entry; `fields` replace its own."""
  full = {
    'filter': variant_lib.Filter(kind='fixed', value=0.8),
    'seed': 3,
    'reward': metrics.Estimate(77.8, 0.2),
    'human': metrics.Estimate(65.0, 0.3),
    'difference_to_bc': metrics.Difference(6.9, 0.15),
    'human_difference_to_bc': metrics.Difference(4.0, 0.2),
    'bleu': 31.5,
    'bleu_signature': 'nrefs:1|tok:13a',
    'chrf': 55.25,
    'chrf_signature': 'nrefs:1|nc:6',
    'bleu_difference_to_bc': metrics.Difference(0.5, 0.25),
    'chrf_difference_to_bc': metrics.Difference(0.25, 0.25),
    'diagnostics': pages.diagnostics(),
    'length_ratio': 0.98,
    'distinct_samples': 700,
    'best_of_n': {16: 88.0, 1: 77.8, 2: 80.0},
    'best_of_n_stderr': {1: 0.2},
    'best_of_n_human': {1: 65.0, 2: 66.0},
    'kept': variant_lib.Kept(
      samples=120, fraction=0.3, sources_without_samples=4
    ),
    'seconds': variant_lib.Seconds(grow=10.0, score=2.5, improve=30.0),
  }
  return made.variant(grow, improve, split=split, **{**full, **fields})


class TestRoundTrip:
  def test_documented_content_is_accepted_and_kept(self):
    written = results_lib.to_json(results_lib.from_json(DOCUMENTED))
    assert written['schema'] == 1
    variant = written['variants'][0]
    documented = DOCUMENTED['variants'][0]
    for name, value in documented.items():
      if name == 'decode':
        assert variant[name] == {**value, 'text': 'greedy'}
      else:
        assert variant[name] == value

  def test_file(self, tmp_path):
    results = results_lib.Results(
      task='demo',
      variants=(
        make_variant(),
        make_variant(0, 0, filter=None, kept=None, human=None, bleu=None),
      ),
    )
    path = tmp_path / 'results.json'
    results_lib.write(path, results)
    assert results_lib.read(path) == results
    first = path.read_bytes()
    results_lib.write(path, results_lib.read(path))
    assert path.read_bytes() == first
    content = json.loads(first)
    assert list(content)[:-1] == [
      'schema', 'verdict', 'recommended', 'task', 'variants', 'warnings',
    ]  # fmt: skip
    assert list(content['variants'][1]['best_of_n']) == ['1', '2', '16']
    assert content['variants'][0]['human'] is None

  def test_numpy_numbers_become_plain(self, tmp_path):
    variant = make_variant(
      seed=np.int64(3),
      bleu=np.float32(31.5),
      best_of_n={np.int64(1): np.float32(77.5)},
      best_of_n_stderr={},
      best_of_n_human={},
    )
    results_lib.write(
      tmp_path / 'results.json',
      results_lib.Results(task='demo', variants=(variant,)),
    )
    read = results_lib.read(tmp_path / 'results.json').variants[0]
    assert read == variant
    assert type(read.seed) is int and type(read.bleu) is float

  def test_bc(self):
    assert make_variant(0, 0).is_bc
    assert not make_variant(1, 0).is_bc and not make_variant(0, 1).is_bc
    # The online baseline has no steps either.
    assert not make_variant(0, 0, loss='ppo').is_bc

  def test_outputs_are_kept_in_their_order(self, tmp_path):
    decoded = {
      'greedy': make_output(),
      'samples': make_output(
        distinct=3.5,
        seconds=None,
        human_difference_to_bc=metrics.Difference(1.0, 0.5),
      ),
      'best of 4': make_output(human=None),
    }
    path = tmp_path / 'results.json'
    variant = make_variant(outputs=decoded)
    results_lib.write(
      path, results_lib.Results(task='demo', variants=(variant,))
    )
    (read,) = results_lib.read(path).variants
    assert read == variant
    assert list(read.outputs) == ['greedy', 'samples', 'best of 4']

  def test_controls_follow_bc_and_are_not_bc(self):
    controls = [
      make_variant(0, 0, name=policy_names.of_control(control), control=control)
      for control in policy_names.CONTROLS
    ]
    results = results_lib.Results(
      task='demo',
      variants=(
        *controls,
        make_variant(0, 0, loss='ppo'),
        make_variant(),
        make_variant(0, 0),
      ),
    )
    assert [v.name for v in results.variants] == [
      'BC',
      'BC at equal entropy',
      'BC trained on',
      'PPO',
      'ReST G1 I2',
    ]
    assert [v.is_bc for v in results.variants] == [True, *4 * [False]]


class TestShown:
  def test_a_loss_is_said_where_another_stands_beside_it(self):
    gold = [
      make_variant(1, 1, loss='gold'),
      make_variant(0, 0, name='BC trained on (GOLD)', control='trained on'),
    ]
    alone = results_lib.Results(
      task='demo', variants=(*gold, make_variant(0, 0))
    )
    assert alone.shared_variant == ' (GOLD)'
    assert [v.name for v in alone.shown.variants] == [
      'BC', 'BC trained on', 'ReST G1 I1',
    ]  # fmt: skip
    beside = alone.updated([make_variant(1, 1)])
    assert beside.shared_variant == '' and beside.shown == beside

  def test_people_rate_samples_alone(self):
    judged = make_variant(
      outputs={'greedy': make_output(), 'samples': make_output()}
    )
    rated = make_variant(
      outputs={'greedy': make_output(human=None), 'samples': make_output()}
    )
    assert (judged.rater, rated.rater) == ('judge', 'human')
    of_rated = results_lib.Results(task='demo', variants=(rated,))
    assert of_rated.rater == 'human'
    unrated = make_variant(human=None)
    assert results_lib.Results(task='demo', variants=(unrated,)).rater == ''


class TestWarnings:
  FALL = metrics.Difference(-3.0, 0.5)

  def test_they_are_written_and_made_anew(self):
    warned = make_variant(chrf_difference_to_bc=self.FALL)
    results = results_lib.Results(
      task='demo', variants=(warned, make_variant(1, 1))
    )
    content = results_lib.to_json(results)
    (line,) = content['warnings']
    assert line.startswith('ReST G1 I2, validation: reward +6.90 ± 0.15')
    assert 'chrF -3.00 ± 0.50' in line
    content['warnings'] = ['an old one']
    assert results_lib.from_json(content).warnings == (line,)
    # Entries that replace it take their warning along.
    assert results.updated([make_variant()]).warnings == ()

  @pytest.mark.parametrize(
    ('field', 'name'),
    [
      ('bleu_difference_to_bc', 'BLEU'),
      ('chrf_difference_to_bc', 'chrF'),
      ('human_difference_to_bc', 'judge'),
    ],
  )
  def test_each_measure_outside_of_the_reward_counts(self, field, name):
    assert make_variant().warning is None
    line = make_variant(**{field: self.FALL}).warning
    assert f'but {name} -3.00' in line
    fell = make_variant(
      difference_to_bc=metrics.Difference(-1.0, 0.1), **{field: self.FALL}
    )
    assert fell.warning is None

  def test_with_outputs_the_same_decode_is_compared(self):
    rise, fall = metrics.Difference(4.0, 0.5), self.FALL
    apart = {
      'greedy': make_output(bleu_difference_to_bc=fall),
      'samples': make_output(difference_to_bc=rise, distinct=3.0),
    }
    # The fields of the entry itself are of different decodes.
    fields = {'difference_to_bc': rise, 'bleu_difference_to_bc': fall}
    assert make_variant(**fields).warning
    assert make_variant(**fields, outputs=apart).warning is None
    together = {
      **apart,
      'greedy': make_output(difference_to_bc=rise, bleu_difference_to_bc=fall),
    }
    line = make_variant(**fields, outputs=together).warning
    assert line.startswith('ReST G1 I2, validation, greedy: reward +4.00')
    control = make_variant(
      0, 0, control='trained on', outputs=together, **fields
    )
    assert control.warning is None

  def test_one_a_policy_and_of_the_first_split(self):
    results = results_lib.Results(
      task='demo',
      variants=tuple(
        make_variant(split=split, chrf_difference_to_bc=self.FALL)
        for split in ('test', 'validation')
      ),
    )
    (line,) = results.warnings
    assert line.startswith('ReST G1 I2, validation: ')


@pytest.mark.parametrize(
  ('field', 'value'), [('sources', 0), ('repetition', 1.5), ('copied', -0.1)]
)
def test_diagnostics_out_of_range_are_refused(field, value):
  with pytest.raises(ValueError, match=field):
    pages.diagnostics(**{field: value})


class TestOrderAndMerging:
  def test_order_does_not_depend_on_the_input(self):
    variants = [
      make_variant(grow, improve, split, loss=loss)
      for split in ('other', 'test', 'validation')
      for grow, improve in ((2, 1), (1, 2), (1, 1))
      for loss in ('gold', 'bc', 'bvmpo')
    ]
    order = np.random.default_rng(0).permutation(len(variants))
    a = results_lib.Results(task='demo', variants=tuple(variants))
    b = results_lib.Results(
      task='demo', variants=tuple(variants[i] for i in order)
    )
    assert a == b
    assert a.splits == ('validation', 'test', 'other')
    assert [v.name for v in a.of_split('test')][:4] == [
      'ReST G1 I1',
      'ReST G1 I1 (BVMPO)',
      'ReST G1 I1 (GOLD)',
      'ReST G1 I2',
    ]

  def test_update_replaces_by_name_and_split(self, tmp_path):
    path = tmp_path / 'results.json'
    results_lib.update(path, 'demo', [make_variant(), make_variant(0, 0)])
    results = results_lib.update(
      path,
      'demo',
      [
        make_variant(reward=metrics.Estimate(80.0, 0.1)),
        make_variant(split='test'),
      ],
    )
    assert results == results_lib.read(path)
    assert [(v.key, v.reward.mean) for v in results.variants] == [
      (('BC', 'validation'), 77.8),
      (('ReST G1 I2', 'validation'), 80.0),
      (('ReST G1 I2', 'test'), 77.8),
    ]

  def test_entries_of_version_0_1_are_replaced_under_their_new_names(
    self, tmp_path
  ):
    path = tmp_path / 'results.json'
    old = [
      make_variant(0, 0, name='BC (G=0, I=0)'),
      make_variant(0, 0, name='BC at T=0.52', control='equal entropy'),
      make_variant(1, 1, name='BC (G=1, I=1)'),
    ]
    results_lib.write(path, results_lib.Results(task='demo', variants=old))
    new = [make_variant(1, 1), make_variant(1, 1, loss='gold')]
    results = results_lib.update(path, 'demo', new)
    assert [v.name for v in results.variants] == [
      'BC', 'BC at equal entropy', 'ReST G1 I1', 'ReST G1 I1 (GOLD)',
    ]  # fmt: skip

  def test_another_task_is_refused_and_nothing_written(self, tmp_path):
    path = tmp_path / 'results.json'
    results_lib.update(path, 'demo', [make_variant()])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="'demo'; got 'iwslt'"):
      results_lib.update(path, 'iwslt', [make_variant()])
    assert path.read_bytes() == before

  def test_equal_names_are_refused(self):
    with pytest.raises(ValueError, match=r'different \(name, split\)'):
      results_lib.Results(task='demo', variants=(make_variant(),) * 2)


def _without(name):
  def change(variant):
    del variant[name]

  return change


def _with(**fields):
  return lambda variant: variant.update(fields)


class TestFaults:
  @pytest.mark.parametrize(
    ('change', 'message'),
    [
      (_without('reward'), r'variants\[0\]\.reward is missing'),
      (_without('decode'), r'variants\[0\]\.decode is missing'),
      (_with(reward={'mean': 1.0}), r'\.reward\.stderr is missing'),
      (_with(reward=1.0), r'\.reward must be an object; got 1\.0'),
      (
        _with(reward={'mean': None, 'stderr': 0.1}),
        r'\.reward\.mean must be a finite number; got None',
      ),
      (
        _with(reward={'mean': math.nan, 'stderr': 0.1}),
        r'\.reward\.mean must be a finite number; got nan',
      ),
      (
        _with(reward={'mean': True, 'stderr': 0.1}),
        r'\.reward\.mean must be a finite number; got True',
      ),
      (
        _with(human={'mean': 1.0, 'stderr': -1}),
        r'\.human\.stderr must be at least 0; got -1',
      ),
      (_with(name=''), r'\.name must be a non-empty text'),
      (_with(name=3), r'\.name must be a text; got 3'),
      (_with(grow=1.0), r'\.grow must be a whole number; got 1\.0'),
      (_with(improve=-1), r'\.improve must be at least 0; got -1'),
      (_with(seed=True), r'\.seed must be a whole number'),
      (_with(bleu=101.0), r'\.bleu must be in \[0, 100\]; got 101'),
      (_with(bleu='30'), r"\.bleu must be a finite number; got '30'"),
      (
        _with(best_of_n={'x': 1.0}),
        r"best_of_n\['x'\] must be keyed by a whol",
      ),
      (_with(best_of_n={'0': 1.0}), r'best_of_n must be keyed by n >= 1'),
      (_with(best_of_n={'1': None}), r"best_of_n\['1'\] must be a finite"),
      (
        _with(best_of_n_stderr={'4': 1.0}),
        r'best_of_n_stderr must be keyed by',
      ),
      (
        _with(decode={'temperature': -1, 'samples_per_source': 4}),
        r'\.decode\.temperature must be at least 0',
      ),
      (
        _with(decode={'temperature': 1, 'samples_per_source': 0}),
        r'\.decode\.samples_per_source must be at least 1',
      ),
      (_with(filter={'kind': '', 'value': 1}), r'\.filter\.kind must be'),
      (
        _with(
          kept={'samples': 1, 'fraction': 30, 'sources_without_samples': 0}
        ),
        r'\.kept\.fraction must be in \[0, 1\]; got 30',
      ),
      (_with(seconds={'grow': -1}), r'\.seconds\.grow must be at least 0'),
      (_with(seconds=None), r'\.seconds must be an object; got None'),
      (_with(control='x'), r"\.control must be one of \('', 'trained on'"),
      (_with(outputs=[]), r'\.outputs must be an object'),
      (_with(outputs={'greedy': {}}), r"\.outputs\['greedy'\]\.reward is miss"),
      (_with(blue=1.0), r"\.blue is not a field of results; .* 'bleu'"),
    ],
  )
  def test_the_field_is_named(self, change, message):
    content = copy.deepcopy(DOCUMENTED)
    change(content['variants'][0])
    with pytest.raises(ValueError, match=message):
      results_lib.from_json(content)

  @pytest.mark.parametrize(
    ('content', 'message'),
    [
      ([], 'must be a JSON object'),
      ({'task': 'demo', 'variants': []}, 'schema must be 1, .* got None'),
      ({**DOCUMENTED, 'schema': 2}, 'schema must be 1, .* got 2'),
      ({**DOCUMENTED, 'task': ''}, 'task must be a non-empty text'),
      ({**DOCUMENTED, 'variants': {}}, 'variants must be a list'),
      ({**DOCUMENTED, 'variants': [3]}, r'variants\[0\] must be an object'),
      ({'schema': 1, 'variants': []}, 'task is missing'),
    ],
  )
  def test_the_whole_file(self, content, message):
    with pytest.raises(ValueError, match=message):
      results_lib.from_json(content)

  def test_a_bad_value_is_not_written(self, tmp_path):
    path = tmp_path / 'results.json'
    results = results_lib.Results(
      task='demo', variants=(make_variant(length_ratio=math.inf),)
    )
    with pytest.raises(ValueError, match='length_ratio must be a finite'):
      results_lib.write(path, results)
    assert not path.exists()

  def test_reading_names_the_file(self, tmp_path):
    path = tmp_path / 'results.json'
    path.write_text('{"schema": 1')
    with pytest.raises(ValueError, match=r'results\.json is not valid JSON'):
      results_lib.read(path)
    path.write_text('{"schema": 1, "task": "demo", "variants": [{}]}')
    with pytest.raises(ValueError, match=r'results\.json: variants\[0\]\.name'):
      results_lib.read(path)

  def test_entries_do_not_change(self):
    with pytest.raises(dataclasses.FrozenInstanceError):
      make_variant().bleu = 1.0
