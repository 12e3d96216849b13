"""Compares a checkpoint's numbers here with those of transformers.

`rest-jax convert --check=FOLDER` reads the folder as an import would, and compares
logits and greedy outputs with those in `io.npz`, which lies in the folder, or with
transformers on random tokens where it is installed.
"""

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rest_jax import types
from rest_jax.interop import huggingface
from rest_jax.models import network
from rest_jax.models import policy as policy_lib
from rest_jax.sampling import decode

NUMBERS_FILE = 'io.npz'
# Logits that differ by more are others.
TOLERANCE = 1e-4
_NAMES = (
  'input_ids',
  'attention_mask',
  'decoder_input_ids',
  'logits',
  'greedy',
)
# Of random tokens, where there is no file: rows, tokens of a source and a target.
_SHAPE = (4, 11, 9)
_NUM_GREEDY = 16


@dataclasses.dataclass(frozen=True)
class Comparison:
  """How far logits differ at most, and whether greedy outputs are equal."""

  difference: float
  is_greedy_equal: bool

  @property
  def is_equal(self) -> bool:
    # NaN is not.
    return self.difference <= TOLERANCE and self.is_greedy_equal

  def __str__(self) -> str:
    greedy = 'agree' if self.is_greedy_equal else 'DIFFER'
    return (
      f'largest difference of logits {self.difference:.2e}, greedy tokens '
      f'{greedy}'
    )


def compare(directory: pathlib.Path) -> Comparison:
  """Reads a folder and compares its numbers.

  Raises:
    FileNotFoundError: a file is missing, or there is nothing to compare with.
    ValueError: the checkpoint or the numbers cannot be read.
  """
  config, params = huggingface.load_policy(directory)
  path = directory / NUMBERS_FILE
  if path.is_file():
    with np.load(path) as arrays:
      missing = [name for name in _NAMES if name not in arrays]
      if missing:
        raise ValueError(
          f'{path} must have the arrays {", ".join(_NAMES)}; it lacks '
          f'{", ".join(missing)}.'
        )
      numbers = {name: arrays[name] for name in _NAMES}
  else:
    numbers = _of_transformers(directory, config)
  return compared(config, params, numbers)


def compared(
  config: network.NetworkConfig,
  params: types.Params,
  numbers: Mapping[str, np.ndarray],
) -> Comparison:
  """Compares a network with numbers of another implementation.

  Args:
    config: of the network.
    params: its parameters.
    numbers: input_ids and attention_mask [B, S], decoder_input_ids [B, T] and the
      logits [B, T, V] that they give; greedy [B, M], the likeliest tokens one
      after the other, PAD left out. It is compared up to the first EOS.
  """
  ids = config.special_ids
  is_real = numbers['attention_mask'].astype(bool)
  sources = np.where(is_real, numbers['input_ids'], ids.pad).astype(np.int32)
  inputs = numbers['decoder_input_ids'].astype(np.int32)
  module = policy_lib.Policy(config).module
  logits = jax.jit(
    lambda *given: module.apply({'params': given[0]}, *given[1:])
  )(params, sources, inputs)
  difference = np.abs(np.asarray(logits) - numbers['logits']).max()
  expected = numbers['greedy']
  found = _greedy(config, params, sources, inputs[:, 0], expected.shape[1])
  # True up to the first EOS of theirs.
  ends = expected == ids.eos
  counts = np.cumsum(ends, axis=1) - ends == 0
  is_equal = bool(np.all((found == expected) | ~counts))
  return Comparison(float(difference), is_equal)


def _greedy(config, params, sources, starts, length) -> np.ndarray:
  """Likeliest tokens by the decoding step and its cache, a program a start."""
  # The first token is the likeliest too, whatever is forced in use.
  special_ids = dataclasses.replace(config.special_ids, forced_first=None)
  config = dataclasses.replace(config, special_ids=special_ids)
  tokens = np.zeros((len(sources), length), np.int64)
  for start in np.unique(starts):
    program = decode.Program(
      policy=policy_lib.Policy(config, decoder_start=int(start)),
      max_target_length=length,
      cache_stages=(length,),
      greedy=True,
      forbidden=(config.special_ids.pad,),
    )
    outputs = jax.jit(program.decode)(
      params,
      jax.random.key(0),
      jnp.float32(1),
      decode.BlockInputs(
        jnp.asarray(sources),
        np.zeros((len(sources), 2), np.uint32),
        np.zeros(1, np.uint32),
        np.ones((len(sources), 1), bool),
      ),
    )
    rows = starts == start
    tokens[rows] = np.asarray(outputs.tokens)[rows, 0]
  return tokens


def _of_transformers(
  directory: pathlib.Path, config: network.NetworkConfig
) -> dict[str, np.ndarray]:
  """The numbers that transformers computes from random tokens."""
  try:
    # Installed by who wants them.
    import torch  # pyright: ignore[reportMissingImports]
    import transformers  # pyright: ignore[reportMissingImports]
  except ImportError as error:
    raise FileNotFoundError(
      f'{directory} must have {NUMBERS_FILE}, numbers to compare with, as '
      'transformers and torch are not installed to compute them; there is none. '
      'pip install transformers torch.'
    ) from error
  ids = config.special_ids
  draw = np.random.default_rng(0)
  rows, source_length, target_length = _SHAPE
  sources = _random(draw, config.encoder_vocab_size, ids, (rows, source_length))
  lengths = np.linspace(source_length, 2, rows).astype(int)
  places = np.arange(source_length)
  sources = np.where(places == lengths[:, None] - 1, ids.eos, sources)
  is_real = places < lengths[:, None]
  inputs = _random(draw, config.vocab_size, ids, (rows, target_length))
  inputs[:, 0] = ids.decoder_start
  given: dict[str, Any] = {
    'input_ids': np.where(is_real, sources, ids.pad),
    'attention_mask': is_real,
  }
  model = transformers.AutoModelForSeq2SeqLM.from_pretrained(
    directory, dtype=torch.float32
  ).eval()
  as_tensors = {
    name: torch.tensor(array, dtype=torch.long) for name, array in given.items()
  }

  def run(tokens):
    with torch.no_grad():
      decoder = torch.tensor(tokens, dtype=torch.long)
      return model(**as_tensors, decoder_input_ids=decoder).logits.numpy()

  greedy = inputs[:, :1]
  for _ in range(_NUM_GREEDY):
    last = run(greedy)[:, -1]
    last[:, ids.pad] = -np.inf
    greedy = np.append(greedy, last.argmax(-1)[:, None], axis=1)
  return {
    **given,
    'decoder_input_ids': inputs,
    'logits': run(inputs),
    'greedy': greedy[:, 1:],
  }


def _random(draw, size, ids, shape) -> np.ndarray:
  """Random tokens that mean nothing special."""
  special = {ids.pad, ids.eos, ids.decoder_start}
  return draw.choice([i for i in range(size) if i not in special], shape)
