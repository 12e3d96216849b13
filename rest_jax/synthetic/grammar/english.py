"""English sentences for meanings: all acceptable translations."""

from collections.abc import Iterable
import functools

from rest_jax.synthetic.grammar import (
  german,
  lattice,
  lexicon,
  meaning,
  verb_groups,
  word_orders,
)
from rest_jax.synthetic.grammar import senses as senses_lib

_Senses = dict[str, lexicon.NounSense]
# Neuter nouns for persons -> possessive forms.
_POSSESSIVES = {'kind': ('its', 'his', 'her'), 'mädchen': ('her',)}


def _any_of(phrases: Iterable[str]) -> lattice.Expression:
  """Returns phrases as alternatives; '_' joins the words of a phrase."""
  return lattice.alternatives(
    [lattice.words(*phrase.split('_')) for phrase in phrases]
  )


def _article(following: lattice.Word) -> lattice.Word:
  """Returns 'a' or 'an'; all synonyms of a word take the same article."""
  vowel = following.forms[0][0] in 'aeiou'
  return lattice.Word(('an' if vowel else 'a',))


def _possessive(owner: meaning.NounPhrase) -> lattice.Word:
  if owner.determiner == meaning.PRONOUN:
    form = {'er': 'his', 'sie': 'her', 'wir': 'our'}.get(owner.noun, 'their')
    return lattice.Word((form,))
  if owner.plural:
    return lattice.Word(('their',))
  if owner.noun in _POSSESSIVES:
    return lattice.Word(_POSSESSIVES[owner.noun])
  noun = lexicon.NOUNS[owner.noun]
  by_gender = {'m': 'his', 'f': 'her', 'n': 'its'}[noun.gender]
  if noun.gender == 'n' or noun.senses[-1].kind == lexicon.PERSON:
    return lattice.Word((by_gender,))
  return lattice.Word(('its', by_gender))


def _subject_role(clause: meaning.Clause) -> str:
  """Returns the role of the English subject.

  'das buch gefällt der frau' is 'the woman likes the book'.
  """
  likes = lexicon.VERBS[clause.verb].frame == 'l'
  return 'indirect' if likes else 'subject'


def _negations(clause: meaning.Clause) -> list[bool]:
  """Returns whether the verb is negated, for each way to say a clause.

  The object 'keine katze' is 'no cat', or 'a cat' after 'not'.
  """
  if clause.negated:
    return [True]
  if clause.object is not None and clause.object.determiner == meaning.NO:
    return [False, True]
  return [False]


