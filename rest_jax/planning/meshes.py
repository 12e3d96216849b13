"""Which mesh to take for a network on a slice."""

import dataclasses

from rest_jax.planning import chips as chips_lib

# Of a chip's memory, for what is kept from step to step; activations, gradients
# and the program need the rest.
STATE_SHARE = 0.6


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshChoice:
  """A suggested mesh.

  Attributes:
    data: devices along `data`, of all slices.
    model: devices along `model`.
    slices: parts of `data`.
    is_fully_sharded: whether parameters and optimiser are split over `data` too,
      within a slice.
    state_bytes: of the state on each chip.
  """

  data: int
  model: int
  slices: int = 1
  is_fully_sharded: bool
  state_bytes: float

  def __str__(self) -> str:
    if self.is_fully_sharded:
      kind = 'parameters split over data'
      if self.slices > 1:
        kind += ' within a slice'
    else:
      kind = 'parameters whole on each of data'
    slices = f'slices={self.slices}, ' if self.slices > 1 else ''
    return (
      f'{slices}data={self.data}, model={self.model}, {kind}: '
      f'{self.state_bytes / chips_lib.GIB:.2f} GiB of state on a chip'
    )


def suggest(
  chip: chips_lib.Chip,
  num_chips: int,
  state_bytes: int,
  *,
  num_heads: int,
  emb_dim: int,
  can_shard_fully: bool = True,
  num_slices: int = 1,
) -> MeshChoice | None:
  """The simplest mesh on which the state fits.

  Data parallel, if parameters and optimiser fit one chip; else they are split
  over `data`; else, where that does not divide or does not suffice, over `model`
  too, as few devices along it as will do.

  Args:
    chip: of the slice.
    num_chips: of it, or of all slices.
    state_bytes: parameters, optimiser and other models, all together.
    num_heads: of the network; `model` divides it.
    emb_dim: of the network; `data` divides it where parameters are split.
    can_shard_fully: False for scoring and the like, which would gather the
      parameters in every call.
    num_slices: that the chips are of; parameters are not split over them.

  Returns:
    The mesh; None if none of this slice will do.
  """
  room = STATE_SHARE * chip.hbm_bytes
  if state_bytes <= room:
    return MeshChoice(
      data=num_chips,
      model=1,
      slices=num_slices,
      is_fully_sharded=False,
      state_bytes=state_bytes,
    )
  of_slice = num_chips // num_slices
  for model in _divisors(of_slice):
    data = of_slice // model
    if num_heads % model:
      continue
    for is_fully_sharded in (False, True):
      parts = model * (data if is_fully_sharded else 1)
      if is_fully_sharded and (not can_shard_fully or emb_dim % data):
        continue
      if state_bytes / parts <= room:
        return MeshChoice(
          data=num_slices * data,
          model=model,
          slices=num_slices,
          is_fully_sharded=is_fully_sharded,
          state_bytes=state_bytes / parts,
        )
  return None


def _divisors(number: int) -> list[int]:
  return [size for size in range(1, number + 1) if number % size == 0]
