"""Tests of signs for unseen characters."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st
import pytest

from rest_jax.runtime import control_characters


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
    ('\u2028\ud800\ue000', '⟨U+2028⟩⟨U+D800⟩⟨U+E000⟩'),
    ('می\u200cخواهم', 'می\u200cخواهم'),
    # Blanks of typography and joiners of scripts are text.
    ('a\u00a0b\u3000c \u200c\u200d', 'a\u00a0b\u3000c \u200c\u200d'),
  ],
)
def test_each_kind_of_character(value, shown):
  assert control_characters.visible(value) == shown


def test_line_ends_may_stay():
  assert control_characters.visible('a\nb\r\x1b', keep='\n') == 'a\nb␍␛'


@given(st.text())
def test_nothing_is_lost_and_nothing_stays_hidden(text):
  shown = control_characters.visible(text)
  assert len(shown) >= len(text)
  hidden = ('Cc', 'Cs', 'Co', 'Cn', 'Zl', 'Zp')
  assert not [c for c in shown if unicodedata.category(c) in hidden]
  assert control_characters.visible(shown) == shown
  # Written as UTF-8 without a complaint, surrogates too.
  assert shown.encode('utf-8').decode('utf-8') == shown
