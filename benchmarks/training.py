r"""Training steps of one network: ours, Hugging Face with fused AdamW, and T5X.

  python -m benchmarks.training
  python -m benchmarks.training --natural=../shared/data

All systems start from the same weights, take the same number of steps with
dropout, clipped gradients and AdamW, and are judged by real target tokens a
second. By default each batch has B rows of full length, and T5X takes part where
it is installed (docs/t5x.md). With `--natural` it is text of varied length: ours
packs it into rows, Hugging Face pads shuffled pairs to the longest of the batch
(`huggingface`) or pairs of like length (its option `group_by_length`:
`huggingface_grouped`); a step of any has the same real tokens on average. Of 2,048
tokens a side, Hugging Face then takes 17 GB.
"""

from collections.abc import Callable
import functools
import json
import multiprocessing
import pathlib
import sys
import tempfile

from absl import app, flags
import numpy as np

from benchmarks import harness, work

_NATURAL = flags.DEFINE_string(
  'natural', None, 'Folder of tatoeba_de_en and newstest_de_en.'
)
_SYSTEMS = flags.DEFINE_list(
  'systems', None, 'What to measure; all by default.'
)
_BATCH = flags.DEFINE_integer('batch', 64, 'B, rows of full length.')
_SOURCE_LENGTH = flags.DEFINE_integer('source_length', 32, 'S, of full rows.')
_TARGET_LENGTH = flags.DEFINE_integer('target_length', 32, 'T, of full rows.')
_TOKENS = flags.DEFINE_integer(
  'tokens', 2048, 'Tokens a side of our batch, padding included, --natural.'
)
_PACKED = flags.DEFINE_list(
  'packed_lengths', ['128'], 'Of our rows, --natural.'
)
_BUCKETS = flags.DEFINE_list(
  'buckets', ['16', '32', '64', '128'], 'Of ours without packing, --natural.'
)
_STEPS = flags.DEFINE_integer('steps', 2, 'Steps a turn.')
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Turns of each system.')
_THREADS = flags.DEFINE_integer('threads', 2, 'Threads of Hugging Face.')

_LEARNING_RATE = 1e-4
# Batches whose pairs Hugging Face sorts by length together.
_MEGABATCH = 50


def _batches(task: dict, folder: pathlib.Path, packed: bool):
  """Our batches: rows of full length, or real text."""
  from rest_jax.data import ragged
  from rest_jax.training import loader

  sides = [
    ragged.Ragged.from_lists(work.read_rows(folder / f'{side}.npz'))
    for side in ('sources', 'references')
  ]

  def load(rows, source_length, target_length):
    return loader.decoder_batch(
      sides[0].pad(rows, source_length), sides[1].pad(rows, target_length)
    )

  if not task['natural']:
    rows = np.arange(len(sides[0]))
    lengths = task['source_length'], task['target_length']
    return [load(rows, *lengths)]
  return loader.BucketedBatches(
    loader.Rows(
      source_lengths=sides[0].lengths,
      target_lengths=sides[1].lengths,
      load=load,
    ),
    tokens_per_batch=task['tokens'],
    buckets=task['packed_lengths' if packed else 'buckets'],
    seed=0,
    pack=packed,
  )


