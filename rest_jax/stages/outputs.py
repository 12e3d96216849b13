"""Outputs of a policy by decode: made, scored and stored by an evaluation.

A decode is a search for one output per source (greedy, beam), all stored
samples, or one stored sample per source, chosen by a score (`chosen`).
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import pathlib
import time
from typing import Any, NamedTuple

import numpy as np

from rest_jax.data import pair_store, sample_store, vocabularies
from rest_jax.evaluation import best_of_n, metrics, paired_text
from rest_jax.evaluation import outputs as outputs_lib
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import consensus, normalize
from rest_jax.rewards import peers as peers_lib
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import draw_samples
from rest_jax.storage import files

HUMAN = 'human'
FILE = 'outputs.npz'


class Made(NamedTuple):
  """Outputs of one decode in the order of the sources, equally many of each.

  Attributes:
    texts: the outputs.
    seconds: seconds to make them; None if unknown.
    rewards: float64 [outputs], normalised; None if not scored yet.
    judged: float64 [outputs], the judge's scores; None if not scored yet, or
      without a judge.
  """

  texts: Sequence[str]
  seconds: float | None
  rewards: np.ndarray | None = None
  judged: np.ndarray | None = None


class Samples(NamedTuple):
  """The stored samples of an evaluation, in the order of the sources.

  Attributes:
    sources: int64 [n * N], the row of each sample's source.
    rewards: float64 [n, N], normalised.
    judged: float64 [n, N], the judge's scores; None without a judge.
    finished: bool [n, N], whether a sample ends with EOS.
  """

  sources: np.ndarray
  texts: list[str]
  rewards: np.ndarray
  judged: np.ndarray | None
  finished: np.ndarray


# Samples -> index of the chosen sample of each source, int [n].
Choose = Callable[[Samples], np.ndarray]


def read_samples(
  store: sample_store.SampleStore,
  *,
  reward_name: str,
  is_judged: bool,
  num_sources: int,
  vocabulary: vocabularies.Vocabulary,
) -> Samples:
  """Reads the samples of an evaluation, and their scores.

  Args:
    is_judged: whether the judge's scores are stored as well.
  """

  def scores(name: str) -> np.ndarray:
    return store.rewards(name)[1].astype(np.float64).reshape(num_sources, -1)

  return Samples(
    sources=store.source_id,
    texts=vocabulary.decode_batch(list(store.tokens)),
    rewards=scores(reward_name),
    judged=scores(HUMAN) if is_judged else None,
    finished=store.finished.reshape(num_sources, -1),
  )


def of_samples(samples: Samples, seconds: float | None) -> Made:
  """Returns all samples as outputs."""
  judged = None if samples.judged is None else samples.judged.reshape(-1)
  return Made(samples.texts, seconds, samples.rewards.reshape(-1), judged)


def chosen(samples: Samples, choice: np.ndarray, seconds: float | None) -> Made:
  """Returns one stored sample of each source as its output.

  Args:
    samples: n sources with N samples each.
    choice: int [n], index of the chosen sample of each source.
    seconds: seconds of sampling and of the choice; None if unknown.
  """
  num_sources, num_samples = samples.rewards.shape
  rows = np.arange(num_sources)
  return Made(
    [samples.texts[row] for row in (rows * num_samples + choice).tolist()],
    seconds,
    samples.rewards[rows, choice],
    None if samples.judged is None else samples.judged[rows, choice],
  )


def best_choice(samples: Samples) -> np.ndarray:
  """Chooses the sample of each source with the highest reward, int [n].

  An unfinished sample is chosen only if the source has no finished one.
  """
  ranks = best_of_n.finished_first(samples.rewards, samples.finished)
  return np.argmax(ranks, axis=1)


def mbr_choice(samples: Samples) -> np.ndarray:
  """Chooses by minimum Bayes risk with chrF, int [n].

  The chosen sample of a source agrees most with the others. An unfinished
  sample is chosen only if the source has no finished one.
  """
  finished = samples.finished
  groups = np.repeat(np.arange(len(finished)), finished.shape[1])
  agreement = consensus.utilities(samples.texts, groups).reshape(finished.shape)
  allowed = finished | ~finished.any(axis=1, keepdims=True)
  return np.argmax(np.where(allowed, agreement, -1.0), axis=1)


def search(
  name: str,
  decode: sampler_lib.DecodeConfig,
  loaded: draw_samples.LoadedPolicy,
  pairs: pair_store.PairStore,
  rows: np.ndarray,
) -> Made:
  """Searches for one output of each source, by greedy or beam search.

  Args:
    name: name of the decode, for the progress bar.
    decode: settings of the search: one sample per source, temperature 0.
    rows: int [n], rows of `pairs`, rising.
  """
  began = time.monotonic()
  tokens, _ = loaded.draw(
    decode, pairs, rows, seed=0, description=f'{name} outputs'
  )
  texts = loaded.data.vocabulary.decode_batch(list(tokens))
  return Made(texts, time.monotonic() - began)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scorer:
  """Scores outputs by every measure that an evaluation reports.

  Attributes:
    judge: the independent judge; None without one.
    evidence: stored samples for a reward that compares the samples of a source;
      None for other rewards.
    pairs: the sources and references.
    rows: int [n], the rows of `pairs` whose outputs are scored, rising.
  """

  reward: rewards_base.Reward
  normalizer: normalize.Normalizer
  judge: rewards_base.Reward | None
  evidence: peers_lib.Evidence | None = None
  pairs: pair_store.PairStore
  rows: np.ndarray
  tokenize: str

  def score(self, outputs: Mapping[str, Made]) -> dict[str, outputs_lib.Scores]:
    """Returns the scores of each source's outputs, by decode."""
    counts = self._counts(outputs)
    return {
      name: self._score(made, counts[name]) for name, made in outputs.items()
    }

  def _score(
    self, made: Made, counts: dict[str, np.ndarray]
  ) -> outputs_lib.Scores:
    num_outputs = len(made.texts) // len(self.rows)
    repeated = np.repeat(self.rows, num_outputs)
    sources, references = pair_store.texts_of(self.pairs, repeated)
    rewards, judged = made.rewards, made.judged
    if rewards is None:
      rewards = self._rewards(repeated, sources, made.texts, references)
    if judged is None and self.judge is not None:
      needed = references if self.judge.needs_references else None
      judged = rewards_base.score(self.judge, sources, made.texts, needed)
      rewards_base.check_finite(self.judge.name, sources, made.texts, judged)

    def per_source(of_outputs: np.ndarray) -> np.ndarray:
      shape = (len(self.rows), num_outputs, *np.shape(of_outputs)[1:])
      return np.asarray(of_outputs).reshape(shape)

    def mean(scores: np.ndarray) -> np.ndarray:
      return per_source(np.asarray(scores, np.float64)).mean(axis=1)

    return outputs_lib.Scores(
      sources=np.asarray(self.rows, np.int64),
      reward=mean(rewards),
      human=None if judged is None else mean(judged),
      **{name: per_source(rows).sum(axis=1) for name, rows in counts.items()},
    )

  def _rewards(
    self,
    ids: np.ndarray,
    sources: Sequence[str],
    texts: Sequence[str],
    references: Sequence[str],
  ) -> np.ndarray:
    """Computes the normalised rewards of outputs."""
    needed = references if self.reward.needs_references else None
    peers = None
    if self.evidence is not None:
      peers = peers_lib.Peers.fixed(ids, self.evidence)
    raw = rewards_base.score(self.reward, sources, texts, needed, peers)
    rewards_base.check_finite(self.reward.name, sources, texts, raw)
    return self.normalizer(raw)

  def _counts(
    self, outputs: Mapping[str, Made]
  ) -> dict[str, dict[str, np.ndarray]]:
    """Returns the counts of BLEU and chrF of each output, by decode."""
    # Equal outputs are counted once: most decodes choose among the samples.
    numbers: dict[tuple[str, str], int] = {}
    which = {}
    for name, made in outputs.items():
      num_outputs = len(made.texts) // len(self.rows)
      repeated = np.repeat(self.rows, num_outputs)
      references = pair_store.texts_of(self.pairs, repeated)[1]
      which[name] = [
        numbers.setdefault(pair, len(numbers))
        for pair in zip(made.texts, references, strict=True)
      ]
    texts, of_texts = zip(*numbers, strict=True)
    bleu = paired_text.bleu_counts(texts, of_texts, tokenize=self.tokenize)
    chrf = paired_text.chrf_counts(texts, of_texts)
    return {
      name: {'bleu': bleu[rows], 'chrf': chrf[rows]}
      for name, rows in which.items()
    }


