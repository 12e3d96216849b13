"""Writes `results.json` and the report from finished evaluations."""

from absl import logging

from rest_jax import rest
from rest_jax.evaluation import costs
from rest_jax.evaluation import results as results_lib
from rest_jax.rating import agreement
from rest_jax.report import index_page, table
from rest_jax.report.gather import evaluations, finished_stages
from rest_jax.report.gather import run_costs as costs_stage
from rest_jax.report.render import (
  cost_table,
  drawing,
  figures,
  probe_table,
  rating_table,
  result_tables,
)
from rest_jax.runtime import terminal
from rest_jax.stages import probe as probe_stage
from rest_jax.storage import files

RESULTS_FILE = 'results.json'
EVALUATION_FILE = 'evaluation.json'


def write(run: rest.Layout) -> str:
  """Writes, prints and returns the results of a run's finished evaluations."""
  people = evaluations.read_people(run)
  by_split = evaluations.gather(run, people)
  variants = [variant for split in by_split.values() for variant in split]
  path = run.model_dir / RESULTS_FILE
  results = results_lib.update(path, run.experiment.task.name, variants)
  files.write_json(
    run.variant_dir / EVALUATION_FILE,
    results_lib.to_json(
      results_lib.Results(
        task=run.experiment.task.name, variants=tuple(variants)
      )
    ),
    sealed=True,
  )
  shown = results.shown
  figures.write_all(shown, run.model_dir / 'report')
  names = {
    step: evaluations.policy_name(run, step).removesuffix(
      results.shared_variant
    )
    for step in run.reported()
  }
  page = index_page.write(run, shown, names)
  stages = index_page.finished(run, names)
  more = []
  if run.experiment.online is not None:
    reached = costs_stage.gather(run)
    if reached:
      costs.write(run.variant_dir / costs_stage.COSTS_FILE, reached)
      more.append(cost_table.render(reached))
  times = (
    finished_stages.times(stages, is_brief=True),
    finished_stages.trainings(stages),
  )
  more += [table.lines(cells) for cells in times if cells is not None]
  text = result_tables.render(shown, finished_stages.warnings(stages), more)
  terminal.show(text)
  if people.ratings:
    measured = agreement.measure(people.ratings, people.kind)
    terminal.show('\n' + rating_table.render(people, measured))
  logging.info('results: %s, report: %s', path, page)
  return text


def write_probes(run: rest.Layout, probe: probe_stage.Probe) -> bool:
  """Prints and draws probes; returns whether all met the minimum, if any."""
  config, report = probe.config, probe.report()
  title = f'{run.experiment.task.name}, {config.split}'
  terminal.show(probe_table.render(report, title, config.minimum))
  path = run.model_dir / 'report' / 'probes.png'
  drawing.save(
    figures.probe_shares(report, title=title, minimum=config.minimum), path
  )
  logging.info('probes: %s, figure: %s', probe.folder, path)
  return config.minimum is None or not report.missed(config.minimum)
