"""`rest-jax convert`: policies to and from other libraries.

`rest-jax convert --from=FOLDER --to=FOLDER --format=FORMAT`, where the first
folder is one of Hugging Face, a T5X checkpoint or a finished stage; or the name of a
model on the Hugging Face Hub.
`rest-jax convert --check=FOLDER` compares a checkpoint's numbers here with those of
transformers.
"""

from collections.abc import Sequence
import dataclasses
import json
import logging as std_logging
import pathlib
import re
import sys

from absl import app, flags, logging

from rest_jax import types
from rest_jax.cli import check_checkpoint
from rest_jax.config import command
from rest_jax.config import gin_files as gin_lib
from rest_jax.data import vocabularies
from rest_jax.evaluation import results as results_lib
from rest_jax.interop import (
  hub,
  huggingface,
  t5x_checkpoints,
  tokenizer_files,
)
from rest_jax.models import network, network_config
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
  'A Hugging Face folder, a T5X checkpoint, a finished stage, or the name of a model '
  'on the Hugging Face Hub (with huggingface_hub and a network).',
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
  'The sentencepiece model that the policy was trained with; by default the one '
  "beside the weights, or that of the run. With --format=huggingface, '' writes "
  'no tokenizer.',
)
_CHECK = flags.DEFINE_multi_string(
  'check',
  None,
  'A Hugging Face folder of any family that is read. Nothing is written: logits and '
  'greedy outputs are compared with those in its io.npz, or with transformers where '
  'that is installed. Repeat it for several folders.',
)
_REPLACE = flags.DEFINE_bool(
  'replace', False, 'Replace the policy that the folder holds.'
)

_EXPECTED = (
  ValueError,
  FileNotFoundError,
  FileExistsError,
  PermissionError,
  files.DiskError,
)
# A stage's folder is at most this deep in its run.
_DEPTH = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
  """The root of a configuration that has a network alone."""

  network: network.NetworkConfig


def main(argv: list[str], overrides: list[str]) -> int:
  """Converts as the flags say; returns the exit status."""
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
  # A folder above that is there means a path with a typing error.
  return is_name and not source.exists() and not source.parent.exists()


def _use(directory: pathlib.Path) -> str:
  """The arguments of a run that starts from an imported policy."""
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
  """Compares the numbers of each folder; 1 if some are others."""
  status = 0
  for name in folders:
    try:
      found = check_checkpoint.compare(pathlib.Path(name))
    except _EXPECTED as error:
      print(f'error: {name}: {error}', file=sys.stderr)
      status = 1
      continue
    print(f'{name}: {found}')
    if not found.is_equal:
      status = 1
  return status


def _write_stage(source, target, overrides) -> pathlib.Path:
  check(source)
  vocabulary = vocabulary_of(source, _VOCABULARY.value or None)
  if vocabulary is None:
    raise FileNotFoundError(
      f'{source} does not tell the vocabulary that its policy was trained with. '
      'Name it: --vocabulary=/path/to/spiece.model.'
    )
  # Before the weights are read.
  size = vocabularies.Vocabulary(vocabulary).size
  added = tokenizer_files.added_tokens(source, size)
  if added:
    print(
      f'warning: {source} adds {len(added)} tokens to its sentencepiece model '
      f'({", ".join(added[:3])}), which are not read: text that spells them is '
      'cut into letters',
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
  check(source)
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
    made=_made(source),
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
    print('no tokenizer is written: --vocabulary names none', file=sys.stderr)
  return target


def check(source: pathlib.Path) -> None:
  """Says what a path is that holds no policy; reads no weights.

  Raises:
    FileNotFoundError: if it is none of the forms that are read.
    ValueError: a Hugging Face folder that cannot be read.
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
  """What a path may be instead, and what to do."""
  if source.is_file():
    return f' It is a file: name its folder, {source.parent}.'
  if any(source.glob('snapshots/*/' + huggingface.CONFIG_FILE)):
    return (
      f' It is the cache of a download: name a folder of {source}/snapshots.'
    )
  if source.exists():
    found = ', '.join(sorted(path.name for path in source.iterdir())[:5])
    return f' It holds {found or "nothing"}.'
  return ' There is no such folder.'


def vocabulary_of(
  source: pathlib.Path, given: str | None = None, *, is_needed: bool = True
) -> pathlib.Path | None:
  """Returns the sentencepiece model that a policy was trained with.

  Args:
    source: see `read`.
    given: the one that the user names.
    is_needed: whether a Hugging Face folder without one is an error.

  Returns:
    The file; None if nothing tells.

  Raises:
    FileNotFoundError: it is nowhere, and needed.
    ValueError: the one named is another than the policy's own.
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
      'a T5X checkpoint does not tell the sizes of its network; name them: '
      '--network=gin_configs/models/t5_1_1_base.gin.'
    )
  gin_lib.register(network.NetworkConfig, *network_config.PARTS)
  return gin_lib.parse_and_build(
    gin_files, ['Sizes.network=%NETWORK', *overrides], root=Sizes
  ).network


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
  if not folder.is_finished(source):
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
  """Reads the command line and ends with the exit status."""
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
