"""Warnings about samples without EOS, which Improve does not train on."""

# Share of unfinished samples above which a warning is given.
MAX_SHARE = 0.05


def message(count: int, total: int, max_target_length: int) -> str | None:
  """Returns a warning if many samples are unfinished.

  Args:
    count: number of samples without EOS.
    total: number of samples, references not counted.
    max_target_length: tokens after which sampling stops.

  Returns:
    The message; None if at most `MAX_SHARE` of the samples are unfinished.
  """
  if not total or count <= MAX_SHARE * total:
    return None
  return (
    f'{count:,} of {total:,} samples ({100 * count / total:.1f} %) are '
    f'unfinished: no end of sentence within {max_target_length} tokens. Raise '
    'MAX_TARGET_LENGTH if references are longer than that; if not, train BC '
    'longer (BC_STEPS).'
  )
