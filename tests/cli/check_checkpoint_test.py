"""Checkpoints of transformers against its numbers."""

import json
import shutil

from absl import flags
from absl.testing import flagsaver
import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors

from rest_jax.cli import check_checkpoint, convert
from rest_jax.interop import huggingface
from tests.models import families


@pytest.fixture
def golden(shared_dir):
  return shared_dir / 'golden' / 'families'


@pytest.mark.parametrize('name', families.GOLDEN)
def test_numbers_of_transformers(golden, tmp_path, name):
  config, params = huggingface.load_policy(golden / name)
  with np.load(golden / name / 'io.npz') as numbers:
    found = check_checkpoint.compared(config, params, numbers)
  assert found.is_equal, str(found)
  if not (golden / name / 'config_v4.json').exists():
    return
  # As version 4 describes it, it is the same network.
  shutil.copy(golden / name / 'config_v4.json', tmp_path / 'config.json')
  weights = (golden / name / 'model.safetensors').resolve()
  (tmp_path / 'model.safetensors').symlink_to(weights)
  other, same = huggingface.load_policy(tmp_path)
  assert other == config
  jax.tree.map(np.testing.assert_array_equal, same, params)


def _check(*folders) -> int:
  if not flags.FLAGS.is_parsed():
    flags.FLAGS(['rest_jax'])
  with flagsaver.flagsaver(check=[str(folder) for folder in folders]):
    return convert.main(['rest_jax'], [])


def test_other_numbers_are_found(golden, tmp_path, capsys):
  folder = shutil.copytree(golden / 'marian', tmp_path / 'marian')
  assert _check(folder) == 0
  assert 'greedy tokens agree' in capsys.readouterr().out
  path = folder / 'model.safetensors'
  tensors = safetensors.load_file(path)
  tensors['final_logits_bias'][:, 5] += 1e-2
  path.chmod(0o644)
  safetensors.save_file(tensors, path)
  (tmp_path / 'empty').mkdir()
  assert _check(folder, tmp_path / 'empty') == 1
  output = capsys.readouterr()
  assert 'largest difference of logits 1.00e-02' in output.out
  assert 'there is no config.json' in output.err


def test_greedy_tokens_count_up_to_the_end(golden):
  config, params = huggingface.load_policy(golden / 'marian')
  with np.load(golden / 'marian' / 'io.npz') as arrays:
    numbers = dict(arrays)
  numbers['greedy'][0, 3:5] = config.special_ids.eos, 9
  found = check_checkpoint.compared(config, params, numbers)
  assert not found.is_greedy_equal  # Ours does not end there.
  numbers['greedy'][0, 3] = 9
  assert not check_checkpoint.compared(config, params, numbers).is_greedy_equal


def test_a_folder_without_numbers_says_what_to_do(
  golden, tmp_path, monkeypatch
):
  monkeypatch.setitem(__import__('sys').modules, 'transformers', None)
  folder = shutil.copytree(golden / 'marian', tmp_path / 'marian')
  (folder / 'io.npz').unlink()
  with pytest.raises(FileNotFoundError, match=r'must have io\.npz'):
    check_checkpoint.compare(folder)
  np.savez(folder / 'io.npz', logits=np.zeros(3))
  with pytest.raises(ValueError, match='lacks input_ids'):
    check_checkpoint.compare(folder)


def test_a_value_that_is_not_covered_is_named_before_weights_are_read(
  golden, tmp_path, capsys
):
  described = json.loads((golden / 'bart' / 'config.json').read_text())
  described['activation_function'] = 'mish'
  (tmp_path / 'config.json').write_text(json.dumps(described))
  shutil.copy(golden / 'bart' / 'model.safetensors', tmp_path)
  assert _check(tmp_path) == 1
  error = capsys.readouterr().err
  assert 'activation_function of config.json must be one of' in error
  assert "got 'mish'" in error
