"""People's ratings as a table for the terminal."""

from rest_jax.evaluation import correlations
from rest_jax.rating import agreement as agreement_lib
from rest_jax.rating import scores
from rest_jax.report import table
from rest_jax.runtime import control_characters


def render(people: scores.People, agreement: agreement_lib.Agreement) -> str:
  """Formats the mean rating of every policy, and the agreement of raters."""
  if not people.ratings:
    return 'people: nothing rated yet.'
  rows = [('rated by people', 'split', 'sources', 'mean x100')]
  for (split, policy), name in people.policies().items():
    sources = str(people.sources(split, policy))
    mean = table.shown(people.mean(split, policy))
    rows.append((control_characters.visible(name), split, sources, mean))
  lines = [table.columns(rows), '']
  lines.append(
    f'{len(people.ratings):,} ratings ({people.kind}) by '
    + ', '.join(map(control_characters.visible, agreement.raters))
  )
  alpha = _measured(agreement.alpha, agreement.interval, agreement.units)
  lines.append(f"Krippendorff's alpha {alpha}")
  for pair in agreement.pairs:
    names = ', '.join(
      map(control_characters.visible, (pair.first, pair.second))
    )
    pearson = _measured(pair.pearson, pair.interval, pair.outputs)
    lines.append(f'Pearson of {names}: {pearson}')
  return '\n'.join(lines)


def _measured(
  value: float | None, interval: tuple[float, float] | None, count: int
) -> str:
  if value is None or interval is None:
    least = correlations.MIN_CORRELATED
    why = f'fewer than {least}' if count < least else 'all alike'
    return f'not measured over {count:,} rated twice ({why})'
  low, high = interval
  return f'{value:.3f} [{low:.3f}, {high:.3f}] over {count:,}'
