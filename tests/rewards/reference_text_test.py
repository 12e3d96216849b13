"""The script of references chooses the tokeniser of BLEU."""

from unittest import mock

import pytest
import sacrebleu
from sacrebleu import metrics as sacrebleu_metrics

from rest_jax.rewards import reference_text

CHINESE = '北京的天气今天很好，我们去公园散步。'
JAPANESE = '今日は天気がいいので、公園を散歩します。'
KOREAN = '오늘은 날씨가 좋아서 공원을 산책합니다.'
THAI = 'วันนี้อากาศดีเราจึงไปเดินเล่นที่สวนสาธารณะ'


@pytest.mark.parametrize(
  ('text', 'script', 'tokenizer'),
  [
    ('Das Wetter ist heute schön.', '', '13a'),
    ('Сегодня хорошая погода.', '', '13a'),
    ('आज मौसम अच्छा है।', '', '13a'),
    ('الطقس جميل اليوم.', '', '13a'),
    ('1, 2, 3.', '', '13a'),
    ('', '', '13a'),
    (CHINESE, 'Chinese', 'zh'),
    ('後來我們去台灣旅遊。', 'Chinese', 'zh'),
    ('我们使用 TensorFlow 训练一个很大的 BERT 模型', 'Chinese', 'zh'),
    ('Peking (北京) is the capital of China.', '', '13a'),
    (JAPANESE, 'Japanese', 'char'),
    ('コンピュータ', 'Japanese', 'char'),
    (KOREAN, 'Korean', 'char'),
    (THAI, 'Thai', 'char'),
    ('ມື້ນີ້ອາກາດດີ', 'Lao', 'char'),
    ('ថ្ងៃនេះអាកាសធាតុល្អ', 'Khmer', 'char'),
    ('ဒီနေ့ရာသီဥတုကောင်းတယ်', 'Burmese', 'char'),
  ],
)
def test_the_tokenizer_follows_the_script(text, script, tokenizer, monkeypatch):
  monkeypatch.setattr(
    reference_text, '_is_installed', lambda name: 'mecab' not in name
  )
  assert reference_text.script_of([text, text]).name == script
  assert reference_text.bleu_tokenizer([text, text]) == tokenizer


@pytest.mark.parametrize(
  ('text', 'tokenizer'), [(JAPANESE, 'ja-mecab'), (KOREAN, 'ko-mecab')]
)
def test_mecab_is_used_where_it_is_installed(text, tokenizer, monkeypatch):
  monkeypatch.setattr(reference_text, '_is_installed', lambda name: True)
  assert reference_text.bleu_tokenizer([text]) == tokenizer


def test_a_tokenizer_that_fails_is_not_installed():
  assert reference_text._is_installed('char')
  with mock.patch.object(
    sacrebleu_metrics, 'BLEU', side_effect=RuntimeError('pip install it')
  ):
    assert not reference_text._is_installed('ja-mecab')


def test_shares_are_of_letters():
  script = reference_text.script_of(['天气 ab 12', '好。'])
  assert script == ('Chinese', 3 / 5)


def test_near_misses_in_chinese_are_not_all_wrong():
  hypothesis = CHINESE.replace('今天', '昨天')
  scores = {
    tokenize: sacrebleu.corpus_bleu(
      [hypothesis], [[CHINESE]], tokenize=tokenize
    ).score
    for tokenize in ('13a', reference_text.bleu_tokenizer([CHINESE]))
  }
  # One character of 18 differs, which 4 of the 15 4-grams and so on hold.
  assert scores['zh'] > 75 and scores['13a'] < 20


@pytest.mark.parametrize(
  ('tokenize', 'text', 'expected'),
  [
    ('13a', CHINESE, True),
    ('intl', JAPANESE, True),
    ('none', THAI, True),
    ('zh', CHINESE, False),
    ('zh', THAI, True),
    ('char', KOREAN, False),
    ('flores200', CHINESE, False),
    ('13a', 'plain text', False),
  ],
)
def test_unfit_tokenizers(tokenize, text, expected):
  script = reference_text.script_of([text])
  assert reference_text.is_unfit(tokenize, script) is expected


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('He left .', True),
    ('So , he left.', True),
    ('He said &quot; no &quot;', True),
    ('don &apos;t', True),
    ('well @-@ known', True),
    ('un@@ known', True),
    ('He left.', False),
    ('He left ... and came back.', False),
    ('Vraiment ?', False),
    ('R&D, AT&T; 3.5', False),
    ('a .5 share', False),
  ],
)
def test_tokenised_text(text, expected):
  assert reference_text.tokenised_share([text]) == float(expected)


def test_the_share_of_no_text():
  assert reference_text.tokenised_share([]) == 0.0