def prepare_ours(
  folder: pathlib.Path, dtype: str, packed: bool = True
) -> Callable[[], float]:
  """Our train step, as the trainer jits it."""
  import dataclasses

  import jax
  import jax.numpy as jnp

  from rest_jax.interop import huggingface
  from rest_jax.losses import bc
  from rest_jax.models import policy as policy_lib
  from rest_jax.training import optimizers
  from rest_jax.training import step as step_lib

  task = _read(folder)
  config, params = huggingface.load_policy(folder / 'model')
  policy = policy_lib.Policy(dataclasses.replace(config, dtype=dtype))
  # What torch.optim.AdamW does, with gradients clipped to 1.
  optimizer = optimizers.OptimizerConfig(
    parameter_scale=False, b2=0.999, eps=1e-8
  ).direction()
  init = functools.partial(
    step_lib.init_state, loss=bc.BC(), optimizer=optimizer, given={}
  )
  state = jax.jit(init)(params)
  train_step = jax.jit(
    step_lib.make_train_step(model=policy, loss=bc.BC(), optimizer=optimizer),
    donate_argnums=0,
  )
  batches = _batches(task, folder, packed)
  key, rate = jax.random.key(0), jnp.float32(_LEARNING_RATE)
  taken = 0

  def steps(count: int) -> float:
    nonlocal state, taken
    tokens = 0.0
    for _ in range(count):
      batch = batches[taken if task['natural'] else 0]
      state, metrics = train_step(state, batch, rate, key)
      tokens += float(metrics['normalizer'])
      taken += 1
    jax.block_until_ready(state)
    return tokens

  if task['natural']:
    # Every shape is compiled before the first turn.
    shapes = set()
    while len(shapes) < batches.num_shapes:
      shape = batches[taken]['decoder_target_tokens'].shape
      if shape in shapes:
        taken += 1
      else:
        shapes.add(shape)
        steps(1)
  return functools.partial(steps, task['steps'])


def prepare_t5x(folder: pathlib.Path) -> Callable[[], float]:
  """T5X's model, loss and network, full rows, with optax's AdamW."""
  import jax
  import optax
  import seqio
  from t5x import adafactor, models
  from t5x.examples.t5 import network

  from rest_jax.interop import huggingface

  task = _read(folder)
  config, params = huggingface.load_policy(folder / 'model')
  names = (*work.SIZES, 'mlp_activations', 'dropout_rate', 'dtype')
  vocabulary = seqio.PassThroughVocabulary(size=config.vocab_size, eos_id=1)
  model = models.EncoderDecoderModel(
    network.Transformer(
      network.T5Config(**{name: getattr(config, name) for name in names})
    ),
    vocabulary,
    vocabulary,
    adafactor.Adafactor(),  # Not used.
  )
  optimizer = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.adamw(_LEARNING_RATE, weight_decay=0.0),
  )
  gradient_of = jax.value_and_grad(model.loss_fn, has_aux=True)

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def train_step(params, state, batch, key):
    _, gradient = gradient_of(params, batch, key)
    updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state

  [batch] = _batches(task, folder, packed=False)
  state, key = jax.jit(optimizer.init)(params), jax.random.key(0)
  taken = 0

  def run() -> float:
    nonlocal params, state, taken
    for _ in range(task['steps']):
      step_key = jax.random.fold_in(key, taken)
      params, state = train_step(params, state, batch, step_key)
      taken += 1
    jax.block_until_ready(params)
    return task['steps'] * float(
      np.count_nonzero(batch['decoder_loss_weights'])
    )

  return run


def prepare_huggingface(
  folder: pathlib.Path, grouped: bool = False
) -> Callable[[], float]:
  """`T5ForConditionalGeneration` in training, padded to the longest."""
  import torch
  import transformers

  task = _read(folder)
  torch.manual_seed(0)
  torch.set_num_threads(task['threads'])
  model = transformers.T5ForConditionalGeneration.from_pretrained(
    folder / 'model', dtype=torch.float32
  ).train()
  model.config.use_cache = False
  optimizer = torch.optim.AdamW(
    model.parameters(), lr=_LEARNING_RATE, weight_decay=0.0, fused=True
  )
  sources = work.read_rows(folder / 'sources.npz')
  references = work.read_rows(folder / 'references.npz')
  order = np.random.default_rng(0).permutation(len(sources))
  size = task['pairs_per_batch']
  if grouped:
    order = _grouped(order, [len(row) for row in sources], size)
  taken = 0

  def run() -> float:
    nonlocal taken
    tokens = 0
    for _ in range(task['steps']):
      start = taken * size % max(1, len(order) - size + 1)
      rows = order[start : start + size]
      ids = torch.from_numpy(work.pad([sources[row] for row in rows]))
      labels = torch.from_numpy(work.pad([references[row] for row in rows]))
      tokens += int((labels != 0).sum())
      optimizer.zero_grad()
      model(
        input_ids=ids,
        attention_mask=(ids != 0).long(),
        labels=labels.masked_fill(labels == 0, -100),
      ).loss.backward()
      torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
      optimizer.step()
      taken += 1
    return float(tokens)

  return run


