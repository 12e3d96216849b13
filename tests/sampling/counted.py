"""Counts what the steps of decoding compute."""

import jax

from rest_jax.sampling import categorical, decode


def rows(monkeypatch, name: str = 'draw') -> list[int]:
  """The number of rows of each step from now on; see `jax.effects_barrier`."""
  computed, draw = [], getattr(categorical, name)

  def counted(logits, *arguments, **settings):
    jax.debug.callback(lambda: computed.append(len(logits)))
    return draw(logits, *arguments, **settings)

  monkeypatch.setattr(decode.categorical, name, counted)
  return computed
