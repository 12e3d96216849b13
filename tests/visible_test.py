"""Tests of signs for unseen characters."""

import pytest

from rest_jax import visible


@pytest.mark.parametrize(
  ('value', 'shown'),
  [
    ('plain text, ä 好', 'plain text, ä 好'),
    ('\x1b[31mred', '␛[31mred'),
    ('a\tb\nc\0', 'a␉b␊c␀'),
    ('\x7f\x9b', '␡⟨U+009B⟩'),
    # A name that reads backwards, and one with nothing to be seen.
    ('a\u202eb', 'a⟨U+202E⟩b'),
    ('\u200b\ufeff', '⟨U+200B⟩⟨U+FEFF⟩'),
    ('\u2028\ud800', '⟨U+2028⟩⟨U+D800⟩'),
    # Blanks of typography and joiners of scripts are text.
    ('a\u00a0b\u3000c \u200c\u200d', 'a\u00a0b\u3000c \u200c\u200d'),
  ],
)
def test_each_kind_of_character(value, shown):
  assert visible.text(value) == shown


def test_line_ends_may_stay():
  assert visible.text('a\nb\r\x1b', keep='\n') == 'a\nb␍␛'
