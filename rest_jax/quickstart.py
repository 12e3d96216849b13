"""`rest_jax.run`: all of ReST on your own text, in one call."""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import importlib
import logging as std_logging
import os
import pathlib
from typing import Any

from absl import logging

from rest_jax import experiment_run
from rest_jax.cli import checks, modes, own_run
from rest_jax.cli import main as main_lib
from rest_jax.evaluation import results as results_lib
from rest_jax.own_data import facts
from rest_jax.report import summary
from rest_jax.report.render import result_tables
from rest_jax.runtime import terminal
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import prepare
from rest_jax.storage import files, lock

# Sources and references: two files, or two lists of equally many texts.
Pairs = Sequence[str | os.PathLike[str] | Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Result:
  """The results of a run, and the run.

  Attributes:
    run: the run, e.g. for `run.answerer().answer(['ein Satz'])`.
  """

  results: results_lib.Results
  run: experiment_run.Run

  @property
  def table(self) -> Any:
    """One row per policy and split: a DataFrame, or dicts without pandas."""
    rows = self.rows()
    try:
      pandas = importlib.import_module('pandas')
    except ImportError:
      return rows
    return pandas.DataFrame(rows)

  def rows(self) -> list[dict[str, Any]]:
    """Returns one dict per policy and split; reward and judge are x100."""
    return [
      {
        'policy': variant.name,
        'split': variant.split,
        'reward': variant.reward.mean,
        'reward_stderr': variant.reward.stderr,
        'judge': None if variant.human is None else variant.human.mean,
        'bleu': variant.bleu,
        'chrf': variant.chrf,
      }
      for variant in self.results.variants
    ]

  @property
  def report(self) -> pathlib.Path:
    """Path of the page with all results, figures and samples."""
    return self.run.model_dir / 'report' / 'index.html'

  def __repr__(self) -> str:
    return result_tables.render(self.results)


def run(
  *,
  train: Pairs,
  validation: Pairs,
  test: Pairs | None = None,
  grow: str | os.PathLike[str] | Sequence[str] | None = None,
  ratings: str | os.PathLike[str] | None = None,
  reward: str | None = None,
  preset: str | None = None,
  model_dir: str | os.PathLike[str] = 'runs/own',
  settings: Mapping[str, Any] | None = None,
) -> Result:
  """Trains and evaluates with Reinforced Self-Training.

  Settings are chosen as by `rest-jax new`, and written to `own.gin` in the
  folder of the run. The same call resumes an interrupted run.

  Args:
    train: training pairs: two files of corresponding lines, sources and
      references, or two lists of texts.
    validation: likewise, pairs for choosing checkpoints.
    test: likewise, pairs for the final results; None for none.
    grow: sources without references on which Grow samples: a file, or a list of
      texts; None for the sources of `train`.
    ratings: TSV file of ratings to train a reward on; None for none.
    reward: 'references_likelihood', 'chrf', 'learned', 'features' or
      'consensus'. None for 'learned' with ratings, and 'references_likelihood'
      without; with `grow` for 'features' if sources have several ratings, and
      else 'consensus'.
    preset: size of the network, 'tiny', 'small' or 'base'; None to choose by
      the data.
    model_dir: the folder of the run.
    settings: macros and parameters of gin files by name, such as `{'SEED': 1}`.

  Returns:
    The results, with a `table`.

  Raises:
    ValueError: invalid pairs, ratings or settings, or other settings than those
      of a finished stage in the folder.
    FileNotFoundError: a file does not exist.
  """
  _set_up_log()
  folder = pathlib.Path(model_dir)
  with lock.held(folder):
    given = facts.Files(
      train=_files(folder, 'train', train),
      validation=_files(folder, 'validation', validation),
      test=None if test is None else _files(folder, 'test', test),
      grow=None if grow is None else _file(folder, 'grow', 'sources', grow),
      ratings=None if ratings is None else os.fspath(ratings),
    )
    written = own_run.write(
      folder / 'own.gin',
      given,
      size=preset,
      reward=reward,
      overrides=[
        f'{name}={_plain(value)!r}' for name, value in (settings or {}).items()
      ],
    )
    made = experiment_run.Run(written.experiment, folder)
    checks.check(made)
    with modes.begun(folder):
      made.rest()
  return Result(results_lib.read(folder / summary.RESULTS_FILE), made)


@functools.cache  # Once per process: later changes are the user's.
def _set_up_log() -> None:
  """Shows the run's log, without messages of other libraries below warnings."""
  # As in the program: otherwise lines bypass the filter below.
  logging.use_absl_handler()
  handler = terminal.set_up_log(logging.INFO)
  handler.addFilter(
    lambda record: (
      main_lib.is_ours(record) or record.levelno > std_logging.WARNING
    )
  )


def _plain(value: Any) -> Any:
  """Returns a path as a text."""
  return os.fspath(value) if isinstance(value, os.PathLike) else value


def _files(folder: pathlib.Path, name: str, pairs: Pairs) -> tuple[str, str]:
  """Returns two files of pairs; lists of texts are written to the folder."""
  if isinstance(pairs, str | os.PathLike) or len(pairs) != 2:
    raise ValueError(
      f'{name} must be two files, or two lists of texts: sources and '
      f'references; got {pairs!r:.80}.'
    )
  return (
    _file(folder, name, 'sources', pairs[0]),
    _file(folder, name, 'references', pairs[1]),
  )


def _file(
  folder: pathlib.Path,
  name: str,
  side: str,
  texts: str | os.PathLike[str] | Sequence[str],
) -> str:
  """Returns a file of texts; a list of texts is written to the folder."""
  if isinstance(texts, str | os.PathLike):
    return os.fspath(texts)
  texts = list(texts)
  for text in texts:
    if not isinstance(text, str) or '\n' in text:
      raise ValueError(
        f'{name} must be texts of one line; got {text!r:.80}. Replace line '
        'breaks and missing texts.'
      )
  path = folder / 'text' / f'{name}.{side}.txt'
  _write(path, ''.join(f'{text}\n' for text in texts), folder)
  return str(path)


def _write(path: pathlib.Path, text: str, run: pathlib.Path) -> None:
  """Writes text, unless the run has finished data made of other text."""
  written = text.encode()
  if path.exists() and path.read_bytes() == written:
    return
  if folder_lib.is_finished(run / prepare.Prepare.own_name):
    raise ValueError(
      f'{path.name} must be the text that {run} has prepared; got other text. '
      'Choose another model_dir, or remove this one.'
    )
  path.parent.mkdir(parents=True, exist_ok=True)
  with files.atomic_write(path) as temporary:
    temporary.write_bytes(written)
