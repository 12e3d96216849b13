"""The text of a plan."""

from collections.abc import Iterator

from rest_jax.planning import chips as chips_lib
from rest_jax.planning import hours as hours_lib
from rest_jax.planning import measured as measured_lib
from rest_jax.planning import plan as plan_lib
from rest_jax.planning import sampling_programs

_GIB = chips_lib.GIB


def lines(plan: plan_lib.Plan) -> Iterator[str]:
  """Yields the lines of a plan for the terminal."""
  where, chip = plan.slice, plan.slice.chip
  slices = f' in {where.num_slices} slices' if where.num_slices > 1 else ''
  axes = ', '.join(f'{name}={size}' for name, size in plan.mesh.items())
  yield (
    f'{plan.topology}: {where.num_chips} chips{slices} of '
    f'{chip.hbm_bytes / _GIB:g} GiB, {chip.peak_flops / 1e12:g} TFLOP/s '
    f'(bfloat16), {chip.hbm_bandwidth / 1e9:g} GB/s; mesh {axes}'
  )
  if chip.name == 'v4':
    yield '  v4: both cores of a chip are planned as one device (megacore)'
  if where.num_slices > 1:
    yield (
      '  collectives between slices use the data-centre network, which no '
      'bound here includes'
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
      f'  mesh: the state fits on no mesh of {where.num_chips} chips; use a '
      'larger slice'
    )
  else:
    yield f'  mesh: {plan.suggested}'
  yield from _hours_lines(plan)


def _program_lines(
  plan: plan_lib.Plan, each: measured_lib.Measured
) -> Iterator[str]:
  chip = plan.slice.chip
  yield f'  {each.name}: {each.size:,} {each.unit}, {each.items:,} rows'
  if not each.fits:
    yield '    does not fit on a chip'
  else:
    kind, seconds = each.bound(chip)
    yield (
      f'    memory on a chip  {each.memory / _GIB:.2f} of '
      f'{chip.hbm_bytes / _GIB:g} GiB: arguments {each.arguments / _GIB:.2f}, '
      f'temporaries {each.temporaries / _GIB:.2f}, new outputs '
      f'{(each.outputs - each.aliased) / _GIB:.2f}, code {each.code / _GIB:.2f}'
    )
    if each.name == sampling_programs.BLOCK:
      yield '    nested loops; see the work of one step below'
    else:
      yield (
        f'    work of a chip    {each.flops / 1e9:,.1f} GFLOP in products '
        f'(XLA: {each.xla_flops / 1e9:,.1f}, loops once), '
        f'{each.accessed_bytes / 1e9:.2f} GB; bound by {kind}, '
        f'{1e3 * seconds:.2f} ms at best'
      )
    counts = ', '.join(f'{n} {name}' for name, n in each.collectives.items())
    yield f'    collectives       {counts or "none"}'
  if each.name in plan.largest:
    size = plan.largest[each.name]
    best = 'none' if size is None else f'{size:,} {each.unit}'
    yield f'    largest that fits {best}'


def _hours_lines(plan: plan_lib.Plan) -> Iterator[str]:
  if plan.num_sources is None:
    yield (
      '  hours: not estimated, since the number of sources is unknown; set '
      '--plan_sources'
    )
    return
  yield (
    f'  hours, an estimate: {plan.num_sources:,} sources, '
    f'{hours_lib.ASSUMED_SHARE:.0%} of the bound assumed, all steps, every '
    'block decoded to the maximum length; excludes programs that were not '
    'compiled or do not fit'
  )
  for part in plan.parts:
    yield f'    {part.name:34}{part.hours:>10,.2f}  ({part.calls:,} calls)'
  total = plan.hours
  yield (
    f'    {"all":34}{total:>10,.2f}  '
    f'({total * plan.slice.num_chips:,.1f} chip-hours)'
  )
