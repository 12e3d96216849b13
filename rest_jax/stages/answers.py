"""Stage `sample`: the best of N samples of a policy, for text of the user's.

Answers are made for lines of text and written as they come; nothing of the run
is changed. `show` says how an answer looks.
"""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import itertools
import json
from typing import TextIO
import unicodedata

from absl import logging
import numpy as np

from rest_jax import settings, types
from rest_jax.data import ragged, vocabularies
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import consensus as consensus_lib
from rest_jax.rewards import normalize
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import base, draw_samples, policies, run_reward, seeds
from rest_jax.stages import context as context_lib
from rest_jax.stages import folder as folder_lib

OUTPUTS = ('best', 'tsv', 'jsonl')
CHOICES = ('reward', 'consensus')
TSV_COLUMNS = ('line', 'reward', 'log_prob', 'finished', 'hypothesis')

_LINES_PER_CALL = 1024
# Lines of a conversation that programs are planned for.
_LINES_AT_ONCE = 100
_PROMPT = '> '
# Categories whose characters act on a terminal instead of being seen there.
_CONTROLS = ('Cc', 'Zl', 'Zp')
# They turn the direction of what follows.
_DIRECTIONS = frozenset(
  '\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069'
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleConfig:
  """How text is answered.

  Attributes:
    decode: number of samples N, temperature, length, block shape.
    output: 'best' writes the best sample alone, one a line; 'tsv' and 'jsonl'
      write all N with rewards and log-probabilities, best first. Finished
      samples come before unfinished ones.
    choose: 'reward' takes the reward of the run for that of a sample;
      'consensus' its agreement with the other samples of the line, which is
      minimum Bayes risk decoding and needs no reward.
    consensus: how agreement is measured; by chrF.
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
  """What the samples of a line are compared by.

  Attributes:
    reward: the reward of the run, or consensus; it must not need references.
    normalizer: its scale.
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
      peers = rewards_base.Peers.own(ids, texts)
    raw = rewards_base.score(self.reward, repeated, texts, None, peers)
    rewards_base.check_finite(self.reward.name, repeated, texts, raw)
    return np.asarray(self.normalizer(raw)).reshape(len(sources), -1)


@dataclasses.dataclass(frozen=True)
class Sample:
  """One sample of a source.

  Attributes:
    hypothesis: its text.
    reward: normalised, or the consensus in its place where that chooses; None
      where nothing scores.
    log_prob: log π(y | x) of the untempered model, nats, summed over tokens.
    finished: whether it ends with EOS.
  """

  hypothesis: str
  reward: float | None
  log_prob: float
  finished: bool


@dataclasses.dataclass(frozen=True)
class Answer:
  """The samples of one line.

  Attributes:
    line: its number, from 1.
    source: its text, without blanks at the ends.
    samples: N, best first: finished ones by reward, then unfinished ones; none
      for an empty line.
    cut_from: tokens of a source that was too long, of which the first were
      read; None where all were.
  """

  line: int
  source: str
  samples: tuple[Sample, ...]
  cut_from: int | None = None

  def is_unfinished(self) -> bool:
    """Whether not even the best sample is finished."""
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
  ):
    """Takes what it draws with.

    Args:
      sampler: of the policy.
      params: of the policy.
      vocabulary: of the run.
      scorer: R; None only for one sample a source.
      seed: of the draws. A line's samples depend on its number as well.

    Raises:
      ValueError: if several samples are to be compared and nothing scores.
    """
    num_samples = sampler.config.num_samples_per_source
    if scorer is None and num_samples > 1:
      raise ValueError(
        f'the best of {num_samples} samples needs a reward; got none.'
      )
    self._sampler = sampler
    self._params = params
    self._vocabulary = vocabulary
    self._scorer = scorer
    self._seed = seed

  @property
  def max_source_length(self) -> int:
    """Tokens of a source that are read, EOS included."""
    return self._sampler.config.source_length_buckets[-1]

  @property
  def max_target_length(self) -> int:
    """Tokens after which a sample without EOS ends."""
    return self._sampler.config.max_target_length

  def answer(self, lines: Sequence[str], first_line: int = 1) -> list[Answer]:
    """Answers lines of text.

    Args:
      lines: the sources.
      first_line: number of the first of them.

    Returns:
      An answer for each, in order.
    """
    sources = [line.strip() for line in lines]
    side = self._vocabulary.source
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
      ragged.Ragged.from_lists(tokens),
      np.asarray(filled) + first_line,
      seed=self._seed,
      grow_step=0,
      rows=np.arange(len(filled)),
    )
    hypotheses = [self._vocabulary.decode_batch(row) for row in block.tokens]
    # A reward is asked about the part of a source that the policy has read.
    read = [
      sources[index]
      if len(encoded[index]) <= room
      else self._vocabulary.decode(encoded[index][:room])
      for index in filled
    ]
    rewards = self._rewards(read, hypotheses)
    for at, index in enumerate(filled):
      samples = [
        Sample(
          text, None if row is None else float(row), float(log_prob), bool(done)
        )
        for text, row, log_prob, done in zip(
          hypotheses[at],
          rewards[at],
          block.log_probs[at],
          block.finished[at],
          strict=True,
        )
      ]
      # Stable: the first drawn of equals is the best.
      samples.sort(
        key=lambda s: (not s.finished, 0.0 if s.reward is None else -s.reward)
      )
      is_cut = len(encoded[index]) > room
      answers[index] = dataclasses.replace(
        answers[index],
        samples=tuple(samples),
        cut_from=len(encoded[index]) + side.num_special if is_cut else None,
      )
    return list(answers.values())

  def _rewards(
    self, sources: list[str], hypotheses: list[list[str]]
  ) -> Sequence[Sequence[float | None]]:
    if self._scorer is None:
      return [[None] * len(row) for row in hypotheses]
    return self._scorer(sources, hypotheses).tolist()


