"""What is shown of samples: best first, equal ones once, nothing too long."""

from rest_jax.report.gather import samples
from tests.report import pages


def test_equal_texts_are_merged_and_the_best_comes_first():
  merged = samples.merge(
    [
      pages.candidate('a', 1.0),
      pages.candidate('b', 3.0),
      pages.candidate('a', 1.0),
      pages.candidate('a', 1.0, finished=False),
    ]
  )
  assert [(one.text, one.count, one.finished) for one in merged] == [
    ('b', 1, True),
    ('a', 2, True),
    ('a', 1, False),
  ]


def test_long_texts_are_cut_and_say_so():
  content = samples.Samples(
    split='test',
    policies=('bc',),
    sources=(
      samples.Browsed(
        source_id=7,
        source='x' * (samples.MAX_CHARACTERS + 1),
        reference=None,
        candidates=((pages.candidate('y' * samples.MAX_CHARACTERS, 1.0),),),
      ),
    ),
    num_sources=1,
    samples_per_source=1,
  ).content()
  (source,) = content['sources']
  assert source['source'].endswith('x… (2,001 characters)')
  assert source['reference'] is None
  assert source['candidates'][0][0][0] == 'y' * samples.MAX_CHARACTERS
