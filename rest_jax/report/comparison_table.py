"""Several runs side by side."""

from collections.abc import Mapping, Sequence
import dataclasses

from rest_jax.report import table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
  """What is shown of several runs.

  Attributes:
    title: of the page.
    folders: of the runs, by their names.
    tables: a table for each split.
    note: what its numbers are.
    unpaired: what could not be compared, and why.
  """

  title: str
  folders: Mapping[str, str]
  tables: Sequence[table.Cells]
  note: str
  unpaired: Sequence[str] = ()
