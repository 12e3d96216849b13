"""Bytes that a program compiled for TPU moves to and from its memory.

XLA's cost analysis counts every operand and result of every instruction, wherever
it lies: what is fetched into the chip's fast memory counts three times, read and
written by the fetch and read by its user. Here only what crosses the border of HBM
counts, by the memory spaces in the program's text, where fast memory is `S(1)`.
"""

from collections.abc import Iterable, Iterator
import dataclasses
import re
from typing import NamedTuple

_ITEM_BYTES = {
  'pred': 1, 's8': 1, 'u8': 1, 's16': 2, 'u16': 2, 'bf16': 2, 'f16': 2,
  's32': 4, 'u32': 4, 'f32': 4, 's64': 8, 'u64': 8, 'f64': 8,
}  # fmt: skip
_SHAPE = re.compile(rf'\b({"|".join(_ITEM_BYTES)})\[([\d,]*)\](\{{[^}}]*\}})?')
_COMPUTATION = re.compile(r'(?:ENTRY )?%?([\w.\-]+) .*->.*\{$')
_INSTRUCTION = re.compile(r'\s+(ROOT )?%?([\w.\-]+) = (.*)$')
_NAME = re.compile(r'%([\w.\-]+)')
_CALLS = re.compile(r'calls=%?([\w.\-]+)')
_BODY = re.compile(r'\bwhile\(.*body=%?([\w.\-]+)')
# What moves nothing, or what its beginning has counted.
_FREE = frozenset({
  'bitcast', 'constant', 'get-tuple-element', 'parameter', 'tuple',
  'copy-done', 'slice-done',
})  # fmt: skip
# Custom calls that only rename what is there.
_FREE_CALLS = ('ConcatBitcast', 'AssumeGatherIndicesInBound')
# Instructions that read of their first operand only what they give.
_PARTS = frozenset({'dynamic-slice', 'gather', 'slice'})


class Traffic(NamedTuple):
  """Bytes read from and written to HBM."""

  read: int
  written: int


class _Array(NamedTuple):
  num_bytes: int
  is_in_hbm: bool


@dataclasses.dataclass(frozen=True)
class _Instruction:
  name: str
  operation: str
  arrays: list[_Array]
  operands: list[str]
  is_root: bool
  text: str

  @property
  def num_bytes(self) -> int:
    return sum(array.num_bytes for array in self.arrays)

  @property
  def hbm_bytes(self) -> int:
    return sum(a.num_bytes for a in self.arrays if a.is_in_hbm)


def loop_bodies(text: str) -> Iterator[Traffic]:
  """Traffic of one turn of each loop that has no loop inside.

  Args:
    text: of a compiled program, as `Compiled.as_text` gives it.

  Yields:
    That of each `while`, in the order of the text; a part that is written in
    place counts as it is, although memory is written in tiles.

  Raises:
    ValueError: a loop has an instruction whose traffic is not known.
  """
  computations = _parsed(text)
  for line in text.splitlines():
    if (found := _BODY.search(line)) is None:
      continue
    body = computations[found[1]]
    if not any(each.operation == 'while' for each in body.values()):
      yield _traffic(body, computations)


_Computation = dict[str, _Instruction]


def _parsed(text: str) -> dict[str, _Computation]:
  """Instructions of each computation by their names."""
  computations: dict[str, _Computation] = {}
  current: _Computation | None = None
  for line in text.splitlines():
    if begins := _COMPUTATION.match(line):
      current = computations.setdefault(begins[1], {})
    elif line.startswith('}'):
      current = None
    elif current is not None and (found := _INSTRUCTION.match(line)):
      instruction = _instruction(*found.groups())
      current[instruction.name] = instruction
  return computations


def _instruction(root: str | None, name: str, text: str) -> _Instruction:
  shape, rest = _split(text) if text.startswith('(') else text.split(' ', 1)
  operation, rest = rest.strip().split('(', 1)
  inside, attributes = _split(f'({rest}')
  return _Instruction(
    name=name,
    operation=operation,
    arrays=[
      _Array(_num_bytes(found[1], found[2]), 'S(' not in (found[3] or ''))
      for found in _SHAPE.finditer(shape)
    ],
    operands=[inside[1:-1]]
    if operation == 'parameter'
    else _NAME.findall(inside),
    is_root=root is not None,
    text=attributes,
  )


