"""Settings of sampling."""

import math

import pytest

from rest_jax.sampling import decode_config

_BEAM = {'beam_size': 4, 'temperature': 0.0}


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'num_samples_per_source': 0}, 'num_samples_per_source must be at'),
    ({'temperature': -1.0}, r'temperature must be in \[0, inf\); got'),
    ({'temperature': math.nan}, r'temperature must be in \[0, inf\); got'),
    ({'temperature': 0.0}, 'same hypothesis every time'),
    ({'max_target_length': 0}, 'max_target_length must be at least 1'),
    ({'block_sources': 0}, 'block_sources must be at least 1'),
    ({'blocks_in_flight': 0}, 'blocks_in_flight must be at least 1'),
    ({'samples_per_block': 5}, 'samples_per_block must lie between 1 and'),
    ({'samples_per_block': 0}, 'samples_per_block must lie between 1 and'),
    ({'source_length_buckets': (8, 8)}, 'source_length_buckets must be'),
    ({'source_length_buckets': ()}, 'source_length_buckets must be'),
    ({'cache_stages': (0, 8)}, 'cache_stages must be rising'),
    ({'row_shares': (0.5, 0.25)}, 'row_shares must be strictly increasing'),
    ({'row_shares': (0.5, 1.0)}, 'lie between 0 and 1'),
    ({'compact_shares': (0.25, 0.5)}, 'compact_shares must be strictly decr'),
    ({'compact_shares': (1.0,)}, 'lie between 0 and 1'),
    ({'top_k': 0}, 'top_k must be at least 1'),
    ({'top_p': 0.0}, r'top_p must be in \(0, 1\]'),
    ({'queue_sources': 0}, 'queue_sources must be at least 1, or None'),
    ({'queue_length': 0.0}, 'queue_length must be positive; got 0.0'),
    ({'weights_dtype': 'int8'}, r"weights_dtype must be one of \('float32',"),
    ({**_BEAM, 'temperature': 0.8}, 'beam_size needs temperature=0'),
    ({**_BEAM, 'samples_per_block': 1}, 'samples_per_block=None'),
    ({**_BEAM, 'beam_size': 3}, 'beam_size must be at least 4, or None'),
    ({**_BEAM, 'length_penalty': -1.0}, 'length_penalty must be'),
    ({**_BEAM, 'length_penalty': math.inf}, 'length_penalty must be'),
  ],
)
def test_refuses_settings(settings, message):
  settings = {'num_samples_per_source': 4, **settings}
  with pytest.raises(ValueError, match=message):
    decode_config.DecodeConfig(**settings)


def test_stages_end_with_the_maximum_length():
  def stages(length):
    return decode_config.DecodeConfig(
      num_samples_per_source=1,
      max_target_length=length,
      cache_stages=[8, 16, 32],
    ).stages

  assert stages(20) == (8, 16, 20)
  assert stages(8) == (8,)
