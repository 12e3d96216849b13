"""Reads gin files of a network alone, such as those of gin_configs/models/."""

from collections.abc import Sequence
import dataclasses

from rest_jax.config import gin_files
from rest_jax.models import network_config


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkFile:
  """What such files configure."""

  network: network_config.NetworkConfig


def read(
  paths: Sequence[str], overrides: Sequence[str] = ()
) -> network_config.NetworkConfig:
  """Returns the network that gin files give as `NETWORK`.

  Args:
    paths: of the files, read from left to right.
    overrides: `NAME=VALUE` each.

  Raises:
    gin_files.ConfigError: a setting is wrong or missing.
  """
  gin_files.register(network_config.NetworkConfig, *network_config.PARTS)
  return gin_files.parse_and_build(
    paths, ['NetworkFile.network=%NETWORK', *overrides], root=NetworkFile
  ).network
