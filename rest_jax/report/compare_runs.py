"""Comparison of finished runs, with policies paired by source."""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
import pathlib
from typing import Any

from absl import logging
import numpy as np

from rest_jax.data import pair_store, sample_store
from rest_jax.evaluation import metrics, paired_text
from rest_jax.evaluation import results as results_lib
from rest_jax.evaluation import variant as variant_lib
from rest_jax.report.render import html, side_by_side
from rest_jax.rewards import normalize
from rest_jax.stages import evaluate as evaluate_stage
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import outputs as outputs_stage
from rest_jax.storage import paths as storage_paths

PAGE_FILE = 'compare.html'
_RESULTS_FILE = 'results.json'
_TEXT_SCORES = {'bleu': paired_text.bleu, 'chrf': paired_text.chrf}
# The judge's scores of search outputs; other rewards and scores are of samples.
_SEARCHED = 'human_searched'
_MEASURES = {
  'reward': 'reward ×100',
  'human': 'judge ×100',
  _SEARCHED: 'judge ×100, greedy or beam outputs',
  'bleu': 'BLEU',
  'chrf': 'chrF',
}


@dataclasses.dataclass(frozen=True)
class _Run:
  """A finished run's folder."""

  name: str
  path: pathlib.Path

  @functools.cached_property
  def results(self) -> results_lib.Results:
    path = self.path / _RESULTS_FILE
    if not path.exists():
      raise FileNotFoundError(
        f'compare must name folders of evaluated runs; {self.path} has no '
        f'{_RESULTS_FILE}. Run it with --run_mode=evaluate or report first.'
      )
    return results_lib.read(path)

  @functools.cached_property
  def evaluations(self) -> dict[tuple[str, str], pathlib.Path]:
    """Folders of finished evaluations by (name, split) of results."""
    folders = {}
    for path in sorted(self.path.glob('variants/*/evaluation.json')):
      for variant in results_lib.read(path).variants:
        step = f'improve_{variant.grow}_{variant.improve}'
        if variant.control:
          step = f'bc_{variant.control.replace(" ", "_")}'
        elif variant.is_bc:
          step = 'bc'
        elif not variant.grow:
          step = f'online_{variant.loss}'
        folder = path.parent / 'evaluate' / f'{step}-{variant.split}'
        if variant.is_bc and not folder.exists():
          # Variants share it, unless the reward is refreshed.
          folder = self.path / 'evaluate' / folder.name
        if folder_lib.is_finished(folder):
          folders[variant.key] = folder
    return folders

  def source_texts(self, split: str) -> list[str] | None:
    """Returns the sources of a split; None if the run has no data."""
    data = self.path / 'data'
    if not pair_store.pair_path(data, split).exists():
      return None
    return pair_store.PairStore.open(data, split).source_texts()


def run(
  paths: Sequence[str], model_dir: pathlib.Path, *, is_dry: bool = False
) -> side_by_side.SideBySide:
  """Compares runs; prints the tables and writes a page.

  Args:
    paths: folders of at least two runs of one task, each with `results.json`.
    model_dir: folder for `report/compare.html`.
    is_dry: whether to print only.

  Raises:
    ValueError: fewer than two runs, or of several tasks.
    FileNotFoundError: a folder has no results.
  """
  side = compare([storage_paths.of(path) for path in paths])
  print(side_by_side.render(side), flush=True)
  if not is_dry:
    path = model_dir / 'report' / PAGE_FILE
    html.write_comparison(side, path)
    logging.info('comparison: %s', path)
  return side


