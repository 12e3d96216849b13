"""Tests of German inflection and word order, and of reading them back."""

import pytest

from rest_jax.synthetic.grammar import german, meaning, parser

_PHRASE = meaning.NounPhrase


@pytest.mark.parametrize(
  ('phrase', 'nominative_accusative_dative'),
  [
    (
      _PHRASE('mann', adjective='alt'),
      'der alte mann, den alten mann, dem alten mann',
    ),
    (
      _PHRASE('hund', False, 'ein', 'klein'),
      'ein kleiner hund, einen kleinen hund, einem kleinen hund',
    ),
    (
      _PHRASE('frau', False, 'kein', 'klug'),
      'keine kluge frau, keine kluge frau, keiner klugen frau',
    ),
    (
      _PHRASE('haus', False, 'mein', 'dunkel'),
      'mein dunkles haus, mein dunkles haus, meinem dunklen haus',
    ),
    (
      _PHRASE('kind', True, 'der', 'müde'),
      'die müden kinder, die müden kinder, den müden kindern',
    ),
    (
      _PHRASE('apfel', True, 'drei', 'süß'),
      'drei süße äpfel, drei süße äpfel, drei süßen äpfeln',
    ),
    (_PHRASE('auto', True, 'viele'), 'viele autos, viele autos, vielen autos'),
    (_PHRASE('junge'), 'der junge, den jungen, dem jungen'),
    (
      _PHRASE('bauer', False, 'dies', 'teuer'),
      'dieser teure bauer, diesen teuren bauern, diesem teuren bauern',
    ),
    (_PHRASE('see_f'), 'die see, die see, der see'),
    (_PHRASE('see_m', False, 'jed'), 'jeder see, jeden see, jedem see'),
  ],
)
def test_noun_phrases_agree_in_case_gender_and_number(
  phrase, nominative_accusative_dative
):
  forms = [' '.join(german.noun_phrase_tokens(phrase, case)) for case in 'nad']
  assert ', '.join(forms) == nominative_accusative_dative


@pytest.mark.parametrize(
  ('owner', 'form'),
  [
    (_PHRASE('mann'), 'seinen hund'),
    (_PHRASE('mädchen'), 'seinen hund'),
    (_PHRASE('frau'), 'ihren hund'),
    (_PHRASE('mann', True), 'ihren hund'),
    (_PHRASE('sie', False, meaning.PRONOUN), 'ihren hund'),
    (_PHRASE('er', False, meaning.PRONOUN), 'seinen hund'),
  ],
)
def test_possessives_agree_with_owner_and_thing(owner, form):
  phrase = _PHRASE('hund', determiner=meaning.OWN)
  assert ' '.join(german.noun_phrase_tokens(phrase, 'a', owner)) == form


@pytest.mark.parametrize(
  ('phrase', 'case'),
  [
    (_PHRASE('see_f', True), 'n'),
    (_PHRASE('hund', True, 'ein'), 'n'),
    (_PHRASE('hund', False, 'zwei'), 'n'),
    (_PHRASE('hund', False, meaning.OWN), 'n'),
    (_PHRASE('sie', False, meaning.PRONOUN), 'a'),
  ],
)
def test_phrases_that_german_lacks_are_refused(phrase, case):
  with pytest.raises(german.UnsayableError):
    german.noun_phrase_tokens(phrase, case)


def test_the_verb_is_second_first_or_final():
  clause = meaning.Clause(
    'an|rufen', _PHRASE('mann'), object=_PHRASE('frau'), time='heute'
  )
  for order, text in (
    ('second', 'der mann ruft heute die frau an'),
    ('first', 'ruft der mann heute die frau an'),
    ('final', 'der mann heute die frau anruft'),
  ):
    assert ' '.join(german.clause_tokens(clause, order)) == text
  past = clause._replace(tense='past', front='time', negated=True)
  assert ' '.join(german.clause_tokens(past, 'second')) == (
    'heute hat der mann die frau nicht angerufen'
  )
  modal = clause._replace(modal='müssen', subject=_PHRASE('mann', True))
  assert ' '.join(german.clause_tokens(modal, 'final')) == (
    'die männer heute die frau anrufen müssen'
  )


def test_contractions_are_undone():
  text = 'der hund läuft in das haus und von dem see zu der frau'
  tokens = german.contract(text.split())
  assert ' '.join(tokens) == 'der hund läuft ins haus und vom see zur frau'
  assert german.expand(tokens) == text.split()


@pytest.mark.parametrize(
  'source',
  [
    'die hund sieht die katze .',  # gender
    'den hund sieht die katzen .',  # number
    'der alter hund sieht die katze .',  # ending
    'der hund sehen die katze .',  # agreement
    'der hund die katze sieht .',  # order
    'der mann ruft die frau .',  # the prefix is missing
    'weil der hund schläft .',  # no main clause
    'seine katze schläft .',  # whose?
    'ihre katzen schlafen .',
    'der mann hat gekommen .',  # auxiliary
    'der mann läuft in dem garten .',  # not contracted
    'der hund sieht die katze',  # no mark
    'the dog sees the cat .',
    '.',
    '',
    ' . ? , weil ,',
  ],
)
def test_ungrammatical_text_has_no_meaning(source):
  assert parser.parse(source) is None


def test_the_first_possible_subject_is_the_subject():
  first = parser.parse('die frau sieht das kind .').main
  assert (first.subject.noun, first.object.noun) == ('frau', 'kind')
  # Case decides against order.
  second = parser.parse('den hund sieht das kind .').main
  assert (second.subject.noun, second.object.noun) == ('kind', 'hund')
  assert second.front == 'object'
  # So does the number of the verb.
  third = parser.parse('das kind sehen die frauen .').main
  assert (third.subject.noun, third.object.noun) == ('frau', 'kind')


def test_relative_clauses_find_their_gap():
  subject = parser.parse('der mann , der die frau sieht , lacht .').main
  assert subject.subject.relative.subject.determiner == meaning.GAP
  obj = parser.parse('der mann , den die frau sieht , lacht .').main
  assert obj.subject.relative.object.determiner == meaning.GAP
  assert obj.subject.relative.subject.noun == 'frau'
