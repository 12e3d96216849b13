r"""N samples for each source: ours, Hugging Face `generate`, CTranslate2.

  python -m benchmarks.sampling --fixed_length
  python -m benchmarks.sampling --model_dir=runs/de_en_small
  python -m benchmarks.sampling --mean_length=25 \
    --network=gin_configs/models/opus_mt_base.gin

All systems have the same weights, sample the whole vocabulary at the same
temperature, and start from token ids. With `--fixed_length` the weights are
random and nothing ends early. With `--model_dir` the BC policy of a finished run
samples for its own sources, and with `--mean_length` random weights end each
hypothesis with a constant probability; there only the tokens of the hypotheses
count, EOS included.
Ours also gives every hypothesis its log-probability; the others do not.
"""

from collections.abc import Callable
import functools
import json
import pathlib
import sys
import tempfile

from absl import app, flags
import numpy as np

from benchmarks import harness
from benchmarks import work as peer_work

_MODEL_DIR = flags.DEFINE_string(
  'model_dir', None, 'A run with finished data and bc, for natural lengths.'
)
_FIXED_LENGTH = flags.DEFINE_bool(
  'fixed_length', False, 'Random weights; all hypotheses are of full length.'
)
_MEAN_LENGTH = flags.DEFINE_float(
  'mean_length',
  None,
  'Random weights that end after so many tokens on average.',
)
_NETWORK = flags.DEFINE_string(
  'network', None, 'Gin file of the random network; default: IWSLT.'
)
_SYSTEMS = flags.DEFINE_list(
  'systems',
  [
    'float32',
    'bfloat16',
    'huggingface',
    'ctranslate2_float32',
    'ctranslate2_int8',
  ],
  'What to measure.',
)
_SOURCES = flags.DEFINE_integer('sources', None, 'Sources in all.')
_BLOCK = flags.DEFINE_integer('block', 16, 'B, sources at a time.')
_SAMPLES = flags.DEFINE_integer('samples', 16, 'N, samples a source.')
_SOURCE_LENGTH = flags.DEFINE_integer(
  'source_length', 32, 'S, of random sources.'
)
_TARGET_LENGTH = flags.DEFINE_integer('target_length', None, 'T at most.')
_TEMPERATURE = flags.DEFINE_float('temperature', 0.8, 'Of sampling.')
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Turns of each system.')
_THREADS = flags.DEFINE_integer('threads', 2, 'Threads of the CPU systems.')
_SWEEP = flags.DEFINE_bool(
  'sweep', False, 'Ours alone over B, N, S and T, with --fixed_length.'
)


def prepare_ours(work: pathlib.Path, dtype: str) -> Callable[[], float]:
  """Our sampler, from token ids to hypotheses on the host."""
  import jax

  from rest_jax.data import ragged
  from rest_jax.interop import huggingface
  from rest_jax.models import policy as policy_lib
  from rest_jax.parallel import mesh as mesh_lib
  from rest_jax.sampling import sampler as sampler_lib

  task = _read(work)
  config, params = huggingface.load_policy(work / 'model')
  policy = policy_lib.Policy(config)
  sources = ragged.Ragged.from_lists(task['sources'])
  longest = max(map(len, task['sources']))
  sampler = sampler_lib.Sampler(
    policy,
    sampler_lib.DecodeConfig(
      num_samples_per_source=task['samples'],
      temperature=task['temperature'],
      max_target_length=task['target_length'],
      block_sources=task['block'],
      source_length_buckets=_buckets(longest),
      weights_dtype=dtype,
    ),
    mesh_lib.MeshConfig().build(),
  )
  params = jax.device_put(params)

  def run() -> float:
    block = sampler.sample_all(
      params, sources, np.arange(len(sources)), seed=0, grow_step=1
    )
    return float(sum(len(y) for samples in block.tokens for y in samples))

  return run


def prepare_huggingface(work: pathlib.Path) -> Callable[[], float]:
  """`generate` with `num_return_sequences`, in batches of similar length."""
  import torch
  import transformers

  task = _read(work)
  torch.set_num_threads(task['threads'])
  model = transformers.AutoModelForSeq2SeqLM.from_pretrained(
    work / 'model', dtype=torch.float32
  ).eval()
  pad = task['pad']
  options = dict(
    do_sample=True,
    num_return_sequences=task['samples'],
    temperature=task['temperature'],
    top_k=0,
    top_p=1.0,
    max_new_tokens=task['target_length'],
  )
  if task['fixed_length']:
    options['min_new_tokens'] = task['target_length']

  def run() -> float:
    torch.manual_seed(0)
    tokens = 0
    for sources in _batches(task):
      ids = np.full((len(sources), max(map(len, sources))), pad, np.int64)
      for row, source in enumerate(sources):
        ids[row, : len(source)] = source
      with torch.inference_mode():
        outputs = model.generate(
          input_ids=torch.from_numpy(ids),
          attention_mask=torch.from_numpy(ids != pad).long(),
          **options,
        )
      tokens += int((outputs[:, 1:] != pad).sum())
    return float(tokens)

  return run


