"""Stage `equal_entropy`: the temperature at which BC is as sure as a policy.

A policy that has only become surer of itself has better samples than BC, as BC has
at a lower temperature. BC sampled at the temperature T at which the mean entropy of
a token is the same,

  H_T(pi) = E_{y ~ pi_T} [sum_t H(pi_T(. | y_<t, x))] / E_{y ~ pi_T} |y|,

is the control that shows it. H is measured by teacher forcing over draws at a few
temperatures, and T is interpolated.
"""

from collections.abc import Callable, Sequence
import dataclasses
import pathlib
from typing import Any

from absl import logging
import numpy as np

from rest_jax import types
from rest_jax.data import pair_store
from rest_jax.evaluation import policy_names
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.parallel import processes
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import base, diagnostics, policies, prepare
from rest_jax.stages import context as context_lib
from rest_jax.stages import folder as folder_lib
from rest_jax.training import teacher_forcing

# Temperatures of BC where it is first measured, relative to the policy's.
_FACTORS = (0.1, 0.4, 0.7, 1.0, 1.3)
# How often it is then measured at the temperature found so far.
_REFINEMENTS = 2


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class EqualEntropy(base.PolicyStage):
  """Finds the temperature of BC for validation sources.

  As a policy it is BC, sampled at that temperature.

  Attributes:
    decode: how the policy is sampled; its temperature is above 0.
    policy: the policy that BC is to be as sure as.
    bc: finished BC.
    data: the prepared data.
    max_sources: number of validation sources, evenly spread; None for all.
    seed: sampling seed.
    after: policies that are made first.
  """

  decode: sampler_lib.DecodeConfig
  policy: base.PolicyStage
  bc: base.PolicyStage
  data: base.Stage
  max_sources: int | None
  seed: int
  after: Sequence[base.Stage] = ()

  run_mode = 'evaluate'
  pattern = 'equal_entropy'
  control = policy_names.EQUAL_ENTROPY

  @property
  def policy_name(self) -> str:
    return 'bc_equal_entropy'

  @property
  def policy_folder(self) -> pathlib.Path:
    return self.bc.policy_folder

  @property
  def is_finished(self) -> bool:
    return super().is_finished and self.bc.is_finished

  @property
  def inputs(self) -> dict[str, base.Stage]:
    return {
      'data': self.data,
      'bc': self.bc,
      'policy': self.policy,
      **{stage.name: stage for stage in self.after},
    }

  def temperature(self) -> float:
    return self.manifest()['temperature']

  def settings(self, context: context_lib.Context) -> dict[str, Any]:
    return {
      'decode': self.decode,
      'max_sources': self.max_sources,
      'network': self.policy.network(context).config,
      'policy': policies.digest(self.policy.policy_folder),
      'bc': policies.digest(self.bc.folder),
      'data': context.data.digest,
      'factors': _FACTORS,
      'refinements': _REFINEMENTS,
      'seed': self.seed,
    }

  def make(
    self, context: context_lib.Context, output: folder_lib.StageFolder
  ) -> dict[str, Any]:
    decode = self.decode

    def entropy_of(policy: base.PolicyStage) -> Callable[[float], float]:
      network = policy.network(context)
      params = policies.load(policy.policy_folder, network, context.mesh)
      return lambda temperature: entropy(
        dataclasses.replace(decode, temperature=temperature),
        policy=network,
        params=params,
        data=context.data,
        max_sources=self.max_sources,
        mesh_config=context.mesh,
        seed=self.seed,
      )

    wanted = entropy_of(self.policy)(decode.temperature)
    of_bc = entropy_of(self.bc)
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
      output.warn(
        f'the entropy of the last policy, {wanted:.3f} nats per token, is not '
        f'among those of BC, {min(measured.values()):.3f} to '
        f'{max(measured.values()):.3f}: BC is sampled at T={found:.2f}, the '
        'nearest temperature that was measured.'
      )
    logging.info(
      'equal entropy: %.3f nats per token, BC at T=%.3f', wanted, found
    )
    return {
      'temperature': found,
      'entropy': wanted,
      'entropies': [
        {'temperature': temperature, 'entropy': of_it}
        for temperature, of_it in sorted(measured.items())
      ],
    }

  def lines(self) -> list[str]:
    return ['  control   BC, sampled at the temperature of equal entropy']


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
