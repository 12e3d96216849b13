"""Tests of what probes make of references, by hand."""

import random

import pytest

from rest_jax.rewards import probes

_CONFIG = probes.ProbeConfig()
_SOURCE = 'Der Hund schläft.'
_REFERENCE = 'The dog sleeps.'
_OTHER = ('Zwei Katzen kommen.', 'Two cats come.')


def change(name, reference, config=_CONFIG, seed=0, entities=(), other=_OTHER):
  """What one draw of a probe makes of a reference."""
  probe = {**probes.PROBES, **probes.CONTROLS}[name]
  texts = probes.Texts(_SOURCE, reference, *other, entities)
  return probe(texts, random.Random(seed), config)


def results(name, reference, **settings):
  return {change(name, reference, seed=s, **settings) for s in range(40)}


@pytest.mark.parametrize(
  ('name', 'reference', 'expected'),
  [
    ('repeated', 'A b.', 'A b. A b.'),
    ('repeated', '一只狗。', '一只狗。一只狗。'),
    ('truncated', 'a b c d', 'a b'),
    ('truncated', 'a b c d e', 'a b'),
    ('truncated', 'a', 'a'),
    ('truncated', '一只狗。', '一只'),
    ('copied_source', _REFERENCE, _SOURCE),
    ('wrong_language', _REFERENCE, 'Zwei Katzen kommen.'),
    ('unrelated', _REFERENCE, 'Two cats come.'),
    ('empty', _REFERENCE, ''),
    ('added_sentence', _REFERENCE, 'The dog sleeps. Two cats come.'),
    ('dropped_negation', 'He is not here.', 'He is here.'),
    ('dropped_negation', 'NO dogs, never.', 'dogs, never.'),
    ('dropped_negation', "It isn't red.", 'It is red.'),
    ('dropped_negation', 'It isn’t red.', 'It is red.'),
    ('dropped_negation', "Don't go.", 'Do go.'),
    ('dropped_negation', "I can't and won't.", 'I can and will not.'),
    ('dropped_negation', 'We cannot go.', 'We can go.'),
    ('dropped_negation', 'A knot.', 'A knot.'),
    ('dropped_negation', 'Not  all of  it', 'all of  it'),
    ('added_negation', 'He is here.', 'He is not here.'),
    ('added_negation', 'He is not here.', 'He is not here.'),
    ('added_negation', "He isn't what he is.", "He isn't what he is."),
    ('added_negation', 'It is so, never.', 'It is so, never.'),
    ('added_negation', 'He runs.', 'He runs.'),
    ('first_case', 'The dog.', 'the dog.'),
    ('first_case', 'über', 'Über'),
    ('first_case', '狗', '狗'),
    ('final_mark', 'The dog.', 'The dog'),
    ('final_mark', 'the dog .', 'the dog'),
    ('final_mark', 'The dog', 'The dog.'),
    ('final_mark', 'The dog?', 'The dog?'),
    ('final_mark', '狗。', '狗'),
    ('final_mark', '狗', '狗。'),
    ('contraction', 'He is not here.', "He isn't here."),
    ('contraction', "Isn't it?", 'Is not it?'),
    ('contraction', 'The dog.', 'The dog.'),
  ],
)
def test_by_hand(name, reference, expected):
  assert change(name, reference) == expected


def test_words_are_permuted():
  found = results('permuted', 'a b c')
  assert all(sorted(text.split()) == ['a', 'b', 'c'] for text in found)
  assert len(found) == 6


def test_one_number_changes():
  assert results('changed_number', 'a 7 b') == {f'a {d} b' for d in range(10)}
  found = results('changed_number', 'Two cats, (three) dogs.')
  numbers = [n for n in _CONFIG.number_words]
  assert found <= {
    *(f'{n.capitalize()} cats, (three) dogs.' for n in numbers),
    *(f'Two cats, ({n}) dogs.' for n in numbers),
  }
  assert len(found) > 8
  assert results('changed_number', 'a cat') == {'a cat'}
  none = probes.ProbeConfig(number_words=())
  assert results('changed_number', 'Two cats', config=none) == {'Two cats'}


