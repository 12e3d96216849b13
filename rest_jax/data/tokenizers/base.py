"""What a tokeniser of a model family does, and the facts of its folder."""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import pathlib
import re
from typing import Any

from rest_jax.data import special_ids as ids_lib
from rest_jax.storage import files

CONFIG = 'config.json'
SETTINGS = 'tokenizer_config.json'
_SPECIAL_TOKENS = 'special_tokens_map.json'
_ADDED_TOKENS = 'added_tokens.json'
_GENERATION = 'generation_config.json'
_JSON = 'tokenizer.json'
# Files that say what stands around a text, beside those of the pieces.
SETTINGS_FILES = (
  CONFIG,
  SETTINGS,
  _SPECIAL_TOKENS,
  _ADDED_TOKENS,
  _GENERATION,
)


@dataclasses.dataclass(frozen=True)
class Around:
  """Special ids before and after those of a text."""

  before: tuple[int, ...] = ()
  after: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Languages:
  """The codes of the languages of a run; None where none is named."""

  source: str | None = None
  target: str | None = None

  @property
  def name(self) -> str:
    """The pair in one word, such as 'deu_Latn-eng_Latn'."""
    return f'{self.source}-{self.target}'


# The languages of a run whose pairs of text each name their own.
OF_EACH_PAIR = Languages('of each pair', 'of each pair')


class Tokenizer:
  """Text to ids and back, and what stands around a text.

  Attributes:
    size: number of ids.
    special_ids: those without a language.
    files: all that it was read from.
    languages: id of each language code that may be set.
  """

  size: int
  special_ids: ids_lib.SpecialIds
  files: tuple[pathlib.Path, ...]
  languages: Mapping[str, int] = {}

  def encode(self, texts: Sequence[str], as_target: bool) -> list[list[int]]:
    """Returns the ids of each text, without special ids around them."""
    raise NotImplementedError

  def decode(self, rows: Sequence[list[int]]) -> list[str]:
    """Returns the text of each row, whose ids are all below `size`.

    Special ids of languages and the like are left out.
    """
    raise NotImplementedError

  def around(self, languages: Languages) -> tuple[Around, Around]:
    """Returns what stands around a source and around a target.

    The number of ids on each side is the same for all languages.

    Raises:
      ValueError: a language is needed and not named, or is not known.
    """
    del languages
    end = Around(after=(self.special_ids.eos,))
    return end, end

  def special_ids_of(self, languages: Languages) -> ids_lib.SpecialIds:
    """Returns the special ids of a run with these languages.

    Args:
      languages: may be `OF_EACH_PAIR`.
    """
    del languages
    return self.special_ids

  def language_id(self, name: str, code: str | None) -> int:
    """Returns the id of a language code; the errors are those of `around`."""
    if code is not None and code in self.languages:
      return self.languages[code]
    known = sorted(self.languages)
    shown = ', '.join(known[:6]) + (' …' if len(known) > 6 else '')
    raise ValueError(
      f'{name} must be one of the {len(known)} language codes of the tokeniser '
      f'{self.files[0].parent} ({shown}); got {code!r}. Set '
      f"{name.upper()} = '{known[0] if known else 'code'}' in the task's gin file."
    )


class Tagged(Tokenizer):
  """A tokeniser with tags that name the target's language before a source.

  A run that names no language has the tags in its text, or none.
  """

  def around(self, languages: Languages) -> tuple[Around, Around]:
    end, before = (self.special_ids.eos,), ()
    if languages.target is not None:
      before = (self.language_id('target_language', languages.target),)
    return Around(before, end), Around(after=end)


def by_code(ids: Mapping[str, int], tag: re.Pattern[str]) -> dict[str, int]:
  """Returns the ids of tokens that are tags, by tag and by the code within it."""
  found = [(tag.fullmatch(token), number) for token, number in ids.items()]
  return {
    match[group]: number for group in (0, 1) for match, number in found if match
  }


@dataclasses.dataclass(frozen=True)
class Folder:
  """The files of a tokeniser in a Hugging Face folder."""

  path: pathlib.Path

  def find(self, *names: str) -> pathlib.Path | None:
    """Returns the first of some files that is there."""
    found = [self.path / name for name in names if (self.path / name).exists()]
    return found[0] if found else None

  def files(self, *names: str) -> tuple[pathlib.Path, ...]:
    """Returns the named files and those of settings, as far as they exist."""
    wanted = (self.path / name for name in (*names, *SETTINGS_FILES))
    return tuple(path for path in wanted if path.is_file())

  @functools.cached_property
  def config(self) -> dict[str, Any]:
    """`config.json` of the model; empty without one."""
    return self._read(CONFIG)

  @functools.cached_property
  def settings(self) -> dict[str, Any]:
    """`tokenizer_config.json`; empty without one."""
    return self._read(_SPECIAL_TOKENS) | self._read(SETTINGS)

  @property
  def kind(self) -> str:
    """The class of the tokeniser in transformers, without 'Fast', or ''."""
    named = self.settings.get('tokenizer_class')
    named = named or self.config.get('tokenizer_class') or ''
    return named.removesuffix('Fast')

  @property
  def model_type(self) -> str:
    return self.config.get('model_type') or ''

  @functools.cached_property
  def generation(self) -> dict[str, Any]:
    """`config.json`, and `generation_config.json` where that says otherwise."""
    said = self._read(_GENERATION).items()
    return self.config | {
      key: value for key, value in said if value is not None
    }

  @functools.cached_property
  def added_tokens(self) -> dict[str, int]:
    """Ids of the tokens that the folder's settings number."""
    entries = self.settings.get('added_tokens_decoder') or {}
    found = {entry['content']: int(key) for key, entry in entries.items()}
    listed = self._read(_JSON).get('added_tokens') or []
    found |= {entry['content']: entry['id'] for entry in listed}
    return found | self._read(_ADDED_TOKENS)

  @property
  def extra_tokens(self) -> list[str] | None:
    """Special tokens that the settings list; None if they list none."""
    for name in ('extra_special_tokens', 'additional_special_tokens'):
      listed = self.settings.get(name)
      if isinstance(listed, list) and listed:
        return [_content(token) for token in listed]
    return None

  def token(self, name: str, default: str) -> str:
    """Returns the text of a special token, such as that of 'pad_token'."""
    return _content(self.settings.get(name) or default)

  def special_ids(
    self, ids: Mapping[str, int], decoder_start: int
  ) -> ids_lib.SpecialIds:
    """Returns special ids.

    Args:
      ids: of pad, eos and unk.
      decoder_start: where no file says it.
    """
    start = self.generation.get('decoder_start_token_id')
    return ids_lib.SpecialIds(
      pad=ids['pad'],
      eos=ids['eos'],
      unk=ids['unk'],
      decoder_start=decoder_start if start is None else start,
      forced_first=self.generation.get('forced_bos_token_id'),
    )

  def _read(self, name: str) -> dict[str, Any]:
    path = self.path / name
    content = files.read_json(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def _content(token: Any) -> str:
  return token['content'] if isinstance(token, dict) else token
