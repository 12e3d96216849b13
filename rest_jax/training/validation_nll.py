"""The negative log-likelihood of validation pairs."""

import math
from typing import Any

import jax
import numpy as np

from rest_jax.parallel import mesh as mesh_lib
from rest_jax.training import loader, loop


def evaluation(
  model: Any, batches: loader.BucketedBatches, mesh_config: mesh_lib.MeshConfig
) -> loop.EvaluateFn:
  """Returns an evaluation by validation NLL; its objective is minus that.

  Args:
    batches: of the validation pairs; each is read once.

  Returns:
    A function (params, step) -> {'objective', 'nll', 'perplexity'}, nll in nats
    per token.
  """

  @jax.jit
  def sums(params, batch):
    weights = batch['decoder_loss_weights']
    log_probs = model.log_probs(params, batch)
    return (log_probs * weights).sum(), weights.sum()

  def evaluate(params, step):
    del step
    mesh = mesh_config.build()
    totals = [
      sums(params, mesh_lib.put_batch(batches[i], mesh))
      for i in range(batches.batches_per_epoch)
    ]
    sums_of = np.asarray(jax.device_get(totals), np.float64)
    log_prob, count = sums_of.sum(axis=0)
    nll = -float(log_prob / count)
    return {'objective': -nll, 'nll': nll, 'perplexity': math.exp(min(nll, 80))}

  return evaluate
