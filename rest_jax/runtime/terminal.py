"""Terminal output: logging, colours, results.

On a terminal, log lines are short, warnings are coloured (unless NO_COLOR is
set), and progress bars make room for them. Control characters are shown and
never sent.
"""

import io
import logging as std_logging
import os
import sys
from typing import TextIO

from absl import logging

from rest_jax.runtime import control_characters, progress

_YELLOW, _RED, _PLAIN = '\x1b[33m', '\x1b[31m', '\x1b[0m'
_WARNING = 'WARNING'


def use_utf8() -> None:
  """Restarts the program in Python's UTF-8 mode if necessary.

  In a locale without UTF-8, such as LC_ALL=C in many containers, Python can
  neither open files with non-ASCII names nor print such text.
  """
  is_utf8 = sys.getfilesystemencoding() == 'utf-8'
  if not is_utf8 and os.environ.get('PYTHONUTF8') != '1':
    command = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, command, {**os.environ, 'PYTHONUTF8': '1'})
  # PYTHONIOENCODING may still set another encoding.
  if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == 'strict':
    sys.stdout.reconfigure(errors='replace')


def show(text: str) -> None:
  """Prints a result; lines that begin with WARNING are highlighted."""
  lines = control_characters.visible(text, keep='\n').split('\n')
  with progress.paused():
    for line in lines:
      colour = _YELLOW if line.startswith(_WARNING) else ''
      print(_coloured(line, colour, sys.stdout))
    sys.stdout.flush()


def show_error(text: str) -> None:
  """Prints the error that ends the program."""
  prefix = _coloured('error:', _RED, sys.stderr)
  print(prefix, control_characters.visible(text, keep='\n'), file=sys.stderr)


def set_up_log(verbosity: int) -> std_logging.Handler:
  """Sets up logging as described in the module's docstring.

  Args:
    verbosity: absl's verbosity: -1 for warnings, 0 for info, 1 and more for
      debug.
  """
  logging.set_verbosity(verbosity)
  handler = logging.get_absl_handler()
  if sys.stderr.isatty():
    std_logging.root.removeHandler(handler)
    handler = _Terminal(sys.stderr)
    handler.setFormatter(_Short())
    std_logging.root.addHandler(handler)
  handler.addFilter(_make_visible)
  return handler


def has_colours(stream: TextIO) -> bool:
  """Returns whether a stream shows colours; https://no-color.org."""
  return (
    stream.isatty()
    and not os.environ.get('NO_COLOR')
    and os.environ.get('TERM') != 'dumb'
  )


def _coloured(text: str, colour: str, stream: TextIO) -> str:
  return f'{colour}{text}{_PLAIN}' if colour and has_colours(stream) else text


def _make_visible(record: std_logging.LogRecord) -> bool:
  record.msg = control_characters.visible(record.getMessage(), keep='\n')
  record.args = ()
  return True


class _Terminal(std_logging.StreamHandler):
  """Writes lines above the progress bars."""

  def emit(self, record: std_logging.LogRecord) -> None:
    with progress.paused():
      super().emit(record)


class _Short(std_logging.Formatter):
  """Formats a line with its time, and its level if it is a warning or worse."""

  def __init__(self):
    super().__init__('%(asctime)s %(message)s', '%H:%M:%S')

  def format(self, record: std_logging.LogRecord) -> str:
    line = super().format(record)
    if record.levelno >= std_logging.ERROR:
      return _coloured(line, _RED, sys.stderr)
    if record.levelno >= std_logging.WARNING:
      return _coloured(line, _YELLOW, sys.stderr)
    return line
