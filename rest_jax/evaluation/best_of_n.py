"""Best-of-N sampling, estimated from stored samples.

The mean over all subsets of n of the N samples of a source is the unbiased
estimate with the least variance. One set of samples thus gives the whole curve
over n.
"""

from collections.abc import Sequence
import math

from jaxtyping import Bool, Float, Int, Real
import numpy as np

from rest_jax.evaluation import metrics


def order_weights(num_samples: int, n: int) -> Float[np.ndarray, ' N']:
  r"""Probability that the sample of rank i is the best of a random subset.

  The best of a subset of size n has rank i (of N, 1 is the lowest) if the other
  n - 1 are among the i - 1 samples below it:

  $$ w_i = \binom{i-1}{n-1} \Big/ \binom Nn $$

  Source: the U-statistic of the maximum (Hoeffding, 1948); the same count gives
  the unbiased pass@k of Chen et al. (arXiv 2107.03374).

  Args:
    num_samples: N, at least n; precise up to several thousands.
    n: size of the subsets, at least 1.

  Returns:
    `[N]` weights of the samples sorted from lowest to highest; they sum to 1
    and never fall.

  Raises:
    ValueError: n is not in 1..N.
  """
  if not 1 <= n <= num_samples:
    raise ValueError(
      f'n must lie in 1..{num_samples}, the number of stored samples of a '
      f'source; got {n}. Ask for a smaller n or store more samples.'
    )
  # In logarithms: the coefficients overflow above about N = 1000.
  log_factorial = np.array([math.lgamma(k + 1) for k in range(num_samples + 1)])
  weights = np.zeros(num_samples)
  below = np.arange(n - 1, num_samples)  # rank - 1: samples no better
  weights[n - 1 :] = np.exp(
    log_factorial[below]
    - log_factorial[below - (n - 1)]
    - log_factorial[n - 1]
    - log_factorial[num_samples]
    + log_factorial[num_samples - n]
    + log_factorial[n]
  )
  return weights / weights.sum()


def expected_best(
  rewards: Real[np.ndarray, 'sources N'], n: int
) -> Float[np.ndarray, ' sources']:
  r"""Unbiased estimate of the reward of the best of n samples, per source.

  $$ \hat b_n = \sum_{i=1}^N \binom{i-1}{n-1} \Big/ \binom Nn \; r_{(i)} $$

  with r_(1) <= ... <= r_(N): the mean of the maximum over all subsets of size
  n.

  Source: ReST (arXiv 2308.08998), section 4, Best-of-N; `order_weights`.

  Args:
    rewards: `[sources, N]` rewards of stored samples, higher is better.
    n: number of samples that the best is chosen from, in 1..N.

  Returns:
    `[sources]` the expected reward, in the unit of the rewards.

  Raises:
    ValueError: rewards are not finite or of two axes, or n is out of range.
  """
  rewards = _table('rewards', rewards)
  return np.sort(rewards, axis=1) @ order_weights(rewards.shape[1], n)


def expected_judgement_of_best(
  rewards: Real[np.ndarray, 'sources N'],
  judgements: Real[np.ndarray, 'sources N'],
  n: int,
) -> Float[np.ndarray, ' sources']:
  """Unbiased estimate of the judgement of the sample with the best reward.

  It shows whether the reward chooses what an independent judge prefers: if it
  falls as n grows, the reward is exploited.

  Samples with equal rewards share the weights of their ranks equally, which is
  tie-breaking at random.

  Source: Gao et al., Scaling Laws for Reward Model Overoptimization (arXiv
  2210.10760), section 2, the gold score of Best-of-N.

  Args:
    rewards: `[sources, N]` rewards that choose the sample, higher is better.
    judgements: `[sources, N]` scores to report of the chosen sample.
    n: number of samples that the best is chosen from, in 1..N.

  Returns:
    `[sources]` the expected judgement, in the unit of the judgements.

  Raises:
    ValueError: as `expected_best`, or the shapes differ.
  """
  rewards = _table('rewards', rewards)
  judgements = _table('judgements', judgements)
  if judgements.shape != rewards.shape:
    raise ValueError(
      f'judgements must have the shape of rewards, {rewards.shape}; got '
      f'{judgements.shape}.'
    )
  order = np.argsort(rewards, axis=1, kind='stable')
  ranked_rewards = np.take_along_axis(rewards, order, axis=1)
  # Numbers the runs of equal rewards; a run never crosses two sources.
  starts = np.ones(rewards.shape, dtype=bool)
  starts[:, 1:] = ranked_rewards[:, 1:] != ranked_rewards[:, :-1]
  run = np.cumsum(starts.reshape(-1)) - 1
  weights = np.tile(order_weights(rewards.shape[1], n), len(rewards))
  shared = (np.bincount(run, weights=weights) / np.bincount(run))[run]
  ranked = np.take_along_axis(judgements, order, axis=1)
  return np.sum(shared.reshape(rewards.shape) * ranked, axis=1)


