"""What goes into a block and what comes out of it."""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float, Int, Shaped, UInt32
import numpy as np


class BlockInputs(NamedTuple):
  """Inputs of a block.

  Attributes:
    encoder_input_tokens: padded sources; padding rows have a token too.
    source_words: ids of the sources, see `categorical.split_words`.
    sample_ids: indices of the samples of each source.
    active: requested rows; the others take part in no step.
  """

  encoder_input_tokens: Int[Array | np.ndarray, 'B S']
  source_words: UInt32[Array | np.ndarray, 'B 2']
  sample_ids: UInt32[Array | np.ndarray, ' N']
  active: Bool[Array | np.ndarray, 'B N']


class BlockOutputs(NamedTuple):
  """Decoded hypotheses.

  Attributes:
    tokens: token ids, PAD after the last; uint16 if the vocabulary allows it.
    lengths: number of tokens per hypothesis, with EOS.
    log_probs: sum over tokens, in nats, of the untempered model.
    finished: whether EOS was drawn.
  """

  tokens: Shaped[Array | np.ndarray, 'B N T']
  lengths: Int[Array | np.ndarray, 'B N']
  log_probs: Float[Array | np.ndarray, 'B N']
  finished: Bool[Array | np.ndarray, 'B N']
