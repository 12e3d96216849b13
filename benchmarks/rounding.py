r"""What rounding a policy's weights to bfloat16 does to its samples.

  python -m benchmarks.rounding --model_dir=runs/de_en_small

The BC policy of a run samples for sources of its test split twice from the same
uniform numbers, with float32 weights and with those that
`DecodeConfig.weights_dtype='bfloat16'` rounds. Prints a JSON line of corpus BLEU and
chrF of greedy outputs, one of the samples' mean sentence chrF, and one of how they
differ: the share of equal outputs, the log-probabilities of equal samples, and the
difference of chrF with a 95 % bootstrap interval over sources.
"""

import json
import pathlib

from absl import app, flags
import numpy as np
import sacrebleu

from benchmarks import work
from rest_jax.data import ragged
from rest_jax.data import task as task_lib
from rest_jax.evaluation import metrics
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.sampling import sampler as sampler_lib

_MODEL_DIR = flags.DEFINE_string(
  'model_dir', None, 'A run with finished data and bc.', required=True
)
_SOURCES = flags.DEFINE_integer('sources', 500, 'Sources, at most.')
_SAMPLES = flags.DEFINE_integer('samples', 8, 'N, samples a source.')
_TEMPERATURE = flags.DEFINE_float('temperature', 0.8, 'Of samples.')
_TARGET_LENGTH = flags.DEFINE_integer('target_length', 48, 'T at most.')


def main(argv) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments: {argv[1:]}')
  policy, params, data = work.bc_policy(pathlib.Path(_MODEL_DIR.value))
  pairs = data.pairs(task_lib.TEST)
  count = min(_SOURCES.value, len(pairs))
  sources = ragged.Ragged.from_lists(
    [pairs.source_tokens[row].tolist() for row in range(count)]
  )
  references = [
    data.vocabulary.decode(pairs.reference_tokens[row]) for row in range(count)
  ]

  def outputs(weights_dtype, samples, temperature):
    config = sampler_lib.DecodeConfig(
      num_samples_per_source=samples,
      temperature=temperature,
      max_target_length=_TARGET_LENGTH.value,
      source_length_buckets=(int(sources.lengths.max()),),
      cache_stages=(_TARGET_LENGTH.value,),
      # Rows are computed, and so rounded, alike.
      row_shares=(),
      queue_sources=None,
      weights_dtype=weights_dtype,
    )
    return sampler_lib.Sampler(
      policy,
      config,
      mesh_lib.MeshConfig().build(),
      vocabulary_size=data.vocabulary.size,
    ).sample_all(params, sources, np.arange(count), seed=0, grow_step=1)

  def texts(block):
    return [data.vocabulary.decode_batch(tokens) for tokens in block.tokens]

  greedy, drawn, chrf = {}, {}, {}
  for dtype in ('float32', 'bfloat16'):
    greedy[dtype] = outputs(dtype, 1, 0.0)
    first = [samples[0] for samples in texts(greedy[dtype])]
    drawn[dtype] = outputs(dtype, _SAMPLES.value, _TEMPERATURE.value)
    chrf[dtype] = np.array(
      [
        np.mean([sacrebleu.sentence_chrf(y, [x]).score for y in samples])
        for x, samples in zip(references, texts(drawn[dtype]), strict=True)
      ]
    )
    line = {
      'weights': dtype,
      'greedy_bleu': sacrebleu.corpus_bleu(first, [references]).score,
      'greedy_chrf': sacrebleu.corpus_chrf(first, [references]).score,
      'samples_chrf': float(chrf[dtype].mean()),
      'samples_log_prob': float(drawn[dtype].log_probs.mean()),
    }
    print(json.dumps(line), flush=True)
  same = equal_outputs(drawn['float32'], drawn['bfloat16'])
  moved = np.abs(drawn['bfloat16'].log_probs - drawn['float32'].log_probs)[same]
  difference = chrf['bfloat16'] - chrf['float32']
  line = {
    'greedy_equal': float(
      equal_outputs(greedy['float32'], greedy['bfloat16']).mean()
    ),
    'samples_equal': float(same.mean()),
    # Of none there is none.
    'equal_samples_log_prob_moved_mean': float(moved.mean())
    if moved.size
    else None,
    'equal_samples_log_prob_moved_most': float(moved.max())
    if moved.size
    else None,
    'samples_chrf_difference': float(difference.mean()),
    'interval': metrics.bootstrap_interval(np.mean, difference),
  }
  print(json.dumps(line))


def equal_outputs(
  one: sampler_lib.SampleBlock, other: sampler_lib.SampleBlock
) -> np.ndarray:
  """Which hypotheses have the same tokens: [sources, N]."""
  return np.array(
    [
      [np.array_equal(x, y) for x, y in zip(these, those, strict=True)]
      for these, those in zip(one.tokens, other.tokens, strict=True)
    ]
  )


if __name__ == '__main__':
  app.run(main)
