"""Tests of what a training writes as it goes."""

import errno

import pytest

from rest_jax.storage import event_file, files
from rest_jax.training import journal


@pytest.mark.parametrize('is_failing', [True, False])
def test_a_full_disk_at_the_end_hides_no_earlier_error(
  tmp_path, monkeypatch, is_failing
):
  close = event_file.EventFile.close

  def fail(self):
    close(self)
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(event_file.EventFile, 'close', fail)
  opened = journal.Journal(
    tmp_path, first_step=0, num_steps=2, description='test'
  )
  earlier = files.disk_error(tmp_path / 'checkpoints', errno.ENOSPC, 123)
  with pytest.raises(OSError) as caught, opened:
    if is_failing:
      raise earlier
  assert (caught.value is earlier) == is_failing


@pytest.mark.parametrize('torn', [b'{"step": 5', b'7\n', b'\xff', b'null\n'])
def test_a_damaged_line_ends_what_a_resumed_training_keeps(tmp_path, torn):
  path = tmp_path / journal.METRICS_FILE
  whole = b'{"step": 1, "split": "train"}\n{"step": 2, "split": "train"}\n'
  path.write_bytes(whole + torn)
  assert [line['step'] for line in journal.read_metrics(tmp_path)] == [1, 2]
  with journal.Journal(tmp_path, first_step=2, num_steps=3, description='test'):
    pass
  assert path.read_bytes() == whole
