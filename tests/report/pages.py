"""Results and pages made up for tests, the worst text among them."""

from rest_jax.evaluation import metrics, outputs
from rest_jax.evaluation import results as results_lib
from rest_jax.evaluation import variant as variant_lib
from rest_jax.report.gather import samples as samples_lib
from rest_jax.report.render import html
from tests.evaluation import made

HOSTILE = (
  '</script><script>document.title="taken"</script>'
  '<img src=x onerror=alert(1)> "quoted" \'single\' & {{ 7 * 7 }} '
  'nul\x00 bell\x07 del\x7f line\u2028 para\u2029 turn\u202e end <!-- '
)
# The same with what does not show made visible.
VISIBLE = (
  HOSTILE.replace('\x00', '␀')
  .replace('\x07', '␇')
  .replace('\x7f', '␡')
  .replace('\u2028', '⟨U+2028⟩')
  .replace('\u2029', '⟨U+2029⟩')
  .replace('\u202e', '⟨U+202E⟩')
)


def variant(grow: int, improve: int, split: str = 'validation', **fields):
  """One policy on one split."""
  full = {
    'reward': metrics.Estimate(70.0 + 5 * grow + improve, 0.25),
    'best_of_n': {1: 70.0 + improve, 2: 75.0 + improve},
    'bleu': 30.0 + improve,
  }
  if grow:
    full['difference_to_bc'] = metrics.Difference(5.0 * grow + improve, 0.125)
    full['filter'] = variant_lib.Filter(kind='percentile', value=50.0 + improve)
  return made.variant(grow, improve, **{'split': split, **full, **fields})


def diagnostics(**fields) -> variant_lib.Diagnostics:
  """Diagnostics of one policy."""
  full = {
    'sources': 250,
    'repetition': 0.0125,
    'distinct_1': 0.101,
    'distinct_2': 0.3,
    'self_bleu': 61.25,
    'wrong_language': 0.02,
    'wrong_language_references': 0.01,
    'copied': 0.004,
    'kl_to_bc': metrics.Estimate(1.5, 0.125),
    'kl_to_bc_per_token': 0.1254,
  }
  return variant_lib.Diagnostics(**{**full, **fields})


def results(**fields) -> results_lib.Results:
  """BC and two Improve steps on two splits."""
  return results_lib.Results(
    task='made up',
    variants=tuple(
      variant(grow, improve, split, **fields)
      for split in ('validation', 'test')
      for grow, improve in ((0, 0), (1, 1), (1, 2))
    ),
  )


def decoded() -> results_lib.Results:
  """BC and an Improve step whose greedy output the judge likes better."""
  rise = metrics.Difference(3.0, 0.5)

  def output(mean: float, **fields) -> outputs.Output:
    judged = metrics.Estimate(mean, 0.5)
    return outputs.Output(
      reward=judged, human=judged, bleu=40.0, chrf=60.0, **fields
    )

  risen = {'difference_to_bc': rise, 'human_difference_to_bc': rise}
  of_steps = {
    0: {'greedy': output(60.0), 'samples': output(50.0)},
    1: {'greedy': output(63.0, **risen), 'samples': output(53.0, **risen)},
  }
  return results_lib.Results(
    task='made up',
    variants=tuple(
      variant(
        step, step, split, outputs=decoded, human=decoded['samples'].human
      )
      for split in ('validation', 'test')
      for step, decoded in of_steps.items()
    ),
  )


def candidate(text: str, reward: float, length: int = 5, **fields):
  """One output."""
  full = {'judge': None, 'finished': True}
  return samples_lib.Candidate(
    text=text, reward=reward, length=length, **{**full, **fields}
  )


def samples(num_sources: int = 25) -> samples_lib.Samples:
  """Two policies; the later a source, the better the second has become.

  Rewards of the first policy are 10 and 20, those of the second 10 and
  30 + number of the source; lengths are 5 and 5 + the number.
  """
  return samples_lib.Samples(
    split='validation',
    policies=('BC', 'ReST G1 I1'),
    sources=tuple(
      samples_lib.Browsed(
        source_id=number,
        source=f'source number {number} {HOSTILE}',
        reference=f'reference {number}',
        candidates=(
          (
            candidate(f'old good {number}', 20.0, judge=50.0),
            candidate(f'old bad {number}', 10.0, judge=0.0),
          ),
          (
            candidate(f'new good {number}', 30.0 + number, 5 + number),
            candidate(f'new bad {number} {HOSTILE}', 10.0, finished=False),
          ),
        ),
      )
      for number in range(num_sources)
    ),
    num_sources=1000,
    samples_per_source=2,
  )


def page(**fields) -> html.Page:
  """A page of made-up results."""
  return html.Page(**{'title': 'made up', 'results': results(), **fields})
