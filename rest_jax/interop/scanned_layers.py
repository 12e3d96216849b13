"""Layers of T5X checkpoints that are scanned (`scalable_t5`).

Each parameter then has one array for all layers of a stack, which lie along its
second axis.
"""

from collections.abc import Callable, Mapping
import pathlib
import re
from typing import Any

import numpy as np

from rest_jax.models import network

_SCANNED = re.compile(r'(encoder|decoder)/(?:layers|\1)/(.+)')
_SCAN_AXIS = 1


def unstacked(
  leaves: Mapping[str, Any],
  config: network.NetworkConfig,
  take: Callable[[Any, int], Any],
) -> dict[str, Any]:
  """Returns leaves by the names of layers one by one, where a checkpoint stacks them.

  Args:
    leaves: of the checkpoint; arrays or shapes.
    config: how many layers there are.
    take: returns that of layer i.
  """
  numbers = _num_layers(config)
  unstacked = {}
  for name, leaf in leaves.items():
    match = _SCANNED.fullmatch(name)
    if match is None:
      unstacked[name] = leaf
      continue
    stack, rest = match[1], match[2]
    # Where layers are scanned each has a bias of its own.
    rest = rest.replace('relative_posemb/', 'relpos_bias/')
    for layer in range(numbers[stack]):
      unstacked[f'{stack}/layers_{layer}/{rest}'] = take(leaf, layer)
  return unstacked


def _num_layers(config: network.NetworkConfig) -> dict[str, int]:
  return {
    'encoder': config.num_encoder_layers,
    'decoder': config.num_decoder_layers,
  }


def check(
  directory: pathlib.Path,
  shapes: Mapping[str, tuple[int, ...]],
  config: network.NetworkConfig,
) -> None:
  """Raises ValueError unless stacked arrays have all layers of the network."""
  for name, shape in shapes.items():
    if match := _SCANNED.fullmatch(name):
      number = _num_layers(config)[match[1]]
      if shape[_SCAN_AXIS : _SCAN_AXIS + 1] != (number,):
        raise ValueError(
          f'{name} must have {number} layers along its second axis, as '
          f'num_{match[1]}_layers says; in {directory} its shape is {shape}. '
          'Give the sizes of the network, see gin_configs/models/.'
        )


def layer(array: np.ndarray, layer: int) -> np.ndarray:
  return np.ascontiguousarray(np.take(array, layer, axis=_SCAN_AXIS))


def without_layer(shape: tuple[int, ...], layer: int) -> tuple[int, ...]:
  del layer  # All have the same.
  return shape[:_SCAN_AXIS] + shape[_SCAN_AXIS + 1 :]
