"""When unfinished samples are worth a warning, and what it says."""

from rest_jax.stages import samples_without_eos


def test_few_are_no_warning():
  assert samples_without_eos.message(5, 100, 48) is None
  assert samples_without_eos.message(0, 0, 48) is None


def test_many_are_counted_and_it_says_what_to_do():
  text = samples_without_eos.message(760, 1000, 48)
  assert '760 of 1,000 samples (76.0 %)' in text and '48 tokens' in text
  assert 'MAX_TARGET_LENGTH' in text and 'BC_STEPS' in text
