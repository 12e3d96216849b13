"""Stage `equal_entropy`: the temperature at which BC is as sure as a policy.

A policy that has only become surer of itself has better samples than BC, as BC has
at a lower temperature. BC sampled at the temperature T at which the mean entropy of
a token is the same,

  H_T(pi) = E_{y ~ pi_T} [sum_t H(pi_T(. | y_<t, x))] / E_{y ~ pi_T} |y|,

is the control that shows it. H is measured by teacher forcing over draws at a few
temperatures, and T is interpolated.
"""

import dataclasses
import pathlib

from absl import logging
import numpy as np

from rest_jax import types
from rest_jax.data import pair_store
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.parallel import processes
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import diagnostics, policies, prepare
from rest_jax.stages import folder as folder_lib
from rest_jax.training import teacher_forcing

# Temperatures of BC where it is first measured, relative to the policy's.
_FACTORS = (0.1, 0.4, 0.7, 1.0, 1.3)
# How often it is then measured at the temperature found so far.
_REFINEMENTS = 2


def run(
  decode: sampler_lib.DecodeConfig,
  *,
  policy: policy_lib.Policy,
  policy_directory: str | pathlib.Path,
  bc_policy: policy_lib.Policy,
  bc_directory: str | pathlib.Path,
  data: prepare.PreparedData,
  max_sources: int | None,
  mesh_config: mesh_lib.MeshConfig,
  directory: str | pathlib.Path,
  seed: int,
  overwrite: bool = False,
) -> pathlib.Path:
  """Finds the temperature of BC for validation sources.

  Args:
    decode: how the policy is sampled; its temperature is above 0.
    policy: the network as the policy uses it.
    policy_directory: a finished `improve` folder.
    bc_policy: the network as BC uses it.
    bc_directory: the folder of BC.
    data: the prepared data.
    max_sources: number of validation sources, evenly spread; None for all.
    mesh_config: devices and rules.
    directory: the folder to write.
    seed: sampling seed.
    overwrite: see `folder.begin`.

  Returns:
    The finished folder; `temperature` reads what was found.
  """
  folder = folder_lib.begin(
    directory,
    {
      'decode': decode,
      'max_sources': max_sources,
      'network': policy.config,
      'policy': policies.digest(policy_directory),
      'bc': policies.digest(bc_directory),
      'data': data.digest,
      'factors': _FACTORS,
      'refinements': _REFINEMENTS,
      'seed': seed,
    },
    overwrite=overwrite,
    origins={
      'policy': policy_directory,
      'bc': bc_directory,
      'data': data.directory,
    },
  )
  if folder.is_finished:
    return folder.path
  common = {
    'data': data,
    'max_sources': max_sources,
    'mesh_config': mesh_config,
    'seed': seed,
  }
  wanted = entropy(
    decode,
    policy=policy,
    params=policies.load(policy_directory, policy, mesh_config),
    **common,
  )
  bc_params = policies.load(bc_directory, bc_policy, mesh_config)

  def of_bc(temperature: float) -> float:
    at = dataclasses.replace(decode, temperature=temperature)
    return entropy(at, policy=bc_policy, params=bc_params, **common)

  measured = {
    temperature: of_bc(temperature)
    for factor in _FACTORS
    for temperature in [factor * decode.temperature]
  }
  found = interpolate(measured, wanted)
  for _ in range(_REFINEMENTS):
    if found not in measured:
      measured[found] = of_bc(found)
      found = interpolate(measured, wanted)
  if not min(measured.values()) <= wanted <= max(measured.values()):
    folder.warn(
      f'the entropy of the last policy, {wanted:.3f} nats per token, is not among '
      f'those of BC, {min(measured.values()):.3f} to '
      f'{max(measured.values()):.3f}: BC is sampled at T={found:.2f}, the nearest '
      'temperature that was measured.'
    )
  logging.info(
    'equal entropy: %.3f nats per token, BC at T=%.3f', wanted, found
  )
  folder.finish(
    {
      'temperature': found,
      'entropy': wanted,
      'entropies': [
        {'temperature': temperature, 'entropy': of_it}
        for temperature, of_it in sorted(measured.items())
      ],
    }
  )
  return folder.path


def temperature(directory: str | pathlib.Path) -> float:
  """Returns the temperature that a finished stage has found."""
  return folder_lib.read_manifest(directory)['temperature']


def interpolate(measured: dict[float, float], entropy: float) -> float:
  """Returns the temperature of an entropy, linear between those measured.

  Args:
    measured: entropies by temperature, at least one.
    entropy: which is looked for; outside of those measured it has the lowest or
      highest temperature.
  """
  temperatures = sorted(measured)
  # It rises with the temperature, but for the noise of the draws.
  rising = np.maximum.accumulate([measured[t] for t in temperatures])
  return float(np.interp(entropy, rising, temperatures))


def entropy(
  decode: sampler_lib.DecodeConfig,
  *,
  policy: policy_lib.Policy,
  params: types.Params,
  data: prepare.PreparedData,
  max_sources: int | None,
  mesh_config: mesh_lib.MeshConfig,
  seed: int,
) -> float:
  """Returns the mean entropy of a token that a policy samples, in nats.

  Args:
    decode: how it is sampled.
    policy: the network.
    params: its parameters.
    data: the prepared data.
    max_sources: number of validation sources, evenly spread; None for all.
    mesh_config: devices and rules.
    seed: sampling seed.
  """
  pairs = data.pairs(prepare.VALIDATION)
  tokens, ids = diagnostics.draw(
    decode,
    params=params,
    policy=policy,
    data=data,
    pairs=pairs,
    rows=pair_store.spread_rows(len(pairs), max_sources),
    mesh_config=mesh_config,
    seed=seed,
    description=f'entropy at T={decode.temperature:.2f}',
  )
  entropies = teacher_forcing.Rows(
    sources=(pairs.source_tokens, ids),
    targets=(tokens, np.arange(len(tokens))),
    mesh_config=mesh_config,
  ).entropies(policy, params, decode)
  mean = float(entropies.sum(dtype=np.float64) / tokens.lengths.sum())
  # It decides what is drawn next, so it is the same to the last bit.
  return processes.by_main('entropy', lambda: mean)
