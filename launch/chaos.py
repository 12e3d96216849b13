"""The fault campaign: runs that are killed, and one that is not.

One run of an experiment ends undisturbed. Others of the same experiment are
killed (SIGKILL, the whole process group) at random moments and started again
until they end. Then samples, rewards and pairs must have the same bytes,
checkpoints the same arrays, and manifests, metrics and results the same content,
times and memory aside.

Moments are drawn from the seed: while the program starts, at any time, when a
temporary file appears (within writes), and when a stage has just ended. One
attempt is stopped by SIGTERM, and must end within ten seconds; one begins with a
compiled program whose file was cut off.

What was done is kept in `campaign.json` of the folder: the same command goes on
where it was stopped. The last line says how it ended; the exit status is 0 if
nothing was lost, 1 if something was, 3 if --seconds ran out before the end.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from typing import Any, NamedTuple

from absl import logging

from launch import chaos_differences
from rest_jax.runtime import interruption
from rest_jax.stages import folder as folder_lib
from rest_jax.storage import files, lock

_STATE = 'campaign.json'
_REFERENCE = 'undisturbed'
_CACHE = 'compiled'
# About so many kills come on a run, while nothing slows it down.
_KILLS_OF_A_RUN = 20
# After so many that no stage ended between, the next ones wait longer.
_PATIENCE = 3
_GRACE_SECONDS = 10
_KINDS = ('start-up', 'time', 'write', 'stage end')
_WEIGHTS = (15, 40, 35, 10)
_LONGEST_START = 6.0
_POLL_SECONDS = 0.003
_OUT_OF_TIME = 3


class Moment(NamedTuple):
  """When an attempt is stopped.

  Attributes:
    kind: one of `_KINDS`.
    share: in [0, 1), of the longest time to wait.
    count: of the files to wait for.
  """

  kind: str
  share: float
  count: int


def draw_moment(seed: int, attempt: int) -> Moment:
  """Draws when an attempt is stopped; the same for the same arguments."""
  draw = random.Random(f'{seed} {attempt}')
  [kind] = draw.choices(_KINDS, _WEIGHTS)
  return Moment(
    kind, draw.random(), draw.randint(1, 40 if kind == 'write' else 2)
  )


class Campaign:
  """What was done so far, and what is left to do."""

  def __init__(self, folder: pathlib.Path, arguments: list[str], seed: int):
    self.folder = folder
    self.arguments = arguments
    self.seed = seed
    self.state: dict[str, Any] = {
      'arguments': arguments,
      'seed': seed,
      'reference_seconds': None,
      'attempts': 0,
      'runs': [],
    }
    if (folder / _STATE).exists():
      self.state = files.read_json(folder / _STATE)
      if (self.state['arguments'], self.state['seed']) != (arguments, seed):
        raise ValueError(
          f'{folder} has the campaign of seed {self.state["seed"]} and '
          f'{self.state["arguments"]}; choose another --folder, or remove it.'
        )

  def save(self) -> None:
    files.write_json(self.folder / _STATE, self.state)

  @property
  def kills(self) -> list[dict[str, Any]]:
    return [kill for run in self.state['runs'] for kill in run['kills']]

  def model_dir(self, number: int) -> pathlib.Path:
    return self.folder / f'killed_{number}'

  def start(self, model_dir: pathlib.Path) -> subprocess.Popen:
    """Starts the program in a process group of its own."""
    environment = {
      **os.environ,
      'JAX_COMPILATION_CACHE_DIR': str((self.folder / _CACHE).absolute()),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    }
    model_dir.mkdir(parents=True, exist_ok=True)
    with open(model_dir.with_suffix('.log'), 'a', encoding='utf-8') as log:
      return subprocess.Popen(
        [
          sys.executable, '-m', 'rest_jax.main', f'--model_dir={model_dir}',
          *self.arguments,
        ],
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
      )  # fmt: skip


def _kill(process: subprocess.Popen) -> None:
  os.killpg(process.pid, signal.SIGKILL)
  process.wait()


def _has_lock(model_dir: pathlib.Path, process: subprocess.Popen) -> bool:
  try:
    owner = json.loads((model_dir / lock.LOCK_FILE).read_text('utf-8'))
    return owner['process'] == process.pid
  except (OSError, ValueError, KeyError):
    return False


class _Watch:
  """Counts temporary files and finished stages as they appear."""

  def __init__(self, model_dir: pathlib.Path):
    self._model_dir = model_dir
    self._seen: set[str] = set()
    self._done: set[str] = set()
    self.num_writes = self.num_finished = 0
    self.look()
    self.num_writes = self.num_finished = 0

  def look(self) -> None:
    """Counts what has come since the last look."""
    self._walk(str(self._model_dir))

  def _walk(self, directory: str) -> None:
    if directory in self._done:
      return
    below = []
    try:
      with os.scandir(directory) as entries:
        for entry in entries:
          if entry.name == folder_lib.MANIFEST:
            self._done.add(directory)
            self.num_finished += 1
          if _is_half(entry.name) and entry.path not in self._seen:
            self._seen.add(entry.path)
            self.num_writes += 1
          if entry.is_dir(follow_symlinks=False):
            below.append(entry.path)
    except OSError:
      return  # Renamed or removed meanwhile.
    for path in below:
      self._walk(path)


def _is_half(name: str) -> bool:
  return name.endswith('.tmp') or 'orbax-checkpoint-tmp' in name


def wait_for(
  moment: Moment,
  model_dir: pathlib.Path,
  process: subprocess.Popen,
  longest: float,
) -> bool:
  """Waits for a moment; False if the program ended before it."""
  began = time.monotonic()
  if moment.kind == 'start-up':
    return _sleep(process, began + moment.share * _LONGEST_START)
  while not _has_lock(model_dir, process):
    if process.poll() is not None:
      return False
    time.sleep(_POLL_SECONDS)
  if moment.kind == 'time':
    return _sleep(process, time.monotonic() + moment.share * longest)
  watch = _Watch(model_dir)
  until = time.monotonic() + longest
  while time.monotonic() < until:
    if process.poll() is not None:
      return False
    watch.look()
    seen = watch.num_writes if moment.kind == 'write' else watch.num_finished
    if seen >= moment.count:
      return True
    time.sleep(_POLL_SECONDS)
  return True


def _sleep(process: subprocess.Popen, until: float) -> bool:
  while (left := until - time.monotonic()) > 0:
    try:
      process.wait(left)
      return False
    except subprocess.TimeoutExpired:
      pass
  return process.poll() is None


def stage_of(model_dir: pathlib.Path, was_writing: bool) -> str:
  """Names the stage that is under way in a folder."""
  if not was_writing:
    return 'start-up'
  for path in sorted(model_dir.rglob('settings.json')):
    if not (path.parent / folder_lib.MANIFEST).exists():
      relative = path.parent.relative_to(model_dir)
      name = 'evaluate' if 'evaluate' in relative.parts else relative.name
      return name.split('_')[0]
  return 'between stages'


def run_reference(campaign: Campaign) -> None:
  """Runs the experiment to its end, undisturbed."""
  model_dir = campaign.folder / _REFERENCE
  if campaign.state['reference_seconds'] is not None:
    return
  began = time.monotonic()
  process = campaign.start(model_dir)
  try:
    if process.wait() != 0:
      raise ValueError(
        f'the undisturbed run failed; see {model_dir.with_suffix(".log")}'
      )
  finally:
    if process.poll() is None:
      _kill(process)
  campaign.state['reference_seconds'] = time.monotonic() - began
  campaign.save()


def attempt(campaign: Campaign, number: int, kills_left: int) -> bool:
  """Starts run `number` once more; True if it came to its end."""
  run = campaign.state['runs'][number]
  model_dir = campaign.model_dir(number)
  count = campaign.state['attempts']
  moment = draw_moment(campaign.seed, count)
  campaign.state['attempts'] += 1
  longest = 2 * campaign.state['reference_seconds'] / _KILLS_OF_A_RUN
  longest *= 1.5 ** max(0, _stalled(run) - _PATIENCE)
  is_polite = number == 0 and len(run['kills']) >= 2 and not run['terminated']
  process = campaign.start(model_dir)
  try:
    if is_polite:
      moment = moment._replace(kind='time', share=moment.share / 2)
    if kills_left <= 0 and not is_polite:
      process.wait()
    elif wait_for(moment, model_dir, process, longest):
      if is_polite:
        run['terminated'].append(_terminate(process))
      else:
        was_writing = _has_lock(model_dir, process)
        _kill(process)
        run['kills'].append(
          {
            'kind': moment.kind,
            'stage': stage_of(model_dir, was_writing),
            'finished': len(list(model_dir.rglob(folder_lib.MANIFEST))),
          }
        )
      campaign.save()
      return False
  finally:
    if process.poll() is None:
      _kill(process)
  if process.returncode != 0:
    run['failures'].append(
      f'status {process.returncode}, see {model_dir.with_suffix(".log")}'
    )
  campaign.save()
  return True


def _stalled(run: dict[str, Any]) -> int:
  """Number of kills since a stage ended."""
  finished = [kill['finished'] for kill in run['kills']]
  return finished.count(finished[-1]) if finished else 0


def _terminate(process: subprocess.Popen) -> dict[str, Any]:
  """Asks the program to stop, and says how long it took."""
  began = time.monotonic()
  os.kill(process.pid, signal.SIGTERM)
  try:
    status = process.wait(6 * _GRACE_SECONDS)
  except subprocess.TimeoutExpired:
    _kill(process)
    status = None
  return {'status': status, 'seconds': time.monotonic() - began}


def tear_cache(campaign: Campaign) -> str:
  """Cuts off the largest compiled program; returns its file's name."""
  entries = (campaign.folder / _CACHE).glob('*-cache')
  largest = max(entries, key=lambda path: path.stat().st_size)
  os.truncate(largest, largest.stat().st_size // 2)
  return largest.name


def compare(campaign: Campaign, number: int) -> None:
  """Compares a run that ended with the undisturbed one."""
  run = campaign.state['runs'][number]
  model_dir = campaign.model_dir(number)
  run['lost'] = [
    *chaos_differences.find(campaign.folder / _REFERENCE, model_dir),
    *(
      str(damage)
      for manifest in model_dir.rglob(folder_lib.MANIFEST)
      for damage in folder_lib.damages(manifest.parent, 'full')
    ),
  ]
  torn = run['torn']
  if torn is not None:
    entry = campaign.folder / _CACHE / torn['file']
    torn['repaired'] = entry.exists() and entry.stat().st_size > torn['size']
  for ended in run['terminated']:
    if ended['status'] != 128 + signal.SIGTERM:
      run['failures'].append(f'SIGTERM ended with status {ended["status"]}')
    if ended['seconds'] > _GRACE_SECONDS:
      run['failures'].append(f'SIGTERM took {ended["seconds"]:.1f} s')
  campaign.save()
  if not run['lost'] and not run['failures']:
    shutil.rmtree(model_dir)


def summary(campaign: Campaign) -> tuple[bool, str]:
  """Whether nothing was lost so far, and the words for it."""
  runs = campaign.state['runs']
  bad = [
    f'run {number}: {what}'
    for number, run in enumerate(runs)
    for what in (*run['failures'], *(run['lost'] or ()))
  ]
  by = {
    key: collections.Counter(kill[key] for kill in campaign.kills)
    for key in ('stage', 'kind')
  }
  words = '; '.join(
    f'by {key}: ' + ', '.join(f'{n} {name}' for name, n in counts.most_common())
    for key, counts in by.items()
  )
  terminated = [end for run in runs for end in run['terminated']]
  ended = sum(run['lost'] is not None for run in runs)
  torn = [run['torn'] for run in runs if run['torn']]
  text = (
    f'{len(campaign.kills)} kills ({words}), {len(terminated)} SIGTERM'
    + ''.join(f' ({end["seconds"]:.1f} s)' for end in terminated)
    + f', {len(torn)} torn compiled program(s), '
    f'{sum(bool(one.get("repaired")) for one in torn)} repaired; '
    f'{ended} run(s) ended and compared'
  )
  if bad:
    return False, f'chaos: LOST after {text}: ' + '; '.join(bad)
  return True, f'chaos: {text}: nothing was lost'


def run_campaign(campaign: Campaign, num_kills: int, until: float) -> int:
  """Goes on until all kills are done and compared; returns the exit status."""
  run_reference(campaign)
  runs = campaign.state['runs']
  while True:
    if not runs or runs[-1]['lost'] is not None:
      if len(campaign.kills) >= num_kills or not summary(campaign)[0]:
        break
      number, torn = len(runs), None
      if not number:
        name = tear_cache(campaign)
        size = (campaign.folder / _CACHE / name).stat().st_size
        torn = {'file': name, 'size': size}
      runs.append(
        {
          'kills': [], 'terminated': [], 'failures': [], 'lost': None,
          'torn': torn,
        }
      )  # fmt: skip
      campaign.save()
    number = len(runs) - 1
    if time.monotonic() > until:
      print(summary(campaign)[1] + ' so far; the same command goes on')
      return _OUT_OF_TIME
    if attempt(campaign, number, num_kills - len(campaign.kills)):
      compare(campaign, number)
  is_good, text = summary(campaign)
  print(text)
  return 0 if is_good else 1


def main(argv: list[str]) -> int:
  """Reads the command line and runs the campaign."""
  parser = argparse.ArgumentParser(
    prog='chaos.sh', description=(__doc__ or '').split('\n\n')[0]
  )
  parser.add_argument('--kills', type=int, default=60)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--folder', default='runs/chaos')
  parser.add_argument(
    '--seconds', type=float, default=float('inf'), help='stop after so long'
  )
  parser.add_argument('--gin_file', default='gin_configs/experiments/smoke.gin')
  logging.set_verbosity(logging.ERROR)  # Orbax tells how it reads.
  options, rest = parser.parse_known_args(argv)
  unknown = [one for one in rest if not one.startswith('--gin.')]
  if unknown:
    parser.error(f'unknown arguments: {unknown}')
  folder = pathlib.Path(options.folder)
  folder.mkdir(parents=True, exist_ok=True)
  campaign = Campaign(
    folder, [f'--gin_file={options.gin_file}', *rest], options.seed
  )
  # A signal ends the run that is under way, too.
  with lock.held(folder), interruption.handled():
    return run_campaign(
      campaign, options.kills, time.monotonic() + options.seconds
    )


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
