"""Weights & Biases, off by default: it is given what TensorBoard is given."""

from collections.abc import Iterator
import contextlib
import hashlib
import importlib
import pathlib

_CONFIG_FILE = 'operative_config.gin'


@contextlib.contextmanager
def wandb(project: str | None, model_dir: pathlib.Path) -> Iterator[None]:
  """Sends scalars, histograms and texts to a project while a run goes on.

  wandb's own hook reads them from the event files. The same folder is the same
  run there, so that a run that is resumed goes on.

  Args:
    project: its name; None for no tracking.
    model_dir: the folder of the run; its configuration is sent too.

  Yields:
    Nothing.

  Raises:
    ImportError: the package is not installed.
  """
  if not project:
    yield
    return
  try:
    package = importlib.import_module('wandb')
    importlib.import_module('tensorboard')  # Its hook reads with that.
  except ImportError as error:
    raise ImportError(
      '--wandb_project needs two packages: pip install wandb tensorboard '
      f'({error})'
    ) from error
  place = f'{project}\n{model_dir.resolve()}'
  config = model_dir / _CONFIG_FILE
  # Names begin with the stage's folder: bc/train/loss.
  package.tensorboard.patch(root_logdir=str(model_dir), tensorboard_x=True)
  with package.init(
    project=project,
    name=model_dir.name,
    id=hashlib.sha256(place.encode()).hexdigest()[:16],
    resume='allow',
    dir=model_dir,
    config={'gin': config.read_text('utf-8')} if config.exists() else None,
  ):
    try:
      yield
    finally:
      package.tensorboard.unpatch()
