"""Best-of-N answers: against the sampler, the reward and the evaluation."""

import dataclasses
import io
import itertools
import json

import numpy as np
import pytest

from rest_jax import experiment_run as run_lib
from rest_jax.cli import dry_run
from rest_jax.data import ragged, text_files, vocabularies
from rest_jax.data import task as task_lib
from rest_jax.rewards import consensus, lexical, normalize
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import answers, draw_samples, policies, seeds
from rest_jax.stages import folder as folder_lib
from tests import smoke


def with_decode(run, **changes):
  """The run, with another `SampleConfig.decode`."""
  config = run.experiment.sample
  decode = dataclasses.replace(config.decode, **changes)
  sampled = dataclasses.replace(config, decode=decode)
  experiment = dataclasses.replace(run.experiment, sample=sampled)
  return type(run)(experiment, run.model_dir)


def sources(run, split=task_lib.VALIDATION):
  return run.data.pairs(split).source_texts()


def test_the_best_is_the_argmax_of_what_the_sampler_draws(run):
  # Lengths of several buckets, so that blocks are not in the order of lines.
  run = with_decode(run, source_length_buckets=(8, 12, 48), block_sources=4)
  lines = sources(run)[:13]
  lines.insert(5, '  ')
  answers = run.answerer('improve_1_2').answer(lines, first_line=7)
  assert [answer.line for answer in answers] == list(range(7, 21))
  assert [answer.source for answer in answers] == [s.strip() for s in lines]
  assert answers[5].samples == ()

  filled = [i for i in range(len(lines)) if i != 5]
  tokens = ragged.Ragged.from_lists(
    [np.append(run.data.vocabulary.encode(lines[i]), 1) for i in filled]
  )
  assert len(set(np.digitize(tokens.lengths, (8.5, 12.5)))) > 1
  directory = run.folder('improve_1_2')
  # Of the shapes that the run plans for, so that not even rounding differs.
  block = draw_samples.policy_sampler(
    run.context.improved_policy,
    run.experiment.sample.decode,
    run.experiment.mesh,
    run.data,
  ).sample_all(
    policies.load(directory, run.context.improved_policy, run.experiment.mesh),
    tokens,
    np.array(filled) + 7,
    seed=seeds.seed_for(run.experiment.seed, seeds.Purpose.SAMPLE),
    grow_step=0,
    rows=np.arange(len(filled)),
  )
  for at, i in enumerate(filled):
    texts = run.data.vocabulary.decode_batch(block.tokens[at])
    raw = run.reward_model.score([lines[i]] * 8, texts)
    rewards = run.reward.normalizer()(raw)
    # Finished ones first, by reward.
    order = np.lexsort((-rewards, ~block.finished[at]))
    assert answers[i].samples[0].hypothesis == texts[order[0]]
    found = answers[i].samples
    assert [s.hypothesis for s in found] == [texts[j] for j in order]
    np.testing.assert_allclose(
      [s.reward for s in found], rewards[order], atol=1e-5
    )
    np.testing.assert_array_equal(
      [s.log_prob for s in found], block.log_probs[at][order]
    )
    assert [s.finished for s in found] == block.finished[at][order].tolist()


class Fake(vocabularies.Encoder):
  """A sampler and a vocabulary: three samples a line, a word for each."""

  config = sampler_lib.DecodeConfig(
    num_samples_per_source=3, max_target_length=7
  )

  def __init__(self, *finished):
    self.finished = np.array(finished, bool)

  def encode_batch(self, texts):
    return [np.full(len(text.split()), 3) for text in texts]

  def decode_batch(self, tokens):
    return [str(int(row[0])) for row in tokens]

  def sample_all(self, *_, **__):
    lines, each = self.finished.shape
    return sampler_lib.SampleBlock(
      source_ids=np.arange(lines),
      tokens=[[np.array([n]) for n in range(each)]] * lines,
      log_probs=np.zeros((lines, each), np.float32),
      finished=self.finished,
    )

  def answerer(self):
    def rewards(sources, hypotheses):
      del sources
      return np.array([[0.1 * int(text) for text in row] for row in hypotheses])

    return answers.Answerer(self, None, self, rewards, seed=0)


