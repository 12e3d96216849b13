"""`rest-jax convert`: converts policies to and from other libraries.

`rest-jax convert --from=FOLDER --to=FOLDER --format=FORMAT` reads a Hugging
Face folder, a T5X checkpoint, a finished stage, or a model on the Hugging Face
Hub by its name. `rest-jax convert --check=FOLDER` compares the outputs of a
checkpoint with transformers.
"""

from collections.abc import Sequence
import json
import logging as std_logging
import pathlib
import re
import sys

from absl import app, flags, logging

from rest_jax import types
from rest_jax.cli import check_checkpoint
from rest_jax.config import command, network_files
from rest_jax.data import vocabularies
from rest_jax.evaluation import results as results_lib
from rest_jax.interop import (
  hub,
  huggingface,
  t5x_checkpoints,
  tokenizer_files,
)
from rest_jax.models import network
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh
from rest_jax.report.render import model_card
from rest_jax.runtime import terminal
from rest_jax.stages import (
  folder,
  imported,
  policies,
  vocabulary_record,
)
from rest_jax.storage import files

FORMATS = ('rest_jax', 'huggingface', 't5x')

_FROM = flags.DEFINE_string(
  'from',
  None,
  'Hugging Face folder, T5X checkpoint, finished stage, or name of a model on '
  'the Hugging Face Hub (with huggingface_hub and internet access).',
)
_TO = flags.DEFINE_string('to', None, 'Folder to write.')
_FORMAT = flags.DEFINE_enum(
  'format', 'rest_jax', FORMATS, 'Format to write; rest_jax: for BC_DIR.'
)
_NETWORK = flags.DEFINE_multi_string(
  'network',
  None,
  'For a T5X checkpoint: gin file with its sizes, of gin_configs/models/.',
)
_STEP = flags.DEFINE_integer(
  'step', 0, 'Step of the T5X checkpoint to write.', lower_bound=0
)
_RESULTS = flags.DEFINE_string(
  'results',
  None,
  'results.json for the model card. Default: that of the run.',
)
_VOCABULARY = flags.DEFINE_string(
  'vocabulary',
  None,
  'SentencePiece model that the policy was trained with. Default: the file '
  "beside the weights, or that of the run. With --format=huggingface, '' writes "
  'no tokenizer.',
)
_CHECK = flags.DEFINE_multi_string(
  'check',
  None,
  'Hugging Face folder of any supported family. Writes nothing: compares '
  'logits and greedy outputs with its io.npz or, if installed, with '
  'transformers. Repeat the flag for several folders.',
)
_REPLACE = flags.DEFINE_bool(
  'replace', False, 'Replace the policy in the folder.'
)

_EXPECTED = (
  ValueError,
  FileNotFoundError,
  FileExistsError,
  PermissionError,
  files.DiskError,
)
# Maximum depth of a stage's folder below the folder of its run.
_DEPTH = 3


def main(argv: list[str], overrides: list[str]) -> int:
  """Executes the conversion of the flags; returns the exit status."""
  if _CHECK.value:
    return _check([*_CHECK.value, *argv[1:]])
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments: {argv[1:]}')
  if not _FROM.value or not _TO.value:
    raise app.UsageError('--from and --to must name folders')
  source, target = pathlib.Path(_FROM.value), pathlib.Path(_TO.value)
  write = {
    'rest_jax': _write_stage,
    'huggingface': _write_huggingface,
    't5x': _write_t5x,
  }[_FORMAT.value]
  try:
    if _is_hub_name(source):
      source = hub.fetch(str(source))
    written = write(source, target, overrides)
  except _EXPECTED as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  print(f'wrote {written}')
  if _FORMAT.value == 'rest_jax':
    print(_use(written))
  return 0


def _is_hub_name(source: pathlib.Path) -> bool:
  is_name = re.fullmatch(r'[\w.-]+/[\w.-]+', str(source)) is not None
  # If the parent folder exists, this is a path with a typing error.
  return is_name and not source.exists() and not source.parent.exists()


def _use(directory: pathlib.Path) -> str:
  """Returns the arguments of a run that starts from an imported policy."""
  policy = directory / imported.POLICY_GIN
  arguments = [
    '--model_dir=runs/NAME',
    '--gin_file=gin_configs/experiments/EXPERIMENT.gin',
    f'--gin_file={policy}',
  ]
  hint = ''
  vocabulary = vocabularies.Vocabulary(vocabularies.stored(directory))
  if vocabulary.needs_languages:
    arguments += ['--gin.SOURCE_LANGUAGE=CODE', '--gin.TARGET_LANGUAGE=CODE']
    hint = f' (the codes are listed in {policy})'
  return (
    f'BC and ReST from it: rest-jax run {" ".join(arguments)}{hint}\n'
    f'ReST without BC: the same with --gin.BC_DIR={directory}'
  )


