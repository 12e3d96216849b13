"""The network of an imported policy as a gin file."""

import pytest

from rest_jax.cli import convert
from rest_jax.stages import imported
from tests.models import families


@pytest.mark.parametrize('name', families.DESCRIBED)
def test_a_network_is_read_back_from_its_gin_file(name, tmp_path):
  config = families.config(name)
  path = tmp_path / imported.NETWORK_GIN
  path.write_text(imported._gin(config, 'elsewhere'))
  assert convert._sizes([str(path)], []) == config
