"""The README.md of an exported policy: its origin, sizes and results."""

from rest_jax.evaluation import results as results_lib
from rest_jax.models import network
from rest_jax.report.render import result_tables

_HEADER = """---
library_name: transformers
tags:
- rest_jax
- reinforced-self-training
---
"""
_INTRODUCTION = (
  'An encoder-decoder trained by Reinforced Self-Training\n'
  '([ReST, arXiv 2308.08998](https://arxiv.org/abs/2308.08998)) with rest_jax.'
)


def render(
  config: network.NetworkConfig,
  num_params: int,
  *,
  made: str,
  results: results_lib.Results | None,
) -> str:
  """Writes a model card in Markdown; `made` says where the policy is from."""
  name = results.task if results else 'Policy'
  measured = 'Not measured.'
  if results:
    text = result_tables.render(results.shown)
    measured = f'All policies of the run:\n\n```\n{text}\n```'
  sizes = (
    f'{num_params:,} parameters: {config.num_encoder_layers} + '
    f'{config.num_decoder_layers} layers of width {config.emb_dim}, '
    f'feed-forward {config.mlp_dim}, {config.num_heads} heads, vocabulary '
    f'{config.vocab_size:,}.'
  )
  return (
    f'{_HEADER}\n# {name}\n\n{_INTRODUCTION}\n\n{made}\n\n{sizes}\n\n'
    f'## Results\n\n{measured}\n'
  )
