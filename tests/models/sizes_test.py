"""The sizes of published models, by their numbers of parameters."""

import pathlib

import jax
import pytest

from rest_jax import experiment
from rest_jax.config import gin_files, registry
from rest_jax.models import policy
from tests.models import tiny

GIN = pathlib.Path(__file__).resolve().parents[2] / 'gin_configs'
# Numbers of parameters of the checkpoints on the Hugging Face hub.
PUBLISHED = {
  't5_1_1_small': 76_961_152,
  't5_1_1_base': 247_577_856,
  't5_1_1_large': 783_150_080,
  't5_1_1_xl': 2_849_757_184,
  't5_1_1_xxl': 11_135_332_352,
  'mt5_small': 300_176_768,
  'mt5_base': 582_401_280,
  'mt5_large': 1_229_581_312,
  'mt5_xl': 3_742_619_648,
  'mt5_xxl': 12_921_057_280,
}
# d_model, num_heads, num_layers of their config.json.
HUGGING_FACE = {
  'small': (512, 6, 8),
  'base': (768, 12, 12),
  'large': (1024, 16, 24),
  'xl': (2048, 32, 24),
  'xxl': (4096, 64, 24),
}


def _network(name):
  registry.register()
  built = gin_files.parse_and_build(
    [str(GIN / 'experiments/demo.gin'), str(GIN / f'models/{name}.gin')],
    root=experiment.Experiment,
  )
  return built.network


def test_parameters_of_all_layers_are_counted():
  config = tiny.config(num_encoder_layers=3, relative_bias_per_layer=True)
  shapes = jax.eval_shape(policy.Policy(config).init, jax.random.key(0))
  assert tiny.num_params(config) == policy.num_params(shapes)


@pytest.mark.parametrize('name', PUBLISHED)
def test_number_of_parameters(name):
  assert tiny.num_params(_network(name)) == PUBLISHED[name]


@pytest.mark.parametrize('size', HUGGING_FACE)
def test_umt5_is_mt5_with_more_words_and_biases(size):
  mt5, umt5 = (
    tiny.num_params(_network(name)) for name in (f'mt5_{size}', f'umt5_{size}')
  )
  width, heads, layers = HUGGING_FACE[size]
  words = 2 * (256384 - 250112) * width
  biases = 2 * (layers - 1) * 32 * heads
  assert umt5 - mt5 == words + biases
