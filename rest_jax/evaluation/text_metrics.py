"""Numbers computed from texts: BLEU, chrF, lengths, distinct samples.

None of them enters the reward, so they show a policy that pleases the reward
model alone.
"""

from collections.abc import Hashable, Sequence
import socket
from typing import cast

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
  hypotheses: Sequence[str],
  references: Sequence[str] | Sequence[Sequence[str]],
  *,
  tokenize: str = '13a',
) -> tuple[float, str]:
  """BLEU of a corpus by sacrebleu.

  Source: Papineni et al., BLEU (2002); Post, A Call for Clarity in Reporting
  BLEU Scores (2018).

  Args:
    hypotheses: one detokenised text for each source.
    references: a reference for each hypothesis; or several such lists, each of
      them with a reference for each hypothesis.
    tokenize: sacrebleu's tokeniser, e.g. '13a', 'zh'.

  Returns:
    The score, in [0, 100], higher is better, and sacrebleu's signature.

  Raises:
    ValueError: no hypotheses, or lists of another length.
  """
  # `force` only silences the remark on texts that look tokenised.
  metric = sacrebleu_metrics.BLEU(tokenize=tokenize, force=True)
  return _corpus_score(metric, hypotheses, references)


def corpus_chrf(
  hypotheses: Sequence[str],
  references: Sequence[str] | Sequence[Sequence[str]],
) -> tuple[float, str]:
  """chrF2 of a corpus by sacrebleu: F2 of character n-grams up to 6.

  Source: Popović, chrF: character n-gram F-score (2015).

  Args:
    hypotheses: as for `corpus_bleu`.
    references: as for `corpus_bleu`.

  Returns:
    The score, in [0, 100], higher is better, and sacrebleu's signature.

  Raises:
    ValueError: as `corpus_bleu`.
  """
  return _corpus_score(sacrebleu_metrics.CHRF(), hypotheses, references)


def check_tokenizer(setting: str, name: str | None) -> None:
  """Raises ValueError unless sacrebleu can tokenise for BLEU.

  Some tokenisers need a package, others a model that sacrebleu downloads.

  Args:
    setting: name of the setting, for the error.
    name: sacrebleu's tokeniser; None where the text chooses one.
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
  """Characters in all hypotheses over characters in all references.

  Characters need no tokeniser and no spaces between words; 1 is as long as the
  references, below 1 shorter.

  Args:
    hypotheses: texts.
    references: as many texts, not all of them empty.

  Returns:
    The ratio, at least 0.

  Raises:
    ValueError: lists of different lengths, or no reference text.
  """
  _check_texts(hypotheses, [references])
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
    hypotheses: texts, or anything hashable that stands for them.

  Returns:
    The count, at most the number of hypotheses.

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


def _check_texts(
  hypotheses: Sequence[str], streams: Sequence[Sequence[str]]
) -> None:
  if isinstance(hypotheses, str) or len(hypotheses) == 0:
    raise ValueError(
      'hypotheses must be a list of at least one text; got '
      f'{hypotheses if isinstance(hypotheses, str) else "none"!r}.'
    )
  for stream in streams:
    if isinstance(stream, str) or len(stream) != len(hypotheses):
      raise ValueError(
        f'references must hold a text for each of the {len(hypotheses)} '
        f'hypotheses; got {len(stream)}.'
      )
    if any(not isinstance(text, str) for text in stream):
      raise ValueError('references must be texts; one is missing.')


def _corpus_score(
  metric: sacrebleu_metrics.BLEU | sacrebleu_metrics.CHRF,
  hypotheses: Sequence[str],
  references: Sequence[str] | Sequence[Sequence[str]],
) -> tuple[float, str]:
  """Returns a corpus metric and its signature."""
  if len(references) == 0:
    raise ValueError('references must hold at least one text; got none.')
  is_single = isinstance(references[0], str)
  streams = cast(
    Sequence[Sequence[str]], [references] if is_single else references
  )
  _check_texts(hypotheses, streams)
  score = metric.corpus_score(list(hypotheses), [list(s) for s in streams])
  return float(score.score), str(metric.get_signature())
