"""Corpus metrics of texts against hand-computed values."""

import importlib
import math

import numpy as np
import pytest
from sacrebleu.tokenizers import tokenizer_spm

from rest_jax.evaluation import text_metrics


class TestBleu:
  def test_by_hand(self):
    # 1- to 4-gram precisions 4/5, 2/4, 1/3, and no 4-gram of 2, which
    # sacrebleu's exponential smoothing counts as 1/2 of one; equal lengths.
    score, signature = text_metrics.corpus_bleu(
      ['the cat sat on mats'], ['the cat sat in mats']
    )
    precisions = 4 / 5 * 2 / 4 * 1 / 3 * (1 / 2) / 2
    assert score == pytest.approx(100 * precisions**0.25)
    assert 'nrefs:1' in signature and 'tok:13a' in signature

  def test_brevity(self):
    # All n-grams are right, three words are missing: exp(1 - 8/5).
    score, _ = text_metrics.corpus_bleu(['a b c d e'], ['a b c d e f g h'])
    assert score == pytest.approx(100 * math.exp(1 - 8 / 5))

  def test_tokenizer_is_recorded(self):
    score, signature = text_metrics.corpus_bleu(
      ['今天天气好'], ['今天天气好'], tokenize='zh'
    )
    assert score == pytest.approx(100.0)
    assert 'tok:zh' in signature

  @pytest.mark.parametrize('name', ['13a', 'zh', 'char', 'intl', 'none', None])
  def test_tokenizers_that_need_nothing(self, name):
    text_metrics.check_tokenizer('tokenize', name)

  def test_an_unknown_tokenizer_is_refused(self):
    with pytest.raises(
      ValueError, match=r"tokenize must be one of '13a', .*xx"
    ):
      text_metrics.check_tokenizer('tokenize', 'xx')

  @pytest.mark.parametrize('language', ['ja', 'ko'])
  def test_a_missing_package_is_named(self, monkeypatch, language):
    module = importlib.import_module(
      f'sacrebleu.tokenizers.tokenizer_{language}_mecab'
    )
    monkeypatch.setattr(module, 'MeCab', None)
    name = f'{language}-mecab'
    with pytest.raises(ValueError, match=rf'install .sacrebleu\[{language}\]'):
      text_metrics.check_tokenizer('tokenize', name)

  def test_a_model_that_cannot_be_downloaded_is_refused(self, monkeypatch):
    def fail(*arguments):
      raise OSError('no network')

    monkeypatch.setattr(tokenizer_spm, 'download_file', fail)
    monkeypatch.setattr(tokenizer_spm, 'SACREBLEU_DIR', 'nowhere')
    with pytest.raises(
      ValueError, match=r'a model that sacrebleu .*no network'
    ):
      text_metrics.check_tokenizer('tokenize', 'flores200')

  def test_tokenised_texts_are_no_remark(self, caplog):
    texts = [f'sentence number {i} .' for i in range(200)]
    assert text_metrics.corpus_bleu(texts, texts)[0] == pytest.approx(100.0)
    assert not caplog.records


class TestChrf:
  def test_by_hand(self):
    # Characters 'ab' against 'abc': precisions 1, 1; recalls 2/3, 1/2 of 1- and
    # 2-grams; the mean over orders present in both, then F with beta 2.
    score, signature = text_metrics.corpus_chrf(['ab'], ['abc'])
    precision, recall = 1.0, (2 / 3 + 1 / 2) / 2
    assert score == pytest.approx(
      100 * 5 * precision * recall / (4 * precision + recall)
    )
    assert 'nc:6' in signature and 'nw:0' in signature

  def test_bounds(self):
    assert text_metrics.corpus_chrf(['abc'], ['abc'])[0] == pytest.approx(100.0)
    assert text_metrics.corpus_chrf(['abc'], ['xyz'])[0] == 0.0
    assert text_metrics.corpus_chrf([''], ['xyz'])[0] == 0.0


class TestLengthRatio:
  def test_by_hand(self):
    assert text_metrics.length_ratio(['abc', ''], ['ab', 'cdef']) == 0.5

  def test_refuses_empty_references(self):
    with pytest.raises(ValueError, match='all are empty'):
      text_metrics.length_ratio(['abc'], [''])


class TestDistinctSamples:
  def test_by_hand(self):
    source_ids = np.array([0, 0, 0, 1, 1])
    hypotheses = ['a', 'b', 'a', 'a', 'a']
    assert text_metrics.distinct_samples(source_ids, hypotheses) == 3
    assert text_metrics.distinct_samples(list(source_ids), hypotheses) == 3
    assert text_metrics.distinct_samples([], []) == 0

  def test_refuses_other_lengths(self):
    with pytest.raises(ValueError, match='each of the 1 hypotheses; got 2'):
      text_metrics.distinct_samples([0, 1], ['a'])


@pytest.mark.parametrize(
  'metric',
  [
    text_metrics.corpus_bleu,
    text_metrics.corpus_chrf,
    text_metrics.length_ratio,
  ],
)
@pytest.mark.parametrize(
  ('hypotheses', 'references', 'message'),
  [
    ([], [], 'at least one text'),
    (['a', 'b'], ['a'], 'each of the 2 hypotheses; got 1'),
    (['a', 'b'], ['a', None], 'one is missing'),
    ('ab', ['a', 'b'], "got 'ab'"),
  ],
)
def test_refuses(metric, hypotheses, references, message):
  with pytest.raises(ValueError, match=message):
    metric(hypotheses, references)
