"""Stand-ins for gcloud, xpk and other programs: they record and play."""

import dataclasses
import json
import os
import pathlib
import sys

import pytest

# Notes its arguments, and does what the next rule says whose words they have:
# it prints, ends with a status, or does what gcloud does, in folders for homes.
_PROGRAM = """#!{python} -IS
import fcntl, json, pathlib, shutil, subprocess, sys
folder = pathlib.Path({folder!r})
argv = [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]

def flag(name):
  found = [a for a in argv if a.startswith(f'--{{name}}=')]
  return found[0].split('=', 1)[1] if found else None

def homes():
  which = flag('worker')
  every = sorted((folder / 'homes').iterdir())
  return every if which == 'all' else [every[int(which)]]

with open(folder / 'lock', 'w') as lock:
  fcntl.flock(lock, fcntl.LOCK_EX)
  with open(folder / 'calls.jsonl', 'a') as calls:
    calls.write(json.dumps(argv) + '\\n')
  rules = json.loads((folder / 'rules.json').read_text())
  rule = {{}}
  for index, one in enumerate(rules):
    if all(word in ' '.join(argv) for word in one['words']):
      rule = one
      if not one.get('always'):
        del rules[index]
        (folder / 'rules.json').write_text(json.dumps(rules))
      break
is_real = 'status' not in rule and (folder / 'homes').exists()
if is_real and 'scp' in argv:
  source, target = argv[5], argv[6]
  for home in homes():
    shutil.copy(source, home / target.split(':', 1)[1])
elif is_real and 'ssh' in argv:
  # gcloud takes the command apart at blanks, and ssh joins it with them.
  line = ' '.join(flag('command').split(' '))
  done = [subprocess.run(['bash', '-c', line], cwd=home) for home in homes()]
  sys.exit(max(one.returncode for one in done))
sys.stdout.write(rule.get('stdout', ''))
sys.stdout.flush()
sys.stderr.write(rule.get('stderr', ''))
sys.exit(rule.get('status', 0))
"""


@dataclasses.dataclass(frozen=True)
class StandIns:
  """Programs on the PATH that record their arguments.

  Attributes:
    folder: what they write, and the homes of workers.
  """

  folder: pathlib.Path

  def plays(self, *words: str, always: bool = False, **answer) -> None:
    """Adds what the next call is answered with whose arguments have words."""
    path = self.folder / 'rules.json'
    rules = json.loads(path.read_text())
    rules.append({'words': words, 'always': always, **answer})
    path.write_text(json.dumps(rules))

  def calls(self, *words: str) -> list[list[str]]:
    """Returns the calls whose arguments have words, first to last."""
    path = self.folder / 'calls.jsonl'
    lines = path.read_text().splitlines() if path.exists() else []
    calls = [json.loads(line) for line in lines]
    return [c for c in calls if all(word in ' '.join(c) for word in words)]

  def homes(self, number: int) -> list[pathlib.Path]:
    """Makes the homes of so many workers."""
    homes = [self.folder / 'homes' / str(index) for index in range(number)]
    for home in homes:
      home.mkdir(parents=True)
    return homes


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
  """Stand-ins for gcloud, xpk and kubectl, on the PATH before all others."""
  folder = tmp_path / 'stand_ins'
  (folder / 'bin').mkdir(parents=True)
  (folder / 'rules.json').write_text('[]')
  for name in ('gcloud', 'xpk', 'kubectl'):
    path = folder / 'bin' / name
    path.write_text(_PROGRAM.format(python=sys.executable, folder=str(folder)))
    path.chmod(0o755)
  # That of the workers; the one on the PATH may be found by a slow script.
  (folder / 'bin' / 'python3').symlink_to(sys.executable)
  monkeypatch.setenv(
    'PATH', f'{folder / "bin"}{os.pathsep}{os.environ["PATH"]}'
  )
  return StandIns(folder)