def _check(folders: Sequence[str]) -> int:
  """Compares each folder with transformers; returns 1 if outputs differ."""
  status = 0
  for name in folders:
    try:
      comparison = check_checkpoint.compare(pathlib.Path(name))
    except _EXPECTED as error:
      print(f'error: {name}: {error}', file=sys.stderr)
      status = 1
      continue
    print(f'{name}: {comparison}')
    if not comparison.is_equal:
      status = 1
  return status


def _write_stage(source, target, overrides) -> pathlib.Path:
  check(source)
  vocabulary = vocabulary_of(source, _VOCABULARY.value or None)
  if vocabulary is None:
    raise FileNotFoundError(
      f'{source} does not name the vocabulary of its policy. '
      'Set it: --vocabulary=/path/to/spiece.model.'
    )
  # Checked before the weights are read.
  size = vocabularies.Vocabulary(vocabulary).size
  added = tokenizer_files.added_tokens(source, size)
  if added:
    print(
      f'warning: {source} adds {len(added)} tokens to its SentencePiece model '
      f'({", ".join(added[:3])}), which are ignored: such text is split into '
      'smaller pieces',
      file=sys.stderr,
    )
  if _is_huggingface(source):
    imported.check_vocabulary(vocabulary, huggingface.check_policy(source))
  config, params = read(source, _NETWORK.value or (), overrides)
  return imported.write(
    target,
    config,
    params,
    vocabulary=vocabulary,
    origin=str(source),
    overwrite=_REPLACE.value,
  )


def _is_huggingface(source: pathlib.Path) -> bool:
  is_stage = folder.is_finished(source)
  return not is_stage and (source / huggingface.CONFIG_FILE).is_file()


def _write_t5x(source, target, overrides) -> pathlib.Path:
  _, params = read(source, _NETWORK.value or (), overrides)
  return t5x_checkpoints.save_policy(target, params, step=_STEP.value)


def _write_huggingface(source, target, overrides) -> pathlib.Path:
  check(source)
  if _VOCABULARY.value == '':
    vocabulary = None
  else:
    vocabulary = vocabulary_of(source, _VOCABULARY.value, is_needed=False)
  is_policy = (target / huggingface.CONFIG_FILE).is_file()
  if not (_REPLACE.value and is_policy):
    files.check_new_folder('--to', target)
  path = _results_file(source)
  results = results_lib.read(path) if path else None
  config, params = read(source, _NETWORK.value or (), overrides)
  if vocabulary is not None:
    tokenizer_files.check(vocabulary, config.vocab_size)
  card = model_card.render(
    config,
    policy_lib.num_params(params),
    made=_origin(source),
    results=results,
  )
  with files.atomic_folder(target, overwrite=_REPLACE.value) as temporary:
    huggingface.save_policy(temporary, config, params)
    if vocabulary is not None:
      languages = vocabularies.Languages()
      if folder.is_finished(source):
        languages = vocabulary_record.languages(source)
      tokenizer_files.write(temporary, vocabulary, config.vocab_size, languages)
    (temporary / 'README.md').write_text(card, encoding='utf-8')
  if vocabulary is None:
    print('no tokenizer is written: no vocabulary is known', file=sys.stderr)
  return target


def check(source: pathlib.Path) -> None:
  """Raises unless a path holds a policy; reads no weights.

  Raises:
    FileNotFoundError: if the path has none of the supported formats.
    ValueError: if a Hugging Face folder cannot be read.
  """
  if folder.is_finished(source):
    imported.network_of(source)
  elif (source / huggingface.CONFIG_FILE).is_file():
    huggingface.check_policy(source)
  elif t5x_checkpoints.find(source) is None:
    raise FileNotFoundError(
      f'{source} must be a Hugging Face folder ({huggingface.CONFIG_FILE}), a '
      f'T5X checkpoint ({t5x_checkpoints.CHECKPOINT_FILE}, or folders '
      f'checkpoint_<step>) or a finished stage ({folder.MANIFEST}); none is '
      f'there.{_hint(source)}'
    )


