"""A plan in words."""

from collections.abc import Iterator

from rest_jax.planning import chips as chips_lib
from rest_jax.planning import hours as hours_lib
from rest_jax.planning import measured as measured_lib
from rest_jax.planning import plan as plan_lib
from rest_jax.planning import sampling_programs


def lines(plan: plan_lib.Plan) -> Iterator[str]:
  """A plan as people read it."""
  where, chip = plan.slice, plan.slice.chip
  axes = ', '.join(f'{name}={size}' for name, size in plan.mesh.items())
  yield (
    f'{plan.topology}: {where.num_chips} chips{_slices(where)} of {chip.hbm_bytes / chips_lib.GIB:g} GiB, '
    f'{chip.peak_flops / 1e12:g} TFLOP/s (bfloat16), '
    f'{chip.hbm_bandwidth / 1e9:g} GB/s; mesh {axes}'
  )
  if chip.name == 'v4':
    yield '  v4: both cores of a chip are planned as one device (megacore)'
  if where.num_slices > 1:
    yield (
      '  collectives between slices go over the network of the data centre, '
      'which no bound here counts'
    )
  if plan.effort != 0:
    yield (
      f"  compiled at effort {plan.effort:g}; a run's own programs (effort 0) "
      'differ somewhat in memory and bytes'
    )
  for each in plan.programs:
    yield from _program_lines(plan, each)
  if plan.suggested is None:
    yield (
      f'  mesh: the state fits no mesh of {where.num_chips} chips; take a '
      'larger slice'
    )
  else:
    yield f'  mesh: {plan.suggested}'
  yield from _hours_lines(plan)


def _slices(where: chips_lib.Slice) -> str:
  return f' in {where.num_slices} slices' if where.num_slices > 1 else ''


def _program_lines(
  plan: plan_lib.Plan, each: measured_lib.Measured
) -> Iterator[str]:
  chip = plan.slice.chip
  yield f'  {each.name}: {each.size:,} {each.unit}, {each.items:,} rows'
  if not each.fits:
    yield '    does not fit a chip'
  else:
    kind, seconds = each.bound(chip)
    yield (
      f'    memory on a chip  {each.memory / chips_lib.GIB:.2f} of '
      f'{chip.hbm_bytes / chips_lib.GIB:g} GiB: arguments {each.arguments / chips_lib.GIB:.2f}, '
      f'temporaries {each.temporaries / chips_lib.GIB:.2f}, new outputs '
      f'{(each.outputs - each.aliased) / chips_lib.GIB:.2f}, code {each.code / chips_lib.GIB:.2f}'
    )
    if each.name == sampling_programs.BLOCK:
      yield '    a loop within loops; its work is that of its steps, below'
    else:
      yield (
        f'    work of a chip    {each.flops / 1e9:,.1f} GFLOP in products '
        f'(XLA: {each.xla_flops / 1e9:,.1f}, loops once), '
        f'{each.accessed_bytes / 1e9:.2f} GB; bound by {kind}, '
        f'{1e3 * seconds:.2f} ms at best'
      )
    found = ', '.join(f'{n} {name}' for name, n in each.collectives.items())
    yield f'    collectives       {found or "none"}'
  if each.name in plan.largest:
    size = plan.largest[each.name]
    best = 'none' if size is None else f'{size:,} {each.unit}'
    yield f'    largest that fits {best}'


def _hours_lines(plan: plan_lib.Plan) -> Iterator[str]:
  if plan.num_sources is None:
    yield (
      '  hours: not estimated, the number of sources is not known; give '
      '--plan_sources'
    )
    return
  yield (
    f'  hours, an estimate: {plan.num_sources:,} sources, '
    f'{hours_lib.ASSUMED_SHARE:.0%} of the bound assumed, all steps taken, every '
    'block to the maximum length; programs that were not compiled or do not fit '
    'are left out'
  )
  for part in plan.parts:
    yield f'    {part.name:34}{part.hours:>10,.2f}  ({part.calls:,} calls)'
  total = plan.hours
  yield (
    f'    {"all":34}{total:>10,.2f}  '
    f'({total * plan.slice.num_chips:,.1f} chip-hours)'
  )
