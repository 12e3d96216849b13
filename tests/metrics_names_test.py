"""docs/metrics.md explains every number that is written while training."""

import ast
import json
import pathlib
import re

_ROOT = pathlib.Path(__file__).resolve().parents[1] / 'rest_jax'


def explained() -> set[str]:
  """Names in the first column of the page's tables."""
  text = (_ROOT.parent / 'docs/metrics.md').read_text(encoding='utf-8')
  cells = re.findall(r'^\| ([^|]*) \|', text, re.MULTILINE)
  return {name for cell in cells for name in re.findall(r'`([^`]+)`', cell)}


def in_code(path: pathlib.Path) -> set[str]:
  """Keys of dictionaries called `metrics`, and of those given to LossOutput."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
    literals = []
    if isinstance(node, ast.Assign):
      target = node.targets[0]
      if isinstance(target, ast.Name) and target.id == 'metrics':
        literals.append(node.value)
      if (
        isinstance(target, ast.Subscript)
        and isinstance(target.value, ast.Name)
        and target.value.id == 'metrics'
        and isinstance(target.slice, ast.Constant)
      ):
        names.add(target.slice.value)
    if isinstance(node, ast.Call) and getattr(node.func, 'attr', '') == (
      'LossOutput'
    ):
      literals += node.args
    for literal in literals:
      if isinstance(literal, ast.Dict):
        names |= {k.value for k in literal.keys if isinstance(k, ast.Constant)}
  return names


def test_of_a_run(run):
  written = set()
  for path in run.model_dir.rglob('metrics.jsonl'):
    for line in path.read_text(encoding='utf-8').splitlines():
      written |= set(json.loads(line)) - {'step', 'split'}
  assert len(written) > 10
  assert not written - explained()


def test_of_every_loss_and_of_training_online():
  written = {}
  for folder in ('losses', 'online', 'training'):
    for path in (_ROOT / folder).glob('*.py'):
      written.update(dict.fromkeys(in_code(path), path.name))
  assert {'nll', 'margin', 'clipped', 'temperature', 'squared_error'} <= set(
    written
  )
  missing = {n: path for n, path in written.items() if n not in explained()}
  assert not missing


def test_of_samples():
  text = (_ROOT / 'stages' / 'sample_events.py').read_text(encoding='utf-8')
  assert "f'samples/{name}'" in text and "'samples/text'" in text
  assert {
    'samples/reward', 'samples/length', 'samples/log_prob', 'samples/text',
  } <= explained()  # fmt: skip