def test_one_entity_is_swapped():
  found = results(
    'swapped_entity',
    'Today "Anna" saw Bob. Then I left.',
    entities=('Anna', 'Paris', 'Rome'),
  )
  # Neither words that begin a sentence nor "I" are names.
  assert found == {
    f'Today "{first}" saw {second}. Then I left.'
    for first, second in (
      *(('Paris', 'Bob'), ('Rome', 'Bob')),
      *(('Anna', 'Paris'), ('Anna', 'Rome')),
    )
  }
  assert results('swapped_entity', 'saw Bob', entities=('Bob',)) == {'saw Bob'}


def test_word_lists_are_settings():
  german = probes.ProbeConfig(
    negations=('nicht', 'kein'),
    auxiliaries=('ist',),
    number_words=('zwei', 'drei'),
    contractions=(('in dem', 'im'),),
  )
  chinese = probes.ProbeConfig(
    negations=('不',), auxiliaries=('想',), number_words=('两', '三')
  )
  # No blank comes in that was not there.
  assert change('dropped_negation', '“我不去。”28人', chinese) == '“我去。”28人'
  assert (
    change('added_negation', '“我想去。”28人', chinese) == '“我想不去。”28人'
  )
  assert results('changed_number', '有三人', config=chinese) == {
    '有三人',
    '有两人',
  }
  assert change('dropped_negation', 'Er ist nicht da.', german) == (
    'Er ist da.'
  )
  assert change('added_negation', 'Er ist da.', german) == 'Er ist nicht da.'
  assert results('changed_number', 'Zwei Hunde', config=german) == {
    'Zwei Hunde',
    'Drei Hunde',
  }
  assert change('contraction', 'Im Haus', german) == 'In dem Haus'


_PAIRS = (
  ['eins', 'zwei', 'drei'],
  ['The 1 dog', 'a cat of Anna', 'a cat of Berlin'],
)


def test_cases_are_the_references_that_change():
  cases = probes.cases(_CONFIG, *_PAIRS, seed=0)
  assert list(cases) == [*probes.PROBES, *probes.CONTROLS]
  assert cases['repeated'].rows == [0, 1, 2]
  assert cases['changed_number'].rows == [0]
  assert cases['changed_number'].texts[0] != 'The 1 dog'
  assert cases['swapped_entity'] == (
    [1, 2],
    ['a cat of Berlin', 'a cat of Anna'],
  )
  assert cases['dropped_negation'] == ([], [])
  for name in ('wrong_language', 'unrelated'):
    for row, text in zip(*cases[name], strict=True):
      side = _PAIRS[name == 'unrelated']
      assert text in side and text != side[row]


def test_a_change_depends_on_seed_probe_and_row_alone():
  def made(seed, **settings):
    config = probes.ProbeConfig(**settings)
    return probes.cases(config, *_PAIRS, seed=seed)

  assert made(0) == made(0)
  assert made(0) != made(1)
  alone = made(0, names=('permuted',))
  assert alone == {'permuted': made(0)['permuted']}


def test_probes_without_another_pair_apply_to_equal_pairs():
  same = ['s', 's'], ['a 3', 'b 4']
  cases = probes.cases(_CONFIG, *same, seed=0)
  for name in ('wrong_language', 'unrelated', 'added_sentence'):
    assert cases[name] == ([], [])
  assert cases['empty'].texts == ['', '']
  assert cases['changed_number'].rows == [0, 1]


def test_equal_words_have_no_other_order():
  cases = probes.cases(_CONFIG, ['s', 't'], ['a a a', 'b c'], seed=0)
  assert cases['permuted'] == ([1], ['c b'])


def test_one_pair_is_refused():
  with pytest.raises(ValueError, match='1 sources and 1 references'):
    probes.cases(_CONFIG, ['a'], ['b'], seed=0)


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'minimum': 1.5}, 'minimum'),
    ({'max_sources': 1}, 'max_sources'),
    ({'names': ('repeatd',)}, 'repeatd'),
    ({'contractions': (('a',),)}, 'contractions'),
  ],
)
def test_bad_settings_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    probes.ProbeConfig(**settings)
