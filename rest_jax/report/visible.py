"""Text as people see it: what has no picture gets one.

Control characters, marks that turn the direction of text, and invisible ones
would hide what a sample holds, or make it look like another.
"""

import unicodedata

# Joiners that words of several scripts, and emoji, are written with.
_WRITTEN = '\u200c\u200d'
_HIDDEN = ('Cc', 'Cf', 'Cs', 'Co', 'Cn', 'Zl', 'Zp')


def text(given: str, keep: str = '') -> str:
  r"""Returns a text whose every character shows.

  C0 control characters become their pictures, `␀` to `␡`; others that do not
  show become `⟨U+2028⟩`.

  Args:
    given: any text.
    keep: characters to leave as they are, such as '\n' in a listing.
  """
  if given.isprintable():  # All but what follows, and blanks; the fast way.
    return given
  return ''.join(
    character if character in keep else _shown(character) for character in given
  )


def _shown(character: str) -> str:
  if character in _WRITTEN or unicodedata.category(character) not in _HIDDEN:
    return character
  point = ord(character)
  if point < 0x20:
    return chr(0x2400 + point)
  if point == 0x7F:
    return '\u2421'
  return f'⟨U+{point:04X}⟩'
