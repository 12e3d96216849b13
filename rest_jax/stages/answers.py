"""Mode `sample`: best-of-N answers of a policy to the user's own text.

Each line of text is one source. Answers are written as they are made; the run
is not changed. `show` formats an answer.
"""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import itertools
import json
from typing import TextIO

from absl import logging
import numpy as np

from rest_jax import settings, types
from rest_jax.data import ragged, text_files, vocabularies
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import consensus as consensus_lib
from rest_jax.rewards import normalize
from rest_jax.rewards import peers as peers_lib
from rest_jax.runtime import control_characters
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import base, draw_samples, policies, run_reward, seeds
from rest_jax.stages import context as context_lib
from rest_jax.stages import folder as folder_lib

OUTPUTS = ('best', 'tsv', 'jsonl')
CHOICES = ('reward', 'consensus')
TSV_COLUMNS = ('line', 'reward', 'log_prob', 'finished', 'hypothesis')

_LINES_PER_CALL = 1024
# Number of lines of a conversation that programs are planned for.
_LINES_AT_ONCE = 100
_PROMPT = '> '


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleConfig:
  """Settings of `--run_mode=sample`.

  Attributes:
    decode: number of samples N, temperature, length, block shape.
    output: 'best' writes only the best sample, one per line; 'tsv' and 'jsonl'
      write all N with rewards and log-probabilities, best first. Finished
      samples come before unfinished ones.
    choose: 'reward' ranks samples by the reward of the run; 'consensus' by
      their agreement with the other samples of the line, which is minimum Bayes
      risk decoding and needs no reward.
    consensus: measure of agreement; chrF by default.
  """

  decode: sampler_lib.DecodeConfig = dataclasses.field(
    default_factory=lambda: sampler_lib.DecodeConfig(num_samples_per_source=8)
  )
  output: str = 'best'
  choose: str = 'reward'
  consensus: consensus_lib.Consensus = dataclasses.field(
    default_factory=consensus_lib.Consensus
  )

  def __post_init__(self):
    settings.one_of(self, CHOICES, 'choose')
    settings.one_of(self, OUTPUTS, 'output')


@dataclasses.dataclass(frozen=True)
class Scorer:
  """The normalised reward that samples are ranked by.

  Attributes:
    reward: the reward of the run, or consensus; it must not need references.
  """

  reward: rewards_base.Reward
  normalizer: normalize.Normalizer

  def __call__(
    self, sources: Sequence[str], hypotheses: Sequence[Sequence[str]]
  ) -> np.ndarray:
    """Returns the normalised rewards of N hypotheses of each source, [n, N]."""
    num_samples = len(hypotheses[0])
    repeated = [source for source in sources for _ in range(num_samples)]
    texts = [text for row in hypotheses for text in row]
    peers = None
    if rewards_base.needs_samples(self.reward):
      ids = np.repeat(np.arange(len(sources)), num_samples)
      peers = peers_lib.Peers.own(ids, texts)
    raw = rewards_base.score(self.reward, repeated, texts, None, peers)
    rewards_base.check_finite(self.reward.name, repeated, texts, raw)
    return np.asarray(self.normalizer(raw)).reshape(len(sources), -1)


@dataclasses.dataclass(frozen=True)
class Sample:
  """One sample of a source.

  Attributes:
    reward: normalised reward, or the agreement if `choose` is 'consensus'; None
      without a scorer.
    log_prob: log π(y | x) of the untempered model, nats, summed over tokens.
    finished: whether the sample ends with EOS.
  """

  hypothesis: str
  reward: float | None
  log_prob: float
  finished: bool


@dataclasses.dataclass(frozen=True)
class Answer:
  """The samples of one line.

  Attributes:
    line: number of the line, from 1.
    source: text of the line, without spaces at the ends.
    samples: N samples, best first: finished ones by reward, then unfinished
      ones; none for an empty line.
    cut_from: number of tokens of a source that was too long and was cut; None
      for other sources.
  """

  line: int
  source: str
  samples: tuple[Sample, ...]
  cut_from: int | None = None

  def is_unfinished(self) -> bool:
    """Whether no sample is finished."""
    return bool(self.samples) and not self.samples[0].finished


