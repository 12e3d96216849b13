"""Rewards computed by another program, with JSON lines on stdin and stdout.

For metrics whose packages cannot be installed beside JAX, such as COMET and
BLEURT: they run in their own interpreter. The protocol has one line per batch:

  request  {"batch": 0, "sources": [...], "hypotheses": [...],
            "references": [...] or null}
  answer   {"batch": 0, "rewards": [...]}, higher is better; or {"error": "..."}

The program starts at the first scoring, and must exit when its stdin is closed.
"""

from collections.abc import Sequence
import contextlib
import dataclasses
import functools
import json
import pathlib
import queue
import shutil
import subprocess
import tempfile
import threading
from typing import IO, Any
import weakref

from jaxtyping import Float32
import numpy as np

from rest_jax import settings
from rest_jax.rewards import base, external_scorer, scoring_plan
from rest_jax.runtime import progress as progress_lib
from rest_jax.runtime import time_spent

# Maximum number of characters of a program's stderr in an error message.
_SHOWN = 2000


class ExternalRewardError(ValueError):
  """The program of a reward failed, or did not return rewards."""


class _Program(base.NeedsOfParts):
  """Base of the settings of all external rewards."""

  name: str
  batch_size: int
  timeout_s: float

  @property
  def command(self) -> tuple[str, ...]:
    """The program and its arguments."""
    raise NotImplementedError

  @property
  def install(self) -> str:
    """Advice for an error: the program or its packages are missing."""
    raise NotImplementedError

  def __post_init__(self):
    settings.at_least(self, 1, 'batch_size')
    settings.positive(self, 'timeout_s')

  def check(self) -> str:
    if shutil.which(self.command[0]) is None:
      raise FileNotFoundError(
        f'the program of reward {self.name!r} was not found: there is no '
        f'{self.command[0]}. {self.install}'
      )
    return f'the program {" ".join(self.command)}'

  def load(self, resources: base.Resources) -> 'ExternalReward':
    del resources
    self.check()
    return ExternalReward(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class External(_Program):
  """Any program that speaks the protocol of this module.

  Attributes:
    program: the program and its arguments. They should include everything that
      the rewards depend on, since the digest is computed from them.
    needs_references: whether it gets references.
    batch_size: hypotheses per line.
    timeout_s: seconds per batch, including the start.
    name: name of the reward.
  """

  program: tuple[str, ...]
  needs_references: bool = False
  batch_size: int = settings.recorded(default=256)
  timeout_s: float = settings.recorded(default=1800.0)
  name: str = 'external'

  def __post_init__(self):
    settings.make_tuples(self, 'program')
    object.__setattr__(self, 'program', tuple(map(str, self.program)))
    if not self.program:
      raise ValueError('program must name a program; got ().')
    super().__post_init__()

  @property
  def command(self) -> tuple[str, ...]:
    return self.program

  @property
  def install(self) -> str:
    return 'Install it, or give its full path in External.program.'


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Python(_Program):
  """A metric called by `external_scorer` in its own interpreter."""

  python: str
  model: str
  batch_size: int = settings.recorded(default=256)
  timeout_s: float = settings.recorded(default=1800.0)

  @property
  def command(self) -> tuple[str, ...]:
    script = pathlib.Path(external_scorer.__file__)
    return (self.python, str(script), self.kind, self.model)

  @property
  def kind(self) -> str:
    return type(self).__name__.lower()

  @property
  def install(self) -> str:
    return external_scorer.INSTALL[self.kind]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comet(_Python):
  """A COMET model; with reference or (CometKiwi) without.

  Attributes:
    python: interpreter of an environment with unbabel-comet.
    model: name on the Hugging Face hub, or path of a checkpoint.
    needs_references: whether the model reads references.
    batch_size: hypotheses per line.
    timeout_s: seconds per batch, including loading the model.
    name: name of the reward.
  """

  needs_references: bool = True
  name: str = 'comet'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bleurt(_Python):
  """A BLEURT checkpoint; it compares with the reference and reads no source.

  Attributes:
    python: interpreter of an environment with BLEURT.
    model: folder of the checkpoint.
    needs_references: always True.
    batch_size: hypotheses per line.
    timeout_s: seconds per batch, including loading the checkpoint.
    name: name of the reward.
  """

  needs_references: bool = True
  name: str = 'bleurt'

  def __post_init__(self):
    super().__post_init__()
    _check_references(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SentenceEmbedding(_Python):
  """Cosine of the embeddings of hypothesis and reference, in [-1, 1].

  It reads no source. Both texts must be in a language of the model.

  Attributes:
    python: interpreter of an environment with sentence-transformers.
    model: name on the Hugging Face hub, or path of a folder.
    needs_references: always True.
    batch_size: hypotheses per line.
    timeout_s: seconds per batch, including loading the model.
    name: name of the reward.
  """

  model: str = 'sentence-transformers/all-MiniLM-L6-v2'
  needs_references: bool = True
  name: str = 'embedding'

  def __post_init__(self):
    super().__post_init__()
    _check_references(self)


def _check_references(config: _Python) -> None:
  if not config.needs_references:
    raise ValueError(
      f'{type(config).__name__} needs references; got needs_references=False.'
    )


class ExternalReward:
  """The rewards of a program; see `base.Reward`."""

  def __init__(self, config: _Program):
    """Takes the settings; the program starts at the first `score`."""
    self.name = config.name
    self.needs_references = config.needs_references
    self._config = config
    described: Any = [settings.describe(config), *config.command[1:]]
    if isinstance(config, _Python):
      # The digest excludes the paths of the interpreter and of this package.
      del described[0]['python'], described[1]
    self.digest = base.digest_of(described)

  @functools.cached_property
  def _process(self) -> '_Process':
    process = _Process(self._config)
    weakref.finalize(self, process.stop)
    return process

  def score(
    self,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: base.References = None,
  ) -> Float32[np.ndarray, ' n']:
    """Scores each hypothesis; see `base.Reward.score`.

    Raises:
      ExternalRewardError: if the program ends, exceeds the timeout, or does not
        answer with one number per hypothesis.
    """
    if self.needs_references:
      base.needed(self.name, references)
    base.check_texts(sources, hypotheses, references)
    used = references if self.needs_references else None
    rows = list(zip(sources, hypotheses, used or hypotheses, strict=True))
    distinct, row_of = scoring_plan.distinct(rows)
    rewards: list[float] = []
    description = f'reward {self.name}'
    with progress_lib.Progress(description, len(distinct), 'text') as progress:
      for start in range(0, len(distinct), self._config.batch_size):
        batch = distinct[start : start + self._config.batch_size]
        rewards += self._process.ask(
          {
            'sources': [row[0] for row in batch],
            'hypotheses': [row[1] for row in batch],
            'references': None if used is None else [row[2] for row in batch],
          }
        )
        progress.advance(len(batch))
    result = np.asarray(rewards, np.float32)[row_of]
    base.check_finite(self.name, sources, hypotheses, result)
    return result


class _Process:
  """The running program."""

  def __init__(self, config: _Program):
    self._config = config
    # Its stderr, for error messages.
    self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
    self._asked = 0
    try:
      self._process = subprocess.Popen(
        config.command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=self._errors,
        text=True,
        encoding='utf-8',
        errors='replace',
      )
    except OSError as error:
      self._errors.close()
      raise self._error(f'did not start ({error})') from error
    self._lines: queue.Queue[str] = queue.Queue()
    self._reader = threading.Thread(target=self._read, daemon=True)
    self._reader.start()

  def _read(self) -> None:
    """Queues the lines of its stdout; an empty text marks the end."""
    assert self._process.stdout is not None
    for line in self._process.stdout:
      self._lines.put(line)
    self._lines.put('')

  def _write(self, line: str) -> None:
    assert self._process.stdin is not None
    # If the program has ended, the reader reports it.
    with contextlib.suppress(OSError, ValueError):
      self._process.stdin.write(line)
      self._process.stdin.flush()

  def ask(self, request: dict[str, Any]) -> list[float]:
    """Sends one batch and returns its rewards."""
    number, self._asked = self._asked, self._asked + 1
    line = json.dumps({'batch': number, **request}) + '\n'
    # In a thread: a program that does not read must not exceed the timeout.
    threading.Thread(target=self._write, args=(line,), daemon=True).start()
    try:
      with time_spent.waiting():
        answer = self._lines.get(timeout=self._config.timeout_s)
    except queue.Empty:
      error = self._error(
        f'gave no answer within {self._config.timeout_s:g} s. Raise timeout_s, '
        'or lower batch_size'
      )
      self.stop()
      raise error from None
    if not answer:
      status = self._process.wait()
      raise self._error(f'ended with exit status {status}')
    return self._rewards(answer, number, len(request['hypotheses']))

  def _rewards(self, answer: str, number: int, expected: int) -> list[float]:
    try:
      content = json.loads(answer)
    except json.JSONDecodeError:
      content = None
    if isinstance(content, dict) and 'error' in content:
      raise self._error(f'reports: {content["error"]}')
    rewards = None
    if isinstance(content, dict) and content.get('batch') == number:
      rewards = content.get('rewards')
    if not isinstance(rewards, list) or not all(
      isinstance(reward, int | float) and not isinstance(reward, bool)
      for reward in rewards
    ):
      raise self._error(
        f'must answer with one line {{"batch": {number}, "rewards": '
        f'[numbers]}}; it wrote {answer.strip()[:200]!r}'
      )
    if len(rewards) != expected:
      raise self._error(
        f'must give a reward for each of {expected} hypotheses; it gave '
        f'{len(rewards)}'
      )
    return rewards

  def _error(self, problem: str) -> ExternalRewardError:
    config = self._config
    stderr = ''
    if not self._errors.closed:
      size = self._errors.seek(0, 2)
      self._errors.seek(max(0, size - _SHOWN))
      stderr = self._errors.read().decode('utf-8', 'replace').strip()
    shown = f' The end of its stderr:\n{stderr}' if stderr else ''
    return ExternalRewardError(
      f'the program of reward {config.name!r} {problem}. It is '
      f'{" ".join(config.command)}. {config.install}{shown}'
    )

  def stop(self) -> None:
    """Terminates the program; kills it after 10 s."""
    process = self._process
    if process.poll() is None:
      process.terminate()
      try:
        process.wait(timeout=10)
      except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    self._reader.join(timeout=10)
    for pipe in (process.stdin, process.stdout):
      # Closing stdin may fail to flush input that nobody reads.
      with contextlib.suppress(OSError):
        if pipe is not None:
          pipe.close()
    self._errors.close()
