"""Whether memory grows in a long Grow and in a long training, at tiny size.

  python -m benchmarks.soak --blocks=1000 --steps=10000

Prints a JSON line for each: resident memory at the begin and at the end of the
second half, in MB, and its slope there by least squares, in KB a block or a step.
The first half is not counted: allocators and caches fill.
"""

from collections.abc import Iterator
import json
import pathlib
import tempfile

from absl import app, flags
import jax
import numpy as np

from rest_jax.data import ragged, sample_store
from rest_jax.losses import bc
from rest_jax.models import network
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib
from rest_jax.sampling import sampler as sampler_lib
from rest_jax.training import loader, optimizers, trainer

_BLOCKS = flags.DEFINE_integer('blocks', 1_000, 'Blocks that are sampled.')
_STEPS = flags.DEFINE_integer('steps', 10_000, 'Steps that are trained.')
_POINTS = flags.DEFINE_integer('points', 40, 'Times that memory is read.')

_LENGTH, _VOCAB, _BLOCK = 8, 32, 4
_MESH = mesh_lib.MeshConfig()


def make_policy() -> policy_lib.Policy:
  return policy_lib.Policy(
    network.NetworkConfig(
      vocab_size=_VOCAB,
      emb_dim=16,
      num_heads=2,
      head_dim=8,
      num_encoder_layers=1,
      num_decoder_layers=1,
      mlp_dim=32,
    )
  )


def make_tokens(num_rows: int) -> np.ndarray:
  """Random rows with EOS, int32 [num_rows, _LENGTH]."""
  tokens = np.random.default_rng(0).integers(3, _VOCAB, (num_rows, _LENGTH))
  tokens[:, -1] = 1
  return tokens.astype(np.int32)


def resident_mb() -> float:
  """Memory of this process that is in use now."""
  status = pathlib.Path('/proc/self/status').read_text(encoding='utf-8')
  [line] = [line for line in status.splitlines() if line.startswith('VmRSS')]
  return int(line.split()[1]) / 1024


def grow(num_blocks: int, every: int) -> Iterator[tuple[int, float]]:
  """Samples blocks into shards; yields blocks done and memory."""
  policy = make_policy()
  params = policy.init(jax.random.key(0))
  sampler = sampler_lib.Sampler(
    policy,
    sampler_lib.DecodeConfig(
      num_samples_per_source=4,
      block_sources=_BLOCK,
      max_target_length=_LENGTH,
    ),
    _MESH.build(),
  )
  sources = ragged.Ragged.from_lists(list(make_tokens(64)))
  with tempfile.TemporaryDirectory() as directory:
    for block in range(num_blocks):
      drawn = sampler.sample_all(
        params,
        sources,
        block * _BLOCK + np.arange(_BLOCK),
        rows=(block * _BLOCK + np.arange(_BLOCK)) % 64,
        seed=0,
        grow_step=1,
      )
      samples = drawn.log_probs.shape[1]
      sample_store.write_shard(
        directory,
        block,
        num_blocks,
        sample_store.SampleRows(
          source_id=np.repeat(drawn.source_ids, samples),
          sample_id=np.tile(np.arange(samples, dtype=np.int32), _BLOCK),
          tokens=[row for rows in drawn.tokens for row in rows],
          log_prob=drawn.log_probs.reshape(-1),
          finished=drawn.finished.reshape(-1),
        ),
        _VOCAB,
      )
      if (block + 1) % every == 0:
        yield block + 1, resident_mb()


def train(num_steps: int, every: int) -> list[tuple[int, float]]:
  """Trains a policy; returns steps done and memory, read as it is evaluated."""
  policy = make_policy()
  tokens = make_tokens(256)
  points = []

  def evaluate(params, step: int) -> dict[str, float]:
    del params
    points.append((step, resident_mb()))
    return {'objective': float(step)}

  config = trainer.TrainerConfig(
    optimizer=optimizers.OptimizerConfig(learning_rate=1e-3),
    max_steps=num_steps,
    evaluate_every=every,
    tokens_per_batch=16 * _LENGTH,
    buckets=(_LENGTH,),
  )
  lengths = np.full(len(tokens), _LENGTH, np.int32)
  batches = config.batches(
    loader.Rows(
      source_lengths=lengths,
      target_lengths=lengths,
      load=lambda rows, s, t: loader.decoder_batch(tokens[rows], tokens[rows]),
    )
  )
  with tempfile.TemporaryDirectory() as directory:
    trainer.train(
      config,
      trainer.Learner(
        model=policy, params=policy.init(jax.random.key(0)), loss=bc.BC()
      ),
      batches=batches,
      mesh_config=_MESH,
      directory=directory,
      evaluate_fn=evaluate,
      description='soak',
    )
  return points


def slope(points: list[tuple[int, float]]) -> dict[str, float]:
  """Describes the second half of some points.

  Args:
    points: number of blocks or steps, and MB.

  Returns:
    first_mb and last_mb of it; kb_each: least squares.
  """
  half = np.asarray(points[len(points) // 2 :])
  return {
    'first_mb': round(half[0, 1], 1),
    'last_mb': round(half[-1, 1], 1),
    'kb_each': round(1024 * np.polyfit(half[:, 0], half[:, 1], 1)[0], 3),
  }


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments: {argv[1:]}')
  for what, number, run in (
    ('blocks', _BLOCKS.value, grow),
    ('steps', _STEPS.value, train),
  ):
    if number:
      every = max(number // _POINTS.value, 1)
      found = slope(list(run(number, every)))
      print(json.dumps({what: number, **found}), flush=True)


if __name__ == '__main__':
  app.run(main)
