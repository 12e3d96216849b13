"""Metrics of texts: BLEU, chrF, lengths, distinct samples.

They are independent of the reward, so they show a policy that exploits it.
"""

from collections.abc import Hashable, Sequence
import socket

from jaxtyping import Int
import numpy as np
from sacrebleu import metrics as sacrebleu_metrics

_DOWNLOAD_SECONDS = 20.0
# Characters of other libraries' errors.
_SHOWN = 200
_NEEDS = {
  'ja-mecab': "it needs MeCab (pip install 'sacrebleu[ja]')",
  'ko-mecab': "it needs MeCab (pip install 'sacrebleu[ko]')",
}
_NEEDS_MODEL = (
  'it needs sentencepiece and a model that sacrebleu downloads to '
  '~/.sacrebleu/models'
)


def corpus_bleu(
  hypotheses: Sequence[str], references: Sequence[str], *, tokenize: str = '13a'
) -> tuple[float, str]:
  """BLEU of a corpus by sacrebleu.

  Source: Papineni et al., BLEU (2002); Post, A Call for Clarity in Reporting
  BLEU Scores (2018).

  Args:
    hypotheses: one detokenised text per source.
    references: one reference per hypothesis.
    tokenize: sacrebleu's tokeniser, e.g. '13a', 'zh'.

  Returns:
    The score, in [0, 100], higher is better, and sacrebleu's signature.

  Raises:
    ValueError: no hypotheses, or lists of different lengths.
  """
  # `force` only silences the remark on texts that look tokenised.
  metric = sacrebleu_metrics.BLEU(tokenize=tokenize, force=True)
  return _corpus_score(metric, hypotheses, references)


def corpus_chrf(
  hypotheses: Sequence[str], references: Sequence[str]
) -> tuple[float, str]:
  """chrF2 of a corpus by sacrebleu: F2 of character n-grams up to 6.

  Source: Popović, chrF: character n-gram F-score (2015).

  Args, Returns, Raises: as `corpus_bleu`.
  """
  return _corpus_score(sacrebleu_metrics.CHRF(), hypotheses, references)


def check_tokenizer(setting: str, name: str | None) -> None:
  """Raises ValueError unless sacrebleu's tokeniser can be used here.

  Some tokenisers need a package, others a model that sacrebleu downloads.

  Args:
    setting: name of the setting, for the error.
    name: name of the tokeniser; None if the text chooses one.
  """
  if name is None:
    return
  known = ', '.join(map(repr, sorted(sacrebleu_metrics.BLEU.TOKENIZERS)))
  if name not in sacrebleu_metrics.BLEU.TOKENIZERS:
    raise ValueError(f'{setting} must be one of {known}; got {name!r}.')
  timeout = socket.getdefaulttimeout()
  socket.setdefaulttimeout(_DOWNLOAD_SECONDS)
  try:
    sacrebleu_metrics.BLEU(tokenize=name)
  except Exception as error:
    raise ValueError(
      f"{setting}={name!r}, sacrebleu's tokeniser, cannot be used here: "
      f'{_NEEDS.get(name, _NEEDS_MODEL)}; got {type(error).__name__}: '
      f'{" ".join(str(error).split())[:_SHOWN]} Install that, or choose another '
      f'of {known}.'
    ) from error
  finally:
    socket.setdefaulttimeout(timeout)


def length_ratio(hypotheses: Sequence[str], references: Sequence[str]) -> float:
  """Number of characters in all hypotheses over that in all references.

  It needs no tokeniser; below 1, hypotheses are shorter than the references.

  Raises:
    ValueError: lists of different lengths, or no reference text.
  """
  _check_texts(hypotheses, references)
  total = sum(map(len, references))
  if total == 0:
    raise ValueError('references must hold some text; all are empty.')
  return sum(map(len, hypotheses)) / total


def distinct_samples(
  source_ids: Sequence[Hashable] | Int[np.ndarray, ' n'],
  hypotheses: Sequence[Hashable],
) -> int:
  """Number of distinct (source, hypothesis) pairs.

  Args:
    source_ids: the source of each hypothesis.
    hypotheses: texts, or other hashable values for them.

  Raises:
    ValueError: lists of different lengths.
  """
  if len(source_ids) != len(hypotheses):
    raise ValueError(
      f'source_ids must name a source for each of the {len(hypotheses)} '
      f'hypotheses; got {len(source_ids)}.'
    )
  if isinstance(source_ids, np.ndarray):
    source_ids = source_ids.tolist()
  return len(set(zip(source_ids, hypotheses, strict=True)))


def _check_texts(hypotheses: Sequence[str], references: Sequence[str]) -> None:
  if isinstance(hypotheses, str) or len(hypotheses) == 0:
    raise ValueError(
      'hypotheses must be a list of at least one text; got '
      f'{hypotheses if isinstance(hypotheses, str) else "none"!r}.'
    )
  if isinstance(references, str) or len(references) != len(hypotheses):
    raise ValueError(
      f'references must hold a text for each of the {len(hypotheses)} '
      f'hypotheses; got {len(references)}.'
    )
  if any(not isinstance(text, str) for text in references):
    raise ValueError('references must be texts; one is missing.')


def _corpus_score(
  metric: sacrebleu_metrics.BLEU | sacrebleu_metrics.CHRF,
  hypotheses: Sequence[str],
  references: Sequence[str],
) -> tuple[float, str]:
  """Returns a corpus metric and its signature."""
  _check_texts(hypotheses, references)
  score = metric.corpus_score(list(hypotheses), [list(references)])
  return float(score.score), str(metric.get_signature())