def prepare_ctranslate2(work: pathlib.Path, kind: str) -> Callable[[], float]:
  """`translate_batch` with `num_hypotheses` and `sampling_topk=0`."""
  import ctranslate2

  task = _read(work)
  translator = ctranslate2.Translator(
    str(work / f'ctranslate2_{kind}'),
    device='cpu',
    compute_type=kind,
    inter_threads=1,
    intra_threads=task['threads'],
  )
  options = dict(
    beam_size=1,
    num_hypotheses=task['samples'],
    sampling_topk=0,
    sampling_temperature=task['temperature'],
    max_decoding_length=task['target_length'],
    max_batch_size=task['block'],
    batch_type='examples',
  )
  if task['fixed_length']:
    options['min_decoding_length'] = task['target_length']
  sources = [[f'p{token}' for token in source] for source in task['sources']]

  def run() -> float:
    results = translator.translate_batch(sources, **options)
    # EOS is not among the pieces of a hypothesis, but it was computed.
    return float(
      sum(
        min(len(y) + 1, task['target_length'])
        for result in results
        for y in result.hypotheses
      )
    )

  return run


def _batches(task) -> list[list[list[int]]]:
  order = sorted(task['sources'], key=len, reverse=True)
  size = task['block']
  return [order[i : i + size] for i in range(0, len(order), size)]


def _buckets(longest: int) -> tuple[int, ...]:
  lengths = [16, 32, 64]
  return (*(n for n in lengths if n < longest), longest)


def _read(work: pathlib.Path) -> dict:
  return json.loads((work / 'task.json').read_text(encoding='utf-8'))


def write_work(work: pathlib.Path, **overrides) -> dict:
  """Writes weights in all formats and the task; returns the task."""
  task = {
    'samples': _SAMPLES.value,
    'block': _BLOCK.value,
    'temperature': _TEMPERATURE.value,
    'fixed_length': _FIXED_LENGTH.value,
    'threads': _THREADS.value,
    **overrides,
  }
  if _MODEL_DIR.value is None:
    longest = 128 if _MEAN_LENGTH.value else 64
    task |= {'target_length': overrides.get('target_length', longest)}
    config = peer_work.random_policy(
      work / 'model',
      _NETWORK.value,
      _MEAN_LENGTH.value,
      task['temperature'],
    )
    random = np.random.default_rng(0)
    shape = (
      _SOURCES.value or task['block'],
      overrides.get('source_length', _SOURCE_LENGTH.value),
    )
    # The first and the last few ids may be special.
    sources = random.integers(3, config.vocab_size - 3, shape)
    sources[:, -1] = config.special_ids.eos
    task['sources'] = sources.tolist()
  else:
    task |= {'target_length': 128}
    config, task['sources'] = _trained_policy(
      work / 'model', _SOURCES.value or 256
    )
  task |= {'pad': config.special_ids.pad, 'eos': config.special_ids.eos}
  if _TARGET_LENGTH.value:
    task['target_length'] = _TARGET_LENGTH.value
  (work / 'task.json').write_text(json.dumps(task), encoding='utf-8')
  return task


def _trained_policy(directory: pathlib.Path, num_sources: int):
  """The BC policy of a run; returns its network, and sources of test."""
  from rest_jax.data import task as task_lib
  from rest_jax.interop import huggingface

  policy, params, data = peer_work.bc_policy(pathlib.Path(_MODEL_DIR.value))
  huggingface.save_policy(directory, policy.config, params)
  pairs = data.pairs(task_lib.TEST)
  rows = range(min(num_sources, len(pairs)))
  return policy.config, [pairs.source_tokens[row].tolist() for row in rows]


