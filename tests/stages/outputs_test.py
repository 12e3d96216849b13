"""Outputs by decode: what is scored, by hand, and what a finished run holds."""

import numpy as np
import pytest

from rest_jax.evaluation import outputs as outputs_lib
from rest_jax.evaluation import results as results_lib
from rest_jax.rewards import normalize
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import outputs

REFERENCES = {2: 'the cat sat on the mat', 5: 'a dog ran over the hill'}


class _Pairs:
  def source_text(self, row):
    return f'source {row}'

  def reference_text(self, row):
    return REFERENCES[row]


class _Length:
  """A reward: the number of words."""

  name = 'length'
  needs_references = True

  def score(self, sources, hypotheses, references):
    assert [REFERENCES[int(s.split()[1])] for s in sources] == references
    return np.array([len(text.split()) for text in hypotheses], np.float32)


class _Exact:
  """A judge: whether a text is the reference."""

  name, digest = 'exact', ''
  needs_references = True

  def score(self, sources, hypotheses, references):
    pairs = zip(references, hypotheses, strict=True)
    return np.array([a == b for a, b in pairs], np.float32)


def scorer(judge=None):
  return outputs.Scorer(
    reward=_Length(),
    normalizer=normalize.Normalizer(0.0, 10.0),
    judge=judge,
    pairs=_Pairs(),
    rows=np.array([2, 5]),
    tokenize='13a',
  )


def scores_of(made, judge=None):
  return scorer(judge).score({'greedy': made})['greedy']


SAMPLES = outputs.Samples(
  sources=np.array([2, 2, 5, 5]),
  texts=['the cat', REFERENCES[2], REFERENCES[5], REFERENCES[5]],
  rewards=np.array([[0.9, 0.6], [0.5, 0.7]]),
  judged=np.array([[0.25, 0.75], [0.5, 1.0]]),
  finished=np.array([[False, True], [True, True]]),
)


def test_a_judge_must_give_numbers():
  class Undecided(_Exact):
    def score(self, sources, hypotheses, references):
      return np.full(len(hypotheses), np.nan, np.float32)

  made = outputs.Made(['the cat', REFERENCES[5]], 1.0)
  with pytest.raises(FloatingPointError, match="'exact' must be finite"):
    scores_of(made, Undecided())


def test_outputs_of_a_search_are_scored_by_everything():
  made = outputs.Made(['the cat', REFERENCES[5]], 1.0)
  found = scores_of(made, _Exact())
  assert found.sources.tolist() == [2, 5]
  np.testing.assert_allclose(found.reward, [0.2, 0.6])
  np.testing.assert_allclose(found.human, [0.0, 1.0])
  # 'the cat': 2 of 2 words; all 6 of the other.
  assert found.bleu[:, 0].tolist() == [2, 6]
  assert found.bleu[:, -1].tolist() == [6, 6]
  assert found.measure()['human'].mean == pytest.approx(50.0)
  assert scores_of(made).human is None


def test_samples_keep_their_scores_and_count_as_sentences():
  made = outputs.of_samples(SAMPLES, 2.0)
  found = scores_of(made)
  np.testing.assert_allclose(found.reward, [0.75, 0.6])
  np.testing.assert_allclose(found.human, [0.5, 0.75])
  # Of the first source 2 + 6 right words, of the second 6 + 6.
  assert found.bleu[:, 0].tolist() == [8, 12]
  assert found.bleu[:, -1].tolist() == [12, 12]
  measured = outputs.describe(made, found, distinct=1.5)
  assert measured['reward']['mean'] == pytest.approx(67.5)
  assert (measured['distinct'], measured['seconds']) == (1.5, 2.0)


def test_outputs_of_all_decodes_are_counted_as_one_by_one():
  made = {
    'greedy': outputs.Made(['the cat', REFERENCES[5]], 1.0),
    'samples': outputs.of_samples(SAMPLES, 2.0),
  }
  for name, found in scorer().score(made).items():
    expected = scores_of(made[name])
    np.testing.assert_array_equal(found.bleu, expected.bleu)
    np.testing.assert_array_equal(found.chrf, expected.chrf)


