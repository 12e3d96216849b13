"""Compiled programs: their memory, work and collectives."""

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
# The instruction, after its type; the second half of an asynchronous one
# ("-done") is not counted again.
_INSTRUCTION = re.compile(rf'[\s)}}\]]({"|".join(COLLECTIVES)})(?:-start)?\(')
_OUT_OF_MEMORY = ('RESOURCE_EXHAUSTED', 'Ran out of memory')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
  """What the compiler says of a program on one chip, and what we count.

  Attributes:
    name: of the program.
    size: see `programs.Program`.
    unit: of `size`.
    items: see `programs.Program`, on all chips.
    num_chips: that the program runs on together.
    fits: whether it was compiled; without, the figures of memory are 0 and only
      `flops` is known.
    arguments: bytes.
    outputs: bytes.
    aliased: bytes of outputs that take the place of arguments.
    temporaries: bytes.
    code: bytes of the program itself, which lies in the chip's memory too.
    flops: of products of matrices, loops counted, for a chip.
    flops_once: likewise, the body of every loop counted once.
    xla_flops: of XLA's cost analysis, which counts a loop's body once.
    accessed_bytes: likewise.
    collectives: how often each occurs in the program's text.
    compile_seconds: how long it took.
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
    """Bytes of one chip that are in use while the program runs."""
    return (
      self.arguments
      + self.outputs
      - self.aliased
      + self.temporaries
      + self.code
    )

  def bound(self, chip: chips_lib.Chip) -> tuple[str, float]:
    """See `Chip.bound`.

    XLA counts the bytes of a loop's body once; they are raised as much as the
    FLOPs are by counting loops.
    """
    repeated = self.flops / self.flops_once if self.flops_once else 1.0
    return chip.bound(self.flops, repeated * self.accessed_bytes)


def measure(program: programs_lib.Program, effort: float = 0.0) -> Measured:
  """Compiles a program.

  Args:
    program: what to compile.
    effort: XLA's effort for a fast program, from -1 to 1; 0 is what a run
      compiles with.

  Returns:
    Its figures; `fits` is False where it needs more memory than a chip has.
  """
  began = time.monotonic()
  traced = program.trace()
  num_chips = program.mesh.size
  known = {
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
    return Measured(fits=False, **known)
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
    **known,
  )


def collectives(text: str) -> dict[str, int]:
  """How often each kind of collective occurs in the text of an HLO program."""
  found = collections.Counter(_INSTRUCTION.findall(text))
  return {name: found[name] for name in COLLECTIVES if found[name]}


def largest(
  fits: Callable[[int], bool], start: int, *, most_doublings: int = 10
) -> int | None:
  """The largest size that fits, to within a quarter, by few trials.

  Sizes are `start` times a power of two, and one between the last that fits and
  the first that does not.

  Args:
    fits: says of a size whether it does; if one does, so do all below.
    start: the first size to try, at least 1.
    most_doublings: of the start, beyond which nothing is tried.

  Returns:
    The size; None if not even 1 fits.
  """
  size = start
  if fits(start):
    for _ in range(most_doublings):
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
