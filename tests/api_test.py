"""The program of docs/api.md, run as it stands there."""

import ast
import importlib
import json
import pathlib
import re

import pytest

import rest_jax
from rest_jax.config import registry
from rest_jax.evaluation import text_metrics
from rest_jax.stages import folder as folder_lib
from tests import smoke

DOCUMENT = pathlib.Path(__file__).resolve().parents[1] / 'docs' / 'api.md'


def blocks() -> list[str]:
  text = DOCUMENT.read_text(encoding='utf-8')
  return re.findall(r'^```python\n(.*?)^```$', text, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope='module')
def ran(tmp_path_factory):
  """The variables that the blocks leave, and their folder."""
  folder = tmp_path_factory.mktemp('api')
  variables = {}
  with pytest.MonkeyPatch.context() as patch, smoke.without_pictures():
    patch.chdir(folder)
    for number, block in enumerate(blocks()):
      exec(compile(block, f'{DOCUMENT.name} block {number}', 'exec'), variables)
    # Their paths are relative.
    yield variables, folder


def test_every_block_runs_and_leaves_what_it_says(ran):
  variables, folder = ran
  assert len(blocks()) >= 7
  run = variables['run']
  kept = folder_lib.read_manifest(folder / variables['improved'])['kept']
  num_train = len(run.data.pairs('train'))
  assert num_train == 384
  # At least half of four samples a source, less those that are repeated.
  assert num_train <= kept['samples'] < 4 * num_train
  assert len(variables['store']) == 5 * num_train
  names = {(v['split'], v['grow'], v['improve']) for v in
           variables['results']['variants']}  # fmt: skip
  assert names == {
    (split, *step)
    for split in ('validation', 'test')
    for step in ((0, 0), (1, 1))
  }
  assert json.loads((folder / 'numbers/results.json').read_text())


def test_bc_translates_its_own_source(ran):
  variables, _ = ran
  pairs = variables['run'].data.pairs('validation')
  references = [pairs.reference_text(row) for row in range(len(pairs))]
  by_chance, _ = text_metrics.corpus_chrf(
    references[1:] + references[:1], references
  )
  for found in variables['results']['variants']:
    if found['split'] == 'validation':
      assert found['chrf'] > by_chance


def test_answers_of_lists(ran):
  variables, _ = ran
  assert [a.source for a in variables['answers']] == [
    'zwei drei acht',
    'eins null zehn',
  ]
  assert all(len(a.samples) == 1 for a in variables['answers'])
  rewards = [s.reward for s in variables['answer'].samples]
  assert len(rewards) == 4
  assert rewards == sorted(rewards, reverse=True)


def test_type_checkers_see_all_names():
  program = pathlib.Path(rest_jax.__file__).read_text(encoding='utf-8')
  [block] = [
    node for node in ast.parse(program).body if isinstance(node, ast.If)
  ]
  of_gin, *others = block.body
  assert (of_gin.module, of_gin.names[0].name) == (registry.__name__, '*')
  seen = {
    alias.asname: getattr(importlib.import_module(statement.module), alias.name)
    for statement in others
    for alias in statement.names
  }
  public = {cls.__name__: cls for cls in registry.CLASSES}
  assert seen | public == {**rest_jax._classes(), 'run': rest_jax.run}


def test_public_names_are_those_of_gin():
  for cls in registry.CLASSES:
    assert getattr(rest_jax, cls.__name__) is cls
    assert cls.__name__ in dir(rest_jax)
  with pytest.raises(AttributeError, match="no class 'Tusk'"):
    _ = rest_jax.Tusk
  with pytest.raises(AttributeError):
    _ = rest_jax.no_such_module
