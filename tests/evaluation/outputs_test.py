"""Outputs by decode: fields, and differences paired by source, by hand."""

import numpy as np
import pytest

from rest_jax.evaluation import metrics, outputs, paired_text

REFERENCES = ['the cat sat on the mat', 'a dog ran over the hill']
BETTER = ['the cat sat on the mat', 'a dog ran over a hill']
WORSE = ['the cat sat on a mat', 'one dog walked']


def scores(reward, human, texts, sources=(3, 7)):
  return outputs.Scores(
    sources=np.array(sources),
    reward=np.array(reward, np.float64),
    human=None if human is None else np.array(human, np.float64),
    bleu=paired_text.bleu_counts(texts, REFERENCES),
    chrf=paired_text.chrf_counts(texts, REFERENCES),
  )


def test_names():
  assert outputs.beam(4) == 'beam 4'
  assert outputs.best_of(8) == 'best of 8'
  assert outputs.mbr(16) == 'MBR 16'


def test_measures_by_hand():
  found = scores([0.2, 0.6], [0.1, 0.4], BETTER).measure()
  assert found['reward'].mean == pytest.approx(40.0)
  # Of two sources: half their distance.
  assert found['reward'].stderr == pytest.approx(20.0)
  assert found['human'].mean == pytest.approx(25.0)
  assert 50 < found['bleu'] < 100 and 50 < found['chrf'] < 100
  assert 'human' not in scores([0.2, 0.6], None, BETTER).measure()


def test_differences_are_paired_by_source():
  own = scores([0.5, 0.9], [0.3, 0.4], BETTER)
  bc = scores([0.2, 0.5], [0.4, 0.5], WORSE)
  found = outputs.differences(own, bc)
  # 30 and 40: mean 35, standard error 5.
  assert found['difference_to_bc'].mean == pytest.approx(35.0)
  assert found['difference_to_bc'].stderr == pytest.approx(5.0)
  # -10 twice.
  assert found['human_difference_to_bc'].mean == pytest.approx(-10.0)
  assert found['human_difference_to_bc'].stderr == pytest.approx(0.0)
  for name, score in (('bleu', paired_text.bleu), ('chrf', paired_text.chrf)):
    expected = score(getattr(own, name).sum(0)) - score(
      getattr(bc, name).sum(0)
    )
    assert expected > 0
    assert found[f'{name}_difference_to_bc'].mean == pytest.approx(expected)


def test_a_judge_of_one_side_gives_no_difference():
  found = outputs.differences(
    scores([0.5, 0.9], None, BETTER), scores([0.2, 0.5], [0.4, 0.5], WORSE)
  )
  assert 'human_difference_to_bc' not in found


def test_other_sources_are_refused():
  bc = scores([0.2, 0.5], None, WORSE, sources=(3, 8))
  with pytest.raises(ValueError, match='same sources'):
    outputs.differences(scores([0.5, 0.9], None, BETTER), bc)


@pytest.mark.parametrize(
  ('field', 'value'), [('bleu', -1.0), ('chrf', 101.0), ('distinct', 0.5)]
)
def test_values_out_of_range_are_refused(field, value):
  fields = {'bleu': 30.0, 'chrf': 50.0, 'distinct': 2.0}
  with pytest.raises(ValueError, match=field):
    outputs.Output(
      reward=metrics.Estimate(70.0, 0.5), **{**fields, field: value}
    )
