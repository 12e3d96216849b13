"""Which devices the collectives of a compiled program join, read from its HLO."""

from collections.abc import Iterator
import math
import re

import numpy as np

_INSTRUCTION = re.compile(
  r'= \(?\w+\[(?P<shape>[\d,]*)\].* (?P<kind>[a-z-]+?)(-start)?\(.*'
  r'replica_groups=(?P<groups>.*)'
)
_LISTED = re.compile(r'\{(\{[\d,]+\},?)+\}')
# A mesh's devices have no shape of their own.
_IOTA = re.compile(
  r'(\[(?P<shape>[\d,]+)\]<=)?\[(?P<source>[\d,]+)\](T\((?P<order>[\d,]+)\))?'
)
_MESH = re.compile(
  r"mesh\[(?P<axes>['\w=,]+)\](, device_ids=\((?P<ids>.*?\)?)\))? "
  r"\{(?P<chosen>['\w,]+)\}"
)


def collectives(text: str, kind: str) -> Iterator[tuple[int, list[list[int]]]]:
  """The numbers of elements and the groups of a kind, such as 'all-gather'."""
  for line in text.splitlines():
    match = _INSTRUCTION.search(line)
    if match is not None and match['kind'] == kind:
      yield math.prod(_numbers(match['shape'])), groups(match['groups'])


def groups(text: str) -> list[list[int]]:
  """Reads what `replica_groups=` is followed by, in any of its three forms."""
  if match := _LISTED.match(text):
    return [_numbers(group) for group in re.findall(r'\{([\d,]+)\}', match[0])]
  if match := _IOTA.match(text):
    return _iota(match).tolist()
  if match := _MESH.match(text):
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", match['axes']))
    chosen = re.findall(r"'(\w+)'", match['chosen'])
    order = sorted(sizes, key=lambda name: name in chosen)
    shape = [int(size) for size in sizes.values()]
    devices = np.arange(math.prod(shape))
    if match['ids'] is not None:
      ids = _IOTA.match(match['ids'])
      assert ids is not None, text
      devices = _iota(ids)
    devices = devices.reshape(shape).transpose(
      [list(sizes).index(name) for name in order]
    )
    length = math.prod(int(sizes[name]) for name in chosen)
    return devices.reshape(-1, length).tolist()
  raise ValueError(f'no known form of groups: {text}')


def _iota(match: re.Match) -> np.ndarray:
  source = _numbers(match['source'])
  order = _numbers(match['order']) if match['order'] else None
  devices = np.arange(math.prod(source)).reshape(source)
  shape = _numbers(match['shape']) if match['shape'] else -1
  return devices.transpose(order).reshape(shape)


def _numbers(text: str) -> list[int]:
  return [int(number) for number in text.split(',') if number]
