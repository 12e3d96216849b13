"""Sampling a policy into a sample store, and scoring what is there.

Both go shard by shard: a shard that is complete is never made again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import contextlib
import functools
import pathlib
import shutil
import zipfile

import jax
import jax.numpy as jnp
import numpy as np

from rest_jax import types
from rest_jax.data import (
  pair_store,
  ragged,
  sample_rewards,
  sample_store,
  vocabularies,
)
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.parallel import processes
from rest_jax.rewards import base as rewards_base
from rest_jax.rewards import normalize
from rest_jax.runtime import profiling
from rest_jax.runtime import progress as progress_lib
from rest_jax.sampling import categorical
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.storage import files, remote
from rest_jax.training import loader

Columns = Mapping[str, np.ndarray]
Shards = Sequence[tuple[int, int]]

_LOG_PROB_ROWS = 64
_RAW = 'raw'
# What numpy says of a file that is not there, cut off or damaged.
_UNREADABLE = (
  FileNotFoundError,
  zipfile.BadZipFile,
  EOFError,
  KeyError,
  ValueError,
)


def sample(
  directory: pathlib.Path,
  *,
  sampler: sampler_lib.Sampler,
  params: types.Params,
  policy: policy_lib.Policy,
  mesh_config: mesh_lib.MeshConfig,
  pairs: pair_store.PairStore,
  rows: np.ndarray,
  shards: Shards,
  seed: int,
  grow_step: int,
  with_references: bool,
  description: str,
  share: processes.Share | None = None,
) -> None:
  """Samples every source into the shards that are missing.

  Several processes make the shards of their shares, without each other.

  Args:
    directory: the store's folder.
    sampler: draws N samples a source.
    params: of the policy.
    policy: the network, for the references' log-probabilities.
    mesh_config: devices and rules.
    pairs: the sources.
    rows: int [n], rows of `pairs` to sample for, rising.
    shards: ranges of positions in `rows`.
    seed: of the draws.
    grow_step: g; part of the draws' key.
    with_references: store each source's reference beside its samples.
    description: the words before the progress bar.
    share: which shards are made here; None for the share of this process.
  """
  share = share or processes.share()
  done = sample_store.finished_shards(directory, len(shards))
  missing = {
    shard: bounds
    for shard, bounds in enumerate(shards)
    if shard in share and shard not in done
  }
  if not missing:
    return
  total = sum(stop - start for start, stop in missing.values())
  with (
    progress_lib.Progress(description, total, 'source') as progress,
    profiling.Trace(directory, 'sample') as trace,
  ):
    for shard, (start, stop) in missing.items():
      columns = [
        _columns(block)
        for block in sampler.sample(
          params,
          pairs.source_tokens,
          rows[start:stop],
          seed=seed,
          grow_step=grow_step,
          progress=progress.advance,
          trace=trace,
        )
      ]
      if with_references:
        columns.append(
          _references(params, policy, mesh_config, pairs, rows[start:stop])
        )
      sample_store.write_shard(
        directory,
        shard,
        len(shards),
        _join(columns),
        policy.config.vocab_size,
      )
      remote.push()


def _columns(block: sampler_lib.SampleBlock) -> sample_store.SampleRows:
  num_sources, num_samples = block.log_probs.shape
  return sample_store.SampleRows(
    source_id=np.repeat(np.asarray(block.source_ids, np.int64), num_samples),
    sample_id=np.tile(np.arange(num_samples, dtype=np.int32), num_sources),
    tokens=[tokens for samples in block.tokens for tokens in samples],
    log_prob=np.asarray(block.log_probs, np.float32).reshape(-1),
    finished=np.asarray(block.finished, bool).reshape(-1),
  )


def _references(
  params: types.Params,
  policy: policy_lib.Policy,
  mesh_config: mesh_lib.MeshConfig,
  pairs: pair_store.PairStore,
  rows: np.ndarray,
) -> sample_store.SampleRows:
  """The references as rows, with their log-probability by teacher forcing."""
  references = pairs.reference_tokens
  if references is None:
    raise ValueError('pairs must have references to be stored; got none')
  return sample_store.SampleRows(
    source_id=np.asarray(rows, np.int64),
    sample_id=np.full(len(rows), sample_store.REFERENCE_SAMPLE_ID, np.int32),
    tokens=[references[int(row)] for row in rows],
    log_prob=log_probs(
      params,
      policy,
      mesh_config,
      sources=(pairs.source_tokens, rows),
      targets=(references, rows),
    ),
    finished=np.ones(len(rows), bool),
  )


def log_probs(
  params: types.Params,
  policy: policy_lib.Policy,
  mesh_config: mesh_lib.MeshConfig,
  *,
  sources: tuple[ragged.Ragged, np.ndarray],
  targets: tuple[ragged.Ragged, np.ndarray],
) -> np.ndarray:
  """log pi(y | x) of rows of tokens, by teacher forcing.

  Args:
    params: of the policy, on any devices.
    policy: the network.
    mesh_config: devices and rules; those of this process are used.
    sources: tokens, and which row of them is each of n sources.
    targets: likewise for the n targets.

  Returns:
    float32 [n], nats, summed over tokens, untempered.
  """
  put = _put_local(mesh_config)
  compute = _jitted_log_probs(policy)
  params = put(params, policy)
  return _teacher_forced(
    lambda batch: compute(params, batch),
    mesh_config,
    sources=sources,
    targets=targets,
    description='log-probabilities',
  )


def divergences(
  params: types.Params,
  policy: policy_lib.Policy,
  bc_params: types.Params,
  mesh_config: mesh_lib.MeshConfig,
  *,
  sources: tuple[ragged.Ragged, np.ndarray],
  targets: tuple[ragged.Ragged, np.ndarray],
) -> np.ndarray:
  """sum_t KL(pi(. | y_<t, x) || pi_BC(. | y_<t, x)) of rows of tokens.

  Args:
    params: parameters of the policy, on any devices.
    policy: its network; that of BC is `policy.unconditioned()`.
    bc_params: parameters of BC, on any devices.
    mesh_config: devices and rules; those of this process are used.
    sources: tokens, and which row of them is each of n sources.
    targets: likewise for the n targets.

  Returns:
    float32 [n], nats, untempered, at least 0.
  """
  put = _put_local(mesh_config)
  compute = _jitted_divergences(policy)
  both = put(params, policy), put(bc_params, policy.unconditioned())
  return _teacher_forced(
    lambda batch: compute(*both, batch),
    mesh_config,
    sources=sources,
    targets=targets,
    description='KL to BC',
  )


def entropies(
  params: types.Params,
  policy: policy_lib.Policy,
  decode: sampler_lib.DecodeConfig,
  mesh_config: mesh_lib.MeshConfig,
  *,
  sources: tuple[ragged.Ragged, np.ndarray],
  targets: tuple[ragged.Ragged, np.ndarray],
) -> np.ndarray:
  """sum_t H(q(. | y_<t, x)) of rows of tokens, q what they are drawn from.

  Args:
    params: parameters of the policy, on any devices.
    policy: its network.
    decode: temperature above 0, `top_k` and `top_p` of q.
    mesh_config: devices and rules; those of this process are used.
    sources: as for `log_probs`.
    targets: likewise.

  Returns:
    float32 [n], nats, at least 0. Pieces that are never drawn count as others.
  """
  compute = _jitted_entropies(policy, decode.top_k, decode.top_p)
  placed = _put_local(mesh_config)(params, policy)
  inverse = np.float32(1 / decode.temperature)
  return _teacher_forced(
    lambda batch: compute(placed, batch, inverse),
    mesh_config,
    sources=sources,
    targets=targets,
    description='entropies',
  )


def _put_local(
  mesh_config: mesh_lib.MeshConfig,
) -> Callable[[types.Params, policy_lib.Policy], types.Params]:
  mesh = mesh_config.build_local()
  return lambda params, policy: mesh_lib.put_params(
    params, policy.logical_axes(), mesh, mesh_config.rules
  )


def _teacher_forced(
  compute: Callable[[types.Batch], jax.Array],
  mesh_config: mesh_lib.MeshConfig,
  *,
  sources: tuple[ragged.Ragged, np.ndarray],
  targets: tuple[ragged.Ragged, np.ndarray],
  description: str,
) -> np.ndarray:
  """Computes a number per row of tokens, float32 [n], in batches of few shapes."""
  (source_tokens, source_rows), (target_tokens, target_rows) = sources, targets
  mesh = mesh_config.build_local()
  num_rows = _LOG_PROB_ROWS * mesh_lib.num_parts(mesh)
  lengths = np.maximum(
    source_tokens.lengths[source_rows], target_tokens.lengths[target_rows]
  )
  order = np.argsort(lengths, kind='stable')
  result = np.empty(len(order), np.float32)
  with (
    mesh_lib.use(mesh, mesh_config.rules),
    progress_lib.Progress(description, len(order), 'row') as progress,
  ):
    for start in range(0, len(order), num_rows):
      chosen = order[start : start + num_rows]
      # A few lengths and one number of rows: few compilations.
      length = int(2 ** np.ceil(np.log2(max(lengths[chosen].max(), 16))))
      filled = np.resize(chosen, num_rows)
      batch = loader.decoder_batch(
        source_tokens.pad(source_rows[filled], length),
        target_tokens.pad(target_rows[filled], length),
      )
      found = compute(mesh_lib.put_batch(batch, mesh))
      result[chosen] = np.asarray(found)[: len(chosen)]
      progress.advance(len(chosen))
  return result


@functools.lru_cache(maxsize=4)
def _jitted_log_probs(policy: policy_lib.Policy):
  return jax.jit(policy.sequence_log_probs)


@functools.lru_cache(maxsize=4)
def _jitted_divergences(policy: policy_lib.Policy):
  bc_policy = policy.unconditioned()

  def divergences(params, bc_params, batch):
    # [B, T, V], in float32.
    log_pi = jax.nn.log_softmax(policy.logits(params, batch))
    log_bc = jax.nn.log_softmax(bc_policy.logits(bc_params, batch))
    of_token = (jnp.exp(log_pi) * (log_pi - log_bc)).sum(-1)
    is_token = batch['decoder_target_tokens'] != types.PAD_ID
    return jnp.where(is_token, of_token, 0.0).sum(-1)

  return jax.jit(divergences)


@functools.lru_cache(maxsize=4)
def _jitted_entropies(
  policy: policy_lib.Policy, top_k: int | None, top_p: float
):
  def entropies(params, batch, inverse_temperature):
    logits = policy.logits(params, batch) * inverse_temperature
    log_q = jax.nn.log_softmax(
      categorical.likeliest(logits, top_k=top_k, top_p=top_p)
    )
    # A token of probability 0 adds nothing: [B, T, V] -> [B, T].
    terms = jnp.where(jnp.isfinite(log_q), -jnp.exp(log_q) * log_q, 0.0)
    is_token = batch['decoder_target_tokens'] != types.PAD_ID
    return jnp.where(is_token, terms.sum(-1), 0.0).sum(-1)

  return jax.jit(entropies)


def _join(
  parts: Sequence[sample_store.SampleRows],
) -> sample_store.SampleRows:
  return sample_store.SampleRows(
    source_id=np.concatenate([part.source_id for part in parts]),
    sample_id=np.concatenate([part.sample_id for part in parts]),
    tokens=[tokens for part in parts for tokens in part.tokens],
    log_prob=np.concatenate([part.log_prob for part in parts]),
    finished=np.concatenate([part.finished for part in parts]),
  )


def texts(
  directory: pathlib.Path,
  shard: int,
  num_shards: int,
  pairs: pair_store.PairStore,
  vocabulary: vocabularies.Vocabulary,
) -> tuple[list[str], list[str]]:
  """Returns source and hypothesis text of each row of a shard."""
  opened = sample_store.Shard(
    sample_store.shard_path(directory, shard, num_shards)
  )
  hypotheses = vocabulary.decode_batch(list(opened.tokens))
  sources = [pairs.source_text(int(row)) for row in opened.source_id]
  for index in np.flatnonzero(
    opened.sample_id == sample_store.REFERENCE_SAMPLE_ID
  ):
    # As written, not as its tokens decode.
    hypotheses[index] = pairs.reference_text(int(opened.source_id[index]))
  return sources, hypotheses


def reference_texts(
  directory: pathlib.Path,
  shard: int,
  num_shards: int,
  pairs: pair_store.PairStore,
) -> list[str]:
  """Returns the reference of the source of each row of a shard."""
  opened = sample_store.Shard(
    sample_store.shard_path(directory, shard, num_shards)
  )
  return [pairs.reference_text(int(row)) for row in opened.source_id]


def check_references(
  reward: rewards_base.Reward, pairs: pair_store.PairStore, split: str
) -> None:
  """Raises ValueError if a reward needs references that a split lacks."""
  if reward.needs_references and not pairs.has_references:
    raise ValueError(
      f'reward {reward.name!r} compares with references, and the {split} '
      'split has none. Use pairs with references there (Task.grow for the '
      'Grow steps), or a reward without references.'
    )


def score(
  directory: pathlib.Path,
  *,
  reward: rewards_base.Reward,
  num_shards: int,
  pairs: pair_store.PairStore,
  vocabulary: vocabularies.Vocabulary,
  normalizer: normalize.Normalizer | None,
  description: str,
  evidence: rewards_base.Evidence | None = None,
) -> normalize.Normalizer:
  """Scores every row of a store and writes its row-aligned reward files.

  Several processes score and write the shards of their shares; each reads the
  raw rewards of all, of which the normaliser is made.

  A reward that is made of others has a file for each of them as well.

  Args:
    directory: the store's folder, all shards complete.
    reward: scores each distinct (source, text) once.
    num_shards: number of shards.
    pairs: the sources.
    vocabulary: to turn tokens into text.
    normalizer: the run's; None makes it from all raw rewards of this store but
      those of vetoed rows.
    description: the words before the progress bar.
    evidence: see `score_raw`.

  Returns:
    The normaliser.
  """
  name, scales = reward.name, rewards_base.scales(reward)
  done = set.intersection(
    *(
      sample_store.finished_rewards(directory, column, num_shards)
      for column in (name, *scales)
    )
  )
  if normalizer is not None and len(done) == num_shards:
    return normalizer
  share = processes.share()
  score_raw(
    directory,
    reward=reward,
    shards=[
      shard
      for shard in range(num_shards)
      if shard in share and shard not in done
    ],
    num_shards=num_shards,
    pairs=pairs,
    vocabulary=vocabulary,
    description=description,
    evidence=evidence,
  )
  processes.barrier(description)
  raws = [
    _scored(directory, (name, *scales), shard, num_shards)
    if shard in done
    else _read_raw(_raw_path(directory, name, shard))
    for shard in range(num_shards)
  ]
  if normalizer is None:
    normalizer = _normalizer(
      np.concatenate([raw[name] for raw in raws]), rewards_base.floor(reward)
    )
  for shard, raw in enumerate(raws):
    if shard not in share:
      continue
    for column, scale in {name: normalizer, **scales}.items():
      sample_store.write_rewards(
        directory, column, shard, num_shards, raw[column], scale(raw[column])
      )
  processes.barrier(f'{description}: written')
  processes.by_main(
    f'{description}: done',
    lambda: shutil.rmtree(_scratch(directory, name), ignore_errors=True),
  )
  return normalizer


def score_raw(
  directory: pathlib.Path,
  *,
  reward: rewards_base.Reward,
  shards: Sequence[int],
  num_shards: int,
  pairs: pair_store.PairStore,
  vocabulary: vocabularies.Vocabulary,
  description: str,
  evidence: rewards_base.Evidence | None = None,
) -> None:
  """Scores some shards of a store, whose raw rewards wait for the others'.

  Args:
    directory: the store's folder; these shards of it are complete.
    reward: scores each distinct (source, text) once.
    shards: which of them.
    num_shards: number of shards of the store.
    pairs: the sources.
    vocabulary: to turn tokens into text.
    description: the words before the progress bar.
    evidence: gives the samples of a source to a reward that needs them. None
      for those of the store itself, all of which lie in one shard; a reference
      is judged by them and is not one of them.
  """
  with progress_lib.Progress(description, len(shards), 'shard') as progress:
    for shard in shards:
      path = _raw_path(directory, reward.name, shard)
      if not _is_raw(path):
        sources, hypotheses = texts(
          directory, shard, num_shards, pairs, vocabulary
        )
        references = None
        if reward.needs_references:
          references = reference_texts(directory, shard, num_shards, pairs)
        peers = None
        if rewards_base.needs_samples(reward):
          peers = _peers(directory, shard, num_shards, hypotheses, evidence)
        columns = rewards_base.columns(
          reward, sources, hypotheses, references, peers
        )
        _write_raw(path, columns)
        remote.push()
      progress.advance(1)


def _peers(
  directory: pathlib.Path,
  shard: int,
  num_shards: int,
  hypotheses: Sequence[str],
  evidence: rewards_base.Evidence | None,
) -> rewards_base.Peers:
  """The samples by which each row of a shard is judged."""
  opened = sample_store.Shard(
    sample_store.shard_path(directory, shard, num_shards)
  )
  if evidence is not None:
    return rewards_base.Peers.fixed(opened.source_id, evidence)
  return rewards_base.Peers.own(
    opened.source_id,
    hypotheses,
    np.asarray(opened.sample_id) != sample_store.REFERENCE_SAMPLE_ID,
  )


def is_scored_raw(directory: pathlib.Path, name: str, num_shards: int) -> bool:
  """Whether the raw rewards of all shards are there."""
  return all(
    _raw_path(directory, name, shard).exists() for shard in range(num_shards)
  )


def _normalizer(raw: np.ndarray, floor: float | None) -> normalize.Normalizer:
  if floor is not None:
    # The floor is no reward of any text, and would stretch the scale.
    raw = raw[raw > np.float32(floor)]
  return normalize.Normalizer.from_raw(raw)


def _scored(
  directory: pathlib.Path, names: Iterable[str], shard: int, num_shards: int
) -> Columns:
  """Raw rewards of a shard whose reward files are there and whole."""
  info = sample_store.shard_info(
    sample_store.shard_path(directory, shard, num_shards)
  )
  return {
    name: sample_rewards.read_rewards(
      sample_store.rewards_path(directory, name, shard, num_shards),
      rows=info.rows,
      samples_sha256=info.sha256,
    )[0]
    for name in names
  }


def _scratch(directory: pathlib.Path, name: str) -> pathlib.Path:
  """Where raw rewards are kept until the normaliser is known."""
  return directory / f'.{_RAW}-{name}'


def _raw_path(directory: pathlib.Path, name: str, shard: int) -> pathlib.Path:
  return _scratch(directory, name) / f'{shard:05d}.npz'


def _write_raw(path: pathlib.Path, raw: Columns) -> None:
  with files.atomic_write(path) as temporary, temporary.open('wb') as opened:
    np.savez(
      opened,
      names=np.asarray(list(raw)),
      columns=np.asarray(list(raw.values()), np.float32),
    )


def _read_raw(path: pathlib.Path) -> Columns:
  # Opened here, so that it is closed if its content is damaged.
  with open(path, 'rb') as opened, np.load(opened) as stored:
    return dict(zip(stored['names'].tolist(), stored['columns'], strict=True))


def _is_raw(path: pathlib.Path) -> bool:
  """Whether raw rewards are there, neither cut off nor damaged."""
  with contextlib.suppress(*_UNREADABLE):
    _read_raw(path)
    return True
  return False


def policy_sampler(
  policy: policy_lib.Policy,
  decode: sampler_lib.DecodeConfig,
  mesh_config: mesh_lib.MeshConfig,
  vocabulary: vocabularies.Vocabulary,
  *,
  is_shared: bool = True,
) -> sampler_lib.Sampler:
  """Returns a sampler on the mesh that draws pieces of the vocabulary alone."""
  return sampler_lib.Sampler(
    policy,
    decode,
    mesh_config.build(),
    vocabulary_size=vocabulary.size,
    is_shared=is_shared,
  )
