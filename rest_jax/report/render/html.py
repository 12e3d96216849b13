"""`index.html`: all there is to see of a run in one file without a network.

The page holds its style, its script, its pictures and its samples. A content
security policy names the first two by their hash, so that nothing that stands in
a sample can run or load anything, and every text is escaped.
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

# Makes the table of one split.
_Kind = Callable[[results_lib.Results, str], table.Cells | None]

_WEB = pathlib.Path(__file__).parent / 'web'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Highlight:
  """One number at the top of a page.

  Attributes:
    label: what it is.
    value: the number.
    note: what it is to be compared with.
  """

  label: str
  value: str
  note: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
  """What is shown of a run; what is empty is left out.

  Attributes:
    title: of the run.
    facts: names and values of what the run is.
    results: what was measured.
    stage_warnings: what stages warned of, a line each.
    grown: D_g: histograms, and what filters keep.
    kept: of each Improve step, what its filter kept.
    trust: figures that say whether the reward can be trusted.
    trust_tables: likewise tables.
    training: figures of the trainings.
    samples: to browse; None where no evaluation holds samples.
    times: where the time of stages went, in brief.
    costs: likewise of every stage, with its work.
    training_times: what the time of each training went to.
    commands: that make the run again.
    versions: of what it runs with.
    listings: names and texts of the configuration.
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
    """Numbers of the recommended policy by greedy (or beam) outputs."""
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
    """Whose numbers the highlights are."""
    shown = self._recommended
    what = f'{shown.text} output' if shown.text in shown.outputs else 'scores'
    whose = 'Its' if self.results.verdict else f'{shown.name}:'
    return f'{whose} {what} on {shown.split}'

  @property
  def _recommended(self) -> results_lib.Variant:
    """The recommended policy on test, or the first split."""
    results = self.results
    split = 'test' if 'test' in results.splits else results.splits[0]
    variants, verdict = results.of_split(split), results.verdict
    if verdict is not None:
      variants = [
        v for v in variants if v.name == verdict.recommended
      ] or variants
    return max(variants, key=lambda variant: variant.reward.mean)


def write(page: Page, path: str | os.PathLike[str]) -> None:
  """Writes a run's page atomically; the same page gives the same bytes.

  Args:
    page: what to show; at least one policy.
    path: the file.
  """
  results = page.results

  def tables(*kinds: _Kind) -> list[table.Cells]:
    # First those of test, of which the verdict is.
    splits = sorted(results.splits, key=lambda split: split != 'test')
    found = [kind(results, split) for kind in kinds for split in splits]
    return [cells for cells in found if cells is not None]

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
  """Writes the page of several runs side by side.

  Args:
    side: what to show.
    path: the file.
  """
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
  label: str, variant: results_lib.Variant | outputs_lib.Output, name: str
) -> Highlight:
  value = getattr(variant, name)
  is_estimate = isinstance(value, metrics.Estimate)
  shown = table.estimate(value) if is_estimate else table.number(value)
  prefix = '' if name == 'reward' else f'{name}_'
  difference = getattr(variant, f'{prefix}difference_to_bc')
  note = '' if difference is None else f'{table.difference(difference)} over BC'
  return Highlight(label=label, value=shown, note=note)


def _finalize(value: Any) -> Any:
  """Makes what does not show visible, in every text but our own markup."""
  if isinstance(value, str) and not isinstance(value, markupsafe.Markup):
    return control_characters.visible(value)
  return value


def _listing(text: str) -> markupsafe.Markup:
  """Text whose lines are kept, escaped."""
  return markupsafe.escape(control_characters.visible(text, keep='\n\t'))


def _picture(picture: exhibits.Picture) -> markupsafe.Markup:
  """The address of an image that the page itself holds."""
  encoded = base64.b64encode(drawing.svg(picture.figure)).decode('ascii')
  return markupsafe.Markup(f'data:image/svg+xml;base64,{encoded}')


def _as_json(value: Any) -> markupsafe.Markup:
  """JSON for a script element, which no text inside of it can end."""
  text = json.dumps(value, allow_nan=False, separators=(',', ':'))
  for character in '<>&':
    text = text.replace(character, f'\\u{ord(character):04x}')
  return markupsafe.Markup(text)


def _digest(text: str) -> str:
  digest = hashlib.sha256(text.encode('utf-8')).digest()
  return f'sha256-{base64.b64encode(digest).decode("ascii")}'
