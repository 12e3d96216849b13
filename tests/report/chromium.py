"""A headless Chromium, driven by the DevTools protocol through a pipe."""

import base64
import itertools
import json
import os
import pathlib
import select
import shutil
import subprocess
import time

import pytest

_NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
_SECONDS = 60.0


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
  """One page in a browser of its own; a context manager.

  Attributes:
    problems: what the console and the page's security policy complained of.
    requests: the addresses that were asked for.
  """

  def __init__(self, profile: pathlib.Path):
    """Starts the browser.

    Args:
      profile: an empty folder for it.
    """
    self.problems: list[str] = []
    self.requests: list[str] = []
    self._ids = itertools.count(1)
    self._unread = b''
    to_child, self._write = os.pipe()
    self._read, from_child = os.pipe()
    # The browser reads its file descriptor 3 and writes 4.
    self._process = subprocess.Popen(
      [
        'bash',
        '-c',
        f'exec "$0" "$@" 3<&{to_child} 4>&{from_child}',
        find(),
        '--headless=new',
        '--no-sandbox',
        '--disable-gpu',
        '--no-first-run',
        '--disable-background-networking',
        f'--user-data-dir={profile}',
        '--remote-debugging-pipe',
        'about:blank',
      ],
      pass_fds=(to_child, from_child),
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )
    os.close(to_child)
    os.close(from_child)
    self._session = None

  def __enter__(self) -> 'Page':
    target = self.call('Target.createTarget', url='about:blank')['targetId']
    self._session = self.call(
      'Target.attachToTarget', targetId=target, flatten=True
    )['sessionId']
    for domain in ('Page', 'Runtime', 'Log', 'Network'):
      self.call(f'{domain}.enable')
    return self

  def __exit__(self, *exception) -> None:
    self._process.terminate()
    try:
      self._process.wait(timeout=10)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()
    os.close(self._read)
    os.close(self._write)

  def show(
    self,
    path: pathlib.Path,
    *,
    width: int = 1280,
    height: int = 900,
    is_dark: bool = False,
  ) -> None:
    """Opens a file and waits until it has loaded."""
    self.call(
      'Emulation.setDeviceMetricsOverride',
      width=width,
      height=height,
      deviceScaleFactor=1,
      mobile=False,
    )
    scheme = 'dark' if is_dark else 'light'
    self.call(
      'Emulation.setEmulatedMedia',
      features=[{'name': 'prefers-color-scheme', 'value': scheme}],
    )
    self.call('Page.navigate', url=path.resolve().as_uri())
    self._until(lambda message: message.get('method') == 'Page.loadEventFired')

  def run(self, script: str):
    """Returns the value of a JavaScript expression, which may be a promise."""
    answer = self.call(
      'Runtime.evaluate',
      expression=script,
      returnByValue=True,
      awaitPromise=True,
    )
    if 'exceptionDetails' in answer:
      raise AssertionError(answer['exceptionDetails'])
    return answer['result'].get('value')

  def press(self, key: str, code: int = 0, text: str = '') -> None:
    """Presses and releases one key."""
    for kind in ('keyDown', 'keyUp'):
      self.call(
        'Input.dispatchKeyEvent',
        type=kind,
        key=key,
        code=key,
        windowsVirtualKeyCode=code,
        **({'text': text} if text and kind == 'keyDown' else {}),
      )

  def type(self, text: str) -> None:
    """Types into what has the focus."""
    self.call('Input.insertText', text=text)

  def screenshot(self, path: pathlib.Path, *, whole: bool = False) -> None:
    """Writes what is to be seen, or the whole page, as PNG."""
    shot = self.call('Page.captureScreenshot', captureBeyondViewport=whole)
    path.write_bytes(base64.b64decode(shot['data']))

  def call(self, method: str, **parameters):
    """Sends a command and returns its answer."""
    number = next(self._ids)
    command = {'id': number, 'method': method, 'params': parameters}
    if self._session is not None:
      command['sessionId'] = self._session
    os.write(self._write, json.dumps(command).encode() + b'\0')
    answer = self._until(lambda message: message.get('id') == number)
    if 'error' in answer:
      raise AssertionError(f'{method}: {answer["error"]}')
    return answer['result']

  def _until(self, is_wanted):
    deadline = time.monotonic() + _SECONDS
    while True:
      message = self._message(deadline)
      self._note(message)
      if is_wanted(message):
        return message

  def _message(self, deadline: float) -> dict:
    while b'\0' not in self._unread:
      left = deadline - time.monotonic()
      ready, _, _ = select.select([self._read], [], [], max(left, 0))
      chunk = os.read(self._read, 1 << 16) if ready else b''
      if not chunk:
        raise AssertionError('the browser ended, or did not answer in time')
      self._unread += chunk
    line, self._unread = self._unread.split(b'\0', 1)
    return json.loads(line)

  def _note(self, message: dict) -> None:
    """Keeps what went wrong, and what was asked of the network."""
    method, parameters = message.get('method'), message.get('params', {})
    if method == 'Runtime.exceptionThrown':
      self.problems.append(json.dumps(parameters['exceptionDetails']))
    elif method == 'Runtime.consoleAPICalled':
      if parameters['type'] in ('error', 'warning', 'assert'):
        self.problems.append(json.dumps(parameters['args']))
    elif method == 'Log.entryAdded':
      self.problems.append(parameters['entry']['text'])
    elif method == 'Network.requestWillBeSent':
      self.requests.append(parameters['request']['url'])
