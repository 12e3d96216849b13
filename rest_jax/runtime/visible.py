"""Text of unknown origin, shown so that it is seen and cannot act.

Samples and names may hold escape sequences that a terminal obeys, or marks that
turn the direction of what follows.
"""

import unicodedata

# Controls, format marks (direction, zero width), halves of surrogate pairs, private
# and unassigned code points, line and paragraph separators.
_UNSEEN = ('Cc', 'Cf', 'Cs', 'Co', 'Cn', 'Zl', 'Zp')
# Letters of some scripts and emoji are joined by these; they do no harm.
_JOINERS = '\u200c\u200d'
_CONTROL_PICTURES = 0x2400
_DELETE = 0x7F


def text(value: str, keep: str = '') -> str:
  """Returns text with a visible sign for each unseen character.

  Args:
    value: any text.
    keep: characters that stay as they are, such as line ends.

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
