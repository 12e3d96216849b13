"""Tests of the command line."""

import logging
import pathlib

import pytest

from rest_jax import main

_PACKAGE = pathlib.Path(main.__file__).parent


@pytest.mark.parametrize(
  'path, ours',
  [
    (_PACKAGE / 'stages' / 'grow.py', True),
    (_PACKAGE / 'main.py', True),
    # In an environment inside of a checkout that is called like the package.
    (_PACKAGE.parent / '.venv/site-packages/orbax/checkpoint.py', False),
    (pathlib.Path('/somewhere/rest_jax/.venv/orbax.py'), False),
  ],
)
def test_other_libraries_are_told_from_ours_by_their_files(path, ours):
  record = logging.LogRecord(
    'absl', logging.INFO, str(path), 1, 'message', None, None
  )
  assert main.is_ours(record) is ours
