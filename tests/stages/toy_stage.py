"""A stage of a user's own, in one file: it counts the words of a split."""

import dataclasses

from rest_jax.stages import base


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CountWords(base.Stage):
  """Counts the words of the sources that are trained on."""

  data: base.Stage

  run_mode = 'count'
  help = 'Counts words.'
  pattern = 'words'
  alone = 'words are counted by one process; got {count}.'
  is_profiled = False

  @property
  def inputs(self):
    return {'data': self.data}

  def settings(self, context):
    return {'data': context.data.digest}

  def make(self, context, output):
    pairs = context.data.pairs('train')
    counts = [len(pairs.source_text(row).split()) for row in range(len(pairs))]
    (output.path / 'counts.txt').write_text('\n'.join(map(str, counts)))
    return {'words': sum(counts)}

  def lines(self):
    return ['  words     of the sources']