def _convert_for_ctranslate2(work: pathlib.Path, kind: str) -> None:
  """Writes CTranslate2's model; run in a process that is thrown away."""
  from ctranslate2.converters import transformers as converters
  import transformers

  task = _read(work)
  model = transformers.AutoModelForSeq2SeqLM.from_pretrained(work / 'model')
  loaders = {'t5': converters.T5Loader, 'marian': converters.MarianMTLoader}
  loader = loaders[model.config.model_type]()
  spec = loader.get_model_spec(model)
  # Marian's converter leaves out PAD, the last token, and starts from zeros.
  size = spec.decoder.embeddings.weight.shape[0]
  loader.set_vocabulary(spec, [f'p{token}' for token in range(size)])
  spec.config.bos_token = f'p{task["pad"]}'
  spec.config.eos_token = f'p{task["eos"]}'
  spec.config.unk_token = 'p2'
  spec.config.decoder_start_token = f'p{min(task["pad"], size - 1)}'
  # Sources carry their EOS already.
  spec.config.add_source_eos = False
  spec.validate()
  spec.optimize(quantization=kind)
  directory = work / f'ctranslate2_{kind}'
  directory.mkdir()
  spec.save(str(directory))


def _systems(work: pathlib.Path) -> dict[str, harness.Prepare]:
  known = {
    'float32': functools.partial(prepare_ours, work, 'float32'),
    'bfloat16': functools.partial(prepare_ours, work, 'bfloat16'),
    'huggingface': functools.partial(prepare_huggingface, work),
    'ctranslate2_float32': functools.partial(
      prepare_ctranslate2, work, 'float32'
    ),
    'ctranslate2_int8': functools.partial(prepare_ctranslate2, work, 'int8'),
  }
  for name in _SYSTEMS.value:
    if name.startswith('ctranslate2_'):
      _in_process(
        _convert_for_ctranslate2, work, name.removeprefix('ctranslate2_')
      )
  return {name: known[name] for name in _SYSTEMS.value}


def _in_process(function: Callable, *arguments) -> None:
  import multiprocessing

  process = multiprocessing.get_context('spawn').Process(
    target=function, args=arguments
  )
  process.start()
  process.join()
  if process.exitcode:
    raise RuntimeError(f'{function} failed')


def _ratios(measured) -> dict[str, float]:
  pairs = [
    ('float32', 'ctranslate2_float32'),
    ('float32', 'huggingface'),
    ('bfloat16', 'ctranslate2_float32'),
  ]
  ratios = {}
  for ours, theirs in pairs:
    ratios |= harness.rate_ratio(measured, ours, theirs)
  ours = [name for name in ('float32', 'bfloat16') if name in measured]
  if ours:
    fastest = max(ours, key=lambda name: measured[name].rate)
    for ratio in harness.rate_ratio(
      measured, fastest, 'ctranslate2_int8'
    ).values():
      ratios['fastest_vs_ctranslate2_int8'] = ratio
  return ratios


def _sweep() -> None:
  """How the cost of a token grows with B, N, S and T."""
  base = {'block': 16, 'samples': 16, 'source_length': 32, 'target_length': 64}
  axes = {
    'samples': (1, 4, 16, 64),
    'block': (4, 16, 32),
    'source_length': (16, 32, 64, 128),
    'target_length': (32, 64, 128),
  }
  settings = [base]
  for name, values in axes.items():
    settings += [{**base, name: value} for value in values]
  for setting in settings:
    with tempfile.TemporaryDirectory() as folder:
      work = pathlib.Path(folder)
      write_work(work, **setting)
      measured = harness.measure(
        {'float32': functools.partial(prepare_ours, work, 'float32')},
        num_rounds=_ROUNDS.value,
      )
    harness.report(measured, unit='tokens', ratios={}, settings=setting)


def main(argv) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments: {argv[1:]}')
  given = (_FIXED_LENGTH.value, _MODEL_DIR.value, _MEAN_LENGTH.value)
  if sum(bool(value) for value in given) != 1:
    raise app.UsageError(
      'give one of --fixed_length, --model_dir and --mean_length'
    )
  if _SWEEP.value and not _FIXED_LENGTH.value:
    raise app.UsageError('--sweep needs --fixed_length')
  if _SWEEP.value:
    _sweep()
    return
  with tempfile.TemporaryDirectory() as folder:
    work = pathlib.Path(folder)
    _in_process(functools.partial(_write_work, sys.argv), work)
    task = _read(work)
    measured = harness.measure(_systems(work), num_rounds=_ROUNDS.value)
  harness.report(
    measured,
    unit='tokens',
    ratios=_ratios(measured),
    settings={**task, 'sources': len(task['sources'])},
  )


def _write_work(argv, work: pathlib.Path) -> None:
  """`write_work` in another process, with this one's flags."""
  flags.FLAGS(argv)
  write_work(work)


if __name__ == '__main__':
  app.run(main)