def finished_first(
  rewards: Real[np.ndarray, 'sources N'],
  finished: Bool[np.ndarray, 'sources N'],
) -> Int[np.ndarray, 'sources N']:
  """Ranks samples by reward, every finished one above all unfinished ones.

  Args:
    rewards: `[sources, N]` rewards of stored samples, higher is better.
    finished: `[sources, N]` whether a sample ends with EOS.

  Returns:
    `[sources, N]` ranks as whole numbers, equal for equal rewards.
  """
  values, ranks = np.unique(_table('rewards', rewards), return_inverse=True)
  return ranks.reshape(np.shape(rewards)) + len(values) * np.asarray(finished)


def curve(
  rewards: Real[np.ndarray, 'sources N'],
  ns: Sequence[int],
  judgements: Real[np.ndarray, 'sources N'] | None = None,
  finished: Bool[np.ndarray, 'sources N'] | None = None,
) -> dict[int, metrics.Estimate]:
  """Best-of-N over several n, with standard errors clustered by source.

  With `finished`, the best of n samples is the best finished one; an unfinished
  one is chosen only if none of the n is finished, as in `--run_mode=sample`.
  The estimate stays unbiased, since only the order of the samples changes. n =
  1 gives the mean of all samples. The curve may fall if unfinished samples have
  high rewards.

  Args:
    rewards: `[sources, N]` rewards of stored samples, of two sources or more.
    ns: the sizes, each in 1..N; see `sizes`.
    judgements: `[sources, N]` other scores of the samples to report, instead of
      the rewards that choose them.
    finished: `[sources, N]` whether a sample ends with EOS; None if all do.

  Returns:
    An estimate for each n, in the order of `ns`.

  Raises:
    ValueError: as `expected_best`.
  """
  order = rewards
  if finished is not None and not np.all(finished):
    order = finished_first(rewards, finished)
    judgements = rewards if judgements is None else judgements
  if judgements is None:
    best = {n: expected_best(rewards, n) for n in ns}
  else:
    best = {n: expected_judgement_of_best(order, judgements, n) for n in ns}
  return {n: metrics.clustered_mean(values) for n, values in best.items()}


def sizes(num_samples: int) -> tuple[int, ...]:
  """Returns the powers of two below N, and N: (1, 2, 4, 8, 10) for 10."""
  if num_samples < 1:
    raise ValueError(f'num_samples must be at least 1; got {num_samples}.')
  powers = [2**k for k in range(num_samples.bit_length())]
  return tuple(sorted({*powers, num_samples}))


def _table(
  name: str, values: Real[np.ndarray, 'sources N']
) -> Float[np.ndarray, 'sources N']:
  values = np.asarray(values, dtype=np.float64)
  if values.ndim != 2 or values.size == 0:
    raise ValueError(
      f'{name} must have the axes [sources, N], none of them empty; got shape '
      f'{values.shape}.'
    )
  bad = np.argwhere(~np.isfinite(values))
  if len(bad):
    source, sample = bad[0]
    raise ValueError(
      f'{name} must be finite; got {values[source, sample]} for sample {sample} '
      f'of source {source}. Score these outputs again.'
    )
  return values
