"""A network small enough to compile in a second, and batches for it."""

from collections.abc import Callable
import dataclasses
import functools
import math
from typing import Any

import jax
import numpy as np

from rest_jax import types
from rest_jax.models import network, policy

VOCAB = 24


def config(**changes) -> network.NetworkConfig:
  sizes = {
    'vocab_size': VOCAB,
    'emb_dim': 16,
    'num_heads': 2,
    'head_dim': 4,
    'num_encoder_layers': 2,
    'num_decoder_layers': 2,
    'mlp_dim': 20,
    'dropout_rate': 0.0,
  }
  return network.NetworkConfig(**(sizes | changes))


@functools.cache
def jitted(model: Any, method: str) -> Callable[..., Any]:
  """A method of a model, traced once a shape in all tests of a process."""
  return jax.jit(getattr(model, method))


def init(model: Any, seed: int = 0) -> types.Params:
  return jitted(model, 'init')(jax.random.key(seed))


def num_params(sizes: network.NetworkConfig) -> int:
  """Parameters of a network of any depth, by one layer of each stack."""
  shallow = dataclasses.replace(
    sizes, num_encoder_layers=1, num_decoder_layers=1
  )
  shapes = jax.eval_shape(policy.Policy(shallow).init, jax.random.key(0))
  layers = {
    'encoder': sizes.num_encoder_layers,
    'decoder': sizes.num_decoder_layers,
  }
  found = 0
  for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
    stack, *inner = (entry.key for entry in path)
    found += math.prod(leaf.shape) * (
      layers[stack] if inner[0] == 'layers_0' else 1
    )
  return found


def logit_terms(
  sizes: network.NetworkConfig, source_length: int, target_length: int
) -> int:
  """Terms added one after another on the way to a logit; see `rounding`."""
  emb, heads = sizes.emb_dim, sizes.num_heads * sizes.head_dim
  # Norm, query or key or value, their products, the output.
  attention = 2 * emb + sizes.head_dim + heads
  mlp = 2 * emb + sizes.mlp_dim
  # The softmax and the mean it weighs.
  encoder = attention + 2 * source_length + mlp
  decoder = 2 * attention + 2 * (source_length + target_length) + mlp
  layers = sizes.num_encoder_layers * encoder
  layers += sizes.num_decoder_layers * decoder
  return layers + 2 * emb


def gradient_terms(sizes: network.NetworkConfig, batch: dict) -> int:
  """Terms added one after another on the way to a gradient of the loss."""
  rows, source_length = batch['encoder_input_tokens'].shape
  target_length = batch['decoder_input_tokens'].shape[1]
  one_way = logit_terms(sizes, source_length, target_length) + sizes.vocab_size
  return 2 * one_way + rows * max(source_length, target_length)


def targets(rng, lengths, width) -> np.ndarray:
  """Random rows that end with EOS, padded to `width`."""
  tokens = rng.integers(3, VOCAB, (len(lengths), width)).astype(np.int32)
  positions = np.arange(width)
  ends = np.asarray(lengths)[:, None]
  tokens = np.where(positions == ends - 1, 1, tokens)
  return np.where(positions < ends, tokens, 0).astype(np.int32)


def batch(seed, source_lengths, target_lengths, pad=0) -> dict:
  """A batch of rows of these lengths, with `pad` columns of padding."""
  rng = np.random.default_rng(seed)
  source = targets(rng, source_lengths, max(source_lengths))
  target = targets(rng, target_lengths, max(target_lengths))
  source = np.pad(source, ((0, 0), (0, pad)))
  target = np.pad(target, ((0, 0), (0, pad)))
  return {
    'encoder_input_tokens': source,
    'decoder_input_tokens': np.pad(target, ((0, 0), (1, 0)))[:, :-1],
    'decoder_target_tokens': target,
    'decoder_loss_weights': (target > 0).astype(np.float32),
  }


@functools.partial(jax.jit, static_argnames=('seed', 'scale'))
def lively(params, seed=0, scale=0.3):
  """Parameters with noise, so that no bias or scale is at a special value."""
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(seed), len(leaves))
  return jax.tree.unflatten(
    tree,
    [
      leaf + scale * jax.random.normal(key, leaf.shape)
      for leaf, key in zip(leaves, keys, strict=True)
    ],
  )
