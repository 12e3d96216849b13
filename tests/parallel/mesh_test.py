import dataclasses
import types

import jax
import numpy as np
import pytest

from rest_jax.models import policy as policy_lib
from rest_jax.parallel import mesh as mesh_lib
from tests.models import tiny
from tests.parallel import eight, hlo_groups

ALONE = ('data parallel', 'fully sharded', 'tensor parallel', 'two slices')


@pytest.fixture(scope='module')
def found(tmp_path_factory):
  """What tests/parallel/eight_devices.py finds on 8 simulated devices."""
  base = tmp_path_factory.getbasetemp()
  return eight.found(base)['parallel.eight_devices']


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """What tests/parallel/twenty_steps.py finds there."""
  base = tmp_path_factory.getbasetemp()
  return eight.found(base)['parallel.twenty_steps']


@pytest.fixture(scope='module')
def trained_alone():
  steps = ':'.join(['parallel.twenty_steps', 'one device', *ALONE])
  return eight.run(steps)['parallel.twenty_steps']


MESHES = ('8x1', '4x2', '1x2')


@pytest.mark.parametrize('shape', MESHES)
def test_sharded_initialisation_gives_the_same_bits(found, shape):
  assert found[shape]['put_difference'] == 0


@pytest.mark.parametrize('shape', MESHES)
def test_outputs_equal_those_of_one_device(found, shape):
  assert found[shape]['log_probs_difference'] < 1e-5
  assert found[shape]['dropout_difference'] < 1e-5


def test_arrays_lie_as_the_rules_say(found):
  assert found['4x2']['specs'] == {
    'wi_0': ['None', 'model'],
    'query': ['None', 'model'],
    'embedding': ['model', 'None'],
    'logits': ['data', 'None', 'model'],
    'batch': ['data'],
  }
  assert found['fully_sharded'] == ['data', 'model']


@pytest.mark.parametrize('rules', ['with rules', 'without rules'])
def test_decode_step_inside_shard_map(found, rules):
  assert found['shard_map'][rules] < 1e-5


def test_errors_on_several_devices(found):
  errors = found['errors']
  # The first parameter with an axis that 8 does not divide.
  assert 'decoder/layers_0/mlp/wi_0/kernel' in errors['axis']
  assert "'mlp' of size 20" in errors['axis']
  assert 'mesh axis model of 8' in errors['axis']
  assert 'axis data of 8' in errors['rows']
  assert 'rows of shape (6, 3)' in errors['rows']
  assert 'the number of devices, 8; got data * 3' in errors['model']
  assert 'the number of devices, 8; got 2 * 2' in errors['both']


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'data': 0}, 'data must be a number of devices'),
    ({'model': 0}, 'model must be a number of devices'),
    ({'slices': 0}, 'slices must be a number of slices'),
    ({'rules': (('embed', 'expert'),)}, r"got \('embed', 'expert'\)"),
    ({'rules': (('embed',),)}, 'rules must be pairs'),
  ],
)
def test_wrong_settings_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    mesh_lib.MeshConfig(**settings)


def test_lists_from_gin_are_taken():
  config = mesh_lib.MeshConfig(rules=[['batch', 'data'], ['embed', None]])
  assert config.rules == (('batch', 'data'), ('embed', None))
  assert hash(config)


def test_scalars_are_no_batch():
  mesh = mesh_lib.MeshConfig().build(jax.devices()[:1])
  with pytest.raises(ValueError, match=r'got step of shape \(\)'):
    mesh_lib.put_batch({'step': np.int32(1)}, mesh)


def test_one_device_holds_everything():
  mesh = mesh_lib.MeshConfig().build(jax.devices()[:1])
  assert dict(mesh.shape) == {'data': 1, 'model': 1}
  policy = policy_lib.Policy(tiny.config())
  made = policy.init(jax.random.key(0))
  params = mesh_lib.put_params(made, policy.logical_axes(), mesh)
  jax.tree.map(np.testing.assert_array_equal, params, made)
  batch = tiny.batch(0, [4, 3], [5, 2])
  put = mesh_lib.put_batch(batch, mesh)
  jax.tree.map(np.testing.assert_array_equal, put, batch)
  with mesh_lib.use(mesh):
    np.testing.assert_allclose(
      jax.jit(policy.log_probs)(params, put),
      tiny.jitted(policy, 'log_probs')(params, batch),
      atol=1e-5,
    )


@pytest.mark.parametrize('how', eight.COMBINED)
def test_twenty_steps_are_those_of_one_device(trained, how):
  assert trained[how]['difference'] < 1e-4
  assert trained[how]['movement'] > 1e-2


@pytest.mark.full
@pytest.mark.parametrize('how', ALONE)
def test_each_axis_alone_trains_as_one_device(trained_alone, how):
  test_twenty_steps_are_those_of_one_device(trained_alone, how)


@pytest.mark.full
@pytest.mark.parametrize('family', ['t5gemma', 't5gemma2'])
def test_twenty_steps_of_a_t5gemma_are_those_of_one_device(family):
  ran = eight.run(f'parallel.gemma_meshes:{family}')
  for how, found in ran['parallel.gemma_meshes'].items():
    assert found['difference'] < 1e-4, how
    assert found['movement'] > 1e-2, how


def test_adapters_train_on_a_mesh_as_on_one_device(tmp_path_factory):
  found = eight.found(tmp_path_factory.getbasetemp())
  split = found['parallel.lora_meshes']['both']
  assert split['difference'] < 1e-4
  assert split['movement'] > 1e-2
  # As the kernel [embed, mlp]; the rank is not split.
  assert split['specs'] == {
    'lora_a': ['data', 'None'],
    'lora_b': ['None', 'model'],
  }