def test_a_finished_sample_goes_before_a_better_unfinished_one(caplog):
  # The last sample has the highest reward.
  fake = Fake([1, 1, 0], [1, 0, 0], [1, 1, 1])
  found = fake.answerer().answer(['a', 'b', 'c'])
  best = [[s.hypothesis for s in answer.samples] for answer in found]
  assert best == [['1', '0', '2'], ['0', '2', '1'], ['2', '1', '0']]
  assert not any(answer.is_unfinished() for answer in found)
  written = io.StringIO()
  answers.write_answers(fake.answerer(), ['a', 'b', 'c'], 'best', written)
  assert written.getvalue() == '1\n0\n2\n'
  assert not [r for r in caplog.records if 'unfinished' in r.getMessage()]


def test_answers_of_which_no_sample_is_finished_are_said(caplog):
  fake = Fake([0, 0, 0], [0, 1, 0])
  written = io.StringIO()
  answers.write_answers(fake.answerer(), ['a', 'b'], 'best', written)
  assert written.getvalue() == '2\n1\n'
  (warned,) = [r for r in caplog.records if 'unfinished' in r.getMessage()]
  assert '1 of 2 answers' in warned.getMessage()
  assert 'within 7 tokens' in warned.getMessage()
  talked = io.StringIO()
  answers.converse(Fake([0, 0, 0]).answerer(), iter(['a']), 'best', talked)
  assert '(unfinished: no sample ends within 7 tokens)\n0.200  2' in (
    talked.getvalue()
  )


def test_one_greedy_sample_is_the_greedy_output_of_the_evaluation(run):
  decode = run.experiment.evaluate.decode
  greedy = with_decode(
    run,
    num_samples_per_source=1,
    temperature=0.0,
    block_sources=decode.block_sources * decode.block_samples,
    row_shares=(0.5,),
    compact_shares=(),
  )
  step = run.policies()[-1]
  written = io.StringIO()
  counts = answers.write_answers(
    greedy.answerer(), sources(run), 'best', written
  )
  folder = run.evaluation(step, task_lib.VALIDATION).folder
  expected = (folder / 'greedy.txt').read_text(encoding='utf-8')
  assert written.getvalue() == expected
  assert counts == {'lines': len(sources(run)), 'empty': 0, 'cut': 0}


def test_a_source_that_is_too_long_is_cut_and_said_so(run, caplog):
  long = ' '.join(sources(run)[:8])
  number = len(run.data.vocabulary.encode(long)) + 1
  assert number > 48
  answerer = run.answerer('bc')
  written = io.StringIO()
  with caplog.at_level('WARNING'):
    counts = answers.write_answers(answerer, ['', long, ''], 'jsonl', written)
  assert counts == {'lines': 3, 'empty': 2, 'cut': 1}
  assert f'line 2: {number} tokens, of which the first 47' in caplog.text
  found = [json.loads(line) for line in written.getvalue().splitlines()]
  assert [answer['cut_from'] for answer in found] == [None, number, None]
  assert [len(answer['samples']) for answer in found] == [0, 8, 0]
  # What was not read changes nothing.
  again = answerer.answer(['', f'{long} {long}'])[1]
  assert [s.hypothesis for s in again.samples] == [
    s['hypothesis'] for s in found[1]['samples']
  ]


def fake(*rewards):
  """An answer of one sample for each reward."""
  return answers.Answer(
    3,
    'eine Quelle',
    tuple(
      answers.Sample(f'text\t{i}\x1b[2J', reward, -1.5 - i, i == 0)
      for i, reward in enumerate(rewards)
    ),
  )


def test_what_is_written():
  assert answers.show(fake(0.5, 0.25), 'best') == ['text 0\x1b[2J']
  assert answers.show(fake(0.5, None), 'tsv') == [
    '3\t0.500000\t-1.5000\t1\ttext 0\x1b[2J',
    '3\t\t-2.5000\t0\ttext 1\x1b[2J',
  ]
  (line,) = answers.show(fake(0.5), 'jsonl')
  assert json.loads(line) == {
    'line': 3,
    'source': 'eine Quelle',
    'cut_from': None,
    'samples': [
      {
        'hypothesis': 'text\t0\x1b[2J',
        'reward': 0.5,
        'log_prob': -1.5,
        'finished': True,
      }
    ],
  }
  assert answers.show(fake(), 'best') == ['']
  assert answers.show(fake(), 'tsv') == ['3\t\t\t\t']