def compare(paths: Sequence[pathlib.Path]) -> side_by_side.SideBySide:
  """Reads runs and pairs their policies; see `run`."""
  if len(paths) < 2 or len({path.resolve() for path in paths}) < len(paths):
    raise ValueError(
      'compare must name the folders of two runs or more, each once; got '
      f'{", ".join(map(str, paths)) or "none"}.'
    )
  names = _names(paths)
  runs = [_Run(name, path) for name, path in zip(names, paths, strict=True)]
  tasks = {run.results.task: run.path for run in runs}
  if len(tasks) > 1:
    raise ValueError(
      'compare must name runs of one task; got '
      + ', '.join(f'{task} in {path}' for task, path in tasks.items())
      + '.'
    )
  remarks: dict[str, None] = {}
  measures = []
  splits = dict.fromkeys(split for run in runs for split in run.results.splits)
  for split in splits:
    rows = list(_rows(runs, split))
    rater = runs[0].results.rater or 'judge'
    for name, label in _MEASURES.items():
      cells = {
        row: [
          _cell(name, runs[0], policies[0], run, variant, remarks)
          for run, variant in zip(runs, policies, strict=True)
        ]
        for row, policies in rows
      }
      cells = {row: of_row for row, of_row in cells.items() if any(of_row)}
      if cells:
        measures.append(
          side_by_side.Measure(
            name=label.replace('judge', rater), split=split, rows=cells
          )
        )
  return side_by_side.SideBySide(
    task=next(iter(tasks)),
    folders={run.name: str(run.path) for run in runs},
    measures=measures,
    remarks=tuple(remarks),
  )


def _names(paths: Sequence[pathlib.Path]) -> list[str]:
  """Returns the last parts of the paths, as many as make them unique."""
  parts = [path.resolve().parts for path in paths]
  for count in range(1, max(map(len, parts)) + 1):
    names = ['/'.join(of_path[-count:]) for of_path in parts]
    if len(set(names)) == len(names):
      break
  return names


_Policies = tuple[variant_lib.Variant | None, ...]


def _rows(runs: Sequence[_Run], split: str) -> Iterator[tuple[str, _Policies]]:
  """Yields policies to compare: of one name, or the only ones at (G, I)."""
  steps: dict[tuple[Any, ...], list[list[variant_lib.Variant]]] = {}
  for index, run in enumerate(runs):
    for v in run.results.of_split(split):
      step = (v.grow, v.improve, v.is_bc, v.control)
      steps.setdefault(step, [[] for _ in runs])[index].append(v)
  for by_run in steps.values():
    names = list(dict.fromkeys(v.name for of_run in by_run for v in of_run))
    if all(len(of_run) <= 1 for of_run in by_run):
      yield ' / '.join(names), tuple(next(iter(vs), None) for vs in by_run)
      continue
    for name in names:
      yield (
        name,
        tuple(next((v for v in vs if v.name == name), None) for vs in by_run),
      )


def _cell(
  name: str,
  first_run: _Run,
  first: variant_lib.Variant | None,
  run: _Run,
  variant: variant_lib.Variant | None,
  remarks: dict[str, None],
) -> side_by_side.Cell | None:
  """Returns a policy's value, and its difference to the first run's policy."""
  value = None if variant is None else _value(variant, name)
  if variant is None or value is None:
    return None
  if isinstance(value, metrics.Estimate):
    cell = side_by_side.Cell(value=value.mean, stderr=value.stderr)
  else:
    cell = side_by_side.Cell(value=value)
  if run is first_run or first is None or _value(first, name) is None:
    return cell
  try:
    folders = tuple(
      _folder(one, of_run)
      for one, of_run in ((variant, run), (first, first_run))
    )
    _check_sources(variant.split, folders, (run, first_run))
    if name in _TEXT_SCORES:
      difference = _text_difference(name, folders, (variant, first))
      return dataclasses.replace(cell, difference=difference)
    scores, base = _scores(name, folders, (variant, first))
  except _NotPairedError as error:
    remarks[f'{run.name}, {_MEASURES[name]}: {error}.'] = None
    return cell
  if name == 'reward' and _manifest(folders[0], 'normalizer') != _manifest(
    folders[1], 'normalizer'
  ):
    remarks[
      f'{run.name}: its rewards are put on the scale of {first_run.name}, so '
      'that they are comparable; its results.json has its own scale.'
    ] = None
  mean = metrics.clustered_mean(*scores).scaled(100)
  return side_by_side.Cell(
    value=mean.mean,
    stderr=mean.stderr,
    difference=metrics.paired_difference(
      scores[0], base[0], scores[1], base[1]
    ).scaled(100),
  )


