"""Low-rank adapters (LoRA): training few numbers beside frozen matrices.

A kernel W [in, out] is replaced by

  W + (alpha / rank) A B,  A [in, rank], B [rank, out],

of which only A and B are trained. A is random and B is 0 at first, so that
training starts at W exactly. The sum is formed inside the step, so a network
needs no change, and a policy with its sums in place of W is an ordinary one.

Source: Hu et al., LoRA (arXiv 2106.09685), section 4.1.
"""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any, cast

from flax import traverse_util
import jax
import jax.numpy as jnp
from jaxtyping import Array

from rest_jax import settings, types
from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib

# The frozen parameters, among those that a step reads and does not change.
BASE = 'base'

_A, _B = 'lora_a', 'lora_b'
_KERNEL = 'kernel'

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig:
  """Which matrices of a policy get adapters, and of which size.

  Attributes:
    rank: columns of A and rows of B.
    alpha: the product A B is multiplied by alpha / rank.
    matrices: names of the adapted matrices: 'query', 'key', 'value' and 'out' of
      attention, 'wi_0', 'wi_1' and 'wo' of feed-forward blocks, 'logits_dense',
      or several parts of a path in the parameter tree, such as
      'encoder_decoder_attention/query' or 'decoder/layers_0'. Embeddings, norms
      and biases have no adapters and stay as they are.
  """

  rank: int = 8
  alpha: float = 16.0
  matrices: Sequence[str] = ('query', 'value')

  def __post_init__(self):
    settings.make_tuples(self, 'matrices')
    settings.at_least(self, 1, 'rank')
    settings.positive(self, 'alpha')
    if not self.matrices:
      raise ValueError(
        "matrices must name at least one, such as ('query', 'value'); got ()."
      )

  @property
  def scale(self) -> float:
    return self.alpha / self.rank

  @property
  def words(self) -> str:
    return f'rank {self.rank}, alpha {self.alpha:g}: {", ".join(self.matrices)}'

  def merge(self, base: types.Params, adapters: types.Params) -> types.Params:
    """Returns the parameters with adapted kernels; traceable."""
    flat = _flatten(base)
    pairs = _pairs(adapters)
    kernels = {path: flat[path] for path in pairs}
    return traverse_util.unflatten_dict(
      {**flat, **_sums(kernels, pairs, self.scale)}
    )


@dataclasses.dataclass(frozen=True)
class Adapters:
  """The adapters of a model, to be initialised and placed as a model is.

  Parameters are nested as those of the model, with `lora_a` and `lora_b` in
  place of each adapted kernel.
  """

  model: policy_lib.Policy
  config: LoraConfig

  def __post_init__(self):
    if not isinstance(self.model, policy_lib.Policy):
      raise ValueError(
        'TrainerConfig.lora is for the trainings of policies; got it for a '
        f'{type(self.model).__name__}, whose new head has to be trained. Set it '
        'for bc and improve alone.'
      )

  @functools.cached_property
  def _shapes(self) -> dict[Path, tuple[int, ...]]:
    """The shape of each adapted kernel.

    Raises:
      ValueError: a name is that of no kernel.
    """
    shapes = jax.eval_shape(self.model.init, jax.random.key(0))
    kernels = {
      path: leaf.shape
      for path, leaf in _flatten(shapes).items()
      if path[-1] == _KERNEL and len(leaf.shape) == 2
    }
    names = self.config.matrices
    for name in names:
      if not any(_is_named(path, name) for path in kernels):
        known = ', '.join(sorted({path[-2] for path in kernels}))
        raise ValueError(
          f'LoraConfig.matrices must name matrices of the network; got {name!r}. '
          f'It has: {known}. A name may also be some parts of a path, such as '
          f'{"/".join(min(kernels)[:-1])!r}.'
        )
    return {
      path: shape
      for path, shape in sorted(kernels.items())
      if any(_is_named(path, name) for name in names)
    }

  @property
  def num_params(self) -> int:
    """How many numbers are trained."""
    return sum(self.config.rank * sum(each) for each in self._shapes.values())

  def init(self, key: Array) -> types.Params:
    """Returns a random A and a B of zeros for each kernel.

    A has variance 1 / in, so that x A is about as large as x.
    """
    rank, found = self.config.rank, {}
    for i, (path, (size_in, size_out)) in enumerate(self._shapes.items()):
      random = jax.random.normal(jax.random.fold_in(key, i), (size_in, rank))
      found[*path, _A] = random * size_in**-0.5
      found[*path, _B] = jnp.zeros((rank, size_out))
    return traverse_util.unflatten_dict(found)

  def logical_axes(self) -> types.Params:
    """The logical names of each adapter's axes: the kernel's, rank not split."""
    axes = _flatten(self.model.logical_axes())
    spec, found = jax.sharding.PartitionSpec, {}
    for path in self._shapes:
      axis_in, axis_out = axes[path]
      found[*path, _A] = spec(axis_in, None)
      found[*path, _B] = spec(None, axis_out)
    return traverse_util.unflatten_dict(found)


class Training:
  """One training of adapters, beside the parameters that it leaves alone."""

  def __init__(
    self,
    model: policy_lib.Policy,
    config: LoraConfig,
    params: types.Params,
    mesh_config: mesh_lib.MeshConfig,
  ):
    """Places the parameters."""
    self.model = Adapters(model, config)
    self.base = mesh_lib.put_params(
      params, model.logical_axes(), mesh_config.build(), mesh_config.rules
    )
    self._flat = _flatten(self.base)

  def init(self, seed: int) -> types.Params:
    """Returns the adapters that training starts from."""
    return jax.jit(self.model.init)(jax.random.key(seed))

  def merged(self, adapters: types.Params) -> types.Params:
    """Returns a whole policy; what has no adapters is shared with the base."""
    pairs = _pairs(adapters)
    kernels = {path: self._flat[path] for path in pairs}
    sums = _jitted_sums(
      tuple((path, kernel.sharding) for path, kernel in kernels.items()),
      self.model.config.scale,
    )
    return traverse_util.unflatten_dict({**self._flat, **sums(kernels, pairs)})


def _flatten(tree: types.Params) -> dict[Path, Any]:
  """Leaves by path."""
  return cast(dict[Path, Any], traverse_util.flatten_dict(tree))


def _is_named(path: Path, name: str) -> bool:
  """Whether a name is one part, or several parts in a row, of a path."""
  return f'/{name}/' in f'/{"/".join(path[:-1])}/'


def _pairs(adapters: types.Params) -> dict[Path, tuple[Array, Array]]:
  """A and B of each adapted kernel, by the kernel's path."""
  flat = _flatten(adapters)
  return {
    path[:-1]: (a, flat[*path[:-1], _B])
    for path, a in flat.items()
    if path[-1] == _A
  }


def _sums(
  kernels: dict[Path, Array],
  pairs: dict[Path, tuple[Array, Array]],
  scale: float,
) -> dict[Path, Array]:
  # As exact on every device, as a policy is merged on others than it is trained
  # on.
  product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
  return {
    path: kernel + scale * product(*pairs[path])
    for path, kernel in kernels.items()
  }


@functools.lru_cache(maxsize=16)
def _jitted_sums(
  shardings: tuple[tuple[Path, jax.sharding.Sharding], ...], scale: float
) -> Any:
  return jax.jit(
    functools.partial(_sums, scale=scale), out_shardings=dict(shardings)
  )
