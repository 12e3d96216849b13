"""Compares logits and greedy outputs of a checkpoint with transformers.

`rest-jax convert --check=FOLDER` reads the folder as an import does. It
compares with the arrays in `io.npz` of the folder, or without this file with
transformers on random tokens, if it is installed.
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
from rest_jax.sampling import blocks, decode, shapes

NUMBERS_FILE = 'io.npz'
# Maximum difference of equal logits.
TOLERANCE = 1e-4
_INPUTS = ('input_ids', 'attention_mask', 'decoder_input_ids')
_NAMES = (*_INPUTS, 'logits', 'greedy')
# Random tokens: number of rows, source length and target length.
_SHAPE = (4, 11, 9)
_NUM_GREEDY = 16


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Largest difference of logits, and whether greedy outputs are equal."""

  difference: float
  is_greedy_equal: bool

  @property
  def is_equal(self) -> bool:
    # False for NaN.
    return self.difference <= TOLERANCE and self.is_greedy_equal

  def __str__(self) -> str:
    greedy = 'agree' if self.is_greedy_equal else 'DIFFER'
    return (
      f'largest difference of logits {self.difference:.2e}, greedy tokens '
      f'{greedy}'
    )


def compare(directory: pathlib.Path) -> Comparison:
  """Compares the checkpoint in a folder with transformers.

  Raises:
    FileNotFoundError: if a file is missing, or there is nothing to compare
      with.
    ValueError: if the checkpoint or the arrays cannot be read.
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
  """Compares a network with outputs of another implementation.

  Args:
    numbers: input_ids and attention_mask [B, S], decoder_input_ids [B, T], the
      resulting logits [B, T, V], and greedy [B, M]: greedy tokens, where PAD is
      never chosen. They are compared up to the first EOS.
  """
  ids = config.special_ids
  is_real = numbers['attention_mask'].astype(bool)
  sources = np.where(is_real, numbers['input_ids'], ids.pad).astype(np.int32)
  inputs = numbers['decoder_input_ids'].astype(np.int32)
  module = policy_lib.Policy(config).module
  logits = jax.jit(
    lambda params, *tokens: module.apply({'params': params}, *tokens)
  )(params, sources, inputs)
  difference = np.abs(np.asarray(logits) - numbers['logits']).max()
  expected = numbers['greedy']
  actual = _greedy(config, params, sources, inputs[:, 0], expected.shape[1])
  ends = expected == ids.eos
  # True up to the first expected EOS.
  counts = np.cumsum(ends, axis=1) - ends == 0
  is_equal = bool(np.all((actual == expected) | ~counts))
  return Comparison(float(difference), is_equal)


def _greedy(config, params, sources, starts, length) -> np.ndarray:
  """Returns greedy tokens [B, M]; one compiled program per start token."""
  # No forced first token: all tokens are compared.
  special_ids = dataclasses.replace(config.special_ids, forced_first=None)
  config = dataclasses.replace(config, special_ids=special_ids)
  tokens = np.zeros((len(sources), length), np.int64)
  for start in np.unique(starts):
    program = decode.Program(
      policy=policy_lib.Policy(config, decoder_start=int(start)),
      loops=shapes.Loops((length,)),
      greedy=True,
      forbidden=(config.special_ids.pad,),
    )
    outputs = jax.jit(program.decode)(
      params,
      jax.random.key(0),
      jnp.float32(1),
      blocks.BlockInputs(
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
  """Returns the outputs of transformers for random tokens."""
  try:
    # Optional packages.
    import torch  # pyright: ignore[reportMissingImports]
    import transformers  # pyright: ignore[reportMissingImports]
  except ImportError as error:
    raise FileNotFoundError(
      f'{directory} must have {NUMBERS_FILE}, or transformers and torch must '
      'be installed to compare with; neither is the case. Install them: pip '
      'install transformers torch.'
    ) from error
  model = transformers.AutoModelForSeq2SeqLM.from_pretrained(
    directory, dtype=torch.float32
  ).eval()
  return numbers_of(model, config)


def numbers_of(
  model: Any,
  config: network.NetworkConfig,
  shape: tuple[int, int, int] = _SHAPE,
  seed: int = 0,
) -> dict[str, np.ndarray]:
  """Returns the outputs of a model of transformers for random tokens.

  Args:
    model: the model, in float32.
    config: sizes of its network.
    shape: number of rows, source length and target length.
    seed: seed of the tokens.

  Returns:
    The arrays that `compared` reads.
  """
  import torch  # pyright: ignore[reportMissingImports]

  ids = config.special_ids
  draw = np.random.default_rng(seed)
  rows, source_length, target_length = shape
  sources = _random(draw, config.encoder_vocab_size, ids, (rows, source_length))
  lengths = np.linspace(source_length, 2, rows).astype(int)
  positions = np.arange(source_length)
  sources = np.where(positions == lengths[:, None] - 1, ids.eos, sources)
  is_real = positions < lengths[:, None]
  inputs = _random(draw, config.vocab_size, ids, (rows, target_length))
  inputs[:, 0] = ids.decoder_start
  given: dict[str, Any] = {
    'input_ids': np.where(is_real, sources, ids.pad),
    'attention_mask': is_real,
  }
  as_tensors = {
    name: torch.tensor(array, dtype=torch.long) for name, array in given.items()
  }

  def run(tokens):
    with torch.no_grad():
      decoder = torch.tensor(tokens, dtype=torch.long)
      # The cache of transformers 5.24 fails where a T5 has more decoder layers.
      return model(
        **as_tensors, decoder_input_ids=decoder, use_cache=False
      ).logits.numpy()

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
  """Returns random tokens without special ids."""
  special = {ids.pad, ids.eos, ids.decoder_start}
  return draw.choice([i for i in range(size) if i not in special], shape)
