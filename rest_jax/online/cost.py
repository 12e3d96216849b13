"""Counters of the work of online training."""

from collections.abc import Iterator
import contextlib
import dataclasses
import time
from typing import Any

from rest_jax import types
from rest_jax.models import policy as policy_lib
from rest_jax.runtime import progress


@dataclasses.dataclass
class Cost:
  """Counts the work of a training, including resumed parts.

  Tokens include EOS and exclude padding.

  Attributes:
    samples: hypotheses sampled for training.
    source_tokens: tokens of their sources, once per draw.
    paired_source_tokens: tokens of their sources, once per hypothesis.
    sampled_tokens: tokens of the hypotheses.
    trained_target_tokens: tokens of hypotheses in all updates.
    trained_source_tokens: tokens of their sources in all updates.
    peak_rss_mb: peak memory of the process so far, in MB.
  """

  samples: int = 0
  source_tokens: int = 0
  paired_source_tokens: int = 0
  sampled_tokens: int = 0
  optimizer_steps: int = 0
  trained_target_tokens: int = 0
  trained_source_tokens: int = 0
  seconds: dict[str, float] = dataclasses.field(default_factory=dict)
  peak_rss_mb: float = 0.0

  @contextlib.contextmanager
  def timed(self, activity: str) -> Iterator[None]:
    """Adds the time of a `with` block to an activity."""
    began = time.monotonic()
    yield
    self.add_seconds(activity, time.monotonic() - began)

  def add_seconds(self, activity: str, seconds: float) -> None:
    self.seconds[activity] = self.seconds.get(activity, 0.0) + seconds

  def note_memory(self) -> None:
    """Updates `peak_rss_mb`."""
    self.peak_rss_mb = max(self.peak_rss_mb, progress.peak_rss_mb())

  def report(
    self, policy_params: types.Params, value_params: types.Params
  ) -> dict[str, Any]:
    """Returns the JSON values for a manifest.

    `flops` are estimates: 2 per parameter and token in a forward pass (see
    `forward_flops`), and 3 times that in a training step, whose backward pass
    costs twice its forward pass. `sample` encodes each source once and decodes
    each token once; `credit` are the forward passes of policy, BC policy and
    critic over the samples; `train` are the updates of policy and critic.
    Padding, the reward model and evaluations are excluded; their time is part
    of `seconds`.
    """
    paired = (self.paired_source_tokens, self.sampled_tokens)
    trained = (self.trained_source_tokens, self.trained_target_tokens)
    flops = {
      'sample': forward_flops(
        policy_params, self.source_tokens, self.sampled_tokens
      ),
      'credit': 2 * forward_flops(policy_params, *paired)
      + forward_flops(value_params, *paired),
      'train': 3 * forward_flops(policy_params, *trained)
      + 3 * forward_flops(value_params, *trained),
    }
    return {
      **dataclasses.asdict(self),
      'seconds': {**self.seconds, 'total': sum(self.seconds.values())},
      'flops': {**flops, 'total': sum(flops.values())},
    }


def forward_flops(
  params: types.Params, source_tokens: int, target_tokens: int
) -> int:
  """Estimates the FLOPs of a forward pass.

  2 (P_encoder S + P_decoder T): one multiplication and addition per matrix
  parameter and token. The products of attention itself, which depend on
  lengths, are left out, and keys and values of the source count once per target
  token. Embeddings count if logits are computed from them.

  Source: Kaplan et al., Scaling Laws for Neural Language Models (arXiv
  2001.08361), section 2.1.
  """
  decoder = policy_lib.num_params(params['decoder'])
  if not {'logits_dense', 'value_dense'} & set(params['decoder']):
    decoder += policy_lib.num_params(params['token_embedder'])
  encoder = policy_lib.num_params(params['encoder'])
  return 2 * (encoder * source_tokens + decoder * target_tokens)