class Terminal(io.StringIO):
  def isatty(self):
    return True


def test_control_characters_are_shown_as_signs_on_a_terminal_only():
  class Fixed:
    max_source_length = 10

    def answer(self, lines, first_line=1):
      return [
        dataclasses.replace(fake(0.5), line=first_line + i, cut_from=11 + i)
        for i, _ in enumerate(lines)
      ]

  for file, expected in (
    (io.StringIO(), 'text 0\x1b[2J\n'),
    (Terminal(), 'text 0␛[2J\n'),
  ):
    answers.write_answers(Fixed(), ['x'], 'best', file)
    assert file.getvalue() == expected
  tsv = Terminal()
  answers.write_answers(Fixed(), ['x'], 'tsv', tsv)
  header, row = tsv.getvalue().splitlines()
  assert header.split('\t') == list(answers.TSV_COLUMNS)
  assert len(row.split('\t')) == len(answers.TSV_COLUMNS)


def test_a_typed_line_is_answered_before_the_next_is_read(run):
  answerer = run.answerer(at_once=True)
  file = Terminal()
  seen = []

  def typed():
    for line in (sources(run)[0], '', sources(run)[1]):
      seen.append(file.getvalue())
      yield line

  answers.converse(answerer, typed(), 'best', file)
  first, second = (
    answerer.answer([sources(run)[i]], line)[0].samples[0]
    for i, line in ((0, 1), (1, 3))
  )
  expected = [
    '> ',
    f'{first.reward:.3f}  {first.hypothesis}\n> ',
    '> ',
    f'{second.reward:.3f}  {second.hypothesis}\n> \n',
  ]
  assert file.getvalue() == ''.join(expected)
  assert seen == list(itertools.accumulate(expected[:3]))


def with_choice(run, choose, **changes):
  """The run, with another `SampleConfig.choose` and decode."""
  run = with_decode(run, **changes)
  sampled = dataclasses.replace(run.experiment.sample, choose=choose)
  experiment = dataclasses.replace(run.experiment, sample=sampled)
  return type(run)(experiment, run.model_dir)


def test_consensus_chooses_what_the_other_samples_agree_with(run):
  lines = sources(run)[:5]
  by_reward = run.answerer('bc').answer(lines)
  answers = with_choice(run, 'consensus').answerer('bc').answer(lines)
  for answer, other in zip(answers, by_reward, strict=True):
    # The same draws, in another order.
    drawn = sorted(s.hypothesis for s in answer.samples)
    assert drawn == sorted(s.hypothesis for s in other.samples)
    texts = [s.hypothesis for s in answer.samples]
    finished = [s.finished for s in answer.samples]
    # Already in order, the best is the first.
    assert consensus.choose(texts, finished) == 0
    np.testing.assert_array_equal(
      np.float32([s.reward for s in answer.samples]),
      consensus.utilities(texts),
    )
  assert any(
    a.samples[0].hypothesis != b.samples[0].hypothesis
    for a, b in zip(answers, by_reward, strict=True)
  )


def test_one_sample_has_no_consensus(run):
  alone = with_choice(
    run, 'consensus', num_samples_per_source=1, temperature=0.0
  )
  [answer] = alone.answerer('bc').answer(sources(run)[:1])
  assert answer.samples[0].reward is None
  with pytest.raises(ValueError, match='choose must be one of'):
    answers.SampleConfig(choose='mbr')


def test_a_reward_of_samples_compares_those_of_a_line():
  scorer = answers.Scorer(
    consensus.ConsensusReward('c', lexical.Chrf()),
    normalize.Normalizer(0.0, 2.0),
  )
  lines = [['a cat', 'a cat', 'a dog'], ['x', 'y', 'x']]
  expected = [consensus.utilities(row) / 2 for row in lines]
  np.testing.assert_allclose(scorer(['s', 't'], lines), expected)


def call(run, *overrides, **given):
  model_dir = str(run.model_dir)
  return smoke.command(
    *overrides, run_mode='sample', model_dir=model_dir, **given
  )


