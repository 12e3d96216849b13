"""Sampling of an iteration, batches of its hypotheses, and KL to BC."""

from collections.abc import Callable, Mapping
import dataclasses
import functools

import jax
from jaxtyping import Array, Bool, Float, Float32, Int64
import numpy as np

from rest_jax import types
from rest_jax.data import pair_store, ragged, special_ids, vocabularies
from rest_jax.models import policy as policy_lib
from rest_jax.models import scalar
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.parallel import processes
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import normalize
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.training import loader, teacher_forcing

_NUMBERS = 'numbers'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hypotheses:
  """Sampled outputs; those of one source are adjacent.

  Attributes:
    rows: row of each hypothesis' source in the pairs.
    tokens: token ids of each hypothesis, ending with EOS if finished.
    finished: whether EOS was drawn within the maximum length.
  """

  rows: Int64[np.ndarray, ' n']
  tokens: ragged.Ragged
  finished: Bool[np.ndarray, ' n']

  def __len__(self) -> int:
    return len(self.rows)

  def num_source_tokens(self, pairs: pair_store.PairStore) -> int:
    """Returns the number of source tokens, once per hypothesis."""
    return int(pairs.source_tokens.lengths[self.rows].sum())

  def is_token(self, length: int) -> Bool[np.ndarray, 'n T']:
    """Returns which of `length` positions have a token."""
    return np.arange(length) < self.tokens.lengths[:, None]


