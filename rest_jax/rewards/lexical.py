"""chrF, BLEU and TER to the reference as rewards, computed with sacrebleu.

They need a reference per source, so Grow needs pairs. D's own references equal
themselves, so they have the highest reward in D_g.
"""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

from absl import logging
from jaxtyping import Float32
import numpy as np
import sacrebleu
from sacrebleu import metrics as sacrebleu_metrics

from rest_jax import settings
from rest_jax.rewards import base, reference_text

_LOOKED_AT = 1_000  # References from which BLEU's tokeniser is chosen.


class _Lexical(base.OwnReward):
  """Base of the metrics of this module."""

  @property
  def needs_references(self) -> bool:
    return True

  @functools.cached_property
  def _metric(self) -> Any:
    """Returns sacrebleu's metric with these settings."""
    raise NotImplementedError

  def _reward(self, hypothesis: str, reference: str) -> float:
    """Returns the metric of one hypothesis on the scale of the reward."""
    return self._metric.sentence_score(hypothesis, [reference]).score / 100.0

  def described(self) -> dict[str, Any]:
    return super().described() | {'sacrebleu': sacrebleu.__version__}

  def check(self) -> str:
    return f'{type(self).__name__} to the reference, by sacrebleu'

  def score(
    self,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: base.References = None,
  ) -> Float32[np.ndarray, ' n']:
    """Scores each hypothesis; see `base.Reward.score`."""
    references = base.needed(self.name, references)
    base.check_texts(sources, hypotheses, references)
    pairs = list(zip(hypotheses, references, strict=True))
    # Each distinct pair once: samples of a source are often equal.
    known = {pair: self._reward(*pair) for pair in dict.fromkeys(pairs)}
    rewards = np.asarray([known[pair] for pair in pairs], np.float32)
    base.check_finite(self.name, sources, hypotheses, rewards)
    return rewards


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chrf(_Lexical):
  """Sentence chrF / 100: in [0, 1], 1 for equal texts.

  Source: Popović, chrF: character n-gram F-score (2015).

  Attributes:
    char_order: longest character n-grams.
    word_order: longest word n-grams; 2 is chrF++.
    beta: weight of recall against precision. At 1 superfluous text costs as
      much as missing text; at 2, sacrebleu's default, less.
    name: name of the reward.
  """

  char_order: int = 6
  word_order: int = 0
  beta: int = 2
  name: str = 'chrf'

  def __post_init__(self):
    settings.at_least(self, 1, 'char_order', 'beta')
    settings.at_least(self, 0, 'word_order')

  @functools.cached_property
  def _metric(self) -> Any:
    return sacrebleu_metrics.CHRF(
      char_order=self.char_order, word_order=self.word_order, beta=self.beta
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bleu(_Lexical):
  """Sentence BLEU / 100: in [0, 1], 1 for equal texts.

  Smoothed ('exp') and with effective order for short hypotheses, like
  sacrebleu's `sentence_bleu`.

  Source: Papineni et al., BLEU (2002).

  Attributes:
    tokenize: sacrebleu's tokeniser: '13a', 'zh' for Chinese, ...; None chooses
      it by the script of D's references on loading.
    name: name of the reward.
  """

  tokenize: str | None = None
  name: str = 'bleu'

  def __post_init__(self):
    known = sorted(sacrebleu_metrics.BLEU.TOKENIZERS)
    settings.one_of(self, (None, *known), 'tokenize')

  def load(self, resources: base.Resources) -> base.Reward:
    references = _references(resources)
    if self.tokenize is None:
      chosen = reference_text.bleu_tokenizer(references)
      return dataclasses.replace(self, tokenize=chosen)
    script = reference_text.script_of(references)
    if reference_text.is_unfit(self.tokenize, script):
      _warn_of_words(
        self.name,
        script,
        f'now tokenize={self.tokenize!r}; leave Bleu.tokenize out, and it '
        'follows the script',
      )
    return self

  @functools.cached_property
  def _metric(self) -> Any:
    tokenize = self.tokenize or '13a'
    return sacrebleu_metrics.BLEU(tokenize=tokenize, effective_order=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ter(_Lexical):
  """1 - TER: 1 for equal texts, 0 if every word has to be edited.

  It is negative for hypotheses much longer than the reference, and not clamped,
  since clamping makes ties.

  Source: Snover et al., A Study of Translation Edit Rate (2006).

  Attributes:
    normalized: split punctuation off before counting edits.
    asian_support: split Chinese, Japanese and Korean into characters; needs
      `normalized`.
    case_sensitive: whether case counts.
    name: name of the reward.
  """

  normalized: bool = False
  asian_support: bool = False
  case_sensitive: bool = False
  name: str = 'ter'

  def __post_init__(self):
    if self.asian_support and not self.normalized:
      raise ValueError(
        'asian_support works on normalized text; got normalized=False. Set '
        'Ter.normalized = True.'
      )

  def load(self, resources: base.Resources) -> base.Reward:
    script = reference_text.script_of(_references(resources))
    if script.name and not self.asian_support:
      _warn_of_words(
        self.name,
        script,
        'set Ter.normalized and Ter.asian_support, or use Chrf',
      )
    return self

  @functools.cached_property
  def _metric(self) -> Any:
    return sacrebleu_metrics.TER(
      normalized=self.normalized,
      asian_support=self.asian_support,
      case_sensitive=self.case_sensitive,
    )

  def _reward(self, hypothesis: str, reference: str) -> float:
    return 1.0 - super()._reward(hypothesis, reference)


def _references(resources: base.Resources) -> list[str]:
  """Returns some references of D, evenly spread."""
  pairs = resources.pairs
  rows = range(0, len(pairs), -(-len(pairs) // _LOOKED_AT))
  return [pairs.reference_text(row) for row in rows]


def _warn_of_words(
  name: str, script: reference_text.Script, remedy: str
) -> None:
  logging.warning(
    'reward %s: %.0f %% of the letters of the references are %s, and the '
    'metric reads a sentence of that script as one word (%s)',
    name,
    100 * script.share,
    script.name,
    remedy,
  )
