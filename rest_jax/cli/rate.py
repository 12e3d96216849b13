"""`--run_mode=rate`: people rate outputs of two policies, blind."""

from collections.abc import Sequence
import pathlib
from typing import Any

from absl import logging
import numpy as np

from rest_jax import rest
from rest_jax.data import sample_store
from rest_jax.rating import agreement as agreement_lib
from rest_jax.rating import export, order, scores
from rest_jax.rating import store as store_lib
from rest_jax.report import summary
from rest_jax.report.gather import evaluations
from rest_jax.report.render import rating_table
from rest_jax.runtime import terminal
from rest_jax.stages import base
from rest_jax.stages import evaluate as evaluate_stage
from rest_jax.stages import folder as folder_lib


def run(run: rest.Layout) -> None:
  """Serves the rating page of a run until it is interrupted.

  Then writes the ratings as TSV and prints a summary.

  Raises:
    ValueError: if the libraries of the page are not installed, or the run does
      not have the two policies.
    FileNotFoundError: if a policy was not evaluated.
  """
  config = run.experiment.rating
  app = _app()
  shown = items(run)
  store = store_lib.Store(evaluations.ratings_file(run))
  try:
    app.serve(store, config, store.add(shown))
    ratings = store.ratings(config.kind)
  finally:
    store.close()
  path = evaluations.ratings_file(run).with_name(export.FILE)
  export.write(path, ratings, config.kind)
  terminal.show(
    rating_table.render(
      scores.People(config.kind, ratings),
      agreement_lib.measure(ratings, config.kind),
    )
  )
  logging.info(
    'ratings: %s; --run_mode=report adds them to %s',
    path,
    summary.RESULTS_FILE,
  )


def items(run: rest.Layout) -> list[store_lib.Item]:
  """Returns the items to rate: the first sample of each policy per source."""
  config = run.experiment.rating
  steps = policies(run)
  stores = [_evaluation(run, step) for step in steps]
  digests = [store.manifest['settings']['policy'] for store in stores]
  if digests[0] == digests[1]:
    raise ValueError(
      f'policies must differ; {steps[0].policy_name} and '
      f'{steps[1].policy_name} have the same weights: no Improve step improved '
      'them. Choose other policies: '
      "--gin.RatingConfig.policies=\"('bc', 'improve_1_1')\""
    )
  shared = np.intersect1d(stores[0].source_id, stores[1].source_id).tolist()
  chosen = order.chosen(shared, config.num_items, config.seed)
  pairs = run.data.pairs(config.split)
  first, second = (_outputs(run, store, chosen) for store in stores)
  names = [evaluations.policy_name(run, step) for step in steps]
  return [
    store_lib.Item(
      split=config.split,
      source_id=source_id,
      source=pairs.source_text(source_id),
      first_policy=digests[0],
      first_name=names[0],
      first_output=first[index],
      second_policy=digests[1],
      second_name=names[1],
      second_output=second[index],
    )
    for index, source_id in enumerate(chosen)
  ]


def policies(run: rest.Layout) -> list[base.PolicyStage]:
  """Returns the two policies to compare.

  Raises:
    ValueError: if the settings name policies that the run does not have.
  """
  steps = run.policies()
  names = run.experiment.rating.policies
  if not names:
    return [steps[0], [step for step in steps if not step.is_online][-1]]
  by_name = {step.policy_name: step for step in steps}
  for name in names:
    if name not in by_name:
      raise ValueError(
        f'RatingConfig.policies must be two of {", ".join(by_name)}; got '
        f'{name!r}.'
      )
  return [by_name[name] for name in names]


def describe(run: rest.Layout) -> list[str]:
  """Returns lines for the plan of `--dry_run`; see `policies`."""
  config = run.experiment.rating
  steps = policies(run)
  names = ' and '.join(step.policy_name for step in steps)
  lines = [
    f'  rate      {names}: {config.num_items} sources of {config.split}, '
    f'{config.kind}, at {config.host} port {config.port}'
  ]
  for step in steps:
    directory = _folder(run, step)
    is_finished = folder_lib.is_finished(directory)
    state = 'finished' if is_finished else 'missing, run evaluate first'
    lines.append(f'    {state}: {directory}')
  return lines


def _evaluation(
  run: rest.Layout, step: base.PolicyStage
) -> sample_store.SampleStore:
  directory, split = _folder(run, step), run.experiment.rating.split
  if not folder_lib.is_finished(directory):
    raise FileNotFoundError(
      f'{directory} must hold samples of {step.policy_name} to be rated; it '
      f'has no {folder_lib.MANIFEST}. Run --run_mode=evaluate, with {split!r} '
      'in EvaluateConfig.splits.'
    )
  return sample_store.SampleStore.open(directory)


def _folder(run: rest.Layout, step: base.PolicyStage) -> pathlib.Path:
  """Returns the folder of the evaluation whose samples are rated."""
  split = run.experiment.rating.split
  [first, *_] = [
    e for e in run.of_kind(evaluate_stage.Evaluate) if e.policy is step
  ]
  return first.folder.with_name(f'{step.policy_name}-{split}')


def _outputs(
  run: rest.Layout, store: sample_store.SampleStore, chosen: Sequence[int]
) -> list[str]:
  """Returns the first sample of each source."""
  rows = np.searchsorted(store.source_id, chosen)
  return run.data.vocabulary.decode_batch(
    [store.tokens[int(row)] for row in rows]
  )


def _app() -> Any:
  try:
    # Optional packages.
    from rest_jax.rating import app
  except ImportError as error:
    raise ValueError(
      f'--run_mode=rate needs Flask and waitress: {error}. Install them: '
      "pip install 'flask>=3.1' 'waitress>=3'"
    ) from error
  return app
