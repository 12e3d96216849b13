r"""Where the seconds of a whole ReST run went, stage by stage.

  python -m benchmarks.loop --model_dir=runs/demo

Reads the manifests of a finished run; nothing is run again. A training counts
what all its starts took, the rest of a stage what its last start took. Stages
that other runs made (`BC_DIR`, `GROW_DIR` and the like) are not in the folder
and do not count.
"""

import collections
import dataclasses
import json
import pathlib
import sys

from absl import app, flags

from rest_jax.stages import folder as folder_lib

_MODEL_DIR = flags.DEFINE_string(
  'model_dir', None, 'The folder of a run.', required=True
)
_VARIANT = flags.DEFINE_string(
  'variant', None, 'Count what this variant made alone, and what all share.'
)

_OTHER = 'other'


@dataclasses.dataclass(frozen=True)
class Part:
  """A part of a stage.

  Attributes:
    stage: prepare, bc, reward, grow, improve or evaluate.
    folder: of the stage, below the run's.
    part: pretrain, train, validate (evaluations of a training), sample, score,
      or the stage's other work.
    seconds: that it took; None if the manifest does not say.
  """

  stage: str
  folder: str
  part: str
  seconds: float | None


def stage_of(folder: pathlib.PurePath) -> str:
  """Returns the word for the stage of a folder below the run's."""
  if folder.parent.name == 'evaluate':
    return 'evaluate'
  return {'data': 'prepare'}.get(folder.name, folder.name.split('_')[0])


def parts_of(folder: pathlib.PurePath, manifest: dict) -> list[Part]:
  """Splits a stage's seconds as far as its manifest tells."""
  known = collections.defaultdict(float)
  for name, key in (('pretrain', 'pretraining'), ('train', 'training')):
    if training := manifest.get(key):
      validation = training.get('evaluation_seconds', 0.0)
      known[name] = training['seconds'] - validation
      known['validate'] += validation
  for name, key in (('sample', 'grow'), ('score', 'score')):
    if seconds := manifest.get('seconds'):
      known[name] = seconds[key]
  whole = manifest.get('stage_seconds')
  if whole is not None:
    known[_OTHER] = max(whole - sum(known.values()), 0.0)
  return [
    Part(stage_of(folder), str(folder), name, known[name]) for name in known
  ] or [Part(stage_of(folder), str(folder), _OTHER, None)]


def read(run: pathlib.Path, variant: str | None) -> list[Part]:
  """Returns the parts of all finished stages, in the order that they ended.

  Args:
    run: the folder of a run.
    variant: leave out other variants; None for all.

  Raises:
    FileNotFoundError: if no stage of the run is finished.
  """
  variants = run / 'variants'
  patterns = [
    (run, '*'),
    (variants, f'{variant or "*"}/*'),
    (variants, f'{variant or "*"}/evaluate/*'),
  ]
  manifests = [
    path
    for base, pattern in patterns
    for path in base.glob(f'{pattern}/{folder_lib.MANIFEST}')
  ]
  if not manifests:
    raise FileNotFoundError(
      f'--model_dir must be the folder of a run with finished stages; {run} '
      'has none.'
    )
  return [
    part
    for path in sorted(manifests, key=lambda path: path.stat().st_mtime)
    for part in parts_of(
      path.parent.relative_to(run), folder_lib.read_manifest(path.parent)
    )
  ]


def table(parts: list[Part]) -> str:
  """Returns seconds and share by stage and part, the stages in their order."""
  total = sum(part.seconds or 0.0 for part in parts)
  seconds: dict[tuple[str, str], float] = collections.defaultdict(float)
  folders: dict[tuple[str, str], int] = collections.Counter()
  for part in parts:
    folders[part.stage, part.part] += 1
    seconds[part.stage, part.part] += part.seconds or 0.0
  unknown = {(p.stage, p.part) for p in parts if p.seconds is None}
  lines = [f'{"stage":10}{"part":10}{"folders":>8}{"seconds":>12}{"share":>8}']
  for key, value in seconds.items():
    lines.append(
      f'{key[0]:10}{key[1]:10}{folders[key]:8}'
      + (
        f'{"not recorded":>12}'
        if key in unknown
        else f'{value:12,.1f}{value / total:8.1%}'
      )
    )
  return '\n'.join([*lines, f'{"all":28}{total:12,.1f}'])


def main(argv) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments: {argv[1:]}')
  parts = read(pathlib.Path(_MODEL_DIR.value), _VARIANT.value)
  total = sum(part.seconds or 0.0 for part in parts)
  for part in parts:
    share = None if part.seconds is None else part.seconds / total
    print(json.dumps({**dataclasses.asdict(part), 'share': share}))
  print(table(parts), file=sys.stderr)
  print(
    json.dumps(
      {
        'seconds': total,
        'not_recorded': [p.folder for p in parts if p.seconds is None],
      }
    )
  )


if __name__ == '__main__':
  app.run(main)
