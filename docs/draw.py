"""Draws how data flowed through a finished run, as docs/architecture.md shows it.

  python docs/draw.py MODEL_DIR

Every stage's manifest names the folders that it read, by role (`origins`), and
the digest of the reward model that scored for it.
"""

import json
import pathlib
import re
import sys

_PAGE = pathlib.Path(__file__).with_name('architecture.md')
_PICTURE = re.compile('```mermaid\n.*?```\n', re.DOTALL)


def flow(model_dir: pathlib.Path) -> str:
  """Returns the folders of a run and what each read, as a Mermaid flowchart."""
  model_dir = model_dir.resolve()
  paths = model_dir.rglob('manifest.json')
  lines: dict[str, None] = {}  # Without repetitions, in order.
  rewards: dict[str, str] = {}
  for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns):
    manifest = json.loads(path.read_text(encoding='utf-8'))
    if 'stage_seconds' not in manifest:
      continue  # A checkpoint's.
    name = _node(path.parent, model_dir)
    read = {
      role: _node((path.parent / origin).resolve(), model_dir)
      for role, origin in manifest.get('origins', {}).items()
    }
    settings = json.dumps(manifest['settings'])
    for digest, source in rewards.items():
      if digest in settings:
        read['reward'] = source
    if 'params_digest' in manifest:
      rewards[manifest['params_digest']] = name
    lines |= {f'  {read[role]} -- {role} --> {name}': None for role in read}
  return '\n'.join(('```mermaid', 'flowchart TD', *lines, '```\n'))


def _node(folder: pathlib.Path, model_dir: pathlib.Path) -> str:
  """The name of a folder; all evaluations are one."""
  parts = folder.relative_to(model_dir).parts
  return 'evaluate' if 'evaluate' in parts else parts[-1]


def main() -> None:
  text = _PAGE.read_text(encoding='utf-8')
  picture = flow(pathlib.Path(sys.argv[1]))
  _PAGE.write_text(_PICTURE.sub(lambda _: picture, text), encoding='utf-8')


if __name__ == '__main__':
  main()
