"""The device mesh with axes `data` and `model`, and sharding of arrays on it.

If slices are connected by a slower network (the data-centre network, DCN), an
axis `slice` comes first: batches are split over `slice` and `data`, and nothing
else is split over `slice`.
"""

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import functools
import math
from typing import Any, Protocol

from flax import linen as nn
import jax
from jax.experimental import mesh_utils
from jaxtyping import Array
import numpy as np

from rest_jax import types
from rest_jax.parallel import processes

Rules = tuple[tuple[str, str | None], ...]

SLICE = 'slice'

# Which mesh axis splits which logical axis. The first rule of a name whose mesh
# axis is not yet used by the array applies. A final pair ('embed', 'data')
# would also split the parameters over `data`.
DEFAULT_RULES: Rules = (
  ('batch', 'data'),
  ('vocab', 'model'),
  ('mlp', 'model'),
  ('heads', 'model'),
  ('joined_kv', 'model'),
  ('kv', None),
  ('embed', None),
  ('length', None),
  ('relpos_buckets', None),
  ('value', None),
)


class Model(Protocol):
  """The interface for initialisation, of `Policy` and `ScalarModel`."""

  def init(self, key: Array) -> types.Params: ...

  def logical_axes(self) -> types.Params: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
  """Shape of the mesh, and sharding rules.

  Attributes:
    data: number of devices along `data`, of all slices; splits batches. -1 for
      all remaining devices.
    model: number of devices along `model`; splits heads, feed-forward blocks
      and vocabulary.
    slices: number of consecutive parts of `data` that only the data-centre
      network connects. Batches are split over all slices; everything else that
      `rules` map to `data` is split within each slice and equal in all of them.
    rules: pairs of a logical axis and `data`, `model` or None.
  """

  data: int = -1
  model: int = 1
  slices: int = 1
  rules: Rules = DEFAULT_RULES

  def __post_init__(self):
    # gin hands lists over as lists.
    rules = tuple(tuple(rule) for rule in self.rules)
    object.__setattr__(self, 'rules', rules)
    if self.data < 1 and self.data != -1:
      raise ValueError(
        'data must be a number of devices, or -1 for all that remain; got '
        f'{self.data}.'
      )
    if self.model < 1:
      raise ValueError(
        f'model must be a number of devices, at least 1; got {self.model}.'
      )
    if self.slices < 1:
      raise ValueError(
        f'slices must be a number of slices, at least 1; got {self.slices}.'
      )
    for rule in rules:
      if len(rule) != 2 or rule[1] not in ('data', 'model', None):
        raise ValueError(
          "rules must be pairs of a logical axis and 'data', 'model' or "
          f'None; got {rule}.'
        )

  def build(
    self,
    # JAX exports the class in a way that type checkers take for a variable.
    devices: Sequence[jax.Device] | None = None,  # pyright: ignore[reportInvalidTypeForm]
  ) -> jax.sharding.Mesh:
    """Returns the mesh over `devices`, by default all devices.

    Raises:
      ValueError: the number of devices does not fit data * model, or they do
        not form `slices` slices.
    """
    devices = jax.devices() if devices is None else list(devices)
    data = len(devices) // self.model if self.data == -1 else self.data
    if data * self.model != len(devices):
      wanted = 'data' if self.data == -1 else f'{self.data}'
      raise ValueError(
        f'data * model must be the number of devices, {len(devices)}; got '
        f'{wanted} * {self.model}. Set MeshConfig.data = -1 and a '
        'MeshConfig.model that divides the devices, or hand fewer over.'
      )
    if data % self.slices:
      raise ValueError(
        f'slices must divide the devices along data, {data}; got '
        f'{self.slices}. Set MeshConfig.slices to the number of slices.'
      )
    auto = jax.sharding.AxisType.Auto
    _check_slices(devices, self.slices)
    if self.slices == 1:
      return jax.make_mesh(
        (data, self.model),
        ('data', 'model'),
        axis_types=(auto,) * 2,
        devices=devices,
      )
    shape = (self.slices, data // self.slices, self.model)
    return jax.sharding.Mesh(
      _by_slices(devices, shape),
      (SLICE, 'data', 'model'),
      axis_types=(auto,) * 3,
    )

  def build_local(
    self,
    devices: Sequence[jax.Device] | None = None,  # pyright: ignore[reportInvalidTypeForm]
  ) -> jax.sharding.Mesh:
    """Returns the first of `build_each_local`, for small work."""
    return self.build_each_local(devices)[0]

  def build_each_local(
    self,
    devices: Sequence[jax.Device] | None = None,  # pyright: ignore[reportInvalidTypeForm]
  ) -> list[jax.sharding.Mesh]:
    """Returns meshes of one process's devices, for independent work.

    Args:
      devices: devices of all processes; those of the first process are used.
        None for the devices of this process.

    Returns:
      One mesh per group of `groups`; they can work concurrently. The axis
      `model` has `model` devices if a group has that many, otherwise a divisor
      of it.
    """
    everything = jax.devices() if devices is None else list(devices)
    if devices is None:
      own = jax.local_devices()
    else:
      first = everything[0].process_index
      own = [each for each in everything if each.process_index == first]
    if len(own) == len(everything):
      return [self.build(everything)]
    return [
      dataclasses.replace(
        self, data=-1, model=math.gcd(self.model, len(group)), slices=1
      ).build(group)
      for group in groups(own, len(everything))
    ]


# TPUs on which any chips of a slice can communicate; on others, all or none.
_ROUTED = ('TPU v4', 'TPU v5', 'TPU v5p')


def groups(own: Sequence[Any], num_devices: int) -> list[list[Any]]:
  """Groups a process's devices so that programs can run on each group.

  XLA compiles no program with a collective for some chips of a v5e or v6e
  slice, and, for some of 32 or more chips of v5e, only programs for a single
  chip (tests/planning/chips_test.py).

  Args:
    own: devices of one process.
    num_devices: number of devices of all processes.

  Returns:
    One group; or one group per device, if the process has only some chips of
    such a slice.
  """
  first = own[0]
  if (
    len(own) == num_devices
    or first.platform != 'tpu'
    or first.device_kind in _ROUTED
  ):
    return [list(own)]
  return [[device] for device in own]


def _check_slices(devices: Sequence[Any], slices: int) -> None:
  """Raises ValueError unless `devices` are of so many slices of one size.

  Devices of a CPU are of none, and contiguous ones stand for a slice; those of
  GPUs name what connects them, which one slice may span.
  """
  if devices[0].platform == 'cpu':
    return
  found = collections.Counter(
    getattr(device, 'slice_index', 0) for device in devices
  )
  if len(found) == slices and len(set(found.values())) == 1:
    return
  if slices == 1 and devices[0].platform != 'tpu':
    return
  remedy = f'Set MeshConfig.slices = {len(found)}'
  if len(found) > 1:
    remedy += ', as gin_configs/meshes/multislice.gin does'
  if len(set(found.values())) > 1:
    remedy = 'Hand over as many devices of each'
  raise ValueError(
    'slices must be the number of slices that the devices are of, all of one '
    f'size; got {slices} for devices of {len(found)}, with '
    f'{list(found.values())} each. {remedy}.'
  )


def _by_slices(devices: Sequence[Any], shape: tuple[int, ...]) -> np.ndarray:
  """Returns devices as [slices, data, model], ordered by their wiring."""
  if devices[0].platform == 'cpu':
    return np.array(devices).reshape(shape)
  slices, *within = shape
  return mesh_utils.create_hybrid_device_mesh(
    (1, *within), (slices, 1, 1), devices
  )


@contextlib.contextmanager
def use(
  mesh: jax.sharding.Mesh, rules: Rules = DEFAULT_RULES
) -> Iterator[jax.sharding.Mesh]:
  """Applies this mesh to the logical constraints in models."""
  with jax.set_mesh(mesh), nn.logical_axis_rules(_rules_on(mesh, rules)):
    yield mesh


def shardings(
  mesh: jax.sharding.Mesh,
  logical_axes: types.Params,
  rules: Rules = DEFAULT_RULES,
) -> types.Params:
  """Returns the sharding of each parameter from its axis names."""
  return nn.logical_to_mesh_sharding(logical_axes, mesh, _rules_on(mesh, rules))


def _rules_on(mesh: jax.sharding.Mesh, rules: Rules) -> Sequence[Any]:
  """Returns the rules with batches also split over slices, if there are any.

  Embeddings are then gathered within a slice before the look-up. With a table
  that is split over `data`, XLA would look up the tokens of all slices and send
  the results from slice to slice (observed).
  """
  lookup = None if SLICE in mesh.shape else dict(reversed(rules)).get('embed')
  return (
    *(
      (name, _batch_axes(mesh) if (name, axis) == ('batch', 'data') else axis)
      for name, axis in rules
    ),
    ('lookup', lookup),
  )


def _batch_axes(mesh: jax.sharding.Mesh) -> str | tuple[str, ...]:
  return (SLICE, 'data') if SLICE in mesh.shape else 'data'


def num_parts(mesh: jax.sharding.Mesh) -> int:
  """Returns the number of parts of a batch."""
  return mesh.shape.get(SLICE, 1) * mesh.shape['data']


def replicated(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """Returns the sharding of an array that every device holds completely."""
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def batch_sharding(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """Returns the sharding of a batch: axis 0 split over `data` of all slices."""
  spec = jax.sharding.PartitionSpec(_batch_axes(mesh))
  return jax.sharding.NamedSharding(mesh, spec)


def rows_here(mesh: jax.sharding.Mesh) -> Callable[[int], np.ndarray] | None:
  """Returns which rows of a batch this process reads.

  Args:
    mesh: result of `MeshConfig.build`.

  Returns:
    A function from the number of rows of a batch to the ascending rows on
    devices of this process; None if all are.
  """
  if jax.process_count() == 1:
    return None
  return functools.partial(_rows_here, mesh)


def _rows_here(mesh: jax.sharding.Mesh, num_rows: int) -> np.ndarray:
  places = batch_sharding(mesh).addressable_devices_indices_map((num_rows,))
  rows = np.arange(num_rows)
  return np.unique(np.concatenate([rows[place] for place in places.values()]))


def num_readers(mesh: jax.sharding.Mesh) -> int:
  """Returns how many processes read each row: several if `model` spans them."""
  parts = num_parts(mesh)
  return processes.count() * len(_rows_here(mesh, parts)) // parts


def put_batch(
  batch: Mapping[str, np.ndarray], mesh: jax.sharding.Mesh
) -> types.Batch:
  """Puts a batch onto the mesh, rows split over `data`.

  Args:
    batch: arrays with rows along the first axis: all rows with one process, the
      rows of `rows_here` with several.
    mesh: result of `MeshConfig.build`.

  Raises:
    ValueError: the rows of an array do not divide among the devices.
  """
  parts = len(_rows_here(mesh, num_parts(mesh)))
  for name, value in batch.items():
    if np.ndim(value) == 0 or len(value) % parts:
      raise ValueError(
        "each array's rows must divide over this process's part of the mesh "
        f'axis data of {parts}; got {name} of shape {np.shape(value)}. Pad the '
        'batch with rows of weight 0 (row_multiple).'
      )
  sharding = batch_sharding(mesh)
  return {
    name: jax.make_array_from_process_local_data(sharding, np.asarray(value))
    for name, value in batch.items()
  }


def abstract_params(
  model: Model, mesh: jax.sharding.Mesh, rules: Rules = DEFAULT_RULES
) -> Any:
  """Returns shapes, types and shardings of a model's parameters."""
  axes = model.logical_axes()
  layout = shardings(mesh, axes, rules)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  check_divides(shapes, axes, layout)
  return jax.tree.map(
    lambda shape, sharding: jax.ShapeDtypeStruct(
      shape.shape, shape.dtype, sharding=sharding
    ),
    shapes,
    layout,
  )


def put_params(
  params: types.Params,
  logical_axes: types.Params,
  mesh: jax.sharding.Mesh,
  rules: Rules = DEFAULT_RULES,
) -> types.Params:
  """Puts parameters onto the mesh.

  Raises:
    ValueError: a split axis does not divide.
  """
  layout = shardings(mesh, logical_axes, rules)
  check_divides(params, logical_axes, layout)
  return processes.place(params, layout)


def check_divides(
  shapes: Any, logical_axes: types.Params, layout: types.Params
):
  """Raises ValueError naming the first parameter axis that does not divide."""

  def check(path, leaf, names, sharding):
    mesh_axes = sharding.spec
    for size, name, axis in zip(leaf.shape, names, mesh_axes, strict=False):
      if axis is not None and size % sharding.mesh.shape[axis]:
        where = jax.tree_util.keystr(path, simple=True, separator='/')
        raise ValueError(
          f'{where}: its axis {name!r} of size {size} must divide over the '
          f'mesh axis {axis} of {sharding.mesh.shape[axis]}. Choose a '
          f'MeshConfig.model that divides it, or map {name!r} to None in '
          'MeshConfig.rules.'
        )

  jax.tree_util.tree_map_with_path(check, shapes, logical_axes, layout)
