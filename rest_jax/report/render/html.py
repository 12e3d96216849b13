"""`index.html`: the report of a run in one file, which needs no network.

The page contains its style, script, pictures and samples. A content security
policy allows only this style and script, by their hashes, and every text is
escaped: text of a sample cannot run or load anything.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any

import jinja2
import markupsafe

from rest_jax.evaluation import metrics
from rest_jax.evaluation import outputs as outputs_lib
from rest_jax.evaluation import results as results_lib
from rest_jax.evaluation import variant as variant_lib
from rest_jax.report import table
from rest_jax.report.gather import samples as samples_lib
from rest_jax.report.render import (
  drawing,
  exhibits,
  result_tables,
  side_by_side,
)
from rest_jax.runtime import control_characters
from rest_jax.storage import files

# Makes a table of one split; None if there is nothing to show.
_MakeTable = Callable[[results_lib.Results, str], table.Cells | None]

_WEB = pathlib.Path(__file__).parent / 'web'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Highlight:
  """One number at the top of a page.

  Attributes:
    note: its difference to BC; '' if unknown.
  """

  label: str
  value: str
  note: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
  """The content of a run's page; empty parts are left out.

  Attributes:
    stage_warnings: warnings of stages, one line each.
    grown: figures of D_g: histograms, before and after filters.
    kept: table of the samples that the filter of each Improve step kept.
    trust: figures on whether the reward can be trusted.
    trust_tables: tables on whether the reward can be trusted.
    training: figures of the trainings.
    samples: samples to browse; None without evaluations.
    times: table of the time of stages, in brief.
    costs: table of the time and work of every stage.
    training_times: table of what the time of each training went to.
    commands: commands that repeat the run.
    versions: versions of Python and packages.
    listings: configuration files, text by name.
  """

  title: str
  facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
  results: results_lib.Results
  stage_warnings: Sequence[str] = ()
  grown: Sequence[exhibits.Exhibit] = ()
  kept: table.Cells | None = None
  trust: Sequence[exhibits.Exhibit] = ()
  trust_tables: Sequence[table.Cells] = ()
  training: Sequence[exhibits.Exhibit] = ()
  samples: samples_lib.Samples | None = None
  times: table.Cells | None = None
  costs: table.Cells | None = None
  training_times: table.Cells | None = None
  commands: Sequence[str] = ()
  versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
  listings: Mapping[str, str] = dataclasses.field(default_factory=dict)

  @property
  def highlights(self) -> list[Highlight]:
    """Numbers of the recommended policy's greedy (or beam) outputs."""
    shown = self._recommended
    measured = shown.outputs.get(shown.text, shown)
    return [
      _highlight(label, measured, name)
      for name, label in (
        ('human', f'{self.results.rater.capitalize()} ×100'),
        ('reward', 'Reward ×100'),
        ('bleu', 'BLEU'),
        ('chrf', 'chrF'),
      )
      if getattr(measured, name) is not None
    ]

  @property
  def highlighted(self) -> str:
    """Caption of the highlights: policy, decode and split."""
    shown = self._recommended
    what = f'{shown.text} output' if shown.text in shown.outputs else 'scores'
    whose = 'Its' if self.results.verdict else f'{shown.name}:'
    return f'{whose} {what} on {shown.split}'

  @property
  def _recommended(self) -> variant_lib.Variant:
    """The recommended policy on the split of the verdict."""
    results = self.results
    split = results.reported_splits[0]
    variants, verdict = results.of_split(split), results.verdict
    if verdict is not None:
      variants = [
        v for v in variants if v.name == verdict.recommended
      ] or variants
    return max(variants, key=lambda variant: variant.reward.mean)


def write(page: Page, path: str | os.PathLike[str]) -> None:
  """Writes a run's page atomically; the same page gives the same bytes."""
  results = page.results

  def tables(*makers: _MakeTable) -> list[table.Cells]:
    splits = results.reported_splits
    made = [make(results, split) for make in makers for split in splits]
    return [cells for cells in made if cells is not None]

  diagnostics = tables(result_tables.diagnostics)
  text = _render(
    'page.html',
    page=page,
    verdict=result_tables.verdict(results),
    policies=tables(
      result_tables.gains, result_tables.across_seeds, result_tables.levels
    ),
    decodes=tables(result_tables.by_decode),
    diagnostics=diagnostics,
    more_diagnostics=[*diagnostics[1:], *page.trust_tables],
    figures=exhibits.of_results(results),
    note=' '.join(result_tables.notes(results)),
    samples=None if page.samples is None else page.samples.content(),
  )
  _write(text, path)


def write_comparison(
  side: side_by_side.SideBySide, path: str | os.PathLike[str]
) -> None:
  """Writes the page of several runs side by side."""
  text = _render(
    'compare.html',
    side=side,
    tables=side_by_side.tables(side),
    figures=side_by_side.pictures(side),
  )
  _write(text, path)


def _write(text: str, path: str | os.PathLike[str]) -> None:
  with files.atomic_write(path) as temporary:
    temporary.write_text(text, encoding='utf-8')


def _render(template: str, **values: Any) -> str:
  style = (_WEB / 'page.css').read_text(encoding='utf-8')
  script = (_WEB / 'page.js').read_text(encoding='utf-8')
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_WEB),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=_finalize,
  )
  environment.filters.update(
    picture=_picture, as_json=_as_json, listing=_listing
  )
  policy = (
    "default-src 'none'; img-src data:; "
    f"style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
    "base-uri 'none'; form-action 'none'"
  )
  return environment.get_template(template).render(
    policy=policy,
    style=markupsafe.Markup(style),
    script=markupsafe.Markup(script),
    **values,
  )


def _highlight(
  label: str, variant: variant_lib.Variant | outputs_lib.Output, name: str
) -> Highlight:
  value = getattr(variant, name)
  is_estimate = isinstance(value, metrics.Estimate)
  shown = value.shown if is_estimate else table.number(value)
  prefix = '' if name == 'reward' else f'{name}_'
  difference = getattr(variant, f'{prefix}difference_to_bc')
  note = '' if difference is None else f'{difference.shown} over BC'
  return Highlight(label=label, value=shown, note=note)


def _finalize(value: Any) -> Any:
  """Makes invisible characters visible, in every text but our own markup."""
  if isinstance(value, str) and not isinstance(value, markupsafe.Markup):
    return control_characters.visible(value)
  return value


def _listing(text: str) -> markupsafe.Markup:
  """Escapes a text with its line breaks."""
  return markupsafe.escape(control_characters.visible(text, keep='\n\t'))


def _picture(picture: exhibits.Picture) -> markupsafe.Markup:
  """Returns an image as a data URL."""
  encoded = base64.b64encode(drawing.svg(picture.figure)).decode('ascii')
  return markupsafe.Markup(f'data:image/svg+xml;base64,{encoded}')


def _as_json(value: Any) -> markupsafe.Markup:
  """Returns JSON for a script element; no text in it can end the element."""
  text = json.dumps(value, allow_nan=False, separators=(',', ':'))
  for character in '<>&':
    text = text.replace(character, f'\\u{ord(character):04x}')
  return markupsafe.Markup(text)


def _digest(text: str) -> str:
  digest = hashlib.sha256(text.encode('utf-8')).digest()
  return f'sha256-{base64.b64encode(digest).decode("ascii")}'
