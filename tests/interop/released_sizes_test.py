"""gin files of released sizes: the networks, and how many parameters they have."""

import pathlib

import pytest

from rest_jax.cli import convert
from rest_jax.interop import huggingface_config
from tests import gin_configs_test
from tests.models import sizes_test, tiny

GIN = pathlib.Path(__file__).resolve().parents[2] / 'gin_configs/models'
# In millions, as the models are known by; the files say more exactly what they have.
_PUBLISHED = {
  'bart_large': 406,
  'flan_t5_base': 248,
  'flan_t5_large': 783,
  'flan_t5_small': 77,
  'flan_t5_xl': 2850,
  'flan_t5_xxl': 11135,
  'madlad400_10b': 10700,
  'madlad400_3b': 2940,
  'madlad400_7b': 8300,
  'mbart_50': 611,
  'nllb_1_3b': 1370,
  'nllb_3_3b': 3340,
  'nllb_600m': 615,
  'opus_mt_base': 74,
  'opus_mt_big': 236,
  'pegasus_large': 569,
  't5gemma2_1b': None,
  't5gemma2_270m': 370,
  't5gemma2_4b': None,
  't5gemma_2b_2b': None,
  't5gemma_9b_2b': None,
  't5gemma_9b_9b': None,
  't5gemma_base': 591,
  't5gemma_large': None,
  't5gemma_ml': None,
  't5gemma_small': None,
  't5gemma_xl': None,
}
_FAMILIES = {
  'bart': 'bart',
  'flan': 't5',
  'madlad400': 't5',
  'mbart': 'mbart',
  'nllb': 'm2m_100',
  'opus': 'marian',
  'pegasus': 'pegasus',
  't5gemma': 't5gemma',
  't5gemma2': 't5gemma2',
}


@pytest.mark.parametrize('name', _PUBLISHED)
def test_a_released_size(name):
  config = convert._sizes([str(GIN / f'{name}.gin')], [])
  # One that Hugging Face has.
  described = huggingface_config.describe(config)
  assert described['model_type'] == _FAMILIES[name.split('_')[0]]
  published = _PUBLISHED[name]
  if published is not None:
    assert tiny.num_params(config) / 1e6 == pytest.approx(published, rel=5e-3)


def test_every_network_of_other_sizes_is_built():
  built = {
    *_PUBLISHED,
    *sizes_test.PUBLISHED,
    *(f'umt5_{size}' for size in sizes_test.HUGGING_FACE),
  }
  assert {path.stem for path in gin_configs_test.OF_OTHER_SIZES} <= built
