"""An exported policy in transformers and in CTranslate2: the same outputs.

Policies made here, and random ones of transformers that were imported first.
"""

import json
import random

import jax
import numpy as np
import pytest

from rest_jax.data import ragged, vocabularies
from rest_jax.interop import huggingface, tokenizer_files
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh
from rest_jax.sampling import decode_config as sampling_config
from rest_jax.sampling import sampler as sampler_lib
from tests.models import tiny

_MAX_LENGTH = 12
_PIECES = 48
# Wider than the vocabulary, as sizes made for hardware are.
_ROWS = _PIECES + 4
_OF_TRANSFORMERS = ('T5', 'MT5')
_SIZES = {
  'tied': {'logits_via_embedding': True},
  'untied': {},
  'umt5': {'logits_via_embedding': True, 'relative_bias_per_layer': True},
}


def _make(name, folder):
  """Returns sizes and parameters of a policy with outputs of many kinds."""
  if name in _OF_TRANSFORMERS:
    _save_random(name, folder)
    return huggingface.load_policy(folder)
  config = tiny.config(vocab_size=_ROWS, **_SIZES[name])
  params = policy_lib.Policy(config).init(jax.random.key(0))
  return config, tiny.lively(params, scale=0.5)


def _save_random(kind, folder):
  """Writes a random network of transformers."""
  torch = pytest.importorskip('torch', reason='torch is not installed')
  transformers = pytest.importorskip(
    'transformers', reason='transformers is not installed'
  )
  torch.manual_seed(0)
  model = getattr(transformers, f'{kind}ForConditionalGeneration')(
    getattr(transformers, f'{kind}Config')(
      vocab_size=_ROWS,
      d_model=16,
      d_kv=4,
      d_ff=20,
      num_layers=2,
      num_heads=2,
      feed_forward_proj='gated-gelu',
      tie_word_embeddings=kind == 'T5',
      decoder_start_token_id=0,
    )
  )
  if kind == 'MT5':
    # Version 5 ties them all the same.
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
  with torch.no_grad():
    for weights in model.parameters():
      weights += 0.5 * torch.randn_like(weights)
  model.save_pretrained(folder)


def _generated(transformers, folder, tokenizer, texts) -> list[list[int]]:
  """Returns greedy outputs of the model in a folder."""
  model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
  inputs = tokenizer(texts, return_tensors='pt', padding=True)
  rows = model.generate(
    **inputs,
    num_beams=1,
    do_sample=False,
    max_length=_MAX_LENGTH + 1,
    # What is never drawn here.
    suppress_tokens=[0, 2, *range(_PIECES, _ROWS)],
  )
  return [_cut(row[1:]) for row in rows.numpy()]


@pytest.fixture(scope='module', params=[*_SIZES, *_OF_TRANSFORMERS])
def exported(request, tmp_path_factory):
  """The folder, some texts, and our greedy outputs for them."""
  folder = tmp_path_factory.mktemp(request.param)
  draw = random.Random(0)
  words = [''.join(draw.choices('abcdefgh', k=4)) for _ in range(40)]
  texts = [' '.join(draw.choices(words, k=6)) for _ in range(200)]
  vocabulary = vocabularies.train(
    vocabularies.VocabularyConfig(size=_PIECES),
    texts,
    folder / 'vocab.model',
  )
  config, params = _make(request.param, folder / 'theirs')
  policy = policy_lib.Policy(config)
  huggingface.save_policy(folder / 'hf', config, params)
  tokenizer_files.write(
    folder / 'hf', folder / 'vocab.model', config.vocab_size
  )
  texts = texts[:12]
  sampler = sampler_lib.Sampler(
    policy,
    sampling_config.DecodeConfig(
      num_samples_per_source=1,
      temperature=0.0,
      max_target_length=_MAX_LENGTH,
      source_length_buckets=(64,),
      cache_stages=(_MAX_LENGTH,),
      row_shares=(0.5,),
    ),
    mesh.MeshConfig().build(),
    vocabulary_size=vocabulary.size,
  )
  rows = [np.append(vocabulary.encode(text), 1) for text in texts]
  block = sampler.sample_all(
    params,
    ragged.Ragged.from_lists(rows),
    np.arange(len(rows)),
    seed=0,
    grow_step=0,
  )
  ours = [_cut(block.tokens[row][0]) for row in range(len(rows))]
  # Outputs that depend on the source, some of them ended by the policy.
  assert len({tuple(row) for row in ours}) > 4
  return folder / 'hf', texts, ours


def _cut(tokens) -> list[int]:
  """Ids before EOS or PAD."""
  ends = np.flatnonzero(np.isin(tokens, (0, 1)))
  return np.asarray(tokens)[: ends[0] if ends.size else None].tolist()


def test_transformers_generates_what_we_do(exported):
  transformers = pytest.importorskip(
    'transformers', reason='transformers is not installed'
  )
  folder, texts, ours = exported
  tokenizer = transformers.T5Tokenizer.from_pretrained(folder)
  assert _generated(transformers, folder, tokenizer, texts) == ours
  # As the network did that it was imported from.
  imported = folder.parent / 'theirs'
  if imported.exists():
    assert _generated(transformers, imported, tokenizer, texts) == ours


def test_ctranslate2_generates_what_we_do(exported, tmp_path):
  ctranslate2 = pytest.importorskip(
    'ctranslate2', reason='CTranslate2 is not installed'
  )
  transformers = pytest.importorskip(
    'transformers', reason='transformers is not installed'
  )
  folder, texts, ours = exported
  if json.loads((folder / 'config.json').read_text())['model_type'] == 'umt5':
    pytest.skip('AutoTokenizer of transformers 5 reads no spiece.model of umT5')
  converter = ctranslate2.converters.TransformersConverter(str(folder))
  converter.convert(str(tmp_path / 'ct2'))
  tokenizer = transformers.T5Tokenizer.from_pretrained(folder)
  names = json.loads((tmp_path / 'ct2' / 'shared_vocabulary.json').read_text())
  translator = ctranslate2.Translator(str(tmp_path / 'ct2'), device='cpu')
  results = translator.translate_batch(
    [tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids) for text in texts],
    beam_size=1,
    max_decoding_length=_MAX_LENGTH,
    min_decoding_length=0,
    # What is never drawn here.
    suppress_sequences=[
      ['<pad>'], ['<unk>'], *([name] for name in names[_PIECES:]),
    ],
  )  # fmt: skip
  theirs = [
    tokenizer.convert_tokens_to_ids(result.hypotheses[0]) for result in results
  ]
  assert theirs == ours
