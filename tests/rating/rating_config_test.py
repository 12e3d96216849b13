"""Tests of the settings of the rating page."""

import pytest

from rest_jax.rating import rating_config


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'policies': ('bc',)}, 'two different policies'),
    ({'policies': ('bc', 'bc')}, 'two different policies'),
    ({'policies': ('bc', 'improve_1_1', 'bc')}, 'two different policies'),
    ({'num_items': 0}, 'num_items must be at least 1; got 0'),
    ({'kind': 'stars'}, "kind must be one of .* got 'stars'"),
    ({'port': 65536}, 'port must be in'),
    ({'host': 'localhost'}, "an IP address; got 'localhost'"),
  ],
)
def test_wrong_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    rating_config.RatingConfig(**settings)


@pytest.mark.parametrize(
  ('host', 'needs_token'),
  [
    ('127.0.0.1', False),
    ('127.0.0.9', False),
    ('::1', False),
    ('0.0.0.0', True),
    ('::', True),
    ('192.168.1.5', True),
  ],
)
def test_only_loopback_needs_no_token(host, needs_token):
  assert rating_config.RatingConfig(host=host).needs_token == needs_token


def test_the_question():
  assert 'How well' in rating_config.RatingConfig().question
  assert (
    'Which output' in rating_config.RatingConfig(kind='preference').question
  )
  assert rating_config.RatingConfig(instruction='Fluent?').question == 'Fluent?'