def draw(
  sampler: sampler_lib.Sampler,
  params: types.Params,
  pairs: pair_store.PairStore,
  rows: np.ndarray,
  *,
  first: int,
  seed: int,
) -> Hypotheses:
  """Samples N hypotheses for each of some sources.

  Args:
    rows: int [b], rows of `pairs`; a repeated row is sampled repeatedly.
    first: index of the first draw; with `seed` it determines the random
      numbers, so that no two draws of a training share theirs.
  """
  block = sampler.sample_all(
    params,
    pairs.source_tokens,
    np.arange(first, first + len(rows)),
    seed=seed,
    grow_step=0,
    rows=rows,
  )
  tokens = [row for samples in block.tokens for row in samples]
  return Hypotheses(
    rows=np.repeat(np.asarray(rows, np.int64), block.finished.shape[1]),
    tokens=ragged.Ragged.from_lists(tokens),
    finished=block.finished.reshape(-1),
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Environment:
  """Sources to sample for, and the reward of the samples.

  Attributes:
    pairs: the sources; the first `num_sources` of them are used.
    normalizer: scale of the run.
    seed: seed of the order of the sources and of sampling.
  """

  sampler: sampler_lib.Sampler
  pairs: pair_store.PairStore
  num_sources: int
  vocabulary: vocabularies.Vocabulary
  reward: rewards_base.Reward
  normalizer: normalize.Normalizer
  seed: int

  def draw(self, params: types.Params, first: int, count: int) -> Hypotheses:
    """Samples for the sources `first`, `first` + 1, … of an endless sequence.

    The sequence consists of passes over all sources, each in its own order.
    """
    rows = source_rows(self.num_sources, first, count, self.seed)
    return draw(
      self.sampler, params, self.pairs, rows, first=first, seed=self.seed
    )

  def texts(self, hypotheses: Hypotheses) -> list[str]:
    return self.vocabulary.decode_batch(list(hypotheses.tokens))

  def rewards(
    self, hypotheses: Hypotheses, texts: list[str]
  ) -> Float32[np.ndarray, ' n']:
    """Returns the normalised rewards of hypotheses, given their texts."""
    sources = [self.pairs.source_text(int(row)) for row in hypotheses.rows]
    references = None
    if self.reward.needs_references:
      references = [
        self.pairs.reference_text(int(row)) for row in hypotheses.rows
      ]
    return self.normalizer(self.reward.score(sources, texts, references))


def source_rows(
  num_sources: int, first: int, count: int, seed: int
) -> Int64[np.ndarray, ' count']:
  """Returns rows `first` to `first + count - 1` of shuffled passes over all."""
  passes, positions = np.divmod(np.arange(first, first + count), num_sources)
  rows = np.empty(count, np.int64)
  for number in np.unique(passes).tolist():
    here = passes == number
    rows[here] = _shuffled(num_sources, seed, number)[positions[here]]
  return rows


@functools.lru_cache(maxsize=2)
def _shuffled(num_sources: int, seed: int, number: int) -> np.ndarray:
  return np.random.default_rng((seed, number)).permutation(num_sources)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batching:
  """Settings of batches of hypotheses; as in `TrainerConfig`.

  Attributes:
    tokens_per_batch: tokens per side of a batch, including padding.
    buckets: ascending lengths that batches are padded to.
    row_multiple: the number of rows of a batch is a multiple of this.
    rows_here: see `mesh.rows_here`.
    ids: special ids of the vocabulary.
  """

  tokens_per_batch: int
  buckets: tuple[int, ...]
  row_multiple: int
  rows_here: Callable[[int], np.ndarray] | None = None
  ids: special_ids.SpecialIds = special_ids.T5

  def plan(
    self,
    pairs: pair_store.PairStore,
    hypotheses: Hypotheses,
    columns: Mapping[str, Float32[np.ndarray, 'n T']],
    seed: int,
  ) -> loader.BucketedBatches:
    """Plans batches with T5X's keys and one token column per name."""

    def load(rows: np.ndarray, source_length: int, target_length: int) -> dict:
      batch = loader.decoder_batch(
        pairs.source_tokens.pad(
          hypotheses.rows[rows], source_length, self.ids.pad
        ),
        hypotheses.tokens.pad(rows, target_length, self.ids.pad),
        self.ids,
      )
      for name, column in columns.items():
        batch[name] = column[rows, :target_length]
      # Numbers from 1; padding rows of a batch have 0.
      batch[_NUMBERS] = (rows + 1).astype(np.int32)
      return batch

    return loader.BucketedBatches(
      loader.Rows(
        source_lengths=pairs.source_tokens.lengths[hypotheses.rows],
        target_lengths=hypotheses.tokens.lengths,
        load=load,
        pad=self.ids.pad,
      ),
      tokens_per_batch=self.tokens_per_batch,
      buckets=self.buckets,
      seed=seed,
      row_multiple=self.row_multiple,
      rows_here=self.rows_here,
    )

  def per_token(
    self,
    pairs: pair_store.PairStore,
    hypotheses: Hypotheses,
    function: Callable[[types.Batch], Float[Array, 'B T']],
    mesh: jax.sharding.Mesh,
  ) -> Float32[np.ndarray, 'n T']:
    """Computes one number per token, in the order of the hypotheses.

    Args:
      function: computes the numbers of a batch on the mesh.
      mesh: result of `MeshConfig.build`.

    Returns:
      The numbers [n, T], T the largest bucket; 0 after the last token.
    """
    batches = self.plan(pairs, hypotheses, {}, seed=0)
    waiting = []
    for index in range(batches.batches_per_epoch):
      batch = mesh_lib.put_batch(batches[index], mesh)
      waiting.append((batch.pop(_NUMBERS), function(batch)))
    result = np.zeros((len(hypotheses), self.buckets[-1]), np.float32)
    for numbers, computed in map(processes.fetch, waiting):
      real = numbers > 0
      computed = computed[real]
      result[numbers[real] - 1, : computed.shape[1]] = computed
    return np.where(hypotheses.is_token(result.shape[1]), result, 0.0)


@functools.partial(jax.jit, static_argnums=0)
def log_probs(
  policy: policy_lib.Policy, params: types.Params, batch: types.Batch
) -> Float[Array, 'B T']:
  """Returns log pi(y_t | y_<t, x) of a batch, compiled once per shape."""
  return policy.log_probs(params, batch)


@functools.partial(jax.jit, static_argnums=0)
def values(
  model: scalar.ScalarModel, params: types.Params, batch: types.Batch
) -> Float[Array, 'B T']:
  """Returns V(s_t) of a batch, compiled once per shape."""
  return model.values(params, batch)


@dataclasses.dataclass(frozen=True, kw_only=True)
class KLToBC:
  """Measures the KL divergence from BC on held-out sources.

  KL(pi || pi_BC) = E_{y ~ pi}[sum_t KL(pi(. | y_<t, x) || pi_BC(. | y_<t, x))],
  estimated with common random numbers at every call. Summing over the
  vocabulary at each position has less noise than log pi - log pi_BC of the
  samples, and is never negative.

  Attributes:
    sampler: samples from the untempered policy.
    pairs: the sources.
  """

  sampler: sampler_lib.Sampler
  policy: policy_lib.Policy
  bc_params: types.Params
  pairs: pair_store.PairStore
  rows: np.ndarray
  batching: Batching
  mesh: jax.sharding.Mesh
  seed: int

  def __call__(self, params: types.Params) -> dict[str, float]:
    """Returns `kl_token` and `kl_sequence`, in nats; see `mean_kl`."""
    hypotheses = draw(
      self.sampler, params, self.pairs, self.rows, first=0, seed=self.seed
    )
    numbers = self.batching.per_token(
      self.pairs,
      hypotheses,
      functools.partial(
        _token_divergences, self.policy, params, self.bc_params
      ),
      self.mesh,
    )
    return mean_kl(numbers, hypotheses)


_token_divergences = jax.jit(
  teacher_forcing.token_divergences, static_argnums=0
)


def mean_kl(
  numbers: Float32[np.ndarray, 'n T'], hypotheses: Hypotheses
) -> dict[str, float]:
  """Returns KL to BC per token and per sequence, in nats.

  Args:
    numbers: KL at each position, or its estimate log pi - log pi_BC of the
      sampled token; 0 after the last token.
    hypotheses: samples of the policy.
  """
  total = float(numbers.sum(dtype=np.float64))
  return {
    'kl_token': total / hypotheses.tokens.num_tokens,
    'kl_sequence': total / len(hypotheses),
  }