def _value(
  variant: variant_lib.Variant, name: str
) -> metrics.Estimate | float | None:
  if name == _SEARCHED:
    output = variant.outputs.get(variant.decode.text)
    return None if output is None else output.human
  return getattr(variant, name)


class _NotPairedError(Exception):
  """Two policies cannot be compared; the message says why."""


def _folder(variant: variant_lib.Variant, run: _Run) -> pathlib.Path:
  folder = run.evaluations.get(variant.key)
  if folder is None:
    of_seeds = ', pooled over seeds' if variant.seeds else ''
    raise _NotPairedError(
      f'{variant.name} has no evaluation in {run.name}{of_seeds}, so nothing is '
      'paired'
    )
  return folder


def _manifest(folder: pathlib.Path, key: str) -> Any:
  return folder_lib.read_manifest(folder)['settings'].get(key)


def _check_sources(
  split: str,
  folders: tuple[pathlib.Path, ...],
  runs: tuple[_Run, ...],
) -> None:
  """Raises unless both evaluations are of the same sources."""
  ids = [
    np.unique(sample_store.SampleStore.open(folder).source_id)
    for folder in folders
  ]
  if not np.array_equal(ids[0], ids[1]):
    raise _NotPairedError('the runs were evaluated on other sources')
  data = [_manifest(folder, 'data') for folder in folders]
  if data[0] == data[1]:
    return
  texts = [run.source_texts(split) for run in runs]
  if texts[0] is None or texts[0] != texts[1]:
    raise _NotPairedError('the runs have other sources')


def _scores(
  name: str,
  folders: tuple[pathlib.Path, ...],
  variants: tuple[variant_lib.Variant, ...],
) -> list[tuple[np.ndarray, np.ndarray]]:
  """Returns scores and source ids of both, on the scale of the second."""
  if name in ('human', _SEARCHED):
    judges = [_manifest(folder, 'judge') for folder in folders]
    if judges[0] != judges[1]:
      raise _NotPairedError(
        f'the judges differ: {judges[0]} and {judges[1]} (the first run)'
      )
    if name == 'human':
      return [
        evaluate_stage.read_scores(folder, evaluate_stage.HUMAN)
        for folder in folders
      ]
    searched = [
      outputs_stage.read(folder)[variant.decode.text]
      for folder, variant in zip(folders, variants, strict=True)
    ]
    return [
      (scores.human, scores.sources)
      for scores in searched
      if scores.human is not None
    ]
  rewards = [_manifest(folder, 'reward') for folder in folders]
  if rewards[0] != rewards[1]:
    raise _NotPairedError(
      'the reward is not that of the first run, so its numbers have another '
      'scale; compare the judge, BLEU or chrF'
    )
  scale = normalize.Normalizer.from_json(_manifest(folders[1], 'normalizer'))
  scores = []
  for folder in folders:
    store = sample_store.SampleStore.open(folder)
    raw, _ = store.rewards(rewards[0]['name'])
    scores.append(
      (np.asarray(scale(raw), np.float64), np.asarray(store.source_id))
    )
  return scores


def _text_difference(
  name: str,
  folders: tuple[pathlib.Path, ...],
  variants: tuple[variant_lib.Variant, ...],
) -> metrics.Difference:
  tokenizers = [_manifest(folder, 'bleu_tokenize') for folder in folders]
  if name == 'bleu' and tokenizers[0] != tokenizers[1]:
    raise _NotPairedError(f'the tokenisers differ: {tokenizers}')
  try:
    counts = [
      getattr(outputs_stage.read(folder)[variant.decode.text], name)
      for folder, variant in zip(folders, variants, strict=True)
    ]
  except ValueError as error:
    raise _NotPairedError(
      'an evaluation of an older version has no counts of sentences'
    ) from error
  return paired_text.paired_difference(_TEXT_SCORES[name], counts[0], counts[1])
