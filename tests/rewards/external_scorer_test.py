"""The program around COMET, BLEURT and sentence embeddings, with stand-ins for the packages.

The packages themselves are not installed where tests run.
"""

import sys

import numpy as np
import pytest

from rest_jax.rewards import external

PACKAGES = {
  'comet/__init__.py': """
import types
print('a package that prints')
def download_model(name):
  if name == 'missing':
    raise KeyError('no such model')
  return f'/models/{name}'
def load_from_checkpoint(path):
  assert path == '/models/m', path
  class Model:
    def predict(self, rows, gpus, progress_bar):
      print('so does predicting')
      scores = [len(r['src']) + len(r.get('ref', '')) - len(r['mt']) for r in rows]
      return types.SimpleNamespace(scores=scores)
  return Model()
""",
  'torch/__init__.py': """
class cuda:
  device_count = staticmethod(lambda: 0)
""",
  'bleurt/__init__.py': '',
  'bleurt/score.py': """
class BleurtScorer:
  def __init__(self, checkpoint):
    assert checkpoint == 'm', checkpoint
  def score(self, *, references, candidates):
    return [len(r) - len(c) for r, c in zip(references, candidates)]
""",
  'sentence_transformers.py': """
import numpy as np
class SentenceTransformer:
  def __init__(self, model):
    assert model == 'm', model
  def encode(self, texts, normalize_embeddings, show_progress_bar):
    assert normalize_embeddings and not show_progress_bar
    return np.array([[len(text), 1.0] for text in texts])
""",
}


@pytest.fixture(autouse=True)
def packages(tmp_path, monkeypatch):
  for name, text in PACKAGES.items():
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
  monkeypatch.setenv('PYTHONPATH', str(tmp_path))


@pytest.mark.parametrize(
  ('config', 'expected'),
  [
    (external.Comet(python=sys.executable, model='m'), [5, 1]),
    (
      external.Comet(python=sys.executable, model='m', needs_references=False),
      [2, 0],
    ),
    (external.Bleurt(python=sys.executable, model='m'), [2, -1]),
    (external.SentenceEmbedding(python=sys.executable, model='m'), [4, 3]),
  ],
)
def test_scores_of_the_package(config, expected):
  found = config.load(None).score(['abc', 'de'], ['x', 'yz'], ['rrr', 's'])
  np.testing.assert_array_equal(found, expected)


def test_a_missing_model_is_named():
  config = external.Comet(python=sys.executable, model='missing')
  with pytest.raises(
    external.ExternalRewardError,
    match=r'cannot load the model missing.*no such',
  ):
    config.load(None).score(['a'], ['b'], ['c'])
