"""`rest-jax new`: writes a gin file with settings for your text and machine."""

import argparse
from collections.abc import Sequence
import pathlib
import shlex
import shutil
import sys

from rest_jax.own_data import choices
from rest_jax.own_data import facts as facts_lib


def entry_point() -> None:
  """Executes the command line, and exits."""
  from rest_jax.runtime import terminal

  terminal.use_utf8()
  sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
  """Writes the file and prints what to run; returns the exit status."""
  given = _parser().parse_args(arguments)
  # Imported here, so that --help is fast.
  from rest_jax.cli import own_run
  from rest_jax.runtime import terminal

  path = pathlib.Path(given.gin_file)
  try:
    files = facts_lib.Files(
      train=given.train,
      validation=given.validation,
      test=given.test,
      grow=given.grow,
      ratings=given.ratings,
      lang_pair=given.lang_pair,
      score_type=given.score_type,
    )
    _check_new(path, given.overwrite)
    written = own_run.write(path, files, size=given.size, reward=given.reward)
  except (ValueError, OSError) as error:
    terminal.show_error(str(error))
    return 1
  terminal.show(_described(written))
  model_dir = f'runs/{path.stem}'
  program = shutil.which('rest-jax') and 'rest-jax run'
  terminal.show(
    f'Wrote {path}. Train and evaluate with:\n\n'
    f'  {program or "python -m rest_jax.main"} '
    + shlex.join([f'--model_dir={model_dir}', f'--gin_file={path}'])
    + '\n\n--dry_run checks it first; the report will be '
    f'{model_dir}/report/index.html.'
  )
  return 0


def _described(written) -> str:
  facts, chosen = written.facts, written.choices
  reward = {
    choices.REFERENCES: 'chrF to references and log-probability',
    'chrf': 'chrF to references',
    'learned': f'learned from {facts.num_ratings:,} ratings',
    'features': f'fitted to {facts.num_ratings:,} ratings, and agreement of samples',
    'consensus': 'agreement with the other samples of the source',
  }[chosen.reward]
  grow = ''
  if facts.num_grow is not None:
    grow = f'Grow: {facts.num_grow:,} sources without references.\n'
  return (
    f'{facts.num_train:,} training pairs, {facts.num_validation:,} validation '
    f'pairs; vocabulary of {chosen.vocabulary_size:,}; up to '
    f'{chosen.max_source_length} + {chosen.max_target_length} tokens.\n'
    f'{grow}'
    f'{chosen.size} network, {chosen.bc_steps:,} steps of BC, 3 x '
    f'{chosen.improve_steps:,} of Improve, {chosen.num_samples_per_source} '
    f'samples per source.\nReward: {reward}.'
  )


def _check_new(path: pathlib.Path, overwrite: bool) -> None:
  if path.suffix != '.gin':
    raise ValueError(f'the gin file must be named *.gin; got {path}.')
  if path.exists() and not overwrite:
    raise ValueError(
      f'{path} exists. Pass --overwrite to replace it, or choose another name.'
    )
  if not path.absolute().parent.is_dir():
    raise ValueError(f'{path.parent} must be a folder; create it.')


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='rest-jax new',
    description=(
      'Writes a commented gin file with settings for your text and this '
      'machine, and prints the command that runs it.'
    ),
    allow_abbrev=False,
  )
  parser.add_argument('gin_file', help='file to write, such as my_run.gin')
  for split, help_text, is_needed in (
    ('train', 'files of sources and references, line by line', True),
    ('validation', 'the same, for choosing checkpoints', True),
    ('test', 'the same; default: results on the validation set', False),
  ):
    parser.add_argument(
      f'--{split}',
      nargs=2,
      metavar=('SOURCES', 'REFERENCES'),
      required=is_needed,
      help=f'{help_text} (UTF-8, one text per line, plain or .gz)',
    )
  parser.add_argument(
    '--grow',
    metavar='SOURCES',
    help='file of sources without references, on which Grow samples; default: '
    'the sources of --train',
  )
  parser.add_argument(
    '--ratings',
    help='TSV file with the columns split (train, dev, test), source, '
    'hypothesis and score, to train a reward model',
  )
  parser.add_argument('--lang_pair', help='ratings to read, such as de-en')
  parser.add_argument('--score_type', help='ratings to read, such as DA-z')
  parser.add_argument(
    '--size', choices=choices.SIZES, help='network size; default: what fits'
  )
  parser.add_argument(
    '--reward',
    choices=tuple(choices.REWARDS),
    help='default: learned with --ratings, else references_likelihood; with '
    '--grow: features if sources have several ratings, else consensus',
  )
  parser.add_argument(
    '--overwrite', action='store_true', help='replace the file if it exists'
  )
  return parser
