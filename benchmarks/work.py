"""What benchmarks work on: a network of the paper's size, and real text."""

from collections.abc import Sequence
import dataclasses
import math
import pathlib
from typing import TYPE_CHECKING

from absl import flags
import numpy as np

if TYPE_CHECKING:  # The processes of other libraries do not load JAX.
  from rest_jax.models import network_config

_TINY = flags.DEFINE_bool(
  'tiny', False, 'Random weights of a tiny network, to see that all works.'
)

# The paper's IWSLT 2014 network (gin_configs/models/iwslt.gin).
SIZES = {
  'vocab_size': 32000,
  'emb_dim': 512,
  'mlp_dim': 1024,
  'num_heads': 4,
  'head_dim': 128,
  'num_encoder_layers': 6,
  'num_decoder_layers': 6,
}
_TINY_SIZES = {
  **SIZES,
  'emb_dim': 16,
  'mlp_dim': 32,
  'num_heads': 2,
  'head_dim': 8,
  'num_encoder_layers': 1,
  'num_decoder_layers': 1,
}
# Everyday sentences and news: most are short, some are long.
_NATURAL = (
  'tatoeba_de_en/train',
  *(f'newstest_de_en/newstest{year}' for year in range(2008, 2015)),
)
_MAX_LENGTH = 128


def sizes() -> dict[str, int]:
  """Those of the network with random weights."""
  return _TINY_SIZES if _TINY.value else SIZES


def random_policy(
  directory: pathlib.Path,
  network_file: str | None = None,
  mean_length: float | None = None,
  temperature: float = 1.0,
) -> 'network_config.NetworkConfig':
  """Writes random weights as a folder of Hugging Face.

  Args:
    network_file: a gin file of the network, of a family that adds a number to
      each logit if `mean_length` is given; None for the paper's network.
    mean_length: tokens of a hypothesis, about; None leaves EOS as improbable as
      any other token.
    temperature: at which it samples.

  Returns:
    The network.
  """
  import jax

  from rest_jax.config import network_files
  from rest_jax.interop import huggingface
  from rest_jax.models import network
  from rest_jax.models import policy as policy_lib

  if network_file is None:
    config = network.NetworkConfig(**sizes())
  else:
    config = network_files.read([network_file])
    if _TINY.value:
      config = dataclasses.replace(
        config, num_encoder_layers=1, num_decoder_layers=1
      )
  policy = policy_lib.Policy(config)
  params = policy.init(jax.random.key(0))
  if mean_length is not None:
    if not config.embeddings.has_logits_bias:
      raise ValueError(
        'mean_length needs a network that adds a number to each logit, such as '
        f'gin_configs/models/opus_mt_base.gin; got {network_file}.'
      )
    # Odds of EOS, against which a hypothesis goes on.
    wanted = -math.log(mean_length - 1)
    bias = params['decoder']['logits_bias']
    more = temperature * (wanted - _odds_of_eos(policy, params, temperature))
    bias = bias.at[config.special_ids.eos].add(more)
    params['decoder']['logits_bias'] = bias
  huggingface.save_policy(directory, config, params)
  return config


def _odds_of_eos(policy, params, temperature: float) -> float:
  """Mean logarithm of the odds of EOS after random tokens."""
  import jax

  eos = policy.config.special_ids.eos
  shape, size = (8, 16), policy.config.vocab_size - 3
  tokens = np.random.default_rng(0).integers(3, size, shape)
  batch = {
    'encoder_input_tokens': tokens,
    'decoder_input_tokens': tokens,
    'decoder_target_tokens': tokens,
  }
  logits = policy.logits(params, batch) / temperature
  others = jax.nn.logsumexp(logits.at[..., eos].set(-np.inf), axis=-1)
  return float((logits[..., eos] - others).mean())


def bc_policy(run: pathlib.Path):
  """The BC policy of a run: a `Policy`, its parameters, and the run's data.

  Args:
    run: its folder, with finished data and bc.
  """
  from rest_jax.models import network
  from rest_jax.models import policy as policy_lib
  from rest_jax.parallel import mesh as mesh_lib
  from rest_jax.stages import folder, policies, prepare

  settings = folder.read_manifest(run / 'bc')['settings']['network']
  policy = policy_lib.Policy(
    network.NetworkConfig(**{k: v for k, v in settings.items() if k != 'is'})
  )
  params = policies.load(run / 'bc', policy, mesh_lib.MeshConfig())
  return policy, params, prepare.load(run / 'data')


def dense_pairs(
  num_pairs: int, source_length: int, target_length: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
  """Random tokens, all rows of one length, EOS at the end."""
  random = np.random.default_rng(0)
  sides = []
  for length in (source_length, target_length):
    rows = random.integers(3, sizes()['vocab_size'], (num_pairs, length))
    rows[:, -1] = 1
    sides.append(list(rows.astype(np.int32)))
  return sides[0], sides[1]


def natural_pairs(
  data: pathlib.Path, work: pathlib.Path
) -> tuple[list[np.ndarray], list[np.ndarray]]:
  """German-English text in pieces of a vocabulary trained on it, with EOS.

  Args:
    data: folder with `tatoeba_de_en` and `newstest_de_en`.
    work: receives the vocabulary.

  Returns:
    Sources and references of at most 128 tokens.
  """
  from rest_jax.data import sources as sources_lib
  from rest_jax.data import vocabularies

  texts = sources_lib.ParallelText(
    folder=str(data),
    source_files=tuple(f'{name}.de.gz' for name in _NATURAL),
    reference_files=tuple(f'{name}.en.gz' for name in _NATURAL),
  )
  pairs = [
    (pair.source, pair.reference)
    for pair in texts.read()
    if pair.source and pair.reference
  ]
  config = vocabularies.VocabularyConfig(
    size=sizes()['vocab_size'], num_threads=2
  )
  vocabulary = vocabularies.train(
    config, (text for pair in pairs for text in pair), work / 'vocab.model'
  )
  end = np.ones(1, np.int32)
  sides = [
    [np.concatenate([row, end]) for row in vocabulary.encode_batch(side)]
    for side in zip(*pairs, strict=True)
  ]
  fits = [
    max(map(len, rows)) <= _MAX_LENGTH for rows in zip(*sides, strict=True)
  ]
  sources, references = (
    [row for row, fit in zip(side, fits, strict=True) if fit] for side in sides
  )
  return sources, references


def write_rows(path: pathlib.Path, rows: Sequence[np.ndarray]) -> None:
  np.savez(path, tokens=np.concatenate(rows), lengths=[len(r) for r in rows])


def read_rows(path: pathlib.Path) -> list[np.ndarray]:
  with np.load(path) as arrays:
    ends = np.cumsum(arrays['lengths'])
    return np.split(arrays['tokens'].astype(np.int32), ends[:-1])


def pad(rows: Sequence[np.ndarray]) -> np.ndarray:
  """[rows, longest], filled up with PAD."""
  padded = np.zeros((len(rows), max(map(len, rows))), np.int64)
  for number, row in enumerate(rows):
    padded[number, : len(row)] = row
  return padded