def of_policy(
  config: SampleConfig,
  *,
  policy: base.PolicyStage,
  reward: run_reward.RunReward,
  context: context_lib.Context,
  run_seed: int,
  at_once: bool = False,
) -> Answerer:
  """Returns what answers with a policy of a run.

  Args:
    config: see `SampleConfig`.
    policy: the policy.
    reward: the reward of the run.
    context: what the stages of the run share.
    run_seed: seed of the run.
    at_once: one line at a time is answered, not many.

  Raises:
    FileNotFoundError: if the policy is not finished.
    ValueError: if there is no reward to compare N samples by.
  """
  folder_lib.read_manifest(policy.policy_folder)
  decode, lengths = config.decode, None
  if at_once:
    decode = dataclasses.replace(decode, block_sources=1)
    # Few loops, so that the first answer comes soon.
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
  )


def _scorer(
  config: SampleConfig,
  reward: run_reward.RunReward,
  context: context_lib.Context,
) -> Scorer | None:
  """R on the run's scale, or consensus; None if one sample does without."""
  num_samples = config.decode.num_samples_per_source
  if config.choose == 'consensus':
    if num_samples == 1:
      return None
    loaded = config.consensus.load(context.resources(reward.trained))
    return Scorer(loaded, normalize.Normalizer(0.0, 1.0))
  settings, lacking = context.reward, ''
  if settings is None:  # For type checkers.
    raise ValueError('reward must be the settings of a reward; got None')
  if rewards_base.needs_samples(settings) and num_samples == 1:
    lacking = 'compares samples with each other, and there is one'
  elif settings.needs_references:
    lacking = 'compares with references, which new text has none of'
  elif reward.scale is None or not reward.scale.is_finished:
    lacking = 'has no scale before the first Grow is finished'
  if not lacking:
    return Scorer(reward.load(context), reward.normalizer())
  if num_samples > 1:
    raise ValueError(
      f'the reward {settings.name!r} {lacking}, so the best of {num_samples} '
      'samples is not known. Ask for the one that the others agree with most: '
      '--gin.SAMPLE_CHOICE=consensus; or for one: --gin.BEST_OF=1 '
      '--gin.BEST_OF_TEMPERATURE=0.'
    )
  logging.warning('sample: without rewards; %r %s', settings.name, lacking)
  return None


def show(answer: Answer, output: str) -> list[str]:
  """Returns an answer as lines of a file.

  Args:
    answer: the answer.
    output: one of `OUTPUTS`; of 'tsv', `TSV_COLUMNS` without their header.

  Returns:
    One line, for 'tsv' one for each sample. An empty source has an empty line,
    in 'tsv' a row with its number alone, in 'jsonl' no samples.
  """
  if output == 'jsonl':
    return [json.dumps(dataclasses.asdict(answer), ensure_ascii=False)]
  if output == 'best':
    return [_one_line(s.hypothesis) for s in answer.samples[:1]] or ['']
  return [
    '\t'.join(
      (
        str(answer.line),
        '' if s.reward is None else f'{s.reward:.6f}',
        f'{s.log_prob:.4f}',
        str(int(s.finished)),
        _one_line(s.hypothesis),
      )
    )
    for s in answer.samples
  ] or [f'{answer.line}' + '\t' * (len(TSV_COLUMNS) - 1)]


def write_answers(
  answerer: Answerer, lines: Iterable[str], output: str, file: TextIO
) -> dict[str, int]:
  """Answers all lines, many at once, in their order.

  Args:
    answerer: answers.
    lines: the sources.
    output: see `SampleConfig`.
    file: what is written to; control characters are escaped if it is a
      terminal.

  Returns:
    The number of `lines`, and of those that were `empty` or `cut`.
  """
  counts = {'lines': 0, 'empty': 0, 'cut': 0}
  num_unfinished = 0
  escape = escape_controls if file.isatty() else str
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
        file.write(_escaped_tsv(shown, escape) + '\n')
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
  """Answers each line at once, for a person at a terminal.

  Args:
    answerer: answers.
    lines: what is typed.
    output: see `SampleConfig`; with 'best' the reward stands before the text.
    file: the terminal.
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
          + _one_line(s.hypothesis)
          for s in answer.samples[:1]
        ]
      else:
        shown = show(answer, output) if answer.samples else []
      for one in shown:
        file.write(_escaped_tsv(one, escape_controls) + '\n')
    file.write(_PROMPT)
    file.flush()
  file.write('\n')


def escape_controls(text: str) -> str:
  """Writes characters that would act on a terminal as `\\uXXXX`.

  Args:
    text: any text; JSON stays the same JSON.

  Returns:
    Text without control characters, line separators or turns of direction.
  """
  return ''.join(
    f'\\u{ord(character):04x}'
    if unicodedata.category(character) in _CONTROLS or character in _DIRECTIONS
    else character
    for character in text
  )


def _escaped_tsv(text: str, escape) -> str:
  """Escapes all but the tabs between columns."""
  return '\t'.join(map(escape, text.split('\t')))


def _one_line(text: str) -> str:
  """Text without tabs and line breaks, which would end a column or a row."""
  return text.replace('\t', ' ').replace('\n', ' ').replace('\r', ' ')


def _cut_words(answer: Answer, answerer: Answerer) -> str:
  return (
    f'line {answer.line}: {answer.cut_from} tokens, of which the first '
    f'{answerer.max_source_length - 1} were read'
  )
