"""Random checkpoints of random sizes of every family, against transformers.

A model of transformers is saved as it saves one, or as older versions did, in
float32, float16 or bfloat16, whole or in shards. What we read gives its logits and
greedy tokens, and what we write of that gives the same logits there.
"""

import json
import math
import random
from typing import Any

import pytest

from rest_jax.cli import check_checkpoint
from rest_jax.interop import huggingface
from tests.models import families

pytestmark = pytest.mark.full

# Of each family.
_COUNT = 2
_DTYPES = ('float32', 'float16', 'bfloat16')
_BART_CLASSES = {
  'bart': 'Bart',
  'mbart': 'MBart',
  'nllb': 'M2M100',
  'pegasus': 'Pegasus',
}
_T5_CLASSES = {'mt5': 'MT5', 'umt5': 'UMT5'}
# Those whose logits have a matrix of their own.
_UNTIED = ('flan_t5', 'madlad', 'mt5', 'umt5_untied')
_FAMILIES = (
  *_BART_CLASSES,
  *_UNTIED,
  'marian',
  't5',
  't5gemma',
  't5gemma2',
  'umt5',
)


def _special_ids(draw, size) -> dict[str, int]:
  """Any ids, or none: those of the family."""
  if draw.random() < 0.5:
    return {}
  pad, eos, start = draw.sample(range(size), 3)
  return {
    'pad_token_id': pad,
    'eos_token_id': eos,
    'decoder_start_token_id': start,
  }


def _bart(transformers, family, draw):
  heads = [draw.choice([1, 2, 3, 4]) for _ in range(2)]
  size = draw.randint(30, 70)
  config: dict[str, Any] = {
    'vocab_size': size,
    'd_model': math.lcm(*heads) * draw.randint(2, 7),
    'encoder_layers': draw.randint(1, 3),
    'decoder_layers': draw.randint(1, 3),
    'encoder_attention_heads': heads[0],
    'decoder_attention_heads': heads[1],
    'encoder_ffn_dim': draw.randint(8, 40),
    'decoder_ffn_dim': draw.randint(8, 40),
    'max_position_embeddings': draw.randint(50, 90),
    'scale_embedding': draw.random() < 0.5,
    'activation_function': draw.choice(['gelu', 'relu', 'swish', 'gelu_new']),
    'tie_word_embeddings': draw.random() < 0.7,
    **_special_ids(draw, size),
  }
  if family == 'marian':
    other = size
    if draw.random() < 0.5:
      other = draw.randint(30, 70)
      config |= {
        'share_encoder_decoder_embeddings': False,
        'decoder_vocab_size': other,
      }
    pad = min(size, other) - 1
    config |= {
      'pad_token_id': pad,
      'decoder_start_token_id': pad,
      'eos_token_id': 0,
      'tie_word_embeddings': True,
    }
    return transformers.MarianMTModel(transformers.MarianConfig(**config))
  name = _BART_CLASSES[family]
  described = getattr(transformers, f'{name}Config')(**config)
  return getattr(transformers, f'{name}ForConditionalGeneration')(described)


def _t5(transformers, family, draw):
  size, buckets = draw.randint(30, 70), 2 * draw.randint(2, 16)
  config: dict[str, Any] = {
    'vocab_size': size,
    'd_model': draw.randint(8, 24),
    'd_kv': draw.randint(3, 9),
    'd_ff': draw.randint(8, 40),
    'num_layers': draw.randint(1, 3),
    'num_decoder_layers': draw.randint(1, 3),
    'num_heads': draw.randint(1, 4),
    'relative_attention_num_buckets': buckets,
    'relative_attention_max_distance': buckets // 2 + draw.randint(1, 20),
    'layer_norm_epsilon': draw.choice([1e-6, 1e-5]),
    'feed_forward_proj': draw.choice(
      ['relu', 'gated-gelu', 'gated-silu', 'gelu', 'gated-relu']
    ),
    'decoder_start_token_id': 0,
    **_special_ids(draw, size),
  }
  if family == 'madlad':
    config |= {'pad_token_id': 1, 'eos_token_id': 2, 'bos_token_id': 0}
  if family in _UNTIED:
    config['tie_word_embeddings'] = False
  name = _T5_CLASSES.get(family.split('_')[0], 'T5')
  described = getattr(transformers, f'{name}Config')(**config)
  model = getattr(transformers, f'{name}ForConditionalGeneration')(described)
  if family in _UNTIED:
    # Version 5 ties them all the same.
    model.lm_head.weight = type(model.lm_head.weight)(
      model.lm_head.weight.detach().clone()
    )
  return model