def text_file(decode: str) -> str:
  """Returns the name of the file with the outputs of a search."""
  return f'{decode.replace(" ", "_")}.txt'


def describe(
  made: Made, scores: outputs_lib.Scores, *, distinct: float = 1.0
) -> dict[str, Any]:
  """Returns the manifest's entry for the outputs of one decode."""
  measured = {
    name: dataclasses.asdict(value)
    if isinstance(value, metrics.Estimate)
    else value
    for name, value in scores.measure().items()
  }
  return {**measured, 'distinct': distinct, 'seconds': made.seconds}


def write(
  directory: pathlib.Path, scores: Mapping[str, outputs_lib.Scores]
) -> None:
  """Writes the scores of each source by decode to `outputs.npz`."""
  columns = {
    f'{decode}/{name}': column
    for decode, of_decode in scores.items()
    for name, column in of_decode._asdict().items()
    if column is not None
  }
  with (
    files.atomic_write(directory / FILE) as temporary,
    temporary.open('wb') as opened,
  ):
    np.savez(opened, **columns)


def read(directory: pathlib.Path) -> dict[str, outputs_lib.Scores]:
  """Reads the scores of each source by decode from `outputs.npz`.

  Raises:
    ValueError: the file is missing: an earlier version made the evaluation.
  """
  path = directory / FILE
  if not path.exists():
    raise ValueError(
      f'{directory} must hold {FILE}, the scores of greedy outputs and samples; '
      'an earlier version did not write it. Evaluate again: '
      '--run_mode=evaluate --overwrite, with the same --gin_file and --gin flags.'
    )
  columns: dict[str, dict[str, np.ndarray]] = {}
  # numpy would leave a damaged file open.
  with path.open('rb') as opened, np.load(opened) as stored:
    for key in stored.files:
      decode, name = key.rsplit('/', 1)
      columns.setdefault(decode, {})[name] = stored[key]
  return {
    decode: outputs_lib.Scores(**{'human': None, **fields})
    for decode, fields in columns.items()
  }
