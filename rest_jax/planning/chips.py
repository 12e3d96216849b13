"""TPU chips, and TPU slices to compile for on any machine.

Source: Google Cloud's documentation of each system, "TPU v4", "TPU v5e", "TPU
v5p" and "TPU v6e" (https://docs.cloud.google.com/tpu/docs/v4, .../v5e, .../v5p,
.../v6e): peak bfloat16 FLOP/s, HBM capacity and HBM bandwidth per chip.
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


@dataclasses.dataclass(frozen=True)
class Chip:
  """A type of TPU chip.

  Attributes:
    name: name in topologies, such as 'v5e'.
    peak_flops: peak FLOP per second of bfloat16 matrix products.
    axes: number of axes of the torus, 2 or 3.
    options: compiler options for the topology.
  """

  name: str
  peak_flops: float
  hbm_bytes: int
  hbm_bandwidth: float
  axes: int
  options: tuple[tuple[str, str], ...] = ()

  def bound(self, flops: float, accessed_bytes: float) -> tuple[str, float]:
    """Returns the roofline bound of a program on one chip.

    Args:
      flops: FLOP of the program on this chip.
      accessed_bytes: bytes that it reads from and writes to HBM.

    Returns:
      'compute' or 'memory', and the longer of the two times, in seconds.
    """
    compute = flops / self.peak_flops
    memory = accessed_bytes / self.hbm_bandwidth
    return ('compute', compute) if compute >= memory else ('memory', memory)


# By default the compiler treats the two cores of a v4 chip as two devices;
# programs run on both as one device ("megacore").
_MEGACORE = (('chip_config_name', 'megacore'),)
CHIPS = {
  chip.name: chip
  for chip in (
    Chip('v4', 275e12, 32 * GIB, 1200e9, 3, _MEGACORE),
    Chip('v5e', 197e12, 16 * GIB, 819e9, 2),
    Chip('v5p', 459e12, 95 * GIB, 2765e9, 3),
    Chip('v6e', 918e12, 32 * GIB, 1638e9, 2),
  )
}


@dataclasses.dataclass(frozen=True)
class Slice:
  """A TPU slice, or several equal slices, by the name of the topology.

  Attributes:
    name: topology, such as `v5e:4x4` or `v4:2x2x1`; for several slices,
      connected by the data-centre network, with their number as prefix:
      `2xv5e:4x4`.
  """

  name: str

  def __post_init__(self):
    match = _NAME.fullmatch(self.name)
    if match is None or match['chip'] not in CHIPS:
      raise ValueError(
        'topology must be a type of chip and a shape, such as v5e:4x4 or '
        f'v4:2x2x1 (2xv5e:4x4 for two slices), of {", ".join(CHIPS)}; got '
        f'{self.name!r}.'
      )
    if len(self.shape) != self.chip.axes or min(self.shape) < 1:
      raise ValueError(
        f'a topology of {self.chip.name} must have {self.chip.axes} axes of at '
        f'least 1, such as {self.chip.name}:{"x".join("221"[: self.chip.axes])}; '
        f'got {self.name!r}.'
      )

  @property
  def chip(self) -> Chip:
    return CHIPS[self._part('chip')]

  @property
  def num_slices(self) -> int:
    return int(self._part('slices') or 1)

  @property
  def shape(self) -> tuple[int, ...]:
    """Number of chips along each axis of a slice."""
    return tuple(int(size) for size in self._part('shape').split('x'))

  @property
  def num_chips(self) -> int:
    """Number of chips of all slices."""
    return self.num_slices * math.prod(self.shape)

  def _part(self, name: str) -> str:
    match = _NAME.fullmatch(self.name)
    assert match is not None  # Checked in __post_init__.
    return match[name]

  def devices(self) -> list[Any]:
    """Returns one device per chip, for compiling only.

    Raises:
      ImportError: if libtpu is not installed.
      ValueError: if the compiler does not know the topology.
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
        f'the compiler does not know the topology {self.name!r}: {error}'
      ) from error
    return list(described.devices)


def without_tpu() -> None:
  """Keeps libtpu from searching for a local TPU, and from logging.

  Must be called before JAX initialises its devices.
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
