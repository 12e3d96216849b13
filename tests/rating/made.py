"""Items and ratings that tests make up."""

import dataclasses

from rest_jax.rating import store

INJECTED_SOURCE = (
  "<script>document.title = 'x'</script>'); DROP TABLE items; --"
)
INJECTED_OUTPUT = '<img src=x onerror=alert(1)>\x1b[31m\u202e{{ 7 * 7 }}'


def items(count: int) -> list[store.Item]:
  """Items whose outputs name the policy, the second the better one."""
  return [
    store.Item(
      split='validation',
      source_id=number,
      source=f'source {number}',
      first_policy='digest-1',
      first_name='BC',
      first_output=f'plain {number}',
      second_policy='digest-2',
      second_name='ReST G1 I3',
      second_output=f'fancy {number}',
    )
    for number in range(count)
  ]


def injected(count: int) -> list[store.Item]:
  """Items whose texts would act, if they were taken for more than text."""
  return [
    dataclasses.replace(
      item, source=INJECTED_SOURCE, first_output=INJECTED_OUTPUT
    )
    for item in items(count)
  ]


def rating(rater, item, first, second) -> store.Rating:
  return store.Rating(rater, item, first, second)
