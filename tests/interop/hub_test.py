"""Models by their names on the Hugging Face Hub."""

import pathlib
import sys
import types

import pytest

from rest_jax.interop import hub


def test_a_model_is_fetched_without_pickles(monkeypatch, tmp_path):
  asked = []

  def snapshot_download(name, allow_patterns):
    asked.append((name, tuple(allow_patterns)))
    return str(tmp_path)

  module = types.SimpleNamespace(snapshot_download=snapshot_download)
  monkeypatch.setitem(sys.modules, 'huggingface_hub', module)
  assert hub.fetch('Helsinki-NLP/opus-mt-en-de') == pathlib.Path(tmp_path)
  (name, patterns), *_ = asked
  assert name == 'Helsinki-NLP/opus-mt-en-de'
  assert '*.safetensors' in patterns and '*.bin' not in patterns


def test_without_a_network_the_error_says_what_to_do(monkeypatch):
  def snapshot_download(name, allow_patterns):
    raise OSError('no route to host\nand a long text')

  module = types.SimpleNamespace(snapshot_download=snapshot_download)
  monkeypatch.setitem(sys.modules, 'huggingface_hub', module)
  with pytest.raises(FileNotFoundError, match=r'\(no route to host\).*hf down'):
    hub.fetch('google/t5gemma-2b-2b-ul2')


def test_without_the_library_the_error_says_what_to_do(monkeypatch):
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  with pytest.raises(FileNotFoundError, match='pip install huggingface_hub'):
    hub.fetch('google/t5gemma-2b-2b-ul2')
