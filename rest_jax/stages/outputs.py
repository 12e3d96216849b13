"""Outputs of a policy by decode, as an evaluation makes, scores and stores them.

A decode searches for one output of each source (greedy, beam), or takes those
that are stored (all samples), or chooses one of them by a score (`chosen`).
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import pathlib
import time
from typing import Any, NamedTuple

import numpy as np

from rest_jax import types
from rest_jax.data import pair_store, sample_rewards, sample_store
from rest_jax.evaluation import best_of_n, metrics, paired_text
from rest_jax.evaluation import outputs as outputs_lib
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import consensus, normalize
from rest_jax.runtime import progress as progress_lib
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import draw_samples, prepare, score_samples
from rest_jax.storage import files

HUMAN = 'human'
FILE = 'outputs.npz'


class Made(NamedTuple):
  """Outputs of one decode, as many of each source, in the order of the sources.

  Attributes:
    texts: the outputs.
    seconds: time to make them; None if not known.
    rewards: float64 [outputs], normalised, where they are stored; else they are
      scored.
    judged: float64 [outputs], likewise by the judge.
  """

  texts: Sequence[str]
  seconds: float | None
  rewards: np.ndarray | None = None
  judged: np.ndarray | None = None


class Samples(NamedTuple):
  """The stored samples of an evaluation, in the order of the sources.

  Attributes:
    sources: int64 [n * N], the row of each sample's source.
    texts: n * N texts.
    rewards: float64 [n, N], normalised.
    judged: float64 [n, N], by the judge; None without one.
    finished: bool [n, N], whether a sample ends with EOS.
  """

  sources: np.ndarray
  texts: list[str]
  rewards: np.ndarray
  judged: np.ndarray | None
  finished: np.ndarray


# Samples -> which one of each source, int [n].
Choose = Callable[[Samples], np.ndarray]


def read_samples(
  directory: pathlib.Path,
  entries: Sequence[dict[str, Any]],
  *,
  reward_name: str,
  is_judged: bool,
  num_sources: int,
  pairs: pair_store.PairStore,
  data: prepare.PreparedData,
) -> Samples:
  """Reads the samples of an evaluation, and their scores.

  Args:
    directory: of a sample store with as many samples of every source.
    entries: its shards.
    reward_name: which rewards.
    is_judged: whether the judge's scores are stored as well.
    num_sources: n.
    pairs: the sources.
    data: the prepared data.
  """
  sources, texts, finished = [], [], []
  names = [reward_name, HUMAN] if is_judged else [reward_name]
  scores: dict[str, list[np.ndarray]] = {name: [] for name in names}
  for shard, entry in enumerate(entries):
    opened = sample_store.Shard(directory / entry['file'])
    sources.append(opened.source_id)
    finished.append(opened.finished)
    texts += score_samples.texts(
      directory, shard, len(entries), pairs, data.vocabulary
    )[1]
    for name in names:
      _, score = sample_rewards.read_rewards(
        sample_store.rewards_path(directory, name, shard, len(entries)),
        rows=entry['rows'],
        samples_sha256=entry['sha256'],
      )
      scores[name].append(score)
  tables = {
    name: np.concatenate(parts).astype(np.float64).reshape(num_sources, -1)
    for name, parts in scores.items()
  }
  return Samples(
    sources=np.concatenate(sources),
    texts=texts,
    rewards=tables[reward_name],
    judged=tables.get(HUMAN),
    finished=np.concatenate(finished).reshape(num_sources, -1),
  )


def of_samples(samples: Samples, seconds: float | None) -> Made:
  """Returns all samples as outputs."""
  judged = None if samples.judged is None else samples.judged.reshape(-1)
  return Made(samples.texts, seconds, samples.rewards.reshape(-1), judged)


def chosen(samples: Samples, choice: np.ndarray, seconds: float | None) -> Made:
  """Returns one stored sample of each source as its output.

  Args:
    samples: n sources with N samples each.
    choice: int [n], which of the N.
    seconds: time of sampling, and of making the choice.
  """
  num_sources, each = samples.rewards.shape
  rows = np.arange(num_sources)
  return Made(
    [samples.texts[row * each + at] for row, at in enumerate(choice.tolist())],
    seconds,
    samples.rewards[rows, choice],
    None if samples.judged is None else samples.judged[rows, choice],
  )


def best_choice(samples: Samples) -> np.ndarray:
  """Returns the sample of each source with the best reward, int [n].

  An unfinished sample is chosen only where none is finished.
  """
  ranks = best_of_n.finished_first(samples.rewards, samples.finished)
  return np.argmax(ranks, axis=1)


def mbr_choice(samples: Samples) -> np.ndarray:
  """Returns the sample of each source that the others agree with most, int [n].

  By chrF; an unfinished sample is chosen only where none is finished.
  """
  num_sources, each = samples.rewards.shape
  return np.array(
    [
      consensus.choose(
        samples.texts[row * each : (row + 1) * each], samples.finished[row]
      )
      for row in range(num_sources)
    ]
  )


def search(
  name: str,
  decode: sampler_lib.DecodeConfig,
  *,
  params: types.Params,
  policy: policy_lib.Policy,
  data: prepare.PreparedData,
  pairs: pair_store.PairStore,
  rows: np.ndarray,
  mesh_config: mesh_lib.MeshConfig,
) -> Made:
  """Searches for one output of each source, by greedy or beam search.

  Args:
    name: name of the decode, before the progress bar.
    decode: the search; its temperature is 0.
    params: parameters of the policy.
    policy: its network.
    data: the prepared data.
    pairs: the sources.
    rows: int [n], rows of `pairs`, rising.
    mesh_config: devices and rules.
  """
  began = time.monotonic()
  sampler = draw_samples.policy_sampler(policy, decode, mesh_config, data)
  with progress_lib.Progress(
    f'{name} outputs', len(rows), 'source'
  ) as progress:
    tokens = [
      hypotheses[0]
      for block in sampler.sample(
        params,
        pairs.source_tokens,
        rows,
        seed=0,
        grow_step=0,
        progress=progress.advance,
      )
      for hypotheses in block.tokens
    ]
  texts = data.vocabulary.decode_batch(tokens)
  return Made(texts, time.monotonic() - began)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scorer:
  """Scores outputs by everything that an evaluation reports.

  Attributes:
    reward: R.
    normalizer: of the run.
    judge: the independent judge, where there is one.
    evidence: stored samples by which a reward that needs some judges.
    pairs: the sources and references.
    rows: int [n], the rows of `pairs` whose outputs are scored, rising.
    tokenize: sacrebleu's tokeniser.
  """

  reward: rewards_base.Reward
  normalizer: normalize.Normalizer
  judge: rewards_base.Reward | None
  evidence: rewards_base.Evidence | None = None
  pairs: pair_store.PairStore
  rows: np.ndarray
  tokenize: str

  def score(self, made: Made) -> outputs_lib.Scores:
    """Returns the scores of each source's outputs."""
    each = len(made.texts) // len(self.rows)
    repeated = np.repeat(self.rows, each)
    sources, references = pair_store.texts_of(self.pairs, repeated)
    rewards, judged = made.rewards, made.judged
    if rewards is None:
      rewards = self._rewards(repeated, sources, made.texts, references)
    if judged is None and self.judge is not None:
      needed = references if self.judge.needs_references else None
      judged = rewards_base.score(self.judge, sources, made.texts, needed)

    def mean(scores: np.ndarray) -> np.ndarray:
      return np.asarray(scores, np.float64).reshape(-1, each).mean(axis=1)

    return outputs_lib.Scores(
      sources=np.asarray(self.rows, np.int64),
      reward=mean(rewards),
      human=None if judged is None else mean(judged),
      **self._counts(made.texts, references, each),
    )

  def _rewards(
    self,
    ids: np.ndarray,
    sources: Sequence[str],
    texts: Sequence[str],
    references: Sequence[str],
  ) -> np.ndarray:
    """Rewards of outputs that are not stored, normalised."""
    needed = references if self.reward.needs_references else None
    peers = None
    if self.evidence is not None:
      peers = rewards_base.Peers.fixed(ids, self.evidence)
    raw = rewards_base.score(self.reward, sources, texts, needed, peers)
    rewards_base.check_finite(self.reward.name, sources, texts, raw)
    return self.normalizer(raw)

  def _counts(
    self, texts: Sequence[str], references: Sequence[str], each: int
  ) -> dict[str, np.ndarray]:
    """What BLEU and chrF count, summed over the outputs of each source."""
    # Samples of a source repeat each other.
    numbers: dict[tuple[str, str], int] = {}
    which = [
      numbers.setdefault(pair, len(numbers))
      for pair in zip(texts, references, strict=True)
    ]
    distinct, of_distinct = zip(*numbers, strict=True)
    counts = {
      'bleu': paired_text.bleu_counts(
        distinct, of_distinct, tokenize=self.tokenize
      ),
      'chrf': paired_text.chrf_counts(distinct, of_distinct),
    }
    return {
      name: rows[which].reshape(-1, each, rows.shape[1]).sum(axis=1)
      for name, rows in counts.items()
    }


