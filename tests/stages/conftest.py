"""Fixtures that the tests of stages share."""

import pytest

from tests import smoke


@pytest.fixture(scope='session')
def run(tmp_path_factory):
  """The finished smoke run. Do not change it."""
  return smoke.finished(tmp_path_factory.getbasetemp())
