"""Stage `probe`: tests of the reward with changed references and ratings."""

import dataclasses
import functools
import pathlib
from typing import Any

from rest_jax.data import pair_store
from rest_jax.data import ratings as ratings_lib
from rest_jax.data import task as task_lib
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import held_out, probe_results, probes
from rest_jax.stages import base, run_reward
from rest_jax.stages import context as context_lib
from rest_jax.stages import evidence as evidence_lib
from rest_jax.stages import folder as folder_lib
from rest_jax.stages import reward as reward_stage

_REPORT = 'report'


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Probe(base.Stage):
  """Tests a reward with changed references and with held-out ratings.

  Source: ReST (arXiv 2308.08998), A.4, "unit tests" of the reward model.

  Attributes:
    ratings: the task's ratings, of which splits dev and test are used; None for
      none.
    judge: the independent judge, which is compared with the ratings too; None
      without one.
    rated: folder of stage `reward`, which may hold ratings of samples.
    seed: seed for the changes of references.
    evidence: stored samples for a reward that compares the samples of a source;
      None for other rewards.
  """

  config: probes.ProbeConfig
  data: base.Stage
  reward: run_reward.RunReward
  reward_config: rewards_base.RewardConfig
  ratings: ratings_lib.RatingsSource | None
  judge: task_lib.Judge | None
  rated: pathlib.Path
  seed: int
  evidence: evidence_lib.Evidence | None = None

  run_mode = 'test_reward'
  help = 'Tests whether the reward can be trusted, by probes and ratings.'
  is_profiled = False
  pattern = 'probe'
  alone = 'the reward is tested by one process; got {count}.'
  is_extra = True

  @property
  def inputs(self) -> dict[str, base.Stage]:
    inputs = {
      'data': self.data,
      **self.reward.inputs,
      **evidence_lib.inputs(self.evidence),
    }
    inputs.pop('scale', None)  # Raw rewards are compared.
    return inputs

  @functools.cached_property
  def _read(self) -> dict[str, ratings_lib.Ratings]:
    if self.ratings is None:
      return {}
    return reward_stage.read_ratings(self.ratings, self.rated)

  def settings(self, context: context_lib.Context) -> dict[str, Any]:
    judge = self.reward.describe_judge(self.judge, context)
    return {
      'probe': self.config,
      'data': context.data.digest,
      'reward': self.reward.described(context),
      'ratings': {name: len(rated) for name, rated in self._read.items()},
      'seed': self.seed,
      **({} if judge is None else {'judge': judge}),
      **evidence_lib.settings(self.evidence, context),
    }

  def make(
    self, context: context_lib.Context, output: folder_lib.StageFolder
  ) -> dict[str, Any]:
    config, reward = self.config, self.reward.load(context)
    pairs = context.data.pairs(config.split)
    rows = pair_store.spread_rows(len(pairs), config.max_sources)
    evidence = evidence_lib.load(self.evidence, context)
    report = probe_results.measure(
      config,
      reward,
      *pair_store.texts_of(pairs, rows),
      seed=self.seed,
      evidence=None
      if evidence is None
      else lambda place: evidence(int(rows[place])),
    )
    count = config.max_sources
    agreement = held_out.measure(reward, self._read, max_sources=count)
    for split, of_judge in self._judge_agreement(context).items():
      agreement.setdefault(split, {}).update(of_judge)
    report = dataclasses.replace(
      report,
      agreement=agreement,
      weights=held_out.weights(
        self.reward_config, reward, self._read, max_sources=count
      ),
    )
    return {_REPORT: probe_results.to_json(report)}

  def _judge_agreement(
    self, context: context_lib.Context
  ) -> dict[str, dict[str, Any]]:
    judge = self.reward.load_judge(self.judge, context)
    if judge is None:
      return {}
    agreement = held_out.measure(
      judge, self._read, max_sources=self.config.max_sources
    )
    return {
      split: {f'judge {judge.name}': columns[judge.name]}
      for split, columns in agreement.items()
    }

  def report(self) -> probe_results.Report:
    """Returns the report of the finished folder."""
    return probe_results.from_json(self.manifest()[_REPORT])
