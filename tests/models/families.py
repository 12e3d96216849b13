"""Tiny networks of each kind of parts, described as transformers would."""

import functools

import jax

from rest_jax.interop import huggingface_config
from rest_jax.models import network
from rest_jax.models import policy as policy_lib
from tests.models import tiny

VOCAB = 24
# Tiny checkpoints of transformers, in shared/golden/families.
GOLDEN = (
  'bart',
  'byt5',
  'flan_t5_silu',
  'madlad400',
  'marian',
  'mbart',
  'mt5',
  'nllb',
  'pegasus',
  't5_v1_0',
  't5_v1_1',
  't5gemma',
  't5gemma2',
  'umt5',
)
_BART = {
  'vocab_size': VOCAB,
  'd_model': 16,
  'encoder_layers': 2,
  'decoder_layers': 2,
  'encoder_attention_heads': 2,
  'decoder_attention_heads': 4,
  'encoder_ffn_dim': 20,
  'decoder_ffn_dim': 12,
  'max_position_embeddings': 40,
  'dropout': 0.0,
  'attention_dropout': 0.0,
}
_GEMMA = {
  'vocab_size': VOCAB,
  'hidden_size': 16,
  'intermediate_size': 20,
  'num_hidden_layers': 2,
  'num_attention_heads': 4,
  'num_key_value_heads': 2,
  'head_dim': 6,
  'query_pre_attn_scalar': 5,
  'sliding_window': 3,
}
_OTHER_WIDTH = {'hidden_size': 12, 'num_hidden_layers': 3}
# A vision tower, which is not read.
VISION = {
  'hidden_size': 16,
  'intermediate_size': 16,
  'num_hidden_layers': 1,
  'num_attention_heads': 2,
  'image_size': 16,
  'patch_size': 8,
}
DESCRIBED = {
  't5': {
    'model_type': 't5',
    'vocab_size': VOCAB,
    'd_model': 16,
    'd_kv': 4,
    'd_ff': 20,
    'num_layers': 2,
    'num_heads': 2,
    'dropout_rate': 0.0,
  },
  'marian': {
    **_BART,
    'model_type': 'marian',
    'pad_token_id': VOCAB - 1,
    'decoder_start_token_id': VOCAB - 1,
    'scale_embedding': True,
  },
  'nllb': {**_BART, 'model_type': 'm2m_100', 'forced_bos_token_id': 9},
  'mbart': {**_BART, 'model_type': 'mbart', 'scale_embedding': True},
  'bart': {**_BART, 'model_type': 'bart'},
  'pegasus': {**_BART, 'model_type': 'pegasus'},
  't5gemma': {
    'model_type': 't5gemma',
    'encoder': {**_GEMMA, **_OTHER_WIDTH},
    'decoder': _GEMMA,
  },
  't5gemma2': {
    'model_type': 't5gemma2',
    'encoder': {
      'text_config': {**_GEMMA, 'sliding_window_pattern': 2},
      'eoi_token_index': 7,
    },
    'decoder': {**_GEMMA, 'sliding_window_pattern': 2},
  },
}


def config(name: str) -> network.NetworkConfig:
  return huggingface_config.network_config(DESCRIBED[name])


@functools.cache
def made(name: str):
  """A policy and parameters; made once, since that is slow."""
  policy = policy_lib.Policy(config(name))
  params = tiny.lively(policy.init(jax.random.key(0)), scale=0.2)
  if policy.config.embeddings.has_logits_bias:
    # Hypotheses are to end.
    bias = params['decoder']['logits_bias']
    bias = bias.at[policy.config.special_ids.eos].add(2)
    params['decoder']['logits_bias'] = bias
  return policy, params


def batch(name: str, seed: int, source_lengths, target_lengths) -> dict:
  """As `tiny.batch`, with the special ids of a family."""
  ids = config(name).special_ids
  found = tiny.batch(seed, source_lengths, target_lengths)
  # Those of T5 are those of the family, and its own are other tokens.
  table = list(range(VOCAB))
  for own, theirs in ((0, ids.pad), (1, ids.eos)):
    place = table.index(theirs)
    table[own], table[place] = table[place], table[own]
  for key in ('encoder_input_tokens', 'decoder_target_tokens'):
    found[key] = jax.numpy.take(jax.numpy.asarray(table), found[key])
  targets = found['decoder_target_tokens']
  inputs = jax.numpy.roll(targets, 1, axis=1)
  found['decoder_input_tokens'] = inputs.at[:, 0].set(ids.decoder_start)
  return found
