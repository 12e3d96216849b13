"""Estimated time of a run on this machine, before it starts.

A token costs 6 FLOP per weight in training (forward and backward) and 2 FLOP
per decoder weight in sampling, as in Kaplan et al. (arXiv 2001.08361), section
2.1. The FLOP per second of each kind of work are those of the run's finished
stages or, if there are none, a share of the measured speed of a matrix product.

Excluded: data preparation, compilation, scoring, diagnostics and the control of
equal entropy. Training may stop earlier than estimated, by patience.
"""

from collections.abc import Iterator
import dataclasses
import functools
import itertools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rest_jax import experiment_run as run_lib
from rest_jax.data import sources as sources_lib
from rest_jax.data import task as task_lib
from rest_jax.models import policy as policy_lib
from rest_jax.planning import hours
from rest_jax.sampling import decode_config as sampling_config
from rest_jax.stages import base, bc_trained_on
from rest_jax.stages import evaluate as evaluate_stage
from rest_jax.stages import grow as grow_stage
from rest_jax.stages import improve as improve_stage
from rest_jax.synthetic import corpus
from rest_jax.training import trainer as trainer_lib

TRAINING, SAMPLING = 'training', 'sampling'

# Time limits for counting pairs and for measuring products, in seconds.
_COUNTING, _MEASURING = 0.5, 0.3
_SIDE = 1024  # Side of the measured square matrices.


class Work(NamedTuple):
  """Work of one stage.

  Attributes:
    kind: TRAINING or SAMPLING.
  """

  kind: str
  flops: float


@dataclasses.dataclass(frozen=True)
class Estimate:
  """Estimated time of the unfinished stages.

  Attributes:
    seconds: seconds by kind of work.
    notes: assumptions, one sentence each.
  """

  seconds: dict[str, float]
  notes: tuple[str, ...]

  def lines(self) -> Iterator[str]:
    """Yields lines for the plan of `--dry_run`."""
    if not self.seconds:
      return
    parts = ', '.join(
      f'{kind} {_format(seconds)}' for kind, seconds in self.seconds.items()
    )
    total = _format(sum(self.seconds.values()))
    yield f'  time      about {total} to do, an estimate: {parts}'
    for note in self.notes:
      yield f'    {note}'


def estimate(run: run_lib.Run, policy: policy_lib.Policy) -> Estimate:
  """Estimates the time of a run; takes about a second.

  Args:
    run: the run; its finished stages cost nothing, and their speed is used.
    policy: network, with the size of the vocabulary.
  """
  length, notes = _target_length(run)
  counts = Counts(run)
  todo: dict[str, float] = {}
  done: dict[str, list[tuple[float, float]]] = {}
  for stage in run.stages:
    if stage.is_extra or stage.is_given:
      continue
    works = list(_works(stage, policy, counts, length))
    if not stage.is_finished:
      for work in works:
        todo[work.kind] = todo.get(work.kind, 0.0) + work.flops
      continue
    for kind, measured in _measured(stage, policy):
      done.setdefault(kind, []).append(measured)
  seconds, assumed = {}, []
  for kind, flops in todo.items():
    if kind in done:
      rate = sum(n for n, _ in done[kind]) / sum(s for _, s in done[kind])
    else:
      assumed.append(kind)
      rate = hours.ASSUMED_SHARE * products_per_second(policy.config.dtype)
    seconds[kind] = flops / rate
  if assumed:
    notes.append(
      f'{" and ".join(assumed)} at {hours.ASSUMED_SHARE:.0%} of the measured '
      'speed of a matrix product, which falls while other programs run; small '
      'networks are slower'
    )
  if set(seconds) - set(assumed):
    notes.append('speed as in the finished stages of this folder')
  notes.append(
    'excluded: data preparation, compilation, rewards, diagnostics; early '
    'stopping shortens the run'
  )
  if counts.is_cut:
    notes.append('the data have more pairs than were counted: it takes longer')
  return Estimate(seconds, tuple(notes))


def _works(
  stage: base.Stage, policy: policy_lib.Policy, counts: 'Counts', length: float
) -> Iterator[Work]:
  """Yields the work of a stage."""
  for each in stage.trainings(policy):
    yield Work(
      TRAINING, training_flops(each.model, each.trainer, each.trainer.max_steps)
    )
  decoder = _weights(policy).decoder

  def sampled(
    decode: sampling_config.DecodeConfig, sources: int | None, times: int = 1
  ) -> Iterator[Work]:
    samples = decode.num_samples_per_source
    if sources is not None:
      yield Work(SAMPLING, 2.0 * decoder * sources * samples * length * times)

  if isinstance(stage, grow_stage.Grow):
    sources = counts.of(task_lib.GROW, stage.config.max_sources)
    yield from sampled(stage.config.decode, sources)
  elif isinstance(stage, improve_stage.Improve):
    trainer, selection = stage.config.trainer, stage.selection
    sources = counts.of(task_lib.VALIDATION, selection.max_sources)
    times = trainer.max_steps // trainer.evaluate_every + trainer.evaluate_first
    yield from sampled(selection.decode, sources, times)
  elif isinstance(stage, bc_trained_on.TrainedOn):
    # It declares no training: its number of steps depends on earlier stages.
    trainer = stage.improve.trainer
    steps = trainer.max_steps * len(stage.improved)
    yield Work(TRAINING, training_flops(policy, trainer, steps))
  elif isinstance(stage, evaluate_stage.Evaluate):
    config = stage.config
    sources = counts.of(stage.split, config.max_sources)
    for decode in (config.decode, *config.searches().values()):
      yield from sampled(decode, sources)


