"""What TensorBoard is given of samples, read back from the event file."""

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from rest_jax.data import sample_store
from rest_jax.stages import sample_events
from tests.report import pages


def read(directory):
  """The summary values of the only event file of a folder, by their tags."""
  (path,) = directory.glob('events.out.tfevents.*')
  content, values = path.read_bytes(), {}
  while content:
    # A record: its length, a checksum, the event, a checksum.
    length = int.from_bytes(content[:8], 'little')
    event = event_pb2.Event.FromString(content[12 : 12 + length])
    content = content[16 + length :]
    for value in event.summary.value:
      values[value.tag] = (event.step, value)
  return values


@pytest.mark.parametrize('which', ['grow', 'evaluate'])
def test_histograms_hold_all_rows(run, which):
  folder = run.folder('grow_2')
  if which == 'evaluate':
    folder = run.evaluation(run.policies()[-1], 'test').folder
  store = sample_store.SampleStore.open(folder)
  values = read(folder)
  assert {step for step, _ in values.values()} == {2 if which == 'grow' else 0}
  for name, column in (
    ('reward', store.rewards('learned')[1]),
    ('length', store.tokens.lengths),
    ('log_prob', store.log_prob),
  ):
    histogram = values[f'samples/{name}'][1].histo
    assert histogram.num == len(store)
    assert histogram.sum == pytest.approx(np.sum(column, dtype=float), rel=1e-5)
    assert sum(histogram.bucket) == len(store)


def test_texts_are_there_best_first(run):
  folder = run.folder('grow_1')
  values = read(folder)
  text = values['samples/text/text_summary'][1].tensor.string_val[0].decode()
  tables = text.split('\n\n')
  assert len(tables) == 8
  pairs = run.data.pairs('train')
  assert pairs.source_text(0) in tables[0]
  store = sample_store.SampleStore.open(folder)
  rewards = store.rewards('learned')[1][store.source_id == 0]
  shown = [float(line.split('|')[1]) for line in tables[0].split('\n')[2:]]
  expected = sorted((100 * float(r) for r in rewards), reverse=True)
  assert shown == pytest.approx(expected, abs=0.051)


def test_nothing_in_a_text_is_markup():
  shown = sample_events._escaped(pages.HOSTILE + '| a | [b](c) `d` **e** _f_')
  assert not set(shown) & set('<>|`*_[]\x00\u2028\n')
  assert '&lt;script&gt;' in shown and '⟨U+2028⟩' in shown
