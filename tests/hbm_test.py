"""Bytes between a TPU's memory and the chip, counted by hand."""

import pytest

from benchmarks import hbm

# Sizes: bf16[8,128] is 2,048 bytes, f32[8,128] 4,096, bf16[2,128] 512.
_PROGRAM = """\
HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%a, %b)
}

%picked (table: bf16[8,128], at: s32[]) -> bf16[2,128] {
  %table = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  %at = s32[]{:T(128)} parameter(1)
  %same = bf16[8,128]{1,0} bitcast(%table)
  ROOT %part = bf16[2,128]{1,0} dynamic-slice(%same, %at), dynamic_slice_sizes={2,128}
}

%written (cache: bf16[8,128], new: bf16[2,128], at: s32[]) -> bf16[8,128] {
  %cache = bf16[8,128]{1,0} parameter(0)
  %new = bf16[2,128]{1,0} parameter(1)
  %at = s32[] parameter(2)
  ROOT %update = bf16[8,128]{1,0} dynamic-update-slice(%cache, %new, %at)
}

%scaled (x: bf16[8,128]) -> (bf16[8,128], f32[8,128]) {
  %x = bf16[8,128]{1,0} parameter(0)
  %twice = bf16[8,128]{1,0} add(%x, %x)
  %wide = f32[8,128]{1,0} convert(%x)
  ROOT %both = (bf16[8,128]{1,0}, f32[8,128]{1,0}) tuple(%twice, %wide)
}

%body (state: (bf16[8,128], s32[])) -> (bf16[8,128], s32[]) {
  %state = (bf16[8,128]{1,0:T(8,128)(2,1)}, s32[]{:T(128)}) parameter(0)
  %cache = bf16[8,128]{1,0:T(8,128)(2,1)} get-tuple-element(%state), index=0
  %at = s32[]{:T(128)S(6)} get-tuple-element(%state), index=1
  INSTRUCTIONS
  ROOT %next = (bf16[8,128]{1,0}, s32[]) tuple(%cache, %at)
}

%condition (state: (bf16[8,128], s32[])) -> pred[] {
  %state = (bf16[8,128]{1,0}, s32[]) parameter(0)
  ROOT %yes = pred[]{:T(512)S(6)} constant(true)
}

ENTRY %main (cache: bf16[8,128]) -> bf16[8,128] {
  %cache = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  %zero = s32[]{:T(128)} constant(0)
  %first = (bf16[8,128]{1,0}, s32[]) tuple(%cache, %zero)
  %loop = (bf16[8,128]{1,0}, s32[]) while(%first), condition=%condition, body=%body
  ROOT %last = bf16[8,128]{1,0} get-tuple-element(%loop), index=0
}
"""
_FETCH = (
  '%start = (bf16[8,128]{1,0:S(1)}, bf16[8,128]{1,0}, u32[]{:S(2)}) '
  'copy-start(%cache)\n'
  '  %fast = bf16[8,128]{1,0:S(1)} copy-done(%start)\n'
)


@pytest.mark.parametrize(
  ('instructions', 'read', 'written'),
  [
    ('', 0, 0),
    ('%y = bf16[8,128]{1,0} add(%cache, %cache)', 2 * 2048, 2048),
    ('%y = bf16[8,128]{1,0:S(1)} negate(%cache)', 2048, 0),
    # The fetch counts once, its user not, and the way back once more.
    (_FETCH, 2048, 0),
    (f'{_FETCH}  %y = bf16[8,128]{{1,0:S(1)}} negate(%fast)', 2048, 0),
    (
      f'{_FETCH}  %back = (bf16[8,128]{{1,0}}, bf16[8,128]{{1,0:S(1)}}, u32[]) '
      'copy-start(%fast)',
      2048,
      2048,
    ),
    # A quarter is fetched.
    (
      '%start = ((bf16[8,128]{1,0}), bf16[2,128]{1,0:S(1)}, s32[]{:S(2)}) '
      'slice-start(%cache), slice={[0:2], [0:128]}',
      512,
      0,
    ),
    # An operand read in part, and a result written in part.
    (
      '%y = bf16[2,128]{1,0:S(1)} fusion(%cache, %at), kind=kLoop, calls=%picked',
      512,
      0,
    ),
    (
      '%new = bf16[2,128]{1,0} constant({...})\n'
      '  %y = bf16[8,128]{1,0} fusion(%cache, %new, %at), kind=kLoop, '
      'calls=%written',
      512,
      512,
    ),
    (
      '%new = bf16[2,128]{1,0:S(1)} constant({...})\n'
      '  %y = bf16[8,128]{1,0} dynamic-update-slice(%cache, %new, %at)',
      0,
      512,
    ),
    # Of two results one lies in fast memory.
    (
      '%y = (bf16[8,128]{1,0:S(1)}, f32[8,128]{1,0}) fusion(%cache), kind=kLoop, '
      'calls=%scaled',
      2048,
      4096,
    ),
  ],
)
def test_traffic_of_a_turn(instructions, read, written):
  text = _PROGRAM.replace('INSTRUCTIONS', instructions)
  assert list(hbm.loop_bodies(text)) == [(read, written)]


@pytest.mark.parametrize(
  'instruction',
  [
    'custom-call(%cache), custom_call_target="mine"',
    'all-reduce-start(%cache)',
  ],
)
def test_what_is_not_known_is_not_left_out(instruction):
  text = _PROGRAM.replace(
    'INSTRUCTIONS', f'%y = bf16[8,128]{{1,0}} {instruction}'
  )
  with pytest.raises(ValueError, match=' y is not known'):
    list(hbm.loop_bodies(text))


def test_a_loop_of_loops_is_none_of_steps():
  inner = '%y = (bf16[8,128]{1,0}, s32[]) while(%state), body=%inner'
  outer = _PROGRAM.replace('INSTRUCTIONS', inner)
  inside = (
    '%inner (state: s32[]) -> s32[] {\n  ROOT %z = s32[] constant(0)\n}\n'
  )
  assert list(
    hbm.loop_bodies(outer.replace('\nENTRY', f'\n{inside}\nENTRY'))
  ) == [(0, 0)]
