"""Policies to and from other libraries.

`python -m rest_jax.convert --from=FOLDER --to=FOLDER --format=FORMAT`, where the
first folder is a Hugging Face T5, a T5X checkpoint or a finished stage.
"""

from collections.abc import Sequence
import dataclasses
import pathlib
import sys

from absl import app, flags

from rest_jax import gin_utils, types
from rest_jax.evaluation import results as results_lib
from rest_jax.interop import huggingface, t5x_checkpoints, tokenizer_files
from rest_jax.models import network
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh
from rest_jax.report import model_card
from rest_jax.stages import folder, imported, policies, prepare

FORMATS = ('rest_jax', 'huggingface', 't5x')

_FROM = flags.DEFINE_string(
  'from', None, 'A Hugging Face folder, a T5X checkpoint or a finished stage.'
)
_TO = flags.DEFINE_string('to', None, 'The folder to write.')
_FORMAT = flags.DEFINE_enum(
  'format', 'rest_jax', FORMATS, 'What to write; rest_jax: a BC_DIR.'
)
_NETWORK = flags.DEFINE_multi_string(
  'network',
  None,
  'The sizes of a T5X checkpoint: a gin file of gin_configs/models/.',
)
_STEP = flags.DEFINE_integer(
  'step', 0, 'The step of a T5X checkpoint that is written.', lower_bound=0
)
_RESULTS = flags.DEFINE_string(
  'results',
  None,
  'The results.json for the model card; by default that of the run.',
)
_VOCABULARY = flags.DEFINE_string(
  'vocabulary',
  None,
  'The sentencepiece model for the tokenizer of a Hugging Face folder; by '
  "default that of the run, '' for none.",
)
_REPLACE = flags.DEFINE_bool(
  'replace', False, 'Replace a folder that holds another imported policy.'
)

_EXPECTED = (ValueError, FileNotFoundError, FileExistsError, PermissionError)
# A stage's folder is at most this deep in its run.
_DEPTH = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
  """The root of a configuration that has a network alone."""

  network: network.NetworkConfig


def main(argv: list[str], overrides: list[str]) -> int:
  """Converts as the flags say; returns the exit status."""
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments: {argv[1:]}')
  if not _FROM.value or not _TO.value:
    raise app.UsageError('--from and --to must name folders')
  source, target = pathlib.Path(_FROM.value), pathlib.Path(_TO.value)
  try:
    config, params = read(source, _NETWORK.value or (), overrides)
    if _FORMAT.value == 'huggingface':
      _write_huggingface(source, target, config, params)
    elif _FORMAT.value == 't5x':
      target = t5x_checkpoints.save_policy(target, params, step=_STEP.value)
    else:
      imported.write(
        target,
        config,
        params,
        origin=str(source),
        overwrite=_REPLACE.value,
      )
  except _EXPECTED as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  print(f'wrote {target}')
  return 0


def read(
  source: pathlib.Path,
  gin_files: Sequence[str] = (),
  overrides: Sequence[str] = (),
) -> tuple[network.NetworkConfig, types.Params]:
  """Reads a policy of any form.

  Args:
    source: a Hugging Face folder, a T5X checkpoint or a finished stage.
    gin_files: the network, which a T5X checkpoint alone does not tell.
    overrides: of gin, `NAME=VALUE`.

  Returns:
    Sizes and parameters.

  Raises:
    FileNotFoundError: if it is none of these.
    ValueError: if it cannot be read.
  """
  is_t5x = t5x_checkpoints.find(source) is not None
  if (gin_files or overrides) and not is_t5x:
    raise ValueError(
      f'--network and --gin.NAME are for T5X checkpoints; {source} is none.'
    )
  if (source / folder.MANIFEST).is_file():
    config = imported.network_of(source)
    policy = policy_lib.Policy(config)
    return config, policies.load(source, policy, mesh.MeshConfig())
  if (source / huggingface.CONFIG_FILE).is_file():
    return huggingface.load_policy(source)
  if is_t5x:
    return t5x_checkpoints.load_policy(source, _sizes(gin_files, overrides))
  raise FileNotFoundError(
    f'{source} must be a Hugging Face folder ({huggingface.CONFIG_FILE}), a T5X '
    f'checkpoint ({t5x_checkpoints.CHECKPOINT_FILE}, or folders '
    f'checkpoint_<step>) or a finished stage ({folder.MANIFEST}); none is there.'
  )


def _sizes(
  gin_files: Sequence[str], overrides: Sequence[str]
) -> network.NetworkConfig:
  if not gin_files:
    raise ValueError(
      'a T5X checkpoint does not tell the sizes of its network; name them: '
      '--network=gin_configs/models/t5_1_1_base.gin.'
    )
  gin_utils.register(network.NetworkConfig)
  return gin_utils.parse_and_build(
    gin_files, ['Sizes.network=%NETWORK', *overrides], root=Sizes
  ).network


def _write_huggingface(source, target, config, params) -> None:
  path = _results_file(source)
  vocabulary = _vocabulary_file(source)
  huggingface.save_policy(target, config, params)
  if vocabulary is not None:
    tokenizer_files.write(target, vocabulary, config.vocab_size)
  else:
    print('no tokenizer is written: --vocabulary names none', file=sys.stderr)
  card = model_card.render(
    config,
    policy_lib.num_params(params),
    made=_made(source),
    results=results_lib.read(path) if path else None,
  )
  (target / 'README.md').write_text(card, encoding='utf-8')


def _vocabulary_file(source: pathlib.Path) -> pathlib.Path | None:
  if _VOCABULARY.value is not None:
    return pathlib.Path(_VOCABULARY.value) if _VOCABULARY.value else None
  for parent in source.absolute().parents[:_DEPTH]:
    path = parent / 'data' / prepare.VOCABULARY_FILE
    if path.is_file():
      return path
  return None


def _results_file(source: pathlib.Path) -> pathlib.Path | None:
  if _RESULTS.value:
    return pathlib.Path(_RESULTS.value)
  found = [
    parent / 'results.json'
    for parent in source.absolute().parents[:_DEPTH]
    if (parent / 'results.json').is_file()
  ]
  return found[0] if found else None


def _made(source: pathlib.Path) -> str:
  """Says which policy of its run a folder holds."""
  if not (source / folder.MANIFEST).is_file():
    return f'It was imported from `{source}`, and not trained.'
  manifest = folder.read_manifest(source)
  settings = manifest['settings']
  if 'improve' in settings:
    return (
      f'This is the policy after Grow step {settings["grow_step"]}, Improve step '
      f'{settings["improve_step"]} (`{source.absolute().parent.name}`).'
    )
  if 'imported' in settings:
    return f'It was imported from `{manifest["origin"]}`, and not trained.'
  return f'This is the policy of the stage `{source.absolute().name}`.'


def entry_point() -> None:
  """Splits gin's flags off and hands the rest to absl."""
  try:
    argv, overrides = gin_utils.split_flags(sys.argv)
  except ValueError as error:
    sys.exit(f'error: {error}')
  app.run(lambda rest: sys.exit(main(rest, overrides)), argv=argv)


if __name__ == '__main__':
  entry_point()
