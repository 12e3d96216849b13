"""Tests of translations: constructions, ambiguity, and what is accepted."""

import itertools

import pytest

from rest_jax.synthetic.grammar import (
  english,
  lattice,
  lexicon,
  parser,
  quality,
)

# Source and its usual translation.
_TRANSLATIONS = [
  # Tense, do-support, separable verbs, modals, passive.
  ('der hund sieht die katze nicht .', 'the dog does not see the cat .'),
  ('hat der hund die katze gesehen ?', 'did the dog see the cat ?'),
  ('der mann ruft heute die frau an .', 'the man calls the woman today .'),
  ('sie sind schnell aufgestanden .', 'they got up quickly .'),
  ('sie ist schnell aufgestanden .', 'she got up quickly .'),
  ('muss er die suppe essen ?', 'must he eat the soup ?'),
  ('er muss die suppe nicht essen .', 'he does not have to eat the soup .'),
  ('die frau wollte den brief lesen .', 'the woman wanted to read the letter .'),
  ('will die frau den brief lesen ?', 'does the woman want to read the letter ?'),
  ('er wird den hund sehen .', 'he will see the dog .'),
  ('er wird gesehen .', 'he is seen .'),
  ('das auto wurde vom arzt gekauft .', 'the car was bought by the doctor .'),
  ('wir lesen gern diese bücher .', 'we like to read these books .'),
  # Cases.
  ('einen apfel isst das pferd .', 'the horse eats an apple .'),
  ('dem kind hilft jede frau .', 'every woman helps the child .'),
  ('er gibt ihr zwei äpfel .', 'he gives her two apples .'),
  ('die geschichte gefällt ihnen nicht .', 'they do not like the story .'),
  ('kein kind schläft .', 'no child sleeps .'),
  ('er hat keine bücher .', 'he has no books .'),
  ('warum warten alle kinder auf den zug ?', 'why do all children wait for the train ?'),
  # Two clauses.
  (
    'wenn die männer arbeiten , singt die frau .',
    'when the men work , the woman sings .',
  ),
  (
    'er glaubt , dass die frau den hund gesucht hat .',
    'he believes that the woman looked for the dog .',
  ),
  ('sie fragt , ob er morgen kommen wird .', 'she asks whether he will come tomorrow .'),
  (
    'der mann arbeitet , aber die kinder schlafen nie .',
    'the man works , but the children never sleep .',
  ),
  (
    'der arzt , den alle frauen lieben , singt .',
    'the doctor that all women love sings .',
  ),
  (
    'die frau verkauft einen hut , der ihr nicht gefällt .',
    'the woman sells a hat that she does not like .',
  ),
]  # fmt: skip

# Pairs of sources with one word in common that has two translations.
_AMBIGUOUS = [
  ('die bank', 'die frau sitzt auf der bank .', 'bench'),
  ('die bank', 'die frau arbeitet in der bank .', 'bank'),
  ('das schloss', 'der mann repariert das schloss .', 'lock'),
  ('das schloss', 'der mann besucht das schloss .', 'castle'),
  ('die birne', 'der mann isst die birne .', 'pear'),
  ('die birne', 'der mann sucht die birne .', 'bulb'),
  ('die birne', 'der mann sucht die süße birne .', 'pear'),
  ('die fliege', 'der mann trägt eine fliege .', 'tie'),
  ('die fliege', 'der mann hört eine fliege .', 'fly'),
  ('das gericht', 'das gericht ist scharf .', 'dish'),
  ('das gericht', 'das gericht ist alt .', 'court'),
  ('die karte', 'der mann liest die karte .', 'map'),
  ('die karte', 'der mann kauft die karte .', 'ticket'),
  ('die karte', 'der mann sieht die karte .', 'card'),
  ('der leiter', 'der mann sucht den leiter .', 'manager'),
  ('die leiter', 'der mann sucht die leiter .', 'ladder'),
  ('die leiter', 'die leiter arbeiten .', 'managers'),
  ('der see', 'er schläft neben dem see .', 'lake'),
  ('die see', 'er schläft neben der see .', 'sea'),
  ('tragen', 'sie trägt den mantel .', 'wears'),
  ('tragen', 'sie trägt den koffer .', 'carries'),
  ('treffen', 'sie trifft den mann .', 'meets'),
  ('treffen', 'sie trifft den koffer .', 'hits'),
  ('laufen', 'das pferd läuft schnell .', 'runs'),
  ('laufen', 'die uhr läuft schnell .', 'works'),
  ('einstellen', 'sie stellt den mann ein .', 'hires'),
  ('einstellen', 'sie stellt die uhr ein .', 'adjusts'),
  ('aufhören', 'die frau hört den hund .', 'hears'),
  ('aufhören', 'die frau hört jetzt auf .', 'stops'),
  ('fahren', 'er fährt mit dem zug .', 'travels by train'),
  ('fahren', 'er fährt in die stadt .', 'drives into'),
  ('in', 'das kind läuft im garten .', 'in'),
  ('in', 'das kind läuft in den garten .', 'into'),
  ('mit', 'er schläft mit dem hund .', 'with'),
  ('von', 'er wird vom mann gesehen .', 'by'),
  ('morgen', 'er wird morgen schlafen .', 'tomorrow'),
  ('morgen', 'er schläft am morgen .', 'in the morning'),
  ('schwer', 'die aufgabe ist schwer .', 'hard'),
  ('schwer', 'der koffer ist schwer .', 'heavy'),
  ('scharf', 'das messer ist scharf .', 'sharp'),
  ('scharf', 'er kocht die scharfe suppe .', 'spicy'),
  ('süß', 'der hund ist süß .', 'cute'),
  ('süß', 'der apfel ist süß .', 'sweet'),
  ('ihr', 'die frau sieht ihren hund .', 'her'),
  ('ihr', 'die frauen sehen ihren hund .', 'their'),
  ('sie', 'sie sehen den hund .', 'they'),
  ('sie', 'sie sieht den hund .', 'she'),
  ('gefallen', 'das buch ist gefallen .', 'fell'),
  ('gefallen', 'das buch hat ihm gefallen .', 'liked'),
]