def _split(text: str) -> tuple[str, str]:
  """A text that begins with a bracket, cut where that is closed."""
  depth = 0
  for index, character in enumerate(text):
    depth += (character == '(') - (character == ')')
    if depth == 0:
      return text[: index + 1], text[index + 1 :]
  raise ValueError(f'a bracket is not closed in {text!r}')


def _num_bytes(dtype: str, dimensions: str) -> int:
  size = _ITEM_BYTES[dtype]
  for dimension in dimensions.split(','):
    size *= int(dimension or 1)
  return size


def _traffic(
  body: _Computation, computations: dict[str, _Computation]
) -> Traffic:
  each = [_of_one(one, body, computations) for one in body.values()]
  return Traffic(sum(t.read for t in each), sum(t.written for t in each))


def _of_one(
  one: _Instruction, body: _Computation, computations: dict[str, _Computation]
) -> Traffic:
  """Traffic of one instruction."""
  operands = [body[name] for name in one.operands if name in body]
  match one.operation:
    case free if free in _FREE:
      return Traffic(0, 0)
    case 'custom-call' if any(name in one.text for name in _FREE_CALLS):
      return Traffic(0, 0)
    case 'copy-start':
      # (to, from, …): one of both may be fast memory.
      return _moved(one.arrays[1], one.arrays[0])
    case 'slice-start':
      # ((from), to, …), of which only the part is read.
      part = one.arrays[1].num_bytes
      source = one.arrays[0]._replace(num_bytes=part)
      return _moved(source, one.arrays[1])
    case 'dynamic-update-slice':
      return _updated(operands[1], one.arrays[0])
    case 'fusion':
      found = _CALLS.search(one.text)
      if found is None:
        raise ValueError(f'fusion {one.name} calls nothing')
      return _of_fusion(one, operands, computations[found[1]])
    case 'while' | 'conditional' | 'call' | 'custom-call':
      raise ValueError(
        f'the traffic of {one.operation} {one.name} is not known'
      )
    case other if other.endswith(('-start', '-done')):
      raise ValueError(f'the traffic of {other} {one.name} is not known')
    case _:
      return Traffic(sum(o.hbm_bytes for o in operands), one.hbm_bytes)


def _moved(source: _Array, target: _Array) -> Traffic:
  return Traffic(
    source.num_bytes if source.is_in_hbm else 0,
    target.num_bytes if target.is_in_hbm else 0,
  )


def _updated(update: _Instruction, result: _Array) -> Traffic:
  """A part written in place."""
  return Traffic(update.hbm_bytes, update.num_bytes if result.is_in_hbm else 0)


def _of_fusion(
  fusion: _Instruction, operands: list[_Instruction], inside: _Computation
) -> Traffic:
  """Operands in HBM, of which only parts may be read, and results there."""
  parameters = {
    int(each.operands[0]): each.name
    for each in inside.values()
    if each.operation == 'parameter'
  }
  read = 0
  for number, operand in enumerate(operands):
    if operand.hbm_bytes:
      users = list(_users(parameters[number], inside))
      read += min(operand.hbm_bytes, _read_by(users, operand.hbm_bytes))
  (root,) = (each for each in inside.values() if each.is_root)
  results = [root]
  if root.operation == 'tuple':
    results = [inside[name] for name in root.operands]
  written = 0
  for result, array in zip(results, fusion.arrays, strict=True):
    if array.is_in_hbm:
      written += _written_by(_unwrapped(result, inside), inside, array)
  return Traffic(read, written)


def _users(
  name: str, inside: _Computation
) -> Iterator[tuple[_Instruction, int]]:
  """Who reads a value, and as which operand; through bitcasts."""
  for each in inside.values():
    if each.operation == 'parameter' or name not in each.operands:
      continue
    if each.operation == 'bitcast':
      yield from _users(each.name, inside)
    else:
      yield each, each.operands.index(name)


def _read_by(users: Iterable[tuple[_Instruction, int]], whole: int) -> int:
  """Bytes of an operand that its users inside of a fusion read."""
  total = 0
  for user, place in users:
    if place == 0 and user.operation in _PARTS:
      total += user.num_bytes
    elif place != 0 or user.operation != 'dynamic-update-slice':
      return whole
  return total


def _unwrapped(one: _Instruction, inside: _Computation) -> _Instruction:
  while one.operation == 'bitcast':
    one = inside[one.operands[0]]
  return one


def _written_by(
  result: _Instruction, inside: _Computation, array: _Array
) -> int:
  if result.operation == 'dynamic-update-slice':
    return inside[result.operands[1]].num_bytes
  return array.num_bytes
