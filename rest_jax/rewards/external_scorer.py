"""COMET, BLEURT or sentence embeddings as a program for `external`.

  python external_scorer.py comet MODEL
  python external_scorer.py bleurt CHECKPOINT
  python external_scorer.py sentenceembedding MODEL

It runs in an interpreter that has the metric but not this package, so it
imports only the standard library and the metric.
"""

from collections.abc import Callable
import json
import os
import sys
from typing import Any

INSTALL = {
  'comet': (
    'Give an interpreter that has COMET: python -m venv comet && '
    'comet/bin/pip install unbabel-comet'
  ),
  'bleurt': (
    'Give an interpreter that has BLEURT: python -m venv bleurt && '
    'bleurt/bin/pip install git+https://github.com/google-research/bleurt; '
    'its README says where the checkpoints are'
  ),
  'sentenceembedding': (
    'Give an interpreter that has sentence-transformers: python -m venv '
    'embedding && embedding/bin/pip install sentence-transformers'
  ),
}

Score = Callable[[dict[str, Any]], list[float]]


def comet(model: str) -> Score:
  """Loads COMET by its name on the hub, or the path of a checkpoint."""
  import comet as package  # pyright: ignore[reportMissingImports]
  import torch  # pyright: ignore[reportMissingImports]

  path = model if os.path.exists(model) else package.download_model(model)
  loaded = package.load_from_checkpoint(path)
  gpus = min(1, torch.cuda.device_count())

  def score(batch: dict[str, Any]) -> list[float]:
    rows = [
      {'src': source, 'mt': hypothesis}
      for source, hypothesis in zip(
        batch['sources'], batch['hypotheses'], strict=True
      )
    ]
    for row, reference in zip(rows, batch['references'] or [], strict=False):
      row['ref'] = reference
    predicted = loaded.predict(rows, gpus=gpus, progress_bar=False)
    return [float(value) for value in predicted.scores]

  return score


def bleurt(model: str) -> Score:
  """Loads BLEURT from the folder of a checkpoint."""
  from bleurt import score as package  # pyright: ignore[reportMissingImports]

  scorer = package.BleurtScorer(model)
  return lambda batch: [
    float(value)
    for value in scorer.score(
      references=batch['references'], candidates=batch['hypotheses']
    )
  ]


def sentenceembedding(model: str) -> Score:
  """Loads a model by its name on the hub, or the path of its folder."""
  import sentence_transformers  # pyright: ignore[reportMissingImports]

  loaded = sentence_transformers.SentenceTransformer(model)

  def score(batch: dict[str, Any]) -> list[float]:
    hypotheses, references = batch['hypotheses'], batch['references']
    # A reference stands beside every sample of its source.
    texts = list(dict.fromkeys([*hypotheses, *references]))
    embedded = loaded.encode(
      texts, normalize_embeddings=True, show_progress_bar=False
    )
    rows = dict(zip(texts, embedded, strict=True))
    return [
      float((rows[hypothesis] * rows[reference]).sum())
      for hypothesis, reference in zip(hypotheses, references, strict=True)
    ]

  return score


KINDS = {
  'comet': comet,
  'bleurt': bleurt,
  'sentenceembedding': sentenceembedding,
}


def main(kind: str, model: str) -> int:
  """Answers each line of stdin with one line on stdout."""
  # Output printed by packages must not mix with the answers.
  answers = os.fdopen(os.dup(1), 'w', encoding='utf-8')
  os.dup2(2, 1)

  def answer(content: dict[str, Any]) -> None:
    print(json.dumps(content), file=answers, flush=True)

  try:
    score = KINDS[kind](model)
  except ImportError as error:
    answer({'error': f'{sys.executable} cannot import {kind}: {error}'})
    return 1
  except Exception as error:
    answer({'error': f'cannot load the model {model}: {error!r}'})
    return 1
  for line in sys.stdin:
    batch = json.loads(line)
    answer({'batch': batch['batch'], 'rewards': score(batch)})
  return 0


if __name__ == '__main__':
  sys.exit(main(*sys.argv[1:]))