def test_the_command_line_answers_a_file_and_changes_nothing(
  run, tmp_path, monkeypatch, capsys
):
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(tmp_path / 'cache'))
  before = {p: p.stat().st_mtime_ns for p in run.model_dir.rglob('*')}
  lines = [*sources(run)[:3], '', sources(run)[3]]
  given = tmp_path / 'in.txt'
  given.write_text('\n'.join(lines) + '\n', encoding='utf-8')
  output = tmp_path / 'out.tsv'
  arguments = {'input': str(given), 'output': str(output), 'policy': 'bc'}
  overrides = ('SAMPLE_OUTPUT=tsv', 'BEST_OF=2')
  assert call(run, *overrides, **arguments) == 0
  rows = list(text_files.read_table(output, answers.TSV_COLUMNS))
  numbers = [int(row['line']) for _, row in rows]
  assert numbers == [1, 1, 2, 2, 3, 3, 4, 5, 5]
  expected = (
    with_decode(run, num_samples_per_source=2).answerer('bc').answer(lines)
  )
  assert [row['hypothesis'] for _, row in rows] == [
    s for a in expected for s in ([x.hypothesis for x in a.samples] or [''])
  ]
  consensus_too = with_choice(run, 'consensus').answerer('bc').answer(lines)
  overrides_too = ('SAMPLE_OUTPUT=tsv', 'SAMPLE_CHOICE=consensus')
  assert call(run, *overrides_too, **arguments) == 0
  rows = list(text_files.read_table(output, answers.TSV_COLUMNS))
  assert [row['hypothesis'] for _, row in rows if row['hypothesis']] == [
    s.hypothesis for answer in consensus_too for s in answer.samples
  ]
  # By default: the best, on standard output, of the last finished policy.
  assert call(run, input=str(given)) == 0
  expected = run.answerer('improve_2_2').answer(lines)
  assert capsys.readouterr().out.split('\n') == [
    *(a.samples[0].hypothesis if a.samples else '' for a in expected),
    '',
  ]
  assert {p: p.stat().st_mtime_ns for p in run.model_dir.rglob('*')} == before

  given.write_bytes(b'gut\nsch\xf6n\n')
  output.unlink()
  assert call(run, *overrides, **arguments) == 1
  assert 'line 2 holds f6' in capsys.readouterr().err
  assert not output.exists()


def test_standard_input_is_named_with_line_and_byte():
  lines = text_files.decode_lines([b'gut\n', b'\xff\n'], 'stdin', 'input')
  assert next(lines) == 'gut'
  with pytest.raises(ValueError, match=r'^stdin .* line 2 .* byte 4 .* input'):
    next(lines)


def test_policies_by_name(run, tmp_path):
  assert run.policy_named().policy_folder == run.folder('improve_2_2')
  assert run.policy_named('bc').policy_folder == run.folder('bc')
  with pytest.raises(ValueError, match=r'one of bc, improve_1_1,.*improve_9_9'):
    run.policy_named('improve_9_9')
  experiment = dataclasses.replace(run.experiment, controls=True)
  controlled = run_lib.Run(experiment, run.model_dir)
  control = controlled.policy_named('bc_trained_on')
  assert control.policy_folder == controlled.folder('bc_trained_on')
  with pytest.raises(ValueError, match=r'improve_2_2, bc_trained_on; got'):
    controlled.policy_named('bc_equal_entropy')  # BC's parameters.
  copy = smoke.copied(run, tmp_path)
  (copy.folder('improve_2_2') / folder_lib.MANIFEST).unlink()
  assert copy.policy_named().policy_folder == copy.folder('improve_2_1')
  with pytest.raises(FileNotFoundError, match='improve_2_2'):
    copy.answerer('improve_2_2')


def test_several_samples_without_a_reward_are_refused(run):
  experiment = smoke.settings(gin_files=('gin_configs/rewards/chrf.gin',))
  chrf = type(run)(experiment, run.model_dir)
  with pytest.raises(ValueError, match=r"'chrf' compares with references"):
    chrf.answerer('bc')
  one = with_decode(chrf, num_samples_per_source=1, temperature=0.0)
  (answer,) = one.answerer('bc').answer(sources(run)[:1])
  assert answer.samples[0].reward is None


def test_the_plan_says_what_would_be_sampled(run):
  plan = dry_run.describe(run, 'sample')
  assert 'best of 8 by reward, at temperature 0.8, as best' in plan
  with pytest.raises(
    ValueError, match=r"\('best', 'tsv', 'jsonl'\); got 'csv'"
  ):
    answers.SampleConfig(output='csv')
