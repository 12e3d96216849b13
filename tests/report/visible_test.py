"""Every character of a text shows."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st
import pytest

from rest_jax.report import visible


@pytest.mark.parametrize(
  ('given_text', 'shown'),
  [
    ('plain text, Grüße, 你好, שלום', 'plain text, Grüße, 你好, שלום'),
    ('\x00\x1b\x1f', '␀␛␟'),
    ('a\tb\nc', 'a␉b␊c'),
    ('\x7f\x85', '␡⟨U+0085⟩'),
    ('\u2028\u2029\ufeff\u202e', '⟨U+2028⟩⟨U+2029⟩⟨U+FEFF⟩⟨U+202E⟩'),
    ('no\u00a0break', 'no\u00a0break'),
    ('می\u200cخواهم', 'می\u200cخواهم'),
    ('\ud800\ue000\U000e0041', '⟨U+D800⟩⟨U+E000⟩⟨U+E0041⟩'),
  ],
)
def test_by_hand(given_text, shown):
  assert visible.text(given_text) == shown


def test_listings_keep_their_lines():
  assert visible.text('a\n\tb\x00', keep='\n\t') == 'a\n\tb␀'


@given(st.text())
def test_nothing_is_lost_and_nothing_stays_hidden(text):
  shown = visible.text(text)
  assert len(shown) >= len(text)
  hidden = ('Cc', 'Cs', 'Co', 'Cn', 'Zl', 'Zp')
  assert not [c for c in shown if unicodedata.category(c) in hidden]
  assert visible.text(shown) == shown
  # Written as UTF-8 without a complaint, surrogates too.
  assert shown.encode('utf-8').decode('utf-8') == shown
