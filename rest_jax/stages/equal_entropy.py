"""Stage `equal_entropy`: the temperature at which BC has a policy's entropy.

A policy whose distribution has only become sharper has better samples than BC,
but so has BC at a lower temperature. The control for this is BC sampled at the
temperature T at which it has the policy's mean entropy per token,

  H_T(pi) = E_{y ~ pi_T} [sum_t H(pi_T(. | y_<t, x))] / E_{y ~ pi_T} |y|.

H is measured by teacher forcing on samples at a few temperatures, and T is
interpolated.
"""

from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

from absl import logging
import numpy as np

from rest_jax.data import pair_store
from rest_jax.data import task as task_lib
from rest_jax.evaluation import policy_names
from rest_jax.parallel import processes
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.stages import base, draw_samples, policies
from rest_jax.stages import context as context_lib
from rest_jax.stages import folder as folder_lib
from rest_jax.training import teacher_forcing

# Temperatures of the first measurements of BC, relative to the policy's.
_FACTORS = (0.1, 0.4, 0.7, 1.0, 1.3)
# Number of further measurements, each at the interpolated temperature.
_REFINEMENTS = 2


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class EqualEntropy(base.PolicyStage):
  """Finds the temperature of equal entropy on validation sources.

  The policy of this stage is BC, sampled at that temperature.

  Attributes:
    decode: sampling settings of the policy; the temperature is above 0.
    policy: the policy whose entropy BC has to reach.
    max_sources: number of validation sources, evenly spread; None for all.
    after: policies that are made before this stage.
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

    def entropy(loaded: draw_samples.LoadedPolicy, temperature: float) -> float:
      return _entropy(
        dataclasses.replace(decode, temperature=temperature),
        loaded,
        max_sources=self.max_sources,
        seed=self.seed,
      )

    load = draw_samples.LoadedPolicy.of_stage
    target = entropy(load(self.policy, context), decode.temperature)
    bc = load(self.bc, context)
    temperatures = [factor * decode.temperature for factor in _FACTORS]
    entropies = {value: entropy(bc, value) for value in temperatures}
    temperature = interpolate(entropies, target)
    for _ in range(_REFINEMENTS):
      if temperature not in entropies:
        entropies[temperature] = entropy(bc, temperature)
        temperature = interpolate(entropies, target)
    low, high = min(entropies.values()), max(entropies.values())
    if not low <= target <= high:
      output.warn(
        f'the entropy of the last policy, {target:.3f} nats per token, is '
        f'outside the entropies of BC, {low:.3f} to {high:.3f}: BC is sampled '
        f'at T={temperature:.2f}, the nearest temperature that was measured.'
      )
    logging.info(
      'equal entropy: %.3f nats per token, BC at T=%.3f', target, temperature
    )
    return {
      'temperature': temperature,
      'entropy': target,
      'entropies': [
        {'temperature': value, 'entropy': entropies[value]}
        for value in sorted(entropies)
      ],
    }

  def lines(self) -> list[str]:
    return ['  control   BC, sampled at the temperature of equal entropy']


def interpolate(entropies: dict[float, float], entropy: float) -> float:
  """Returns the temperature at which BC has an entropy, by interpolation.

  Args:
    entropies: measured entropies of BC by temperature, at least one.
    entropy: the entropy to reach. Outside the measured range, the lowest or
      highest temperature is returned.
  """
  temperatures = sorted(entropies)
  # Entropy rises with the temperature, except for sampling noise.
  rising = np.maximum.accumulate([entropies[t] for t in temperatures])
  return float(np.interp(entropy, rising, temperatures))


def _entropy(
  decode: sampler_lib.DecodeConfig,
  loaded: draw_samples.LoadedPolicy,
  *,
  max_sources: int | None,
  seed: int,
) -> float:
  """Returns the mean entropy per token of a policy's samples, in nats."""
  pairs = loaded.data.pairs(task_lib.VALIDATION)
  tokens, ids = loaded.draw(
    decode,
    pairs,
    pair_store.spread_rows(len(pairs), max_sources),
    seed=seed,
    description=f'entropy at T={decode.temperature:.2f}',
  )
  entropies = teacher_forcing.Rows(
    sources=(pairs.source_tokens, ids),
    targets=(tokens, np.arange(len(tokens))),
    mesh_config=loaded.mesh_config,
  ).entropies(loaded.network, loaded.params, decode)
  mean = float(entropies.sum(dtype=np.float64) / tokens.lengths.sum())
  # Later temperatures depend on it: it must be equal in all processes.
  return processes.by_main('entropy', lambda: mean)