def _hint(source: pathlib.Path) -> str:
  """Returns what a path is instead, and what to do."""
  if source.is_file():
    return f' It is a file: name its folder, {source.parent}.'
  if any(source.glob('snapshots/*/' + huggingface.CONFIG_FILE)):
    return f' It is a download cache: name a folder of {source}/snapshots.'
  if source.exists():
    names = ', '.join(sorted(path.name for path in source.iterdir())[:5])
    return f' It holds {names or "nothing"}.'
  return ' There is no such folder.'


def vocabulary_of(
  source: pathlib.Path, given: str | None = None, *, is_needed: bool = True
) -> pathlib.Path | None:
  """Returns the SentencePiece model of a policy; None if it is unknown.

  Args:
    given: file that the user names.
    is_needed: whether a Hugging Face folder without vocabulary is an error.

  Raises:
    ValueError: if `given` differs from the policy's own vocabulary.
  """
  if folder.is_finished(source):
    return vocabulary_record.find(source, given)
  if not (source / huggingface.CONFIG_FILE).is_file():
    return pathlib.Path(given) if given else None
  described = json.loads((source / huggingface.CONFIG_FILE).read_text('utf-8'))
  try:
    return tokenizer_files.find(source, described, given)
  except FileNotFoundError:
    if is_needed:
      raise
    return None


def read(
  source: pathlib.Path,
  gin_files: Sequence[str] = (),
  overrides: Sequence[str] = (),
) -> tuple[network.NetworkConfig, types.Params]:
  """Reads a policy in any supported format.

  Args:
    source: a Hugging Face folder, a T5X checkpoint or a finished stage.
    gin_files: gin files with the sizes of a T5X checkpoint's network.
    overrides: gin overrides for these files, `NAME=VALUE` each.

  Raises:
    FileNotFoundError: if the path has none of these formats.
    ValueError: if the policy cannot be read.
  """
  is_t5x = t5x_checkpoints.find(source) is not None
  if (gin_files or overrides) and not is_t5x:
    raise ValueError(
      f'--network and --gin.NAME are for T5X checkpoints; {source} is not one.'
    )
  check(source)
  if folder.is_finished(source):
    config = imported.network_of(source)
    policy = policy_lib.Policy(config)
    return config, policies.load(source, policy, mesh.MeshConfig())
  if (source / huggingface.CONFIG_FILE).is_file():
    return huggingface.load_policy(source)
  return t5x_checkpoints.load_policy(source, _sizes(gin_files, overrides))


def _sizes(
  gin_files: Sequence[str], overrides: Sequence[str]
) -> network.NetworkConfig:
  if not gin_files:
    raise ValueError(
      'a T5X checkpoint does not store the sizes of its network. Set them: '
      '--network=gin_configs/models/t5_1_1_base.gin.'
    )
  return network_files.read(gin_files, overrides)


def _results_file(source: pathlib.Path) -> pathlib.Path | None:
  if _RESULTS.value:
    return pathlib.Path(_RESULTS.value)
  for parent in source.absolute().parents[:_DEPTH]:
    if (parent / 'results.json').is_file():
      return parent / 'results.json'
  return None


def _origin(source: pathlib.Path) -> str:
  """Returns a sentence about the origin of the policy in a folder."""
  if not folder.is_finished(source):
    return f'It was imported from `{source}`, and not trained.'
  manifest = folder.read_manifest(source)
  settings = manifest['settings']
  if 'improve' in settings:
    return (
      f'This is the policy after Grow step {settings["grow_step"]}, Improve '
      f'step {settings["improve_step"]} (`{source.absolute().parent.name}`).'
    )
  if 'imported' in settings:
    return f'It was imported from `{manifest["origin"]}`, and not trained.'
  return f'This is the policy of the stage `{source.absolute().name}`.'


def entry_point() -> None:
  """Executes the command line, and exits."""
  terminal.use_utf8()
  command.start(_start, sys.argv, sys.modules[__name__])


def _start(rest: list[str], overrides: list[str]) -> None:
  """Keeps other libraries' notes on checkpoints off the screen, and converts."""
  package = pathlib.Path(__file__).resolve().parents[1]
  handler = terminal.set_up_log(logging.WARNING)
  handler.addFilter(
    lambda record: (
      record.levelno > std_logging.WARNING
      or pathlib.Path(record.pathname).resolve().is_relative_to(package)
    )
  )
  sys.exit(main(rest, overrides))
