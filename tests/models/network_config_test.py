import dataclasses

import pytest

from rest_jax.models import network, parts
from tests.models import tiny


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'emb_dim': 0}, 'emb_dim must be at least 1; got 0'),
    ({'num_decoder_layers': 0}, 'num_decoder_layers must be at least 1'),
    ({'vocab_size': -1}, 'vocab_size must be positive'),
    ({'dropout_rate': 1.0}, r'dropout_rate must be in \[0, 1\); got 1.0'),
    ({'mlp_activations': ('gelu', 'sine')}, 'mlp_activations must be'),
    ({'mlp_activations': ()}, 'mlp_activations must be'),
    ({'dtype': 'float16'}, r"dtype must be one of \('float32', 'bfloat16'\)"),
    ({'relative_attention_num_buckets': 7}, 'must be even and at least 4'),
    ({'relative_attention_max_distance': 16}, 'more than half'),
  ],
)
def test_wrong_sizes_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    tiny.config(**changes)


def test_with_vocab_sets_an_open_size():
  assert network.NetworkConfig().with_vocab(70).vocab_size == 70


def test_with_vocab_keeps_a_larger_size():
  assert tiny.config(vocab_size=128).with_vocab(100).vocab_size == 128


def test_with_vocab_refuses_a_smaller_size():
  with pytest.raises(ValueError, match='at least the vocabulary size 100'):
    tiny.config(vocab_size=99).with_vocab(100)


def test_a_list_of_activations_leaves_the_config_hashable():
  config = tiny.config(mlp_activations=['gelu', 'linear'])
  assert hash(config) == hash(tiny.config())


def test_special_ids_are_those_of_the_vocabulary():
  ids = parts.SpecialIds(pad=9, eos=0, unk=1, decoder_start=9)
  assert tiny.config().with_special_ids(ids).special_ids == ids
  translation = dataclasses.replace(ids, forced_first=7)
  own = tiny.config(special_ids=ids)
  assert own.with_special_ids(translation).special_ids == translation
  # A sentencepiece model alone does not say how decoding starts.
  late = tiny.config(special_ids=parts.SpecialIds(decoder_start=3))
  assert late.with_special_ids(parts.SpecialIds()) == late
  with pytest.raises(
    ValueError, match=r'pad 0 and eos 1.* got pad 9 and eos 0'
  ):
    own.with_special_ids(parts.SpecialIds())