def test_a_device_holds_its_part_of_parameters_and_moments(trained):
  # Bytes of matrices, norms and position biases of the toy network.
  matrices, norms, biases = 27648, 448, 512
  expected = {
    'one device': matrices + norms + biases,
    'data parallel': matrices + norms + biases,
    # Over 8 devices all but the biases, which have no axis `embed`.
    'fully sharded': matrices // 8 + norms // 8 + biases,
    # Over 2 all but the norms, which have nothing else.
    'tensor parallel': matrices // 2 + norms + biases // 2,
    'both': matrices // 8 + norms // 4 + biases // 2,
    # Over the four of a slice alone; over its two and two of `model`.
    'two slices': matrices // 4 + norms // 4 + biases,
    'two slices, both': matrices // 4 + norms // 2 + biases // 2,
  }
  assert {how: found['params'] for how, found in trained.items()} == expected
  for how, found in trained.items():
    # Two moments of each number, and counts of steps.
    assert 0 <= found['optimizer'] - 2 * expected[how] < 64, how


def test_parameters_are_gathered_within_a_slice_alone(trained):
  within = trained['two slices']['gathers']
  # Every matrix, of which the smallest is 16 x 16, is gathered somewhere.
  assert sum(size >= 256 for size, _ in within) > 5
  assert {slices for size, slices in within if size >= 256} == {1}


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('{{0,1},{2,3}}, dimensions={0}', [[0, 1], [2, 3]]),
    ('[2,2]<=[4], dimensions={0}', [[0, 1], [2, 3]]),
    ('[2,2]<=[2,2]T(1,0), dimensions={0}', [[0, 2], [1, 3]]),
    ("mesh['a'=2,'b'=2] {'b'}, dimensions={1}", [[0, 1], [2, 3]]),
    ("mesh['a'=2,'b'=2] {'a'}", [[0, 2], [1, 3]]),
    ("mesh['a'=2,'b'=2,'c'=1] {'a','b'}", [[0, 1, 2, 3]]),
    (
      "mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}, dimensions={0}",
      [[0, 1, 2, 3], [4, 5, 6, 7]],
    ),
  ],
)
def test_groups_of_collectives_are_read(text, expected):
  assert hlo_groups.groups(text) == expected


@dataclasses.dataclass(frozen=True)
class _Device:
  """Stands for a chip: `id` and the slice that it is of."""

  id: int
  slice_index: int
  platform: str = 'tpu'
  device_kind: str = 'TPU v5 lite'
  process_index: int = 0

  @property
  def coords(self):
    return (self.id % 2, self.id // 2 % 2, 0)

  @property
  def core_on_chip(self):
    return 0


def _devices(*slices, platform='tpu'):
  return [
    _Device(number, of, platform=platform) for number, of in enumerate(slices)
  ]


def test_slices_are_outermost_along_data():
  mixed = _devices(1, 1, 1, 1, 0, 0, 0, 0)
  mesh = mesh_lib.MeshConfig(slices=2, model=2).build(mixed)
  assert dict(mesh.shape) == {'slice': 2, 'data': 2, 'model': 2}
  for number, of_slice in enumerate(mesh.devices):
    assert {device.slice_index for device in of_slice.flat} == {number}


def test_devices_of_a_cpu_stand_for_slices_in_their_order():
  devices = _devices(*[0] * 8, platform='cpu')
  mesh = mesh_lib.MeshConfig(slices=4).build(devices)
  assert dict(mesh.shape) == {'slice': 4, 'data': 2, 'model': 1}
  assert [device.id for device in mesh.devices.flat] == list(range(8))


@pytest.mark.parametrize(
  ('slices', 'of', 'message'),
  [
    (3, [0] * 8, r'slices must divide the devices along data, 8; got 3'),
    (2, [0] * 8, r'got 2 for devices of 1, with \[8\] each'),
    (2, [0, 0, 0, 1, 1, 1, 1, 1], r'with \[3, 5\] each. Hand over as many'),
    (4, [0, 0, 0, 0, 1, 1, 1, 1], r'Set MeshConfig.slices = 2'),
    (1, [0, 0, 0, 0, 1, 1, 1, 1], r'meshes/multislice.gin'),
  ],
)
def test_slices_that_are_not_there_are_refused(slices, of, message):
  with pytest.raises(ValueError, match=message):
    mesh_lib.MeshConfig(slices=slices).build(_devices(*of))


@pytest.mark.parametrize(
  'kind, own, everything, parts',
  [
    ('TPU v4', 4, 8, [4]),
    ('TPU v5', 4, 8, [4]),
    ('TPU v5 lite', 4, 16, [1, 1, 1, 1]),
    ('TPU v6 lite', 4, 16, [1, 1, 1, 1]),
    # Of one process, the slice is whole.
    ('TPU v5 lite', 8, 8, [8]),
    ('NVIDIA H100', 4, 8, [4]),
  ],
)
def test_devices_that_can_work_without_the_others(kind, own, everything, parts):
  platform = 'tpu' if kind.startswith('TPU') else 'gpu'
  devices = [
    types.SimpleNamespace(platform=platform, device_kind=kind, id=number)
    for number in range(own)
  ]
  found = mesh_lib.groups(devices, everything)
  assert [len(group) for group in found] == parts
  assert [device for group in found for device in group] == devices
