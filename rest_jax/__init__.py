"""Reinforced Self-Training (ReST) for encoder-decoder models in JAX.

`rest_jax.run` trains and evaluates on your own text in one call. Every class that
gin files may name is here under the same name, such as `rest_jax.Task` and
`rest_jax.BC`, with `rest_jax.Run` and `rest_jax.SampleStore`; docs/api.md shows
their use. They are imported when they are first asked for.
"""

from typing import TYPE_CHECKING, Any

__version__ = '0.2.0.dev0'

# What type checkers and editors see; `__getattr__` imports the same.
if TYPE_CHECKING:
  from rest_jax.config.registry import *  # noqa: F403
  from rest_jax.data.sample_store import SampleStore as SampleStore
  from rest_jax.experiment_run import Run as Run
  from rest_jax.quickstart import Result as Result
  from rest_jax.quickstart import run as run


def __getattr__(name: str) -> Any:
  if name == 'run':
    from rest_jax import quickstart

    return quickstart.run
  # Modules, which are in lower case, import each other through here too.
  found = _classes().get(name) if name[:1].isupper() else None
  if found is None:
    raise AttributeError(
      f'rest_jax has no class {name!r}; config/registry.py lists them.'
    )
  return found


def __dir__() -> list[str]:
  return sorted({*globals(), 'run', *_classes()})


def _classes() -> dict[str, type]:
  from rest_jax import experiment_run, quickstart
  from rest_jax.config import registry
  from rest_jax.data import sample_store

  public = (
    *registry.CLASSES,
    experiment_run.Run,
    quickstart.Result,
    sample_store.SampleStore,
  )
  return {cls.__name__: cls for cls in public}
