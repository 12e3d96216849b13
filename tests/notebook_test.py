"""The cells of notebooks/quickstart.ipynb, run in a plain interpreter."""

import json
import pathlib
import re

import pytest

import rest_jax
from rest_jax import quickstart
from tests import smoke
from tests.docs import links_test

NOTEBOOK = pathlib.Path(__file__).parents[1] / 'notebooks' / 'quickstart.ipynb'
# So that the whole run takes seconds.
TINY = {
  'NetworkConfig.emb_dim': 16,
  'NetworkConfig.mlp_dim': 16,
  'NetworkConfig.num_heads': 2,
  'NetworkConfig.head_dim': 8,
  'NetworkConfig.num_encoder_layers': 1,
  'NetworkConfig.num_decoder_layers': 1,
  'VocabularyConfig.size': 300,
  'CONTROLS': False,
  'NUM_GROW_STEPS': 1,
  'NUM_IMPROVE_STEPS': 1,
  'NUM_SAMPLES_PER_SOURCE': 2,
  'BC_STEPS': 4,
  'BC_EVALUATE_EVERY': 4,
  'IMPROVE_STEPS': 2,
  'IMPROVE_EVALUATE_EVERY': 2,
  'MAX_GROW_SOURCES': 20,
  'BLOCK_SOURCES': 8,
  'grow/DecodeConfig.cache_stages': (48,),
}


def cells(kind) -> list[str]:
  found = json.loads(NOTEBOOK.read_text(encoding='utf-8'))['cells']
  return [
    ''.join(cell['source']) for cell in found if cell['cell_type'] == kind
  ]


@pytest.fixture(scope='module')
def ran(tmp_path_factory):
  """The variables that the cells leave."""

  def run(*, train, settings, **arguments):
    return quickstart.run(
      train=tuple(side[:200] for side in train),
      settings={**settings, **TINY},
      **arguments,
    )

  variables = {}
  with pytest.MonkeyPatch.context() as patch, smoke.without_pictures():
    patch.chdir(tmp_path_factory.mktemp('notebook'))
    patch.setattr(rest_jax, 'run', run)
    for number, cell in enumerate(cells('code')):
      # IPython's own commands install what is there already.
      plain = re.sub(r'^( *)%.*$', r'\1pass', cell, flags=re.MULTILINE)
      exec(compile(plain, f'cell {number}', 'exec'), variables)
    yield variables


def test_the_cells_run_and_end_with_answers(ran):
  result = ran['result']
  assert [row['policy'] for row in result.rows()] == ['BC', 'ReST G1 I1']
  assert result.report.is_file()
  assert ran['answer'].source == ran['validation'][0][2]


def test_the_pairs_are_2000_and_no_validation_pair_is_among_them(ran):
  assert [len(side) for side in ran['train']] == [2000, 2000]
  assert not set(ran['train'][0]) & set(ran['validation'][0])


def test_it_was_saved_without_outputs():
  found = json.loads(NOTEBOOK.read_text(encoding='utf-8'))
  assert found['nbformat'] == 4
  ids = [cell['id'] for cell in found['cells']]
  assert len(ids) == len(set(ids))
  for cell in found['cells']:
    assert not cell.get('outputs') and not cell.get('execution_count')


def test_its_links_lead_somewhere():
  text = '\n'.join(cells('markdown'))
  assert not links_test.broken(NOTEBOOK, text)
