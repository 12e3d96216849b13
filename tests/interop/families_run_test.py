"""Checkpoints of transformers, through a run, to exports that transformers loads.

By the commands that `docs/models.md` names.
"""

import json
import subprocess
import sys

import pytest

from tests import smoke
from tests.data import tokenizer_folders
from tests.models import families

pytestmark = pytest.mark.full

_BART = {
  'd_model': 32,
  'encoder_layers': 1,
  'decoder_layers': 2,
  'encoder_attention_heads': 2,
  'decoder_attention_heads': 2,
  'encoder_ffn_dim': 48,
  'decoder_ffn_dim': 48,
  'max_position_embeddings': 128,
  'scale_embedding': True,
}
_GEMMA = {
  'hidden_size': 32,
  'intermediate_size': 48,
  'num_hidden_layers': 2,
  'num_attention_heads': 2,
  'num_key_value_heads': 1,
  'head_dim': 16,
  'query_pre_attn_scalar': 16,
  'sliding_window': 8,
  'layer_types': ['sliding_attention', 'full_attention'],
}
_LANGUAGES = {
  'madlad': ('--gin.TARGET_LANGUAGE=en',),
  'nllb': ('--gin.SOURCE_LANGUAGE=deu_Latn', '--gin.TARGET_LANGUAGE=eng_Latn'),
}
_RUN = (
  '--gin_file=gin_configs/experiments/smoke.gin',
  '--gin_file=gin_configs/rewards/chrf.gin',
  '--gin.Task.ratings=None',
  # All of them have the best chrF: no threshold lies between them.
  '--gin.ImproveConfig.include_references=False',
  '--gin.ImproveConfig.include_unfinished=True',
  '--gin.NUM_TRAIN_PAIRS=64',
  '--gin.NUM_VALIDATION_PAIRS=24',
  # So that outputs still depend on the source.
  '--gin.BC_LEARNING_RATE=1e-4',
  '--gin.IMPROVE_LEARNING_RATE=1e-4',
  '--gin.BC_STEPS=10',
  '--gin.BC_EVALUATE_EVERY=10',
  '--gin.NUM_GROW_STEPS=1',
  '--gin.NUM_IMPROVE_STEPS=2',
  # One loop to compile in place of a dozen.
  '--gin.DecodeConfig.row_shares=()',
  '--gin.DecodeConfig.cache_stages=(64,)',
  '--gin.DecodeConfig.queue_sources=None',
)
_GREEDY = ('--gin.BEST_OF=1', '--gin.BEST_OF_TEMPERATURE=0')
_MAX_LENGTH = 48  # As MAX_TARGET_LENGTH of the experiment.


def _marian(transformers, folder, texts):
  # German and English: fewer characters than pieces.
  tokenizer_folders.marian(folder, texts[:600], tags=())
  described = json.loads((folder / 'config.json').read_text())
  names = ('vocab_size', 'pad_token_id', 'decoder_start_token_id')
  ids = {name: described[name] for name in names}
  return transformers.MarianConfig(
    **_BART,
    **ids,
    eos_token_id=0,
    forced_eos_token_id=0,
    activation_function='swish',
  )


def _nllb(transformers, folder, texts):
  # Transformers knows no language that the settings do not list.
  listed = ['deu_Latn', 'eng_Latn']
  tokenizer_folders.nllb(folder, texts, extra_special_tokens=listed)
  size = len(transformers.AutoTokenizer.from_pretrained(folder))
  return transformers.M2M100Config(
    **_BART, vocab_size=size + 3, activation_function='relu'
  )


def _madlad(transformers, folder, texts):
  tokenizer_folders.madlad(folder, texts)
  size = len(transformers.AutoTokenizer.from_pretrained(folder))
  return transformers.T5Config(
    vocab_size=size + 4,
    d_model=32,
    d_kv=16,
    d_ff=48,
    num_layers=1,
    num_decoder_layers=2,
    num_heads=2,
    feed_forward_proj='gated-gelu',
    tie_word_embeddings=False,
    pad_token_id=1,
    eos_token_id=2,
    decoder_start_token_id=0,
  )


