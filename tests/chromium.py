"""A headless Chromium, driven by the DevTools protocol through a pipe."""

from collections.abc import Iterator
import contextlib
import fcntl
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

import pytest

_NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
_SECONDS = 60.0
# The number of a key that does more than write itself, and what it writes.
_KEYS = {'Enter': (13, '\r'), 'Backspace': (8, ''), 'Tab': (9, '')}
# The protocol's pipes are descriptors 3 and 4.
_START = (
  'import os, sys; reader, writer = map(int, sys.argv[1:3]); '
  'os.dup2(reader, 3); os.dup2(writer, 4); os.execv(sys.argv[3], sys.argv[3:])'
)

# Of each text with what is behind it, by the formula of WCAG 2.
_CONTRASTS = """(() => {
  const channels = color => color.match(/[\\d.]+/g).map(Number);
  const light = color => {
    const [R, G, B] = channels(color).map(c => c / 255).map(
      c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * R + 0.7152 * G + 0.0722 * B;
  };
  const behind = element => {
    for (; element; element = element.parentElement) {
      const color = getComputedStyle(element).backgroundColor;
      if (channels(color).length === 3 || channels(color)[3] > 0) return color;
    }
    return 'rgb(255, 255, 255)';
  };
  const isText = node => node.nodeType === Node.TEXT_NODE && node.data.trim();
  return [...document.querySelectorAll('body *')].filter(element =>
    element.checkVisibility() && !element.matches('script, style, :disabled') &&
    !element.closest('svg') && [...element.childNodes].some(isText)
  ).map(element => {
    const [a, b] =
      [getComputedStyle(element).color, behind(element)].map(light);
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05),
            element.outerHTML];
  });
})()"""


def find() -> str:
  """Returns the browser, or skips the test with the reason."""
  given = os.environ.get('CHROMIUM')
  for name in (given,) if given else _NAMES:
    if path := shutil.which(name):
      return path
  pytest.skip(
    f'no Chromium: none of {", ".join(_NAMES)} is on the PATH, and the '
    'environment does not name one (CHROMIUM)'
  )


class Page:
  """One tab.

  Attributes:
    problems: what the console and the page's security policy complained of.
    requests: the addresses that were asked for.
  """

  def __init__(self, reader: int, writer: int):
    """Opens the tab.

    Args:
      reader: the descriptor on which the browser answers.
      writer: the descriptor on which it is told what to do.
    """
    self.problems: list[str] = []
    self.requests: list[str] = []
    self._reader, self._writer = reader, writer
    self._unread = b''
    self._number = 0
    self._session: str | None = None
    target = self._call('Target.createTarget', url='about:blank')['targetId']
    self._session = self._call(
      'Target.attachToTarget', targetId=target, flatten=True
    )['sessionId']
    for domain in ('Page', 'Runtime', 'Log', 'Network'):
      self._call(f'{domain}.enable')

  def open(self, address: str | pathlib.Path) -> None:
    """Goes to a URL or a file, and waits until it is loaded."""
    if isinstance(address, pathlib.Path):
      address = address.resolve().as_uri()
    self._call('Page.navigate', url=address)
    self._until(lambda message: message.get('method') == 'Page.loadEventFired')

  def resize(
    self, width: int, height: int = 900, *, scheme: str = 'light'
  ) -> None:
    """Sets the window's size in CSS pixels, and 'light' or 'dark'."""
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

  def evaluate(self, expression: str) -> Any:
    """Returns the value of a JavaScript expression, which may be a promise."""
    answer = self._call(
      'Runtime.evaluate',
      expression=expression,
      returnByValue=True,
      awaitPromise=True,
    )
    if 'exceptionDetails' in answer:
      raise AssertionError(answer['exceptionDetails'])
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

  def press(self, key: str) -> None:
    """Presses and lets go of a key, where the focus is."""
    code, text = _KEYS.get(key, (0, key if len(key) == 1 else ''))
    press = {'key': key, 'windowsVirtualKeyCode': code}
    down = {'text': text} if text else {}
    self._call('Input.dispatchKeyEvent', type='keyDown', **press, **down)
    self._call('Input.dispatchKeyEvent', type='keyUp', **press)

  def press_and_load(self, key: str) -> None:
    """Presses a key that leads to another page, and waits for that."""
    self.evaluate('window.isOld = true')
    self.press(key)
    self.until('!window.isOld && document.readyState === "complete"')

  def type(self, text: str) -> None:
    """Types into what has the focus."""
    self._call('Input.insertText', text=text)

  def contrasts(self) -> list[tuple[float, str]]:
    """Returns each visible text's contrast with its ground, and its HTML."""
    return self.evaluate(_CONTRASTS)

  def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
    self._number += 1
    number = self._number
    command = {'id': number, 'method': method, 'params': parameters}
    if self._session is not None:
      command['sessionId'] = self._session
    os.write(self._writer, json.dumps(command).encode() + b'\0')
    answer = self._until(lambda message: message.get('id') == number)
    if 'error' in answer:
      raise AssertionError(f'{method}: {answer["error"]}')
    return answer['result']

  def _until(self, is_wanted) -> dict[str, Any]:
    deadline = time.monotonic() + _SECONDS
    while True:
      message = self._message(deadline)
      self._note(message)
      if is_wanted(message):
        return message

  def _message(self, deadline: float) -> dict[str, Any]:
    while b'\0' not in self._unread:
      left = deadline - time.monotonic()
      ready, _, _ = select.select([self._reader], [], [], max(left, 0))
      chunk = os.read(self._reader, 1 << 16) if ready else b''
      if not chunk:
        raise AssertionError('the browser ended, or did not answer in time')
      self._unread += chunk
    line, self._unread = self._unread.split(b'\0', 1)
    return json.loads(line)

  def _note(self, message: dict[str, Any]) -> None:
    method, parameters = message.get('method'), message.get('params', {})
    if method == 'Runtime.exceptionThrown':
      self.problems.append(json.dumps(parameters['exceptionDetails']))
    elif method == 'Runtime.consoleAPICalled':
      if parameters['type'] in ('error', 'warning', 'assert'):
        self.problems.append(json.dumps(parameters['args']))
    elif method == 'Log.entryAdded':
      entry = parameters['entry']
      self.problems.append(f'{entry["text"]} {entry.get("url", "")}')
    elif method == 'Network.requestWillBeSent':
      self.requests.append(parameters['request']['url'])


@contextlib.contextmanager
def page() -> Iterator[Page]:
  """Starts a browser without a window and yields a tab of it."""
  path = find()
  to_browser, writer = _pipe()
  reader, from_browser = _pipe()
  with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
    browser = subprocess.Popen(
      [
        sys.executable, '-c', _START, str(to_browser), str(from_browser), path,
        '--headless=new', '--no-sandbox', '--disable-gpu', '--no-first-run',
        '--hide-scrollbars', '--disable-dev-shm-usage', '--disable-extensions',
        '--disable-background-networking', '--disable-component-update',
        '--allow-pre-commit-input', '--remote-debugging-pipe',
        f'--user-data-dir={profile}', 'about:blank',
      ],
      pass_fds=(to_browser, from_browser),
      stdout=subprocess.DEVNULL,
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
