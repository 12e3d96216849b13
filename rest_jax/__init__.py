"""Reinforced Self-Training (ReST) for encoder-decoder models in JAX.

Every class that gin files may name is here under the same name, such as
`rest_jax.Task` and `rest_jax.BC`, with `rest_jax.Run` and `rest_jax.SampleStore`;
docs/api.md shows their use. They are imported when they are first asked for.
"""

from typing import Any

__version__ = '0.2.0.dev0'


def __getattr__(name: str) -> Any:
  # Modules, which are in lower case, import each other through here too.
  found = _classes().get(name) if name[:1].isupper() else None
  if found is None:
    raise AttributeError(
      f'rest_jax has no class {name!r}; registry.CLASSES lists them.'
    )
  return found


def __dir__() -> list[str]:
  return sorted({*globals(), *_classes()})


def _classes() -> dict[str, type]:
  from rest_jax import experiment_run as run_lib
  from rest_jax.config import registry
  from rest_jax.data import sample_store

  public = (*registry.CLASSES, run_lib.Run, sample_store.SampleStore)
  return {cls.__name__: cls for cls in public}
