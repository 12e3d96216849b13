"""Figures of TPU chips, and slices of them that XLA compiles for anywhere.

Source: Google Cloud's documents of each system, "TPU v4", "TPU v5e", "TPU v5p"
and "TPU v6e" (https://docs.cloud.google.com/tpu/docs/v4, .../v5e, .../v5p,
.../v6e): peak bfloat16 FLOP/s, capacity and bandwidth of HBM, for each chip.
"""

import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

GIB = 2**30
_NAME = re.compile(
  r'((?P<slices>[1-9]\d*)x)?(?P<chip>v\d+\w?):(?P<shape>\d+x\d+(x\d+)?)'
)
_INSTALL = "pip install -e '.[tpu]' -c launch/constraints.txt"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
  """One kind of chip.

  Attributes:
    name: as in the names of slices.
    peak_flops: of bfloat16 products, a second.
    hbm_bytes: memory.
    hbm_bandwidth: bytes a second.
    axes: of the torus: 2 or 3.
    options: of the compiler's topology, beside its name.
  """

  name: str
  peak_flops: float
  hbm_bytes: int
  hbm_bandwidth: float
  axes: int
  options: tuple[tuple[str, str], ...] = ()

  def bound(self, flops: float, accessed_bytes: float) -> tuple[str, float]:
    """What limits a program on one chip, and the least seconds it takes.

    Args:
      flops: of the chip's part of the program.
      accessed_bytes: read from and written to HBM by it.

    Returns:
      'compute' or 'memory', and the longer of the two times.
    """
    compute = flops / self.peak_flops
    memory = accessed_bytes / self.hbm_bandwidth
    return ('compute', compute) if compute >= memory else ('memory', memory)


# The compiler plans v4 by core unless it is told that both cores of a chip work
# as one, which is how programs run there ("megacore").
_MEGACORE = (('chip_config_name', 'megacore'),)
CHIPS = {
  chip.name: chip
  for chip in (
    Chip(
      name='v4',
      peak_flops=275e12,
      hbm_bytes=32 * GIB,
      hbm_bandwidth=1200e9,
      axes=3,
      options=_MEGACORE,
    ),
    Chip(
      name='v5e',
      peak_flops=197e12,
      hbm_bytes=16 * GIB,
      hbm_bandwidth=819e9,
      axes=2,
    ),
    Chip(
      name='v5p',
      peak_flops=459e12,
      hbm_bytes=95 * GIB,
      hbm_bandwidth=2765e9,
      axes=3,
    ),
    Chip(
      name='v6e',
      peak_flops=918e12,
      hbm_bytes=32 * GIB,
      hbm_bandwidth=1638e9,
      axes=2,
    ),
  )
}


@dataclasses.dataclass(frozen=True)
class Slice:
  """Chips that are connected, by the name of their topology; or several alike.

  Attributes:
    name: such as `v5e:4x4` or `v4:2x2x1`; of several slices, which the
      data-centre's network connects, with their number before it: `2xv5e:4x4`.
  """

  name: str

  def __post_init__(self):
    match = _NAME.fullmatch(self.name)
    if match is None or match['chip'] not in CHIPS:
      raise ValueError(
        'topology must be a kind of chip and a shape, such as v5e:4x4 or '
        f'v4:2x2x1 (2xv5e:4x4 for two slices), of {", ".join(CHIPS)}; got {self.name!r}.'
      )
    if len(self.shape) != self.chip.axes or min(self.shape) < 1:
      raise ValueError(
        f'a topology of {self.chip.name} has {self.chip.axes} axes of at least '
        f'1, such as {self.chip.name}:{"x".join("221"[: self.chip.axes])}; got '
        f'{self.name!r}.'
      )

  @property
  def chip(self) -> Chip:
    return CHIPS[self._part('chip')]

  @property
  def num_slices(self) -> int:
    return int(self._part('slices') or 1)

  @property
  def shape(self) -> tuple[int, ...]:
    """Of each slice."""
    return tuple(int(size) for size in self._part('shape').split('x'))

  @property
  def num_chips(self) -> int:
    """Of all slices."""
    return self.num_slices * math.prod(self.shape)

  def _part(self, name: str) -> str:
    match = _NAME.fullmatch(self.name)
    assert match is not None  # Checked when it was made.
    return match[name]

  def devices(self) -> list[Any]:
    """The chips as devices that can be compiled for and not run on.

    Raises:
      ImportError: libtpu is not installed.
      ValueError: the compiler knows no such slice.
    """
    if importlib.util.find_spec('libtpu') is None:
      raise ImportError(
        f'compiling for {self.name} needs libtpu, which is not installed here. '
        f'It is in the extra [tpu]: {_INSTALL}'
      )
    without_tpu()
    options: dict[str, Any] = dict(self.chip.options)
    if math.prod(self.shape) == 1:
      options['chips_per_host_bounds'] = (1,) * 3
    if self.num_slices > 1:
      options['num_slices'] = self.num_slices
    try:
      described = topologies.get_topology_desc(
        platform='tpu',
        topology_name=self.name[self.name.index('v') :],
        **options,
      )
    except jax.errors.JaxRuntimeError as error:
      raise ValueError(
        f'the compiler knows no topology {self.name!r}: {error}'
      ) from error
    return list(described.devices)


def without_tpu() -> None:
  """Keeps libtpu from looking for a TPU of this machine, and from its notes.

  To be called before JAX first asks for devices.
  """
  for name, value in (
    ('TPU_SKIP_MDS_QUERY', '1'),
    ('ALLOW_MULTIPLE_LIBTPU_LOAD', '1'),
    ('TPU_ACCELERATOR_TYPE', 'v5litepod-8'),
    ('TPU_WORKER_HOSTNAMES', 'localhost'),
    ('TPU_STDERR_LOG_LEVEL', '3'),
    ('TPU_MIN_LOG_LEVEL', '3'),
  ):
    os.environ.setdefault(name, value)
  jax.config.update('jax_platforms', 'cpu')