def _t5gemma2(transformers, folder, texts):
  tokenizer_folders.gemma(folder.parent / 'model', texts)
  # As released: the file that transformers makes of the model.
  tokenizer = transformers.AutoTokenizer.from_pretrained(
    folder.parent / 'model'
  )
  tokenizer.save_pretrained(folder)
  size = len(tokenizer)
  text = {**_GEMMA, 'vocab_size': size}
  image = {'eoi_token_index': size - 3, 'image_token_index': size - 4}
  return transformers.T5Gemma2Config(
    encoder={'text_config': text, 'vision_config': families.VISION, **image},
    decoder=dict(text),
    **image,
  )


_FAMILIES = {
  'madlad': _madlad,
  'marian': _marian,
  'nllb': _nllb,
  't5gemma2': _t5gemma2,
}


def _save(family, folder, texts):
  """Writes a random checkpoint with a tokeniser."""
  torch = pytest.importorskip('torch', reason='torch is not installed')
  transformers = pytest.importorskip(
    'transformers', reason='transformers is not installed'
  )
  torch.manual_seed(0)
  config = _FAMILIES[family](transformers, folder, texts)
  model = transformers.AutoModelForSeq2SeqLM.from_config(config)
  if family == 'madlad':
    # Version 5 ties them all the same.
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
  with torch.no_grad():
    for name, weights in model.named_parameters():
      if 'embed_positions' not in name:
        weights += 0.4 * torch.randn_like(weights)
    if family == 'marian':
      model.model.shared.weight[config.pad_token_id] = 0
  model.save_pretrained(folder)


def _command(module, *arguments):
  result = subprocess.run(
    [sys.executable, '-m', f'rest_jax.{module}', *map(str, arguments)],
    cwd=smoke.ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr[-3000:]
  return result.stdout


@pytest.mark.parametrize('family', sorted(_FAMILIES))
def test_in_through_a_run_and_out(tmp_path, family):
  texts = tokenizer_folders.texts(300)
  _save(family, tmp_path / 'given', texts)
  policy = tmp_path / 'imported' / 'policy.gin'
  said = _command(
    'convert', f'--from={tmp_path}/given', f'--to={policy.parent}'
  )
  assert f'--gin_file={policy}' in said
  assert ('--gin.SOURCE_LANGUAGE=CODE' in said) == (family == 'nllb')
  run = (
    f'--model_dir={tmp_path}/run',
    *_RUN,
    f'--gin_file={policy}',
    *_LANGUAGES.get(family, ()),
  )
  _command('main', *run)
  best = tmp_path / 'run/variants/bc/improve_1_2'
  out = tmp_path / 'out'
  _command('convert', '--format=huggingface', f'--from={best}', f'--to={out}')
  # None is so long that it is cut.
  sentences = [text for text in texts if len(text) < 40][:16]
  (tmp_path / 'in.txt').write_text('\n'.join(sentences) + '\n')
  _command(
    'main',
    *run,
    '--run_mode=sample',
    '--policy=improve_1_2',
    f'--input={tmp_path}/in.txt',
    f'--output={tmp_path}/ours.txt',
    *_GREEDY,
  )
  ours = (tmp_path / 'ours.txt').read_text().split('\n')[:-1]
  theirs = _generated(out, sentences, '<2en> ' if family == 'madlad' else '')
  assert [' '.join(text.split()) for text in ours] == theirs
  assert len(set(ours)) > 4


def _generated(folder, sentences, prefix):
  """Greedy outputs of transformers; no argument names a language or an id."""
  transformers = pytest.importorskip('transformers')
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
  inputs = tokenizer(
    [prefix + sentence for sentence in sentences],
    return_tensors='pt',
    padding=True,
  )
  # Of a T5 with more decoder layers, transformers 5.24 fails with its cache.
  rows = model.generate(**inputs, max_length=_MAX_LENGTH + 1, use_cache=False)
  texts = tokenizer.batch_decode(rows, skip_special_tokens=True)
  return [' '.join(text.split()) for text in texts]
