"""Makes control characters in untrusted text visible and harmless.

Samples and names may contain escape sequences that a terminal executes, or
marks that change the direction of text.
"""

import unicodedata

# Controls, format marks (direction, zero width), surrogates, private
# and unassigned code points, line and paragraph separators.
_UNSEEN = ('Cc', 'Cf', 'Cs', 'Co', 'Cn', 'Zl', 'Zp')
# These join letters of some scripts and emoji, and are harmless.
_JOINERS = '\u200c\u200d'
_CONTROL_PICTURES = 0x2400
_DELETE = 0x7F


def visible(value: str, keep: str = '') -> str:
  """Returns text with visible signs for invisible characters.

  Args:
    value: any text.
    keep: characters to keep, such as line ends.

  Returns:
    The text: an escape is `␛`, other characters such as a right-to-left
    override are `⟨U+202E⟩`.
  """
  if value.isprintable():
    return value
  return ''.join(
    character
    if character in keep or character in _JOINERS
    else _sign(character)
    for character in value
  )


def _sign(character: str) -> str:
  if unicodedata.category(character) not in _UNSEEN:
    return character
  code = ord(character)
  if code < ord(' '):
    return chr(_CONTROL_PICTURES + code)
  return '␡' if code == _DELETE else f'⟨U+{code:04X}⟩'