class Translator:
  """Translates meanings to English, optionally with errors."""

  def __init__(
    self,
    wrong_sense: str = '',
    untranslated: str = '',
    german_order: bool = False,
  ):
    """Takes the errors to make.

    Args:
      wrong_sense: word of the lexicon to translate in a wrong sense.
      untranslated: noun or adjective of the lexicon to leave in German.
      german_order: whether to use German word order.
    """
    self._wrong_sense = wrong_sense
    self._untranslated = untranslated
    self._german_order = german_order

  def sentence(self, sentence: meaning.Sentence) -> lattice.Expression:
    """Returns all translations of a sentence."""
    main = self._clause(sentence.main, mood=sentence.mood)
    end = lattice.words('.' if sentence.mood == meaning.STATEMENT else '?')
    if sentence.second is None:
      return [main, end]
    link = sentence.link
    subordinate = link in lexicon.SUBORDINATORS
    second = self._clause(sentence.second, subordinate=subordinate)
    comma = lattice.Word((',',))
    comma_or_not = lattice.Alternatives((comma, lattice.NOTHING))
    not_or_comma = lattice.Alternatives((lattice.NOTHING, comma))
    if not subordinate:
      conjunction = lattice.Word(lexicon.COORDINATORS[link])
      pause = comma_or_not if link == 'aber' else not_or_comma
      return [main, pause, conjunction, second, end]
    conjunction = lattice.Word(lexicon.SUBORDINATORS[link])
    if sentence.link_first:
      return [conjunction, second, comma_or_not, main, end]
    if link == 'dass':
      that = lattice.Alternatives((conjunction, lattice.NOTHING))
      return [main, that, second, end]
    if link == 'ob':
      return [main, conjunction, second, end]
    return [main, not_or_comma, conjunction, second, end]

  def _noun_phrase(
    self,
    phrase: meaning.NounPhrase,
    sense: lexicon.NounSense,
    owner: meaning.NounPhrase,
    object_form: bool = True,
    any_form: bool = False,
  ) -> lattice.Expression:
    """Returns a noun phrase.

    Args:
      sense: sense of its noun.
      owner: noun phrase that OWN refers to.
      object_form: whether pronouns are in the object form.
      any_form: whether 'no' becomes 'a' or 'any', after 'not'.
    """
    if phrase.determiner == meaning.GAP:
      return lattice.NOTHING
    if phrase.determiner == meaning.PRONOUN:
      pronoun = lexicon.PRONOUNS[phrase.noun]
      form = pronoun.object if object_form else pronoun.subject
      return lattice.Word((form,))
    if phrase.noun == self._untranslated:
      forms = (lexicon.NOUNS[phrase.noun].singular,)
    else:
      forms = sense.plural if phrase.plural else sense.singular
    words = [lattice.Word(forms)]
    if phrase.adjective:
      words.insert(0, self._adjective(phrase.adjective, sense.kind))
    determiner = self._determiner(phrase, owner, words[0], any_form)
    if phrase.relative is not None:
      relative = self._relative(phrase, phrase.relative, sense)
      return [*determiner, *words, relative]
    return [*determiner, *words]

  def _determiner(
    self,
    phrase: meaning.NounPhrase,
    owner: meaning.NounPhrase,
    following: lattice.Word,
    any_form: bool,
  ) -> list[lattice.Expression]:
    kind, plural = phrase.determiner, phrase.plural
    if kind == meaning.NO and any_form:
      any_word = lattice.Word(('any',))
      if plural:
        return [any_word]
      return [lattice.Alternatives((_article(following), any_word))]
    if kind == meaning.INDEFINITE:
      return [_article(following)]
    if kind == meaning.OWN:
      return [_possessive(owner)]
    if kind == meaning.ALL:
      optional = lattice.Alternatives((lattice.NOTHING, lattice.Word(('the',))))
      return [lattice.Word(('all',)), optional]
    if kind == meaning.BARE:
      return []
    fixed = {
      meaning.DEFINITE: ('the',),
      meaning.NO: ('no',),
      meaning.MY: ('my',),
      meaning.THIS: ('these',) if plural else ('this',),
      meaning.EVERY: ('every', 'each'),
      **lexicon.QUANTIFIERS,
    }
    return [lattice.Word(fixed.get(kind) or (lexicon.NUMERALS[kind],))]

  def _adjective(self, adjective: str, kind: str) -> lattice.Word:
    if adjective == self._untranslated:
      return lattice.Word((adjective,))
    wrong = adjective == self._wrong_sense
    senses = lexicon.ADJECTIVES[adjective].senses
    return lattice.Word(senses_lib.choose(senses, (kind,), wrong).words)

  def _relative(
    self,
    head: meaning.NounPhrase,
    clause: meaning.Clause,
    sense: lexicon.NounSense,
  ) -> lattice.Expression:
    person = sense.kind == lexicon.PERSON
    pronoun: lattice.Expression
    if clause.subject.determiner == meaning.GAP:
      pronoun = lattice.Word(('who', 'that') if person else ('that', 'which'))
    else:
      pronouns = ('that', 'who', 'whom') if person else ('that', 'which')
      pronoun = lattice.Alternatives((lattice.Word(pronouns), lattice.NOTHING))
    return [pronoun, self._clause(clause, (head, sense), subordinate=True)]

  def _clause(
    self,
    clause: meaning.Clause,
    head: senses_lib.Head | None = None,
    subordinate: bool = False,
    mood: str = meaning.STATEMENT,
  ) -> lattice.Expression:
    """Returns a clause.

    Args:
      head: head of a relative clause and its sense; it fills the gap.
      subordinate: whether the German verb is at the end.
      mood: see `meaning.Sentence`.
    """
    owner = clause.subject
    if head is not None and owner.determiner == meaning.GAP:
      owner = head[0]
    nouns = senses_lib.of_roles(clause, head, self._wrong_sense)
    verb = senses_lib.of_verb(clause, nouns, self._wrong_sense)
    plural = german.is_plural(getattr(clause, _subject_role(clause)))
    inverted = mood != meaning.STATEMENT
    parts = self._parts(clause, nouns, owner)
    question_word = lexicon.QUESTION_WORDS.get(mood, '')
    parts['question'] = lattice.words(*question_word.split())
    orders: list[word_orders.Order] = []
    for name, negated in enumerate(_negations(clause)):
      groups = verb_groups.verb_groups(clause, verb, plural, negated, inverted)
      way = word_orders.Mode(str(name), negated, groups)
      any_form = negated and not clause.negated
      parts[way.objects] = self._objects(clause, nouns, owner, any_form)
      if self._german_order:
        orders += word_orders.german_orders(clause, parts, way, subordinate)
      elif inverted:
        orders += word_orders.question_orders(clause, parts, way)
      else:
        orders += word_orders.statement_orders(
          clause, parts, way, clause.manner in lexicon.MANNERS_BEFORE_VERBS
        )
    return lattice.Orders(parts, tuple(dict.fromkeys(orders)))

  def _parts(
    self, clause: meaning.Clause, senses: _Senses, owner: meaning.NounPhrase
  ) -> word_orders.Parts:
    """Returns the parts of a clause except objects and verb."""
    role = _subject_role(clause)
    subject = self._noun_phrase(
      getattr(clause, role), senses[role], owner, object_form=False
    )
    parts: word_orders.Parts = {
      'subject': subject,
      'frequency': lattice.NOTHING,
      'manner': lattice.NOTHING,
      'place': lattice.NOTHING,
      'predicate': lattice.NOTHING,
      'time': lattice.words(*lexicon.TIMES.get(clause.time, '').split()),
      'not': lattice.words('not'),
    }
    if clause.frequency:
      parts['frequency'] = lattice.Word(lexicon.FREQUENCIES[clause.frequency])
    if clause.manner in lexicon.MANNERS:
      parts['manner'] = lattice.Word(lexicon.MANNERS[clause.manner])
    if clause.predicate:
      kind = senses['subject'].kind
      parts['predicate'] = self._adjective(clause.predicate, kind)
    if clause.place is not None:
      parts['place'] = self._place(
        clause.place, clause.passive, senses['place'], owner
      )
    return parts

  def _place(
    self,
    place: meaning.Place,
    passive: bool,
    sense: lexicon.NounSense,
    owner: meaning.NounPhrase,
  ) -> lattice.Expression:
    preposition, case, phrase = place
    words = lexicon.PREPOSITIONS[preposition][case]
    if preposition == 'von' and passive:
      words = ('by',)
    elif (
      preposition == 'mit'
      and sense.kind == lexicon.VEHICLE
      and phrase == meaning.NounPhrase(phrase.noun)
    ):
      # 'mit dem zug' is 'by train', but 'mit dem alten zug' is not.
      words = ('by',)
      phrase = phrase._replace(plural=True, determiner=meaning.BARE)
      sense = sense._replace(plural=sense.singular)
    return [_any_of(words), self._noun_phrase(phrase, sense, owner)]

  def _objects(
    self,
    clause: meaning.Clause,
    senses: _Senses,
    owner: meaning.NounPhrase,
    any_form: bool,
  ) -> lattice.Expression:
    said = {
      role: self._noun_phrase(
        getattr(clause, role), senses[role], owner, True, any_form
      )
      for role in ('object', 'indirect', 'oblique', 'subject')
      if role in senses
    }
    frame = lexicon.VERBS[clause.verb].frame
    if frame == 'l':
      return said['subject']
    if frame == 'dt':
      to = [said['object'], *lattice.words('to'), said['indirect']]
      return lattice.Alternatives(([said['indirect'], said['object']], to))
    objects = [said[r] for r in ('indirect', 'object', 'oblique') if r in said]
    return objects[0] if objects else lattice.NOTHING


@functools.lru_cache(maxsize=4096)
def translations(sentence: meaning.Sentence) -> lattice.Expression:
  """Returns every acceptable translation of a sentence."""
  return Translator().sentence(sentence)
