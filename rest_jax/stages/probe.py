"""Stage `probe`: whether the reward can be trusted, on the user's own pairs."""

from collections.abc import Mapping
import dataclasses
import pathlib

from rest_jax.data import pair_store
from rest_jax.data import ratings as ratings_lib
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import held_out, probe_results, probes
from rest_jax.stages import evidence as evidence_lib
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import prepare

_REPORT = 'report'


def run(
  config: probes.ProbeConfig,
  *,
  data: prepare.PreparedData,
  reward: rewards_base.Reward,
  reward_config: rewards_base.RewardConfig,
  ratings: Mapping[str, ratings_lib.Ratings],
  directory: str | pathlib.Path,
  seed: int,
  evidence: evidence_lib.StoredEvidence | None = None,
  overwrite: bool = False,
) -> probe_results.Report:
  """Probes a reward with changed references, and held-out ratings.

  Source: ReST (arXiv 2308.08998), A.4, "unit tests" of the reward model.

  Args:
    config: which probes of which pairs.
    data: the prepared data.
    reward: R.
    reward_config: its settings.
    ratings: by what is written before the names of their splits; those of dev
      and test are compared with.
    directory: the folder to write.
    seed: of the changes.
    evidence: stored samples by which a reward that needs some judges.
    overwrite: see `folder.begin`.

  Returns:
    The answers, also in the folder's manifest.
  """
  folder = folder_lib.begin(
    directory,
    {
      'probe': config,
      'data': data.digest,
      'reward': {'name': reward.name, 'digest': reward.digest},
      'ratings': {name: len(rated) for name, rated in ratings.items()},
      'seed': seed,
      **evidence_lib.described(evidence),
    },
    overwrite=overwrite,
    origins={'data': data.directory},
  )
  if not folder.is_finished:
    pairs = data.pairs(config.split)
    rows = pair_store.spread_rows(len(pairs), config.max_sources)
    report = probe_results.measure(
      config,
      reward,
      *pair_store.texts_of(pairs, rows),
      seed=seed,
      evidence=None
      if evidence is None
      else lambda place: evidence(int(rows[place])),
    )
    count = config.max_sources
    report = dataclasses.replace(
      report,
      agreement=held_out.measure(reward, ratings, max_sources=count),
      weights=held_out.weights(
        reward_config, reward, ratings, max_sources=count
      ),
    )
    folder.finish({_REPORT: probe_results.to_json(report)})
  return probe_results.from_json(folder.manifest()[_REPORT])
