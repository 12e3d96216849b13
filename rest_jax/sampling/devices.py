"""What sampling uses on each kind of device.

The one place that chooses by the kind of device, but for two operations that
are written differently for TPU and are chosen where a program is lowered
(`lax.platform_dependent`): reading blocks of logits (`categorical`) and writing
caches (`models.attention`).

Measured on CPU: everything `CPU` has, see benchmarks/README.md. Compiled ahead of
time for TPU v5e and not run: cache stages that read a part of whole caches.
Measured on no GPU, nor on TPU: shared rows, queues and compact blocks. A device
that nobody measured gets the plain loop: one body, which computes every
hypothesis and reads whole caches.
"""

import dataclasses

import jax


@dataclasses.dataclass(frozen=True, kw_only=True)
class Device:
  """What is used on a kind of device, and what it costs.

  The costs are rough, and constant so that plans do not depend on the machine.

  Attributes:
    shares_rows: a step computes the rows of `DecodeConfig.row_shares` that it
      needs, not all.
    uses_queues: buckets with many sources are decoded in a queue.
    compacts: few unfinished hypotheses continue in a compact block.
    uses_stages: loops of `DecodeConfig.cache_stages`, not of the longest alone.
    grows_caches: see `decode.Program`.
    transposes_embedding: the kernel of tied logits is made once per call, not
      once per block.
    program_seconds: time to compile a program without its loop bodies.
    body_seconds: time to compile a loop body without its decoder layers.
    layer_seconds: time to compile a decoder layer of a loop body.
    step_seconds: time of a step beside products and reads.
    flops: products of matrices in float32, FLOP per second.
    bandwidth: memory bandwidth in bytes per second.
  """

  shares_rows: bool = False
  uses_queues: bool = False
  compacts: bool = False
  uses_stages: bool = False
  grows_caches: bool = False
  transposes_embedding: bool = False
  program_seconds: float
  body_seconds: float
  layer_seconds: float
  step_seconds: float
  flops: float
  bandwidth: float


CPU = Device(
  shares_rows=True,
  uses_queues=True,
  compacts=True,
  uses_stages=True,
  # A part of a cache would be copied for the products.
  grows_caches=True,
  # A tenth of the time of a block of 256 hypotheses.
  transposes_embedding=True,
  program_seconds=2.5,
  body_seconds=0.3,
  layer_seconds=0.3,
  step_seconds=3e-4,
  flops=1e11,
  bandwidth=2e10,
)
# A step on TPU reads a part of a cache in place. Caches that grow take the memory
# of all stages together: XLA frees none of them before the end.
TPU = Device(
  uses_stages=True,
  program_seconds=5.0,
  body_seconds=1.0,
  layer_seconds=1.0,
  step_seconds=5e-5,
  flops=2e14,
  bandwidth=8e11,
)
# Guesses.
PLAIN = Device(
  program_seconds=5.0,
  body_seconds=1.0,
  layer_seconds=1.0,
  step_seconds=1e-4,
  flops=5e13,
  bandwidth=1e12,
)
_KINDS = {'cpu': CPU, 'tpu': TPU}


def of(platform: str) -> Device:
  """Returns what is used on a platform, by JAX's name of it."""
  return _KINDS.get(platform, PLAIN)


def of_mesh(mesh: jax.sharding.Mesh) -> Device:
  return of(mesh.devices.flat[0].platform)
