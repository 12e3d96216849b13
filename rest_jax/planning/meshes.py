"""Suggests a mesh for a network on a TPU slice."""

import dataclasses

from rest_jax.planning import chips as chips_lib

# Share of a chip's memory for the state; activations, gradients and the program
# need the rest.
STATE_SHARE = 0.6


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshChoice:
  """A suggested mesh.

  Attributes:
    data: number of devices along `data`, over all slices.
    model: number of devices along `model`.
    slices: number of slices that `data` is divided into.
    is_fully_sharded: whether parameters and optimiser are also sharded over
      `data`, within a slice.
    state_bytes: bytes of the state per chip.
  """

  data: int
  model: int
  slices: int = 1
  is_fully_sharded: bool
  state_bytes: float

  def __str__(self) -> str:
    if self.is_fully_sharded:
      kind = 'parameters sharded over data'
      if self.slices > 1:
        kind += ' within a slice'
    else:
      kind = 'parameters replicated over data'
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
  """Returns the simplest mesh on which the state fits, or None.

  Data parallel if parameters and optimiser fit on one chip; otherwise they are
  sharded over `data`; if that does not divide or does not suffice, also over
  `model`, with as few devices as possible.

  Args:
    chip: type of the chips.
    num_chips: number of chips of all slices.
    state_bytes: bytes of parameters, optimiser and other models.
    num_heads: number of attention heads, a multiple of `model`.
    emb_dim: width of the network, a multiple of `data` if fully sharded.
    can_shard_fully: False for programs such as scoring that would gather the
      parameters in every call.
    num_slices: number of slices; parameters are not sharded across slices.
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
  for model in range(1, of_slice + 1):
    data = of_slice // model
    if of_slice % model or num_heads % model:
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