def training_flops(
  model: Any, trainer: trainer_lib.TrainerConfig, steps: int
) -> float:
  """Returns the FLOPs of training steps, including padding."""
  return 6.0 * sum(_weights(model)) * trainer.tokens_per_batch * steps


def _measured(
  stage: base.Stage, policy: policy_lib.Policy
) -> Iterator[tuple[str, tuple[float, float]]]:
  """Yields (kind, (FLOPs, seconds)) of the work of a finished stage."""
  manifest = stage.manifest()
  spent = manifest.get('spent_seconds', {})
  compiling = spent.get('tracing', 0.0) + spent.get('compiling', 0.0)
  # Share of the time without compilation; at least a fifth, since threads may
  # compile in parallel.
  running = max(0.2, 1 - compiling / max(manifest['stage_seconds'], 1e-3))
  trainings, training = list(stage.trainings(policy)), manifest.get('training')
  # A reward has two trainings; its manifest does not have the sums of either.
  if training and training['steps'] and len(trainings) == 1:
    [each] = trainings
    seconds = training['seconds'] - training['evaluation_seconds']
    flops = training_flops(each.model, each.trainer, training['steps'])
    yield TRAINING, (flops, max(running * seconds, 1e-3))
  if isinstance(stage, grow_stage.Grow):
    flops = 2.0 * _weights(policy).decoder * manifest['num_tokens']
    yield SAMPLING, (flops, max(running * manifest['seconds']['grow'], 1e-3))


class _Weights(NamedTuple):
  """Numbers of matrix weights that a token is multiplied by."""

  encoder: int
  decoder: int  # Including the logits.


@functools.lru_cache(maxsize=16)
def _weights(model: Any) -> _Weights:
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  counts = {'encoder': 0, 'decoder': 0}
  for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
    names = [entry.key for entry in path]
    if names[-1] == 'kernel' and names[0] in counts:
      counts[names[0]] += leaf.size
  config = model.config
  if config.logits_via_embedding:
    counts['decoder'] += config.vocab_size * config.emb_dim
  return _Weights(**counts)


def _target_length(run: run_lib.Run) -> tuple[float, list[str]]:
  """Returns the assumed number of tokens per output, and a note about it."""
  if run.context.is_prepared:
    tokens = run.data.pairs(task_lib.TRAIN).reference_tokens
    if tokens is not None:
      mean = float(tokens.lengths.mean())
      return mean, [f'outputs as long as references, {mean:.0f} tokens']
  length = run.experiment.grow.decode.max_target_length / 2
  return length, [f'outputs of {length:.0f} tokens, half of the maximum']


class Counts:
  """Numbers of sources of the splits of a run.

  Attributes:
    is_cut: whether counting a split was stopped by the time limit.
  """

  def __init__(self, run: run_lib.Run, seconds: float = _COUNTING):
    """Counts at most for some seconds."""
    self._run = run
    self._seconds = seconds
    self._known: dict[tuple[str, int | None], int | None] = {}
    self.is_cut = False

  def of(self, split: str, most: int | None) -> int | None:
    """Returns the sources of a split, at most `most`; None if unknown."""
    if (split, most) not in self._known:
      self._known[split, most] = self._of(split, most)
    return self._known[split, most]

  def _of(self, split: str, most: int | None) -> int | None:
    run, task = self._run, self._run.experiment.task
    stored = run.data.splits if run.context.is_prepared else ()
    if stored and split == task_lib.GROW:
      split = run.data.grow_split
    if split in stored:
      count = len(run.data.pairs(split))
    else:  # Also a test set that is added.
      count = self._count(task.splits.get(split, task.train), most)
    return most if count is None else min(count, most or count)

  def _count(
    self, source: sources_lib.PairSource | None, most: int | None
  ) -> int | None:
    """Counts pairs until the time limit."""
    if source is None:
      return None
    if isinstance(source, corpus.SyntheticPairs | corpus.SyntheticSources):
      return source.size
    ends, count = time.monotonic() + self._seconds, 0
    try:
      pairs = itertools.islice(source.read(), most)
      while some := sum(1 for _ in itertools.islice(pairs, 1000)):
        count += some
        if time.monotonic() > ends:
          self.is_cut = True
          break
    except (FileNotFoundError, ImportError):
      return None
    return count


def _format(seconds: float) -> str:
  """Formats a time with the precision of an estimate."""
  if seconds < 90:
    return f'{seconds:.0f} s'
  if seconds < 90 * 60:
    return f'{seconds / 60:.0f} min'
  return f'{seconds / 3600:,.1f} h'


@functools.cache
def products_per_second(dtype: str) -> float:
  """Measures FLOP per second of large matrix products on all devices, once."""
  x = jnp.ones((_SIDE, _SIDE), dtype)
  product = jax.jit(jnp.matmul)
  product(x, x).block_until_ready()
  ends, fastest = time.monotonic() + _MEASURING, float('inf')
  while time.monotonic() < ends:
    began = time.monotonic()
    product(x, x).block_until_ready()
    fastest = min(fastest, time.monotonic() - began)
  return jax.device_count() * 2.0 * _SIDE**3 / fastest
