"""Run on 8 simulated devices: what modules of tests find there, as JSON.

Each argument is a module, and what its function `found` is called with, between
colons. A process of its own, because the number of devices is fixed at start; one
for several modules, because imports take seconds.
"""

import importlib
import json
import pathlib
import sys
from typing import Any

from tests import once
from tests.parallel import spawn

# Each axis, and each file of gin_configs/meshes/, is in one of these.
COMBINED = ('both', 'two slices, both')
_MODULES = (
  'parallel.eight_devices',
  'parallel.lora_meshes',
  ':'.join(['parallel.twenty_steps', 'one device', *COMBINED]),
  'planning.collectives',
  'sampling.meshes',
)


def run(*modules: str) -> dict[str, Any]:
  """Starts such a process; returns what each module finds, by its name."""
  command = ['-m', 'tests.parallel.eight', *modules]
  [text] = spawn.outputs([started := spawn.start(command, 8)], 500)
  assert started.returncode == 0, text
  return json.loads(text.splitlines()[-1])


def found(base: pathlib.Path) -> dict[str, Any]:
  """What the modules of the fast tier find; `base` as in `once.made`."""

  def make(path):
    path.write_text(json.dumps(run(*_MODULES)))

  return json.loads(once.made(base, 'eight', make).read_text())


def main():
  result = {}
  for argument in sys.argv[1:]:
    name, *arguments = argument.split(':')
    result[name] = importlib.import_module(f'tests.{name}').found(*arguments)
  print(json.dumps(result))


if __name__ == '__main__':
  main()
