"""A comparison: several variants of one experiment, several seeds."""

import dataclasses
from typing import NamedTuple

from rest_jax import experiment as experiment_lib
from rest_jax import settings


class VariantSpec(NamedTuple):
  """What one variant changes.

  Attributes:
    name: of its folder and in the results.
    gin_files: read after those of the comparison.
    overrides: `NAME=VALUE`, after those of the command line.
  """

  name: str
  gin_files: tuple[str, ...]
  overrides: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
  """What is compared.

  Attributes:
    experiment: what all variants start from.
    variants: for each its name, and then the gin files (`….gin`) and settings
      (`NAME=VALUE`) in which it differs.
    seeds: everything random is repeated with each.
  """

  experiment: experiment_lib.Experiment
  variants: tuple[tuple[str, ...], ...]
  seeds: tuple[int, ...] = (0, 1, 2)

  def __post_init__(self):
    settings.make_tuples(self, 'variants', 'seeds')
    names = [spec.name for spec in self.specs()]
    for what, values in (('variants', names), ('seeds', self.seeds)):
      if not values:
        raise ValueError(f'{what} must name at least one; got none')
      if len(set(values)) < len(values):
        raise ValueError(f'{what} must differ; got {tuple(values)}')

  def specs(self) -> list[VariantSpec]:
    """Returns the variants, each taken apart."""
    return [_spec(entry) for entry in self.variants]


def _spec(entry: tuple[str, ...]) -> VariantSpec:
  if (
    isinstance(entry, str)
    or not entry
    or '=' in entry[0]
    or '/' in entry[0]
    or '.gin' in entry[0]
  ):
    raise ValueError(
      'each of variants must open with its name, a word for a folder, before '
      f'gin files and NAME=VALUE; got {entry!r}'
    )
  name, *changes = entry
  for change in changes:
    if '=' not in change and not change.endswith('.gin'):
      raise ValueError(
        f'variant {name}: {change!r} is neither a gin file nor NAME=VALUE'
      )
  overrides = tuple(change for change in changes if '=' in change)
  files = tuple(change for change in changes if '=' not in change)
  return VariantSpec(name, files, overrides)
