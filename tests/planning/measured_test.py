"""Tests of what is read from compiled programs, and of the search."""

import pytest

from rest_jax.planning import chips, measured
from tests.parallel import eight

_HLO = """\
HloModule jit_f, entry_computation_layout={(f32[8]{0})->f32[8]{0}}
%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(f32[] %a, f32[] %b)
}
ENTRY %main {
  %p = f32[8]{0} parameter(0), metadata={op_name="all-reduce"}
  %all-reduce.3 = f32[8]{0:T(256)} all-reduce(f32[8]{0:T(256)} %p), to_apply=%add
  %s = (f32[8]{0}, f32[16]{0}) all-gather-start(%all-reduce.3), dimensions={0}
  %d = f32[16]{0} all-gather-done(%s)
  %c = (f32[8]{0}, f32[8]{0:S(1)}, u32[]{:S(2)}) collective-permute-start(%p)
  %e = f32[8]{0} collective-permute-done(%c)
  %r = f32[8]{0} ragged-all-to-all(%p, %p, %p, %p, %p, %p)
  %t = f32[8]{0} fusion(%all-reduce.3), kind=kLoop, calls=%fused
  ROOT %x = f32[8]{0} reduce(f32[16]{0} %d, %p), to_apply=%add
}
"""


def test_collectives_are_found_once_each_whatever_their_form():
  assert measured.collectives(_HLO) == {
    'all-reduce': 1,
    'all-gather': 1,
    'collective-permute': 1,
    'ragged-all-to-all': 1,
  }


def test_a_name_or_an_operand_is_no_collective():
  text = '  %all-reduce.1 = f32[8]{0} add(f32[8]{0} %all-gather.2, f32[8] %p)'
  assert measured.collectives(text) == {}


def test_collectives_of_programs_for_eight_devices(tmp_path_factory):
  base = tmp_path_factory.getbasetemp()
  found = eight.found(base)['planning.collectives']
  assert found['sum'] == {'all-reduce': 1}
  assert found['gather'] == {'all-gather': 1}
  assert found['alone'] == {}


@pytest.mark.parametrize('most', [*range(1, 40), 100, 1000, 2047, 2048])
@pytest.mark.parametrize('start', [1, 6, 16])
def test_the_largest_size_is_found_within_a_quarter(start, most):
  tried = []

  def fits(size):
    tried.append(size)
    return size <= most

  found = measured.largest(fits, start)
  assert found <= most
  # The next size above that would be tried: half as much again, or a third.
  assert found * 1.5 + 1 > most or found >= start * 2**10
  assert len(tried) == len(set(tried)) <= 14


def test_nothing_fits():
  assert measured.largest(lambda size: False, 8) is None
  assert measured.largest(lambda size: False, 1) is None


def test_the_search_ends_where_everything_fits():
  tried = []
  found = measured.largest(lambda size: tried.append(size) or True, 4)
  assert found == 4096
  assert tried == [4 * 2**n for n in range(11)]


def _measured(**changes):
  return measured.Measured(
    **{
      'name': 'a',
      'size': 1,
      'unit': 'rows',
      'items': 1,
      'num_chips': 1,
      'fits': True,
      'flops': 197e12,
      'flops_once': 197e12,
    }
    | changes
  )


def test_memory_counts_outputs_that_take_no_argument_s_place():
  found = _measured(
    arguments=100, outputs=60, aliased=50, temporaries=7, code=3
  )
  assert found.memory == 100 + 60 - 50 + 7 + 3


def test_bytes_of_loops_are_raised_like_their_flops():
  chip = chips.CHIPS['v5e']
  once = _measured(accessed_bytes=2 * 819e9)
  assert once.bound(chip) == ('memory', 2.0)
  looped = _measured(flops_once=197e12 / 4, accessed_bytes=2 * 819e9)
  assert looped.bound(chip) == ('memory', 8.0)
  # XLA may find that two products are the same; that is no loop.
  fewer = _measured(xla_flops=197e12 / 2, accessed_bytes=2 * 819e9)
  assert fewer.bound(chip) == ('memory', 2.0)