def _grouped(order: np.ndarray, lengths: list[int], size: int) -> np.ndarray:
  """Batches of like length, in a random order, as `group_by_length` makes."""
  lengths_of = np.asarray(lengths)
  megabatches = [
    order[start : start + _MEGABATCH * size]
    for start in range(0, len(order), _MEGABATCH * size)
  ]
  by_length = [m[np.argsort(-lengths_of[m])] for m in megabatches]
  batches = [
    m[start : start + size]
    for m in by_length
    for start in range(0, len(m), size)
    if len(m) - start >= size
  ]
  shuffled = np.random.default_rng(1).permutation(len(batches))
  return np.concatenate([batches[i] for i in shuffled])


def _read(folder: pathlib.Path) -> dict:
  return json.loads((folder / 'task.json').read_text(encoding='utf-8'))


def write_work(folder: pathlib.Path) -> None:
  """Writes weights, rows and the task."""
  work.random_policy(folder / 'model')
  task = {
    'natural': _NATURAL.value is not None,
    'steps': _STEPS.value,
    'threads': _THREADS.value,
  }
  if _NATURAL.value:
    sides = work.natural_pairs(pathlib.Path(_NATURAL.value), folder)
    task |= {
      'tokens': _TOKENS.value,
      'packed_lengths': [int(n) for n in _PACKED.value],
      'buckets': [int(n) for n in _BUCKETS.value],
    }
  else:
    lengths = _SOURCE_LENGTH.value, _TARGET_LENGTH.value
    sides = work.dense_pairs(_BATCH.value, *lengths)
    task |= {
      'source_length': lengths[0],
      'target_length': lengths[1],
      'pairs_per_batch': _BATCH.value,
    }
  for name, rows in zip(('sources', 'references'), sides, strict=True):
    work.write_rows(folder / f'{name}.npz', rows)
  if _NATURAL.value:
    ours = _batches(task, folder, packed=True)
    task |= {
      'pairs_per_batch': round(ours.num_rows / ours.batches_per_epoch),
      'real_token_share': round(ours.real_token_share, 4),
      'real_token_share_of_buckets': round(
        _batches(task, folder, packed=False).real_token_share, 4
      ),
    }
  (folder / 'task.json').write_text(json.dumps(task), encoding='utf-8')


def _systems(folder: pathlib.Path) -> dict[str, harness.Prepare]:
  known = {
    'float32': functools.partial(prepare_ours, folder, 'float32'),
    'bfloat16': functools.partial(prepare_ours, folder, 'bfloat16'),
    'huggingface': functools.partial(prepare_huggingface, folder),
  }
  if not _NATURAL.value:
    known['t5x'] = functools.partial(prepare_t5x, folder)
  else:
    known |= {
      'float32_buckets': functools.partial(
        prepare_ours, folder, 'float32', packed=False
      ),
      'huggingface_grouped': functools.partial(
        prepare_huggingface, folder, grouped=True
      ),
    }
  return {name: known[name] for name in _SYSTEMS.value or known}


def _ratios(measured) -> dict[str, float]:
  ratios = {}
  for ours in ('float32', 'bfloat16', 'float32_buckets'):
    for theirs in ('huggingface', 'huggingface_grouped', 't5x'):
      ratios |= harness.rate_ratio(measured, ours, theirs)
  return ratios


def main(argv) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments: {argv[1:]}')
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    # In a process of its own, so that this one starts no threads.
    process = multiprocessing.get_context('spawn').Process(
      target=_write_work, args=(sys.argv, folder)
    )
    process.start()
    process.join()
    if process.exitcode:
      raise RuntimeError('the work could not be prepared')
    measured = harness.measure(_systems(folder), num_rounds=_ROUNDS.value)
    task = _read(folder)
  harness.report(
    measured, unit='tokens', ratios=_ratios(measured), settings=task
  )


def _write_work(argv, folder: pathlib.Path) -> None:
  """`write_work` in another process, with this one's flags."""
  flags.FLAGS(argv)
  write_work(folder)


if __name__ == '__main__':
  app.run(main)
