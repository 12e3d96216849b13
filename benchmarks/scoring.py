r"""N hypotheses a source scored by one network: ours, and Hugging Face.

  python -m benchmarks.scoring
  python -m benchmarks.scoring --natural=../shared/data

All systems have the same weights, start from token ids and give every pair of
source and hypothesis one number, read at EOS. Hugging Face runs `T5Model` on
padded pairs, sorted by length; ours encodes a source once for all its
hypotheses. A hypothesis is a reference of which some tokens are dropped.
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
from rest_jax.data import vocabularies

_NATURAL = flags.DEFINE_string(
  'natural', None, 'Folder of tatoeba_de_en and newstest_de_en.'
)
_SYSTEMS = flags.DEFINE_list(
  'systems', ['float32', 'bfloat16', 'huggingface'], 'What to measure.'
)
_SOURCES = flags.DEFINE_integer('sources', 600, 'Sources in all.')
_SAMPLES = flags.DEFINE_integer('samples', 8, 'N, hypotheses a source.')
_LENGTH = flags.DEFINE_integer('length', 32, 'S and T, of random rows.')
_BUCKETS = flags.DEFINE_list(
  'buckets', None, 'Lengths that ours pads to; those of ScoringConfig.'
)
_TOKENS = flags.DEFINE_integer(
  'tokens_per_call', None, 'Of our calls; that of ScoringConfig.'
)
_BATCH = flags.DEFINE_integer('batch', 64, 'Pairs at a time, Hugging Face.')
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Turns of each system.')
_THREADS = flags.DEFINE_integer('threads', 2, 'Threads of Hugging Face.')

# Rewards of random weights in float32, on two implementations.
_TOLERANCE = 1e-3


class _Ids(vocabularies.Encoder):
  """Reads texts that are token ids."""

  def encode_batch(self, texts):
    return [np.array(text.split(), np.int32) for text in texts]


def prepare_ours(folder: pathlib.Path, dtype: str) -> Callable[[], float]:
  """Our scorer."""
  import dataclasses

  import jax.numpy as jnp

  from rest_jax.interop import huggingface
  from rest_jax.models import scalar
  from rest_jax.parallel import mesh as mesh_lib
  from rest_jax.rewards import learned, scoring_plan

  task = _read(folder)
  config, params = huggingface.load_policy(folder / 'model')
  decoder = {k: v for k, v in params['decoder'].items() if k != 'logits_dense'}
  decoder['value_dense'] = {'kernel': jnp.asarray(np.load(folder / 'head.npy'))}
  model = scalar.ScalarModel(dataclasses.replace(config, dtype=dtype))
  scorer = learned.Scorer(model, mesh_lib.MeshConfig())
  placed = scorer.place({**params, 'decoder': decoder})
  sources, hypotheses = _pairs(folder)
  plan = scoring_plan.plan(
    scoring_plan.ScoringConfig(**task['scoring']),
    _Ids(),
    # EOS is added again.
    [' '.join(map(str, row[:-1])) for row in sources],
    [' '.join(map(str, row[:-1])) for row in hypotheses],
  )

  def run() -> float:
    rewards, _ = scorer.score(placed, plan)
    if dtype == 'float32':
      np.save(folder / 'ours.npy', rewards)
    return float(len(rewards))

  return run


def prepare_huggingface(folder: pathlib.Path) -> Callable[[], float]:
  """`T5Model` and a linear head, pairs of similar length in a batch."""
  import torch
  import transformers

  task = _read(folder)
  torch.set_num_threads(task['threads'])
  model = transformers.T5Model.from_pretrained(
    folder / 'model', dtype=torch.float32
  ).eval()
  head = torch.from_numpy(np.load(folder / 'head.npy'))
  sources, hypotheses = _pairs(folder)
  lengths = [(len(y), len(x)) for x, y in zip(sources, hypotheses, strict=True)]
  order = sorted(range(len(lengths)), key=lengths.__getitem__)

  def run() -> float:
    rewards = np.zeros(len(order), np.float32)
    for start in range(0, len(order), task['batch']):
      rows = order[start : start + task['batch']]
      ids = torch.from_numpy(work.pad([sources[row] for row in rows]))
      targets = torch.from_numpy(work.pad([hypotheses[row] for row in rows]))
      inputs = torch.nn.functional.pad(targets[:, :-1], (1, 0))
      with torch.inference_mode():
        hidden = model(
          input_ids=ids,
          attention_mask=(ids != 0).long(),
          decoder_input_ids=inputs,
          decoder_attention_mask=(targets != 0).long(),
          use_cache=False,
        ).last_hidden_state
        last = (targets != 0).sum(1) - 1
        at_end = hidden[torch.arange(len(rows)), last]
        rewards[rows] = (at_end @ head)[:, 0].numpy()
    np.save(folder / 'huggingface.npy', rewards)
    return float(len(order))

  return run


def _pairs(folder: pathlib.Path):
  """A source and a hypothesis for each pair, those of a source together."""
  sources = work.read_rows(folder / 'sources.npz')
  hypotheses = work.read_rows(folder / 'hypotheses.npz')
  samples = len(hypotheses) // len(sources)
  return [row for row in sources for _ in range(samples)], hypotheses


def _read(folder: pathlib.Path) -> dict:
  return json.loads((folder / 'task.json').read_text(encoding='utf-8'))


def write_work(folder: pathlib.Path) -> None:
  """Writes weights, rows and the task."""
  work.random_policy(folder / 'model')
  random = np.random.default_rng(0)
  head = random.standard_normal((work.sizes()['emb_dim'], 1)) * 0.01
  np.save(folder / 'head.npy', head.astype(np.float32))
  if _NATURAL.value:
    sides = work.natural_pairs(pathlib.Path(_NATURAL.value), folder)
  else:
    sides = work.dense_pairs(_SOURCES.value, _LENGTH.value, _LENGTH.value)
  chosen = random.permutation(len(sides[0]))[: _SOURCES.value]
  hypotheses = []
  for number in chosen:
    reference = sides[1][number]
    for _ in range(_SAMPLES.value):
      row = reference.copy()
      if _NATURAL.value:
        row = row[np.append(random.random(len(row) - 1) > 0.1, True)]
      else:
        row[0] = random.integers(3, work.sizes()['vocab_size'])
      hypotheses.append(row)
  work.write_rows(folder / 'sources.npz', [sides[0][i] for i in chosen])
  work.write_rows(folder / 'hypotheses.npz', hypotheses)
  task = {
    'natural': _NATURAL.value is not None,
    'sources': _SOURCES.value,
    'samples': _SAMPLES.value,
    'batch': _BATCH.value,
    'threads': _THREADS.value,
    'scoring': _scoring(),
  }
  (folder / 'task.json').write_text(json.dumps(task), encoding='utf-8')


def _scoring() -> dict:
  """The settings of `ScoringConfig` that were given."""
  settings = {}
  if _BUCKETS.value:
    settings['length_buckets'] = [int(n) for n in _BUCKETS.value]
  if _TOKENS.value:
    settings['tokens_per_call'] = _TOKENS.value
  return settings


def _systems(folder: pathlib.Path) -> dict[str, harness.Prepare]:
  known = {
    'float32': functools.partial(prepare_ours, folder, 'float32'),
    'bfloat16': functools.partial(prepare_ours, folder, 'bfloat16'),
    'huggingface': functools.partial(prepare_huggingface, folder),
  }
  return {name: known[name] for name in _SYSTEMS.value}


def _difference(folder: pathlib.Path) -> float | None:
  """The largest difference of rewards, where both were measured."""
  files = [folder / f'{name}.npy' for name in ('ours', 'huggingface')]
  if not all(file.is_file() for file in files):
    return None
  ours, theirs = map(np.load, files)
  difference = float(np.abs(ours - theirs).max())
  if difference > _TOLERANCE:
    raise RuntimeError(
      f'rewards of float32 and huggingface must agree within {_TOLERANCE}; '
      f'they differ by {difference}.'
    )
  return difference


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
    settings = {**_read(folder), 'largest_difference': _difference(folder)}
  ratios = {}
  for ours in ('float32', 'bfloat16'):
    ratios |= harness.rate_ratio(measured, ours, 'huggingface')
  harness.report(measured, unit='pairs', ratios=ratios, settings=settings)


def _write_work(argv, folder: pathlib.Path) -> None:
  """`write_work` in another process, with this one's flags."""
  flags.FLAGS(argv)
  write_work(folder)


if __name__ == '__main__':
  app.run(main)