def test_the_best_sample_is_a_finished_one():
  choice = outputs.best_choice(SAMPLES)
  assert choice.tolist() == [1, 1]
  made = outputs.chosen(SAMPLES, choice, None)
  assert made.texts == [REFERENCES[2], REFERENCES[5]]
  np.testing.assert_allclose(made.rewards, [0.6, 0.7])
  np.testing.assert_allclose(made.judged, [0.75, 1.0])


def test_mbr_takes_the_finished_sample_that_the_others_agree_with():
  samples = outputs.Samples(
    sources=np.repeat([2, 5], 3),
    texts=['a cat', 'a cat sat', 'dogs', 'dogs', 'a cat sat', 'a cat sat'],
    rewards=np.zeros((2, 3)),
    judged=None,
    finished=np.array([[True, True, True], [True, False, False]]),
  )
  # 'a cat sat' holds all of 'a cat'; of the second source one is finished.
  assert outputs.mbr_choice(samples).tolist() == [1, 0]


def test_scores_are_read_as_they_were_written(tmp_path):
  scores = {
    'greedy': scores_of(outputs.Made(['a', 'b'], 1.0)),
    'best of 2': scores_of(outputs.Made(['the cat', 'x'], 1.0), _Exact()),
  }
  outputs.write(tmp_path, scores)
  found = outputs.read(tmp_path)
  assert list(found) == ['greedy', 'best of 2']
  assert found['greedy'].human is None
  for name, expected in scores.items():
    for column, other in zip(found[name], expected, strict=True):
      np.testing.assert_array_equal(column, other)
  first = (tmp_path / outputs.FILE).read_bytes()
  outputs.write(tmp_path, scores)
  assert (tmp_path / outputs.FILE).read_bytes() == first


def test_an_evaluation_of_an_earlier_version_is_refused(tmp_path):
  with pytest.raises(ValueError, match='--run_mode=evaluate --overwrite'):
    outputs.read(tmp_path)


def test_entries_of_a_run_agree_with_their_outputs(run):
  results = results_lib.read(run.model_dir / 'results.json')
  for split in ('validation', 'test'):
    bc = results.of_split(split)[0]
    for variant in results.of_split(split):
      assert list(variant.outputs) == ['greedy', 'samples', 'best of 2']
      greedy, samples, best = variant.outputs.values()
      assert (greedy.bleu, greedy.chrf) == pytest.approx(
        (variant.bleu, variant.chrf)
      )
      assert samples.reward == variant.reward
      assert samples.human == variant.human
      assert best.reward.mean == pytest.approx(variant.best_of_n[2])
      assert best.human.mean == pytest.approx(variant.best_of_n_human[2])
      assert best.seconds >= samples.seconds > 0 and greedy.seconds > 0
      for name, output in variant.outputs.items():
        assert bool(output.differences) != variant.is_bc
        if variant.is_bc:
          continue
        for measure, difference in output.differences.items():
          field = 'human' if measure == 'judge' else measure.lower()
          own, base = (getattr(v.outputs[name], field) for v in (variant, bc))
          own, base = (getattr(x, 'mean', x) for x in (own, base))
          assert difference.mean == pytest.approx(own - base, abs=1e-9)


def test_greedy_outputs_are_judged_one_by_one(run):
  step = run.policies()[-1]
  directory = run.evaluation(step, 'test').folder
  texts = (directory / 'greedy.txt').read_text(encoding='utf-8').splitlines()
  pairs = run.data.pairs('test')
  sources = [pairs.source_text(row) for row in range(len(pairs))]
  found = outputs.read(directory)[outputs_lib.GREEDY]
  judged = run.experiment.task.judge.score(sources, texts)
  np.testing.assert_allclose(found.human, judged)
  rewards = run.reward.normalizer()(run.reward_model.score(sources, texts))
  np.testing.assert_allclose(found.reward, rewards, atol=1e-4)
  measured = folder_lib.read_manifest(directory)['measured']['outputs']
  assert measured['greedy']['human']['mean'] == pytest.approx(
    100 * np.mean(judged)
  )
