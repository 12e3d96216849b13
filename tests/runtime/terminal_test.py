"""What a person sees: programs on a terminal of their own, and on none."""

import os
import pathlib
import pty
import re
import select
import subprocess
import sys
import termios

import pytest

from rest_jax.runtime import terminal

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_PROGRAM = r"""
import time
from absl import logging
from rest_jax.runtime import progress, terminal
logging.use_absl_handler()
terminal.set_up_log(VERBOSITY)
with progress.Progress('outer', 4, 'stage') as outer:
  outer.note(done='nothing')
  with progress.Progress('inner', 10, 'row') as inner:
    inner.advance(3)
    time.sleep(0.2)
    inner.advance(2)
    logging.info('a note of \x1b[2J %s', '\x9b31m')
    logging.warning('a warning')
    logging.error('an error')
    terminal.show('a table\nWARNING of the table\x07')
  outer.advance(1)
terminal.show_error('the end\n  of \x1b]0;title\x07')
"""


def environment(**changes):
  kept = {
    name: value
    for name, value in os.environ.items()
    if name not in ('NO_COLOR', 'TERM')
  }
  return {**kept, 'TERM': 'xterm', 'PYTHONPATH': str(_ROOT), **changes}


def on_a_terminal(program, **changes):
  """Returns what a program writes to a terminal, in order."""
  ours, theirs = pty.openpty()
  termios.tcsetwinsize(theirs, (40, 100))
  process = subprocess.Popen(
    [sys.executable, '-c', program],
    stdin=theirs,
    stdout=theirs,
    stderr=theirs,
    env=environment(**changes),
    cwd=_ROOT,
  )
  os.close(theirs)
  written = b''
  while select.select([ours], [], [], 60)[0]:
    try:
      read = os.read(ours, 2**16)
    except OSError:  # How Linux says that the other side is closed.
      break
    if not read:
      break
    written += read
  os.close(ours)
  assert process.wait() == 0, written
  return written.decode().replace('\r\n', '\n')


def screen(written):
  """The lines that are left, of what moved the cursor and wrote over itself."""
  lines, row, column = [''], 0, 0
  for piece in re.findall(r'\x1b\[A|\x1b\[\d*m|\r|\n|[^\x1b\r\n]+', written):
    if piece == '\x1b[A':
      row -= 1
    elif piece == '\r':
      column = 0
    elif piece == '\n':
      row, column = row + 1, 0
      lines += [''] * (row + 1 - len(lines))
    elif not piece.startswith('\x1b'):
      before = lines[row].ljust(column)
      lines[row] = before[:column] + piece + before[column + len(piece) :]
      column += len(piece)
  return [line.rstrip() for line in lines if line.strip()]


def test_on_a_terminal_bars_make_room_for_lines():
  written = on_a_terminal(_PROGRAM.replace('VERBOSITY', '0'))
  assert re.search(r'outer: +0%\|.* 0/4 \[.*done=nothing', written)
  # With a rate and the time that is left.
  assert re.search(r'inner: +50%\|.* 5/10 \[00:00<00:\d\d, .*row/s\]', written)
  left = screen(written)
  note = re.compile(r'^\d\d:\d\d:\d\d a note of ␛\[2J ⟨U\+009B⟩31m$')
  assert sum(bool(note.match(line)) for line in left) == 1, left
  for line in ('a table', 'WARNING of the table␇'):
    assert left.count(line) == 1, left
  # Bars leave nothing behind.
  assert not any('|' in line for line in left), left


def test_colours_are_for_terminals_that_want_them():
  program = _PROGRAM.replace('VERBOSITY', '0')
  coloured = on_a_terminal(program)
  assert re.search(r'\x1b\[33m\d\d:\d\d:\d\d a warning\x1b\[0m', coloured)
  assert re.search(r'\x1b\[31m\d\d:\d\d:\d\d an error\x1b\[0m', coloured)
  assert '\x1b[33mWARNING of the table␇\x1b[0m' in coloured
  assert '\x1b[31merror:\x1b[0m the end\n  of ␛]0;title␇' in coloured
  for changes in ({'NO_COLOR': '1'}, {'TERM': 'dumb'}):
    plain = on_a_terminal(program, **changes)
    assert not re.search(r'\x1b\[\d+m', plain)
    assert 'a warning' in plain


def test_nothing_acts_on_a_terminal():
  written = on_a_terminal(_PROGRAM.replace('VERBOSITY', '0'))
  assert '\x1b[2J' not in written
  assert '\x1b]' not in written
  assert '\x07' not in written and '\x9b' not in written


def test_a_file_has_neither_bars_nor_colours():
  done = subprocess.run(
    [sys.executable, '-c', _PROGRAM.replace('VERBOSITY', '0')],
    capture_output=True,
    text=True,
    env=environment(),
    cwd=_ROOT,
  )
  assert done.returncode == 0
  assert '\x1b' not in done.stdout + done.stderr
  assert '\r' not in done.stderr and '%|' not in done.stderr
  assert done.stdout == 'a table\nWARNING of the table␇\n'
  assert 'a note of ␛[2J ⟨U+009B⟩31m\n' in done.stderr
  assert done.stderr.endswith('error: the end\n  of ␛]0;title␇\n')


def test_verbosity():
  written = on_a_terminal(_PROGRAM.replace('VERBOSITY', '-1'))
  assert 'a note of' not in written
  assert 'outer' not in written and 'inner' not in written
  assert 'a warning' in written and 'a table' in written


@pytest.mark.parametrize('text', ['', 'one line', 'WARNING\n\nlines'])
def test_show_prints_lines_as_they_are(capsys, text):
  terminal.show(text)
  assert capsys.readouterr().out == text + '\n'


_UTF8 = """
import sys
from rest_jax.runtime import terminal
terminal.use_utf8()
print(sys.argv[1], sys.getfilesystemencoding(), sys.stdout.encoding)
terminal.show('1 ± 2 …')
"""


@pytest.mark.parametrize(
  ('changes', 'printed'),
  [
    ({}, 'straße utf-8 utf-8\n1 ± 2 …\n'),
    ({'PYTHONUTF8': '1'}, 'straße utf-8 utf-8\n1 ± 2 …\n'),
    ({'PYTHONIOENCODING': 'ascii'}, 'stra?e utf-8 ascii\n1 ? 2 ?\n'),
  ],
)
def test_a_locale_without_utf8_changes_nothing(tmp_path, changes, printed):
  path = tmp_path / 'program.py'
  path.write_text(_UTF8, encoding='utf-8')
  plain = {'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}
  done = subprocess.run(
    [sys.executable, str(path), 'straße'],
    capture_output=True,
    check=True,
    env=environment(**plain) | changes,
    cwd=_ROOT,
  )
  assert done.stdout.decode() == printed
