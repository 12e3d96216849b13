"""BLEU's tokeniser follows the references, and outputs are written by line."""

from unittest import mock

import pytest

from rest_jax.evaluation import text_metrics
from rest_jax.stages import evaluate, evaluation, outputs, sample_events
from rest_jax.stages import folder as folder_lib

REFERENCES = ['北京的天气今天很好，我们去公园散步。', '他昨天买了一本新书。']
OUTPUTS = ['北京的天气昨天很好，我们去公园散步。', '他昨天买了一本旧书。']


def _warnings(tmp_path, tokenize, references):
  folder = folder_lib.begin(tmp_path / 'validation', {})
  bleu, _ = text_metrics.corpus_bleu(OUTPUTS, references, tokenize=tokenize)
  evaluate._warn_of_tokenizer(folder, tokenize, bleu, OUTPUTS, references)
  return folder.warnings


def test_an_unfit_tokenizer_is_said_with_both_scores(tmp_path):
  [message] = _warnings(tmp_path, '13a', REFERENCES)
  low, high = (
    text_metrics.corpus_bleu(OUTPUTS, REFERENCES, tokenize=tokenize)[0]
    for tokenize in ('13a', 'zh')
  )
  assert low < 30 < 60 < high
  assert f"BLEU is {low:.2f}, with 'zh' {high:.2f}" in message
  assert '100% of the letters of the references are Chinese' in message


@pytest.mark.parametrize(
  ('tokenize', 'references'),
  [('zh', REFERENCES), ('char', REFERENCES), ('13a', ['a b c d', 'e f'])],
)
def test_a_fit_tokenizer_has_no_warning(tmp_path, tokenize, references):
  assert _warnings(tmp_path, tokenize, references) == []


def test_each_output_is_one_line(tmp_path, monkeypatch):
  monkeypatch.setattr(outputs, 'write', mock.Mock())
  monkeypatch.setattr(sample_events, 'write', mock.Mock())
  config = mock.Mock()
  config.searches.return_value = {'beam 2': None}
  made = evaluation.Evaluation(
    path=tmp_path, config=config, loaded=mock.Mock(), scorer=mock.Mock(), seed=0
  )
  made.__dict__['store'] = mock.MagicMock()
  texts = ['two\nlines', '', 'a\tb\r']
  made.write({'beam 2': outputs.Made(texts, None)}, {})
  assert (tmp_path / 'beam_2.txt').read_bytes() == b'two lines\n\na b \n'