class Answerer:
  """Draws N samples for each line and puts the best first."""

  def __init__(
    self,
    sampler: sampler_lib.Sampler,
    params: types.Params,
    vocabulary: vocabularies.Vocabulary,
    scorer: Scorer | None,
    *,
    seed: int,
    languages: vocabularies.Languages | None = None,
  ):
    """Makes an answerer.

    Args:
      scorer: ranks the samples; None is allowed only for one sample per source.
      seed: sampling seed. The samples of a line also depend on its number.
      languages: those of the lines and of the answers, if the pairs of the task
        named their own; otherwise None.

    Raises:
      ValueError: there is no scorer for several samples, or the vocabulary has
        no such languages, or needs some.
    """
    num_samples = sampler.config.num_samples_per_source
    if scorer is None and num_samples > 1:
      raise ValueError(
        f'the best of {num_samples} samples needs a reward; got none.'
      )
    self._sampler = sampler
    self._params = params
    self._vocabulary = vocabulary
    self._source, self._target = vocabulary.sides(languages)
    self._scorer = scorer
    self._seed = seed

  @property
  def max_source_length(self) -> int:
    """Maximum number of tokens of a source that are read, EOS included."""
    return self._sampler.config.source_length_buckets[-1]

  @property
  def max_target_length(self) -> int:
    """Maximum number of tokens of a sample."""
    return self._sampler.config.max_target_length

  def answer(self, lines: Sequence[str], first_line: int = 1) -> list[Answer]:
    """Answers lines of text, one answer per line, in order."""
    sources = [line.strip() for line in lines]
    side = self._source
    encoded = side.encode_batch(sources)
    answers = {
      index: Answer(first_line + index, source, ())
      for index, source in enumerate(sources)
    }
    filled = [index for index, tokens in enumerate(encoded) if len(tokens)]
    if not filled:
      return list(answers.values())
    room = self.max_source_length - side.num_special
    tokens = [side.complete(encoded[i][:room]) for i in filled]
    block = self._sampler.sample_all(
      self._params,
      self._with_first(ragged.Ragged.from_lists(tokens)),
      np.asarray(filled) + first_line,
      seed=self._seed,
      grow_step=0,
      rows=np.arange(len(filled)),
    )
    hypotheses = [self._vocabulary.decode_batch(row) for row in block.tokens]
    # Rewards are of the part of a source that the policy has read.
    read = [
      sources[index]
      if len(encoded[index]) <= room
      else self._vocabulary.decode(encoded[index][:room])
      for index in filled
    ]
    ranked = self._ranked(read, hypotheses, block)
    for index, samples in zip(filled, ranked, strict=True):
      is_cut = len(encoded[index]) > room
      answers[index] = dataclasses.replace(
        answers[index],
        samples=samples,
        cut_from=len(encoded[index]) + side.num_special if is_cut else None,
      )
    return list(answers.values())

  def _with_first(self, tokens: ragged.Ragged) -> ragged.Ragged:
    """Returns sources with the first token of answers, if it is theirs."""
    if not self._vocabulary.special_ids.is_first_given:
      return tokens
    first = self._target.before[0]
    return tokens.with_first_tokens(np.full(len(tokens), first))

  def _ranked(
    self,
    sources: list[str],
    hypotheses: list[list[str]],
    block: sampler_lib.SampleBlock,
  ) -> Iterator[tuple[Sample, ...]]:
    """Yields the samples of each source, best first."""
    rewards: Sequence[Sequence[float | None]] = [
      [None] * len(row) for row in hypotheses
    ]
    if self._scorer is not None:
      rewards = self._scorer(sources, hypotheses).tolist()
    for columns in zip(
      hypotheses,
      rewards,
      block.log_probs.tolist(),
      block.finished.tolist(),
      strict=True,
    ):
      samples = itertools.starmap(Sample, zip(*columns, strict=True))
      # Stable: of equal samples, the first drawn is the best.
      yield tuple(
        sorted(
          samples,
          key=lambda s: (
            not s.finished,
            0.0 if s.reward is None else -s.reward,
          ),
        )
      )


def of_policy(
  config: SampleConfig,
  *,
  policy: base.PolicyStage,
  reward: run_reward.RunReward,
  context: context_lib.Context,
  run_seed: int,
  at_once: bool = False,
  languages: vocabularies.Languages | None = None,
) -> Answerer:
  """Loads an answerer with a policy of a run.

  Args:
    at_once: whether lines are answered one at a time, not in batches.
    languages: see `Answerer`.

  Raises:
    FileNotFoundError: the policy is not finished.
    ValueError: there is no reward for ranking N samples, or `languages` do not
      fit.
  """
  folder_lib.read_manifest(policy.policy_folder)
  decode, lengths = config.decode, None
  if at_once:
    decode = dataclasses.replace(decode, block_sources=1)
    # Equal lengths need few compiled programs: the first answer comes soon.
    lengths = np.full(_LINES_AT_ONCE, decode.source_length_buckets[-1])
  network, vocabulary = policy.network(context), context.data.vocabulary
  logging.info('sample: %s', policy.policy_folder)
  return Answerer(
    draw_samples.policy_sampler(
      network, decode, context.mesh, context.data, lengths=lengths
    ),
    policies.load(policy.policy_folder, network, context.mesh),
    vocabulary,
    _scorer(config, reward, context),
    seed=seeds.seed_for(run_seed, seeds.Purpose.SAMPLE),
    languages=languages,
  )