def text_file(decode: str) -> str:
  """Returns the name of the file with the outputs of a search."""
  return f'{decode.replace(" ", "_")}.txt'


def describe(
  made: Made, scores: outputs_lib.Scores, *, distinct: float = 1.0
) -> dict[str, Any]:
  """Returns what a manifest says of one decode's outputs.

  Args:
    made: the outputs.
    scores: their scores.
    distinct: mean number of distinct outputs per source.
  """
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
  """Reads what `write` wrote, by decode.

  Raises:
    ValueError: an earlier version made the evaluation, which lacks the file.
  """
  path = directory / FILE
  if not path.exists():
    raise ValueError(
      f'{directory} must hold {FILE}, the scores of greedy outputs and samples; '
      'an earlier version evaluated without it. Evaluate again: '
      '--run_mode=evaluate --overwrite, with the same --gin_file and --gin flags.'
    )
  columns: dict[str, dict[str, np.ndarray]] = {}
  # Opened here, so that it is closed if its content is damaged.
  with path.open('rb') as opened, np.load(opened) as stored:
    for key in stored.files:
      decode, name = key.rsplit('/', 1)
      columns.setdefault(decode, {})[name] = stored[key]
  return {
    decode: outputs_lib.Scores(**{'human': None, **found})
    for decode, found in columns.items()
  }
