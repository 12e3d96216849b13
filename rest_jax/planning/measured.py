"""Memory, work and collectives of compiled programs."""

import collections
from collections.abc import Callable
import dataclasses
import re
import time

import jax

from rest_jax.planning import chips as chips_lib
from rest_jax.planning import counts
from rest_jax.planning import programs as programs_lib

COLLECTIVES = (
  'all-reduce',
  'all-gather',
  'reduce-scatter',
  'all-to-all',
  'ragged-all-to-all',
  'collective-permute',
  'collective-broadcast',
)
# An instruction after its type. Of an asynchronous collective only "-start" is
# counted, not "-done".
_INSTRUCTION = re.compile(rf'[\s)}}\]]({"|".join(COLLECTIVES)})(?:-start)?\(')
_MOST_DOUBLINGS = 10  # Of the first size that is tried.
_OUT_OF_MEMORY = ('RESOURCE_EXHAUSTED', 'Ran out of memory')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
  """Figures of a compiled program; memory and work are per chip.

  Attributes:
    items: see `programs.Program`; for all chips.
    num_chips: number of chips that run the program together.
    fits: whether it fits in the memory of a chip; if not, only the FLOPs are
      known.
    aliased: bytes of outputs that reuse the memory of arguments.
    temporaries: bytes of temporary buffers.
    code: bytes of the program itself, which are in HBM too.
    flops: FLOP of matrix products, all iterations of loops counted.
    flops_once: FLOP of matrix products, the body of each loop counted once.
    xla_flops: FLOP by XLA's cost analysis, the body of each loop counted once.
    accessed_bytes: bytes accessed by XLA's cost analysis, likewise.
    collectives: number of occurrences of each collective in the program.
  """

  name: str
  size: int
  unit: str
  items: int
  num_chips: int
  fits: bool
  flops: float
  flops_once: float
  arguments: int = 0
  outputs: int = 0
  aliased: int = 0
  temporaries: int = 0
  code: int = 0
  xla_flops: float = 0.0
  accessed_bytes: float = 0.0
  collectives: dict[str, int] = dataclasses.field(default_factory=dict)
  compile_seconds: float = 0.0

  @property
  def memory(self) -> int:
    """Bytes in use on one chip while the program runs."""
    return (
      self.arguments
      + self.outputs
      - self.aliased
      + self.temporaries
      + self.code
    )

  def bound(self, chip: chips_lib.Chip) -> tuple[str, float]:
    """Returns the roofline bound; see `Chip.bound`.

    XLA counts the bytes of a loop's body once. They are scaled by the ratio of
    the FLOPs with and without iterations.
    """
    repeated = self.flops / self.flops_once if self.flops_once else 1.0
    return chip.bound(self.flops, repeated * self.accessed_bytes)


def measure(program: programs_lib.Program, effort: float = 0.0) -> Measured:
  """Compiles a program and returns its figures.

  Args:
    program: program to compile.
    effort: optimisation effort of XLA, in [-1, 1]; runs compile with 0.
  """
  began = time.monotonic()
  traced = program.trace()
  num_chips = program.mesh.size
  counted = {
    'name': program.name,
    'size': program.size,
    'unit': program.unit,
    'items': program.items,
    'num_chips': num_chips,
    'flops': counts.product_flops(traced.jaxpr) / num_chips,
    'flops_once': counts.product_flops(traced.jaxpr, loops_once=True)
    / num_chips,
  }
  try:
    compiled = traced.lower().compile(
      compiler_options={'exec_time_optimization_effort': effort}
    )
  except jax.errors.JaxRuntimeError as error:
    if not any(words in str(error) for words in _OUT_OF_MEMORY):
      raise
    return Measured(fits=False, **counted)
  memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
  return Measured(
    fits=True,
    arguments=memory.argument_size_in_bytes,
    outputs=memory.output_size_in_bytes,
    aliased=memory.alias_size_in_bytes,
    temporaries=memory.temp_size_in_bytes,
    code=memory.generated_code_size_in_bytes,
    xla_flops=cost.get('flops', 0.0),
    accessed_bytes=cost.get('bytes accessed', 0.0),
    collectives=collectives(compiled.as_text()),
    compile_seconds=time.monotonic() - began,
    **counted,
  )


def collectives(text: str) -> dict[str, int]:
  """Counts each kind of collective in the text of an HLO program."""
  counts = collections.Counter(_INSTRUCTION.findall(text))
  return {name: counts[name] for name in COLLECTIVES if counts[name]}


def largest(fits: Callable[[int], bool], start: int) -> int | None:
  """Searches the largest size that fits, with few trials.

  Tries `start` times powers of two, then the mean of the last size that fits
  and the first that does not.

  Args:
    fits: returns whether a size fits; must be monotonic.
    start: first size to try, at least 1.
  """
  size = start
  if fits(start):
    for _ in range(_MOST_DOUBLINGS):
      if not fits(2 * size):
        break
      size *= 2
    else:
      return size
  else:
    while size > 1:
      size //= 2
      if fits(size):
        break
    else:
      return None
  between = size + size // 2
  return between if between > size and fits(between) else size
