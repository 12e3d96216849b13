"""A browser driven by its DevTools protocol over a pipe, for tests of pages."""

import base64
from collections.abc import Iterator
import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

_NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
_KEYS = {'Enter': '\r', 'Backspace': '', 'Tab': ''}
_SECONDS = 30.0
# The protocol's pipes are descriptors 3 and 4.
_START = (
  'import os, sys; reader, writer = map(int, sys.argv[1:3]); '
  'os.dup2(reader, 3); os.dup2(writer, 4); os.execv(sys.argv[3], sys.argv[3:])'
)


def find() -> str | None:
  """Returns the path of a Chromium, if there is one."""
  return next(filter(None, map(shutil.which, _NAMES)), None)


class Page:
  """A tab. What its console says of errors is in `errors`."""

  def __init__(self, reader: int, writer: int):
    self._reader, self._writer = reader, writer
    self._buffer = b''
    self._number = 0
    self._session: str | None = None
    self.errors: list[str] = []
    target = self._call('Target.createTarget', url='about:blank')['targetId']
    self._session = self._call(
      'Target.attachToTarget', targetId=target, flatten=True
    )['sessionId']
    for domain in ('Page', 'Runtime', 'Log', 'Network'):
      self._call(f'{domain}.enable')

  def open(self, url: str) -> None:
    """Goes to an address and waits until it is loaded."""
    self._wait_for_load('Page.navigate', url=url)

  def press(self, key: str) -> None:
    """Presses and lets go of a key, where the focus is."""
    text = _KEYS.get(key, key if len(key) == 1 else '')
    down = {'text': text} if text else {}
    self._call('Input.dispatchKeyEvent', type='keyDown', key=key, **down)
    self._call('Input.dispatchKeyEvent', type='keyUp', key=key)

  def press_and_load(self, key: str) -> None:
    """Presses a key that leads to another page, and waits for that."""
    self.evaluate('window.isOld = true')
    self.press(key)
    self.until('!window.isOld && document.readyState === "complete"')

  def type(self, text: str) -> None:
    self._call('Input.insertText', text=text)

  def evaluate(self, expression: str) -> Any:
    """Returns the value of a JavaScript expression."""
    answer = self._call(
      'Runtime.evaluate', expression=expression, returnByValue=True
    )
    assert 'exceptionDetails' not in answer, answer
    return answer['result'].get('value')

  def until(self, expression: str) -> None:
    """Waits until an expression is true; pages may change meanwhile."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
      with contextlib.suppress(AssertionError):
        if self.evaluate(expression):
          return
      time.sleep(0.02)
    raise AssertionError(f'never true: {expression}')

  def look(
    self, path: pathlib.Path, *, width: int, height: int, scheme: str
  ) -> None:
    """Saves a picture of the page.

    Args:
      path: a PNG file.
      width: of the window, in CSS pixels.
      height: likewise.
      scheme: 'light' or 'dark'.
    """
    self.resize(width, height, scheme)
    shot = self._call('Page.captureScreenshot', format='png')
    path.write_bytes(base64.b64decode(shot['data']))

  def resize(self, width: int, height: int, scheme: str = 'light') -> None:
    self._call(
      'Emulation.setDeviceMetricsOverride',
      width=width,
      height=height,
      deviceScaleFactor=1,
      mobile=False,
    )
    self._call(
      'Emulation.setEmulatedMedia',
      features=[{'name': 'prefers-color-scheme', 'value': scheme}],
    )

  def _wait_for_load(self, method: str, **parameters: Any) -> None:
    self._call(method, **parameters)
    self.until('document.readyState === "complete"')

  def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
    self._number += 1
    message = {'id': self._number, 'method': method, 'params': parameters}
    if self._session:
      message['sessionId'] = self._session
    os.write(self._writer, json.dumps(message).encode() + b'\0')
    while True:
      answer = self._next()
      if answer.get('id') == self._number:
        assert 'error' not in answer, (method, answer)
        return answer['result']
      self._note(answer)

  def _note(self, event: dict[str, Any]) -> None:
    parameters = event.get('params', {})
    if event.get('method') == 'Runtime.exceptionThrown':
      self.errors.append(json.dumps(parameters['exceptionDetails']))
    elif event.get('method') == 'Log.entryAdded':
      entry = parameters['entry']
      if entry['level'] == 'error':
        self.errors.append(f'{entry["text"]} {entry.get("url")}')
    elif parameters.get('type') == 'error':  # Runtime.consoleAPICalled
      self.errors.append(json.dumps(parameters['args']))

  def _next(self) -> dict[str, Any]:
    while b'\0' not in self._buffer:
      read = os.read(self._reader, 2**16)
      assert read, 'the browser has ended'
      self._buffer += read
    message, _, self._buffer = self._buffer.partition(b'\0')
    return json.loads(message)


@contextlib.contextmanager
def page(path: str) -> Iterator[Page]:
  """Starts a browser without a window and yields a tab of it.

  Args:
    path: that `find` gave.

  Yields:
    The tab.
  """
  to_browser, writer = _pipe()
  reader, from_browser = _pipe()
  with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
    browser = subprocess.Popen(
      [
        sys.executable, '-c', _START, str(to_browser), str(from_browser), path,
        '--headless=new', '--no-sandbox', '--disable-gpu', '--hide-scrollbars',
        '--disable-dev-shm-usage', '--no-first-run', '--disable-extensions',
        '--disable-background-networking', '--allow-pre-commit-input', '--disable-component-update',
        '--remote-debugging-pipe', f'--user-data-dir={profile}', 'about:blank',
      ],
      pass_fds=(to_browser, from_browser),
      stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(to_browser)
    os.close(from_browser)
    try:
      yield Page(reader, writer)
    finally:
      browser.kill()
      browser.wait()
      os.close(reader)
      os.close(writer)


def _pipe() -> tuple[int, int]:
  """Returns reading and writing end, neither of them 3 or 4."""
  ends = os.pipe()
  reader, writer = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
  for end in ends:
    os.close(end)
  return reader, writer
