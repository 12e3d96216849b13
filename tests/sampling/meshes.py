"""Run by `eight`: samples drawn on several meshes."""

import pytest

from rest_jax.parallel import mesh as mesh_lib
from tests.sampling import sampler_test


def found() -> list[tuple[int, str]]:
  """How many devices or groups of them drew, and the digest of the samples."""
  together = mesh_lib.MeshConfig(data=4, model=2)
  result = [(together.build().size, _digest(sampler_test._sampler(together)))]
  with pytest.MonkeyPatch.context() as patch:
    # As where a TPU's chips cannot work together: a program for each.
    patch.setattr(mesh_lib, 'groups', lambda own, _: [own[:2], own[2:4]])
    alone = sampler_test._sampler(mesh_lib.MeshConfig())
    result.append((len(alone._meshes), _digest(alone)))
  return result


def _digest(sampler) -> str:
  return sampler_test._digest(sampler_test._sample(sampler))