def _gemma_stack(draw, size) -> dict[str, Any]:
  layers, key_heads = draw.randint(1, 4), draw.choice([1, 2, 3])
  heads = key_heads * draw.choice([1, 2, 3])
  kinds = ['sliding_attention', 'full_attention']
  return {
    'vocab_size': size,
    'hidden_size': heads * draw.randint(2, 4),
    'intermediate_size': draw.randint(8, 40),
    'num_hidden_layers': layers,
    'num_attention_heads': heads,
    'num_key_value_heads': key_heads,
    'head_dim': 2 * draw.randint(2, 6),
    'query_pre_attn_scalar': draw.randint(2, 20),
    'sliding_window': draw.randint(1, 9),
    'layer_types': [draw.choice(kinds) for _ in range(layers)],
    'rms_norm_eps': draw.choice([1e-6, 1e-5]),
    'attention_bias': draw.random() < 0.25,
    'hidden_activation': draw.choice(['gelu_pytorch_tanh', 'silu']),
  }


def _t5gemma(transformers, draw):
  size = draw.randint(40, 70)
  stacks = [_gemma_stack(draw, size) for _ in range(2)]
  shared = {
    'attn_logit_softcapping': draw.choice([None, 5.0, 50.0]),
    'final_logit_softcapping': draw.choice([None, 5.0, 30.0]),
  }
  for stack in stacks:
    stack |= shared
    stack['rope_parameters'] = draw.choice(
      [
        {'rope_type': 'default', 'rope_theta': 100.0},
        {'rope_type': 'default', 'rope_theta': 10_000.0},
        {'rope_type': 'linear', 'rope_theta': 500.0, 'factor': 4.0},
      ]
    )
  return transformers.T5GemmaForConditionalGeneration(
    transformers.T5GemmaConfig(
      encoder=stacks[0],
      decoder=stacks[1],
      tie_word_embeddings=draw.random() < 0.6,
      vocab_size=size,
    )
  )


def _t5gemma2(transformers, draw):
  size = draw.randint(40, 70)
  encoder, decoder = (_gemma_stack(draw, size) for _ in range(2))
  # Transformers refuses different widths.
  heads = [stack['num_attention_heads'] for stack in (encoder, decoder)]
  width = math.lcm(*heads) * draw.randint(2, 4)
  encoder['hidden_size'] = decoder['hidden_size'] = width
  every = draw.choice(
    [
      {'rope_type': 'default', 'rope_theta': 1e5},
      {'rope_type': 'linear', 'rope_theta': 1e6, 'factor': 8.0},
    ]
  )
  shared = {
    'attn_logit_softcapping': draw.choice([None, 5.0]),
    'final_logit_softcapping': draw.choice([None, 5.0]),
  }
  for stack in (encoder, decoder):
    stack |= shared
    stack['rope_parameters'] = {
      'full_attention': dict(every),
      'sliding_attention': {'rope_type': 'default', 'rope_theta': 1e4},
    }
  # The end of an image is a token of the vocabulary, or none.
  tokens = {
    'eoi_token_index': draw.choice([size - 2, size + 5]),
    'image_token_index': size + 1,
  }
  return transformers.T5Gemma2ForConditionalGeneration(
    transformers.T5Gemma2Config(
      encoder={
        'text_config': encoder,
        'vision_config': families.VISION,
        'boi_token_index': size + 2,
        **tokens,
      },
      decoder=decoder,
      **tokens,
    )
  )


