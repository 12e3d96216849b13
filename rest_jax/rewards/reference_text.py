"""Properties of references: their script, and whether they are tokenised."""

from collections.abc import Sequence
import re
from typing import NamedTuple

from absl import logging
from sacrebleu import metrics as sacrebleu_metrics

# Scripts whose words are not separated by spaces, or are long (Korean).
_LETTERS = {
  'Chinese': '\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af',
  'Japanese': '\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f',
  'Korean': '\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3',
  'Thai': '\u0e01-\u0e4e',
  'Lao': '\u0e80-\u0ece',
  'Khmer': '\u1780-\u17d3',
  'Burmese': '\u1000-\u103f',
  'Tibetan': '\u0f40-\u0fbc',
}
_PATTERNS = {
  name: re.compile(f'[{letters}]') for name, letters in _LETTERS.items()
}
# One of these characters carries as much as several Latin letters.
_LEAST_SHARE = 0.3
# Japanese has many Chinese characters; Chinese has hardly any kana.
_KANA_SHARE = 0.1
_TOKENIZERS = {
  'Chinese': ('zh',),
  'Japanese': ('ja-mecab', 'char'),
  'Korean': ('ko-mecab', 'char'),
}
# These split at spaces and punctuation.
_BY_SPACES = ('13a', 'intl', 'none')
# A mark after a space; traces of Moses' tokeniser or BPE.
_TOKENISED = re.compile(
  r'\s[.,](?:\s|$)|@-@|@@(?:\s|$)|&(?:apos|quot|amp|lt|gt|#\d+);'
)


class Script(NamedTuple):
  """The script of texts.

  Attributes:
    name: 'Chinese', 'Japanese', ...; '' for scripts with spaces.
    share: its share of all letters; 0 for scripts with spaces.
  """

  name: str
  share: float


def script_of(texts: Sequence[str]) -> Script:
  """Finds the script without spaces that texts are written in, by letters.

  Args:
    texts: references, or a sample of them.

  Returns:
    The most frequent one, if at least 30 % of the letters are of such scripts.
  """
  text = ''.join(texts)
  counts = {
    name: len(pattern.findall(text)) for name, pattern in _PATTERNS.items()
  }
  kana, han = counts['Japanese'], counts['Chinese']
  if kana > _KANA_SHARE * (kana + han):
    counts.update(Japanese=kana + han, Chinese=0)
  else:
    counts.update(Japanese=0, Chinese=kana + han)
  unspaced = sum(counts.values())
  others = sum(
    character.isalpha()
    for character in re.sub(f'[{"".join(_LETTERS.values())}]', '', text)
  )
  if not unspaced or unspaced < _LEAST_SHARE * (unspaced + others):
    return Script('', 0.0)
  name = max(counts, key=lambda name: counts[name])
  return Script(name, counts[name] / (unspaced + others))


def bleu_tokenizer(references: Sequence[str]) -> str:
  """Chooses sacrebleu's tokeniser by the script of references.

  Args:
    references: texts, or a sample of them.

  Returns:
    '13a' for scripts with spaces, 'zh' for Chinese; MeCab's for Japanese and
    Korean if it is installed, otherwise 'char', as for Thai, Lao, Khmer,
    Burmese and Tibetan.
  """
  script = script_of(references)
  if not script.name:
    return '13a'
  names = _TOKENIZERS.get(script.name, ('char',))
  chosen = next(name for name in names if _is_installed(name))
  instead = '' if chosen == names[0] else f', since {names[0]} is not installed'
  logging.log_first_n(
    logging.INFO,
    'BLEU cuts text by %s%s: %.0f %% of the letters of the references are %s',
    1,
    chosen,
    instead,
    100 * script.share,
    script.name,
  )
  return chosen


def is_unfit(tokenize: str, script: Script) -> bool:
  """Returns whether a tokeniser reads a sentence of a script as one word."""
  if not script.name:
    return False
  return tokenize in _BY_SPACES or (
    tokenize == 'zh' and script.name not in ('Chinese', 'Japanese')
  )


def tokenised_share(texts: Sequence[str]) -> float:
  """Returns the share of texts that look tokenised, as 'So , he left .'."""
  if not texts:
    return 0.0
  return sum(bool(_TOKENISED.search(text)) for text in texts) / len(texts)


def _is_installed(name: str) -> bool:
  try:
    sacrebleu_metrics.BLEU(tokenize=name)
  except (ImportError, RuntimeError):
    return False
  return True