def _scorer(
  config: SampleConfig,
  reward: run_reward.RunReward,
  context: context_lib.Context,
) -> Scorer | None:
  """Returns R on the run's scale, or consensus; None if it is not needed."""
  num_samples = config.decode.num_samples_per_source
  if config.choose == 'consensus':
    if num_samples == 1:
      return None
    loaded = config.consensus.load(context.resources(reward.trained))
    return Scorer(loaded, normalize.Normalizer(0.0, 1.0))
  settings, obstacle = context.reward, ''
  assert settings is not None  # A run has a reward.
  if rewards_base.needs_samples(settings) and num_samples == 1:
    obstacle = 'compares samples with each other, and there is one'
  elif settings.needs_references:
    obstacle = 'compares with references, which new text does not have'
  elif reward.scale is None or not reward.scale.is_finished:
    obstacle = 'has no scale before the first Grow is finished'
  if not obstacle:
    return Scorer(reward.load(context), reward.normalizer())
  if num_samples > 1:
    raise ValueError(
      f'the reward {settings.name!r} {obstacle}, so it cannot choose the best of '
      f'{num_samples} samples. Choose the sample that agrees most with the '
      'others: --gin.SAMPLE_CHOICE=consensus; or draw one: --gin.BEST_OF=1 '
      '--gin.BEST_OF_TEMPERATURE=0.'
    )
  logging.warning('sample: without rewards; %r %s', settings.name, obstacle)
  return None


def show(answer: Answer, output: str) -> list[str]:
  """Formats an answer as lines of a file.

  Args:
    output: one of `OUTPUTS`; 'tsv' has the columns `TSV_COLUMNS`.

  Returns:
    One line; for 'tsv' one line per sample. An empty source gives an empty
    line, in 'tsv' a row with only its number, in 'jsonl' no samples.
  """
  if output == 'jsonl':
    return [json.dumps(dataclasses.asdict(answer), ensure_ascii=False)]
  if output == 'best':
    return [text_files.one_line(s.hypothesis) for s in answer.samples[:1]] or [
      ''
    ]
  return [
    '\t'.join(
      (
        str(answer.line),
        '' if s.reward is None else f'{s.reward:.6f}',
        f'{s.log_prob:.4f}',
        str(int(s.finished)),
        text_files.one_line(s.hypothesis),
      )
    )
    for s in answer.samples
  ] or [f'{answer.line}' + '\t' * (len(TSV_COLUMNS) - 1)]


def write_answers(
  answerer: Answerer, lines: Iterable[str], output: str, file: TextIO
) -> dict[str, int]:
  """Answers all lines in order, in batches.

  Args:
    output: see `SampleConfig`.
    file: receives the answers; a terminal gets no control characters.

  Returns:
    The numbers of `lines`, and of `empty` and `cut` ones among them.
  """
  counts = {'lines': 0, 'empty': 0, 'cut': 0}
  num_unfinished = 0
  shown_as = _on_terminal if file.isatty() else str
  if output == 'tsv':
    file.write('\t'.join(TSV_COLUMNS) + '\n')
  lines = iter(lines)
  while chunk := list(itertools.islice(lines, _LINES_PER_CALL)):
    for answer in answerer.answer(chunk, counts['lines'] + 1):
      counts['lines'] += 1
      counts['empty'] += not answer.samples
      num_unfinished += answer.is_unfinished()
      if answer.cut_from is not None:
        counts['cut'] += 1
        logging.warning('%s', _cut_words(answer, answerer))
      for shown in show(answer, output):
        file.write(shown_as(shown) + '\n')
    file.flush()
  logging.info(
    'sample: %d lines answered, %d of them empty, %d cut', *counts.values()
  )
  if num_unfinished:
    logging.warning(
      'sample: %d of %d answers are unfinished: none of their samples ends '
      'within %d tokens. Raise MAX_TARGET_LENGTH or BEST_OF, or train the policy '
      'longer.',
      num_unfinished,
      counts['lines'],
      answerer.max_target_length,
    )
  return counts


def converse(
  answerer: Answerer, lines: Iterator[str], output: str, file: TextIO
) -> None:
  """Answers each line as soon as it is typed, for a person at a terminal.

  Args:
    output: see `SampleConfig`; 'best' writes the reward before the text.
  """
  file.write(_PROMPT)
  file.flush()
  for number, line in enumerate(lines, 1):
    for answer in answerer.answer([line], number):
      if answer.cut_from is not None:
        file.write(f'({_cut_words(answer, answerer)})\n')
      if answer.is_unfinished():
        length = answerer.max_target_length
        file.write(f'(unfinished: no sample ends within {length} tokens)\n')
      if output == 'best':
        shown = [
          ('' if s.reward is None else f'{s.reward:.3f}  ')
          + text_files.one_line(s.hypothesis)
          for s in answer.samples[:1]
        ]
      else:
        shown = show(answer, output) if answer.samples else []
      for one in shown:
        file.write(_on_terminal(one) + '\n')
    file.write(_PROMPT)
    file.flush()
  file.write('\n')


def _on_terminal(row: str) -> str:
  return control_characters.visible(row, keep='\t')


def _cut_words(answer: Answer, answerer: Answerer) -> str:
  return (
    f'line {answer.line}: {answer.cut_from} tokens, of which the first '
    f'{answerer.max_source_length - 1} were read'
  )