def _made(transformers, torch, family, draw):
  """A model with weights that are far from the initial ones."""
  if family.startswith('t5gemma'):
    make = _t5gemma if family == 't5gemma' else _t5gemma2
    model = make(transformers, draw)
  else:
    make = _bart if family in (*_BART_CLASSES, 'marian') else _t5
    model = make(transformers, family, draw)
  # Sinusoids are no weights.
  is_learned = family in ('bart', 'mbart')
  with torch.no_grad():
    for name, weights in model.named_parameters():
      if is_learned or 'embed_positions' not in name:
        weights += draw.choice([0.1, 0.3]) * torch.randn_like(weights)
    if hasattr(model, 'final_logits_bias') and draw.random() < 0.7:
      bias = model.final_logits_bias
      bias += torch.randn_like(bias)
  return model


def _as_older(folder, draw) -> None:
  """Renames tensors, or says otherwise what is tied, as older versions did."""
  path = folder / 'config.json'
  described = json.loads(path.read_text())
  if described['model_type'] in ('t5', 'umt5') and draw.random() < 0.5:
    described |= {
      'transformers_version': '4.30.2',
      'tie_word_embeddings': described.pop('scale_decoder_outputs'),
    }
    path.write_text(json.dumps(described))
  path = folder / 'model.safetensors'
  if not path.exists():  # Shards.
    return
  from safetensors import torch as safetensors

  tensors = safetensors.load_file(path)
  shared = [name for name in tensors if name.endswith('shared.weight')]
  if not shared or any('embed_tokens.weight' in name for name in tensors):
    return
  prefix = shared[0].removesuffix('shared.weight')
  table = tensors[shared[0]]
  stacks = draw.choice([(), ('decoder',), ('encoder', 'decoder')])
  if stacks and draw.random() < 0.5:
    del tensors[shared[0]]
  for stack in stacks:
    tensors[f'{prefix}{stack}.embed_tokens.weight'] = table.clone()
  if draw.random() < 0.3:
    tensors = {
      name.removeprefix(prefix): tensor for name, tensor in tensors.items()
    }
  safetensors.save_file(tensors, path, metadata={'format': 'pt'})


@pytest.mark.parametrize('seed', range(_COUNT))
@pytest.mark.parametrize('family', _FAMILIES)
def test_what_is_read_and_written_gives_their_logits(tmp_path, family, seed):
  torch = pytest.importorskip('torch', reason='torch is not installed')
  transformers = pytest.importorskip(
    'transformers', reason='transformers is not installed'
  )
  load = transformers.AutoModelForSeq2SeqLM.from_pretrained
  torch.manual_seed(seed)
  draw = random.Random(f'{family} {seed}')
  model = _made(transformers, torch, family, draw)
  dtype = getattr(torch, draw.choice(_DTYPES))
  size = '12KB' if draw.random() < 0.35 else '1GB'
  model.to(dtype).save_pretrained(tmp_path / 'given', max_shard_size=size)
  theirs = load(tmp_path / 'given', dtype=torch.float32).eval()
  _as_older(tmp_path / 'given', draw)
  config, params = huggingface.load_policy(tmp_path / 'given')
  shape = (3, draw.randint(14, 45), draw.randint(6, 14))
  numbers = check_checkpoint.numbers_of(theirs, config, shape, seed)
  found = check_checkpoint.compared(config, params, numbers)
  # Logits of random T5s are as large as 20.
  tolerance = 1e-5 * max(10, abs(numbers['logits']).max())
  assert found.difference < tolerance and found.is_greedy_equal, str(found)
  huggingface.save_policy(tmp_path / 'out', config, params)
  exported = load(tmp_path / 'out', dtype=torch.float32).eval()
  again = check_checkpoint.numbers_of(exported, config, shape, seed)
  difference = abs(again['logits'] - numbers['logits']).max()
  print(f'{family} {seed}: {found}, of the export {difference:.1e}')
  assert difference < tolerance
