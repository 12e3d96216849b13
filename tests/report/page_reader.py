"""What a page holds, read by Python's own parser."""

import dataclasses
from html import parser
import json
import pathlib
from typing import Any

_VOID = ('meta', 'link', 'img', 'input', 'br')


@dataclasses.dataclass
class Read:
  """A page taken apart.

  Attributes:
    tags: (name, attributes) of every element, in order.
    tables: rows of cells, the header first, by the table's name.
    text: all text outside of script and style.
    scripts: texts of script elements.
    data: what the samples' script element holds; None without one.
    unclosed: elements that were opened and never closed, or wrongly.
  """

  tags: list[tuple[str, dict[str, str]]]
  tables: dict[str, list[list[str]]]
  text: str
  scripts: list[str]
  data: Any
  unclosed: list[str]

  def all(self, name: str) -> list[dict[str, str]]:
    """Attributes of all elements of a name."""
    return [attributes for tag, attributes in self.tags if tag == name]


class _Reader(parser.HTMLParser):
  def __init__(self):
    super().__init__(convert_charrefs=True)
    self.read = Read([], {}, '', [], None, [])
    self._open: list[tuple[str, dict[str, str]]] = []
    self._rows: list[list[str]] = []

  def handle_starttag(self, tag, attributes):
    attributes = {name: value or '' for name, value in attributes}
    self.read.tags.append((tag, attributes))
    if tag in _VOID:
      return
    self._open.append((tag, attributes))
    if tag == 'table':
      self._rows = self.read.tables[attributes['aria-label']] = []
    elif tag == 'tr':
      self._rows.append([])
    elif tag in ('td', 'th'):
      self._rows[-1].append('')

  def handle_endtag(self, tag):
    if not self._open or self._open[-1][0] != tag:
      self.read.unclosed.append(tag)
      return
    self._open.pop()

  def handle_data(self, text):
    tag, attributes = self._open[-1] if self._open else ('', {})
    if tag == 'style':
      return
    if tag == 'script':
      self.read.scripts.append(text)
      if attributes.get('id') == 'data':
        self.read.data = json.loads(text)
      return
    self.read.text += text
    if any(name in ('td', 'th') for name, _ in self._open):
      self._rows[-1][-1] += text


def read(path: pathlib.Path) -> Read:
  """Reads a page."""
  reader = _Reader()
  reader.feed(path.read_text(encoding='utf-8'))
  reader.close()
  reader.read.unclosed += [tag for tag, _ in reader._open]
  return reader.read