def _usual(source: str) -> str:
  sentence = parser.parse(source)
  assert sentence is not None, source
  return ' '.join(lattice.usual(english.translations(sentence)))


@pytest.mark.parametrize(('source', 'translation'), _TRANSLATIONS)
def test_translations_written_by_hand(source, translation):
  assert _usual(source) == translation


@pytest.mark.parametrize(('word', 'source', 'meant'), _AMBIGUOUS)
def test_context_decides_what_an_ambiguous_word_means(word, source, meant):
  assert f' {meant} ' in f' {_usual(source)} ', word


@pytest.mark.parametrize(
  ('source', 'accepted', 'refused'),
  [
    (
      'heute kauft der mann ein großes haus .',
      [
        'today the man buys a big house .',
        'the man purchases a large house today .',
      ],
      [
        'the man today buys a big house .',
        'today buys the man a big house .',
        'the man buys a tall house today .',
      ],
    ),
    (
      'er hat den hund nicht gesehen .',
      ['he did not see the dog .', 'he has not seen the dog .'],
      ['he did not saw the dog .', 'he not has seen the dog .'],
    ),
    (
      'er sieht keinen hund .',
      [
        'he sees no dog .',
        'he does not see a dog .',
        'he does not see any dog .',
      ],
      ['he does not see no dog .', 'he sees a dog .', 'he sees any dog .'],
    ),
    (
      'die frau gibt dem mann das buch .',
      [
        'the woman gives the man the book .',
        'the woman gives the book to the man .',
      ],
      [
        'the woman gives the man to the book .',
        'the woman gives the book the man .',
      ],
    ),
    (
      'das kind läuft schnell in den garten .',
      [
        'the child runs quickly into the garden .',
        'the child runs into the garden quickly .',
        'the child quickly runs to the garden .',
      ],
      [
        'the child runs quickly in the garden .',
        'quickly runs the child into the garden .',
      ],
    ),
    (
      'er weiß , dass sie alle hunde liebt .',
      ['he knows she loves all the dogs .', 'he knows that she loves all dogs .'],
      ['he knows that loves she all dogs .', 'he knows which she loves all dogs .'],
    ),
    (
      'der hund , den die frau liebt , schläft .',
      [
        'the dog that the woman loves sleeps .',
        'the dog the woman loves sleeps .',
        'the dog which the woman loves sleeps .',
      ],
      ['the dog that loves the woman sleeps .', 'the dog who the woman loves sleeps .'],
    ),
  ],
)  # fmt: skip
def test_synonyms_and_orders_are_accepted_and_no_others(
  source, accepted, refused
):
  for text in accepted:
    assert quality.score(source, text) == 1.0, text
  for text in refused:
    assert quality.score(source, text) < 1.0, text


def test_synonyms_take_the_same_article():
  sets = []
  for noun in lexicon.NOUNS.values():
    for sense in noun.senses:
      sets += [sense.singular]
  for adjective in lexicon.ADJECTIVES.values():
    sets += [sense.words for sense in adjective.senses]
  for words in sets:
    assert len({word[0] in 'aeiou' for word in words}) == 1, words


def test_german_words_are_read_in_one_way_each():
  """Nouns written alike differ in gender; no noun is a verb form."""
  nouns: dict[str, set[str]] = {}
  for entry in lexicon.NOUNS.values():
    nouns.setdefault(entry.singular, set()).add(entry.gender)
    assert entry.gender in 'mfn'
  assert sum(len(genders) for genders in nouns.values()) == len(lexicon.NOUNS)
  verbs = set(
    itertools.chain(
      *((v.infinitive, v.third, v.participle) for v in lexicon.VERBS.values())
    )
  )
  assert verbs.isdisjoint(nouns)


def test_the_lexicon_has_a_few_hundred_words():
  entries = len(lexicon.NOUNS) + len(lexicon.VERBS) + len(lexicon.ADJECTIVES)
  assert 120 <= entries <= 200
  ambiguous = [
    name for name, senses in lexicon.SENSES.items() if len(senses) > 1
  ]
  assert len(ambiguous) >= 18
