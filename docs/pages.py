"""A hook of mkdocs: adds pages that stand outside docs/ to the site.

Links in the repository are relative to a file's place there; on the site docs/ is
the root, and the README is the page `overview`.
"""

import pathlib
import posixpath
import re
from typing import Any

_ROOT = pathlib.Path(__file__).resolve().parents[1]

# Files of the repository, and their place on the site.
PAGES = {
  'README.md': 'overview.md',
  'gin_configs/README.md': 'gin_configs/README.md',
  'launch/README.md': 'launch/README.md',
  'benchmarks/README.md': 'benchmarks/README.md',
  'CONTRIBUTING.md': 'CONTRIBUTING.md',
  'CHANGELOG.md': 'CHANGELOG.md',
}

# Files that pages link to, at the same place on the site.
FILES = ('notebooks/quickstart.ipynb',)

# The path of a relative link, without its anchor.
_PATH = re.compile(r'(?<=\]\()(?![a-z]+:|#)[^)#\s]+')


def on_files(files: Any, *, config: Any) -> Any:
  """Adds the pages and files; called by mkdocs."""
  from mkdocs.structure import files as files_lib

  for source, name in PAGES.items():
    text = (_ROOT / source).read_text(encoding='utf-8')
    files.append(files_lib.File.generated(config, name, content=text))
  for name in FILES:
    text = (_ROOT / name).read_text(encoding='utf-8')
    files.append(files_lib.File.generated(config, name, content=text))
  return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
  """Replaces the links of a page by those of the site; called by mkdocs."""
  name = page.file.src_uri
  sources = {place: source for source, place in PAGES.items()}
  source = sources.get(name, f'docs/{name}')
  return _PATH.sub(lambda path: site_path(path[0], source), markdown)


def site_path(path: str, source: str) -> str:
  """Returns the relative path of a link on the site.

  Args:
    path: the path of a link, relative to `source`.
    source: the file that has the link, from the root of the repository.
  """
  target = posixpath.join(posixpath.dirname(source), path)
  target = _on_site(posixpath.normpath(target))
  return posixpath.relpath(target, posixpath.dirname(_on_site(source)) or '.')


def _on_site(path: str) -> str:
  return PAGES.get(path) or path.removeprefix('docs/')
