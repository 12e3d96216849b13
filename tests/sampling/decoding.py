"""Programs that decode a block or a queue, and what they compute."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from rest_jax.sampling import blocks, categorical, decode, shapes


def program(policy, stages, capacities=(), compact_sizes=(), **settings):
  return decode.Program(
    policy=policy,
    loops=shapes.Loops(stages, capacities, compact_sizes),
    **{'greedy': False, 'forbidden': (0, 2), **settings},
  )


def inputs(sources, num_samples: int, active=None) -> blocks.BlockInputs:
  if active is None:
    active = np.ones((len(sources), num_samples), bool)
  return blocks.BlockInputs(
    encoder_input_tokens=np.asarray(sources, np.int32),
    source_words=categorical.split_words(np.arange(len(sources))),
    sample_ids=np.arange(num_samples, dtype=np.uint32),
    active=active,
  )


@functools.cache
def compiled(program):
  return jax.jit(program.decode)


def decoded(program, params, inputs, *more) -> blocks.BlockOutputs:
  """Decodes one block with seed 0 at temperature 1."""
  key = categorical.base_key(0, 0)
  outputs = compiled(program)(params, key, jnp.float32(1), inputs, *more)
  return blocks.BlockOutputs(*(np.asarray(array) for array in outputs))


def count_rows(monkeypatch, name: str = 'draw') -> list[int]:
  """The number of rows of each step from now on; see `jax.effects_barrier`."""
  computed, draw = [], getattr(categorical, name)

  def counted(logits, *arguments, **settings):
    jax.debug.callback(lambda: computed.append(len(logits)))
    return draw(logits, *arguments, **settings)

  monkeypatch.setattr(categorical, name, counted)
  # What was traced before does not count.
  compiled.cache_clear()
  return computed
