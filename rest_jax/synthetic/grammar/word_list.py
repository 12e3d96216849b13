"""The nouns, verbs and adjectives of the built-in language pair.

Each table is plain text, one word per line. English senses are separated by
semicolons. The first sense with a condition (after `@`) that the context of the
word meets is meant, otherwise the last sense. The context of

- a noun is its verb, preposition and adjective,
- an adjective is the class of its noun,
- a verb is the class of its object (or subject, without object) and the
  preposition of its adjunct.

English synonyms are separated by commas, and equally acceptable.
"""

# gender singular[/oblique singular] plural | class english[/plural] ...
# The suffixes _m and _f distinguish two nouns with the same spelling.
NOUNS = """
m mann männer | person man/men
f frau frauen | person woman/women
m hund hunde | animal dog
n kind kinder | person child/children
f katze katzen | animal cat
n haus häuser | place house
n buch bücher | text book
m lehrer lehrer | person teacher
n mädchen mädchen | person girl
m junge/jungen jungen | person boy
m brief briefe | text letter
n auto autos | vehicle car
f mutter mütter | person mother
f stadt städte | place city/cities, town
m freund freunde | person friend
m garten gärten | place garden
f bank - | thing bench @ auf unter sitzen reparieren schwer ; place bank
m apfel äpfel | food apple
m arzt ärzte | person doctor
f tür türen | thing door
m bruder brüder | person brother
f frage fragen | abstract question
n pferd pferde | animal horse
f schule schulen | place school
m mantel mäntel | clothing coat
m leiter_m leiter | person manager
f leiter_f leitern | thing ladder
f suppe suppen | food soup
m zug züge | vehicle train
n bild bilder | thing picture
m vogel vögel | animal bird
f schwester schwestern | person sister
m see_m seen | place lake
f see_f - | place sea
m hut hüte | clothing hat
n schloss - | thing lock @ öffnen reparieren auf|machen kaputt ; place castle
f karte karten | text map @ lesen an|sehen alt ; thing ticket @ kaufen verkaufen teuer verlieren ; thing card
m könig könige | person king
n messer messer | tool knife/knives
f geschichte geschichten | text story/stories
f birne birnen | food pear @ essen süß kochen ; thing bulb
m nachbar/nachbarn nachbarn | person neighbor
m wald wälder | place forest
n kleid kleider | clothing dress
f fliege fliegen | clothing tie @ tragen kaufen teuer schwarz ; animal fly/flies
m schlüssel schlüssel | tool key
f küche küchen | place kitchen
m kuchen kuchen | food cake
f aufgabe aufgaben | abstract task
m hahn - | thing tap @ reparieren auf|machen zu|machen kaputt ; animal rooster
n fahrrad fahrräder | vehicle bicycle, bike
n gericht gerichte | food dish @ essen kochen scharf bringen ; place court
m koffer koffer | thing suitcase
f schlange schlangen | thing queue @ in lang ; animal snake
m bauer/bauern bauern | person farmer
n dorf dörfer | place village
f maschine maschinen | machine machine
m strauß - | thing bouquet @ kaufen schenken bringen geben ; animal ostrich
f brücke brücken | place bridge
f uhr uhren | machine clock
f idee ideen | abstract idea
n geschenk geschenke | thing gift, present
"""

# infinitive third-person participle auxiliary | frame | subjects | objects |
# english. A bar follows a separable prefix; `_x` distinguishes verbs with the
# same spelling. Frames: i none, m movement, t accusative, d dative, dt both,
# p:auf:a a preposition and its case, c a clause, l dative of the person who
# likes.
VERBS = """
sehen sieht gesehen h | t | person animal | person animal place vehicle thing | see:saw:seen
schlafen schläft geschlafen h | i | person animal | | sleep:slept
kaufen kauft gekauft h | t | person | food clothing text thing vehicle tool animal | buy:bought, purchase
lesen liest gelesen h | t | person | text | read:read
gehen geht gegangen s | m | person animal | | go:went:gone
tragen trägt getragen h | t | person | clothing thing food text | wear:wore:worn @ clothing ; carry
geben gibt gegeben h | dt | person | text thing food tool | give:gave:given
suchen sucht gesucht h | t | person animal | person animal thing tool text food | look_for, search_for
an|rufen ruft angerufen h | t | person | person | call, phone
helfen hilft geholfen h | d | person | | help
treffen trifft getroffen h | t | person | person vehicle thing animal | meet:met @ person ; hit:hit
öffnen öffnet geöffnet h | t | person | thing text | open
laufen läuft gelaufen s | m | person animal machine | | work @ machine ; run:ran:run
arbeiten arbeitet gearbeitet h | i | person | | work
finden findet gefunden h | t | person animal | person animal thing tool text place food | find:found
essen isst gegessen h | t | person animal | food | eat:ate:eaten
zeigen zeigt gezeigt h | dt | person | text thing place tool clothing | show:showed:shown
kommen kommt gekommen s | m | person animal vehicle | | come:came:come
an|kommen kommt angekommen s | i | person vehicle | | arrive
verstehen versteht verstanden h | t | person | abstract text person | understand:understood
warten wartet gewartet h | p:auf:a | person animal | person vehicle text | wait_for
singen singt gesungen h | i | person animal | | sing:sang:sung
hören hört gehört h | t | person animal | person animal vehicle text | hear:heard
auf|hören hört aufgehört h | i | person machine | | stop:stopped
kochen kocht gekocht h | t | person | food | cook
lachen lacht gelacht h | i | person | | laugh
lieben liebt geliebt h | t | person | person animal place text | love
auf|machen macht aufgemacht h | t | person | thing text | open
zu|machen macht zugemacht h | t | person | thing text | close, shut:shut
reparieren repariert repariert h | t | person | vehicle machine thing | repair, fix
sitzen sitzt gesessen h | i | person animal | | sit:sat
verlieren verliert verloren h | t | person | tool thing text clothing | lose:lost
ein|stellen stellt eingestellt h | t | person | person machine | hire @ person ; adjust
fahren fährt gefahren s | m | person | | travel @ mit ; drive:drove:driven
schenken schenkt geschenkt h | dt | person | text thing clothing animal | give:gave:given
gehören gehört gehört h | d | thing vehicle place animal tool | | belong_to
gefallen gefällt gefallen h | l | place thing text person clothing | | like
vergessen vergisst vergessen h | t | person | thing tool text abstract | forget:forgot:forgotten
auf|stehen steht aufgestanden s | i | person | | get:got_up
stehen steht gestanden h | i | person animal vehicle | | stand:stood
denken denkt gedacht h | p:an:a | person | person place animal | think:thought_of, think:thought_about
schicken schickt geschickt h | dt | person | text thing food | send:sent
an|sehen sieht angesehen h | t | person | thing place text animal | look_at
verkaufen verkauft verkauft h | t | person | vehicle food clothing text place | sell:sold
sprechen spricht gesprochen h | p:mit:d | person | person | speak:spoke:spoken_to, talk_to
fallen fällt gefallen s | i | person animal thing | | fall:fell:fallen
jagen jagt gejagt h | t | person animal | animal | chase
ein|schlafen schläft eingeschlafen s | i | person animal | | fall:fell:fallen_asleep
verlassen verlässt verlassen h | t | person | place person | leave:left
haben hat gehabt h | t | person | animal vehicle place text tool thing | have:had
danken dankt gedankt h | d | person | | thank
fragen fragt gefragt h | t | person | person | ask
besuchen besucht besucht h | t | person | person place | visit
sagen sagt gesagt h | c | person | | say:said
wissen weiß gewusst h | c | person | | know:knew:known
glauben glaubt geglaubt h | c | person | | believe, think:thought
hoffen hofft gehofft h | c | person | | hope
fragen_ob fragt gefragt h | c | person | | ask
sein ist gewesen s | a | person animal thing place food clothing text vehicle abstract tool machine | | be:was:been
"""

# base[/stem before endings] | sense @ classes ; ...
ADJECTIVES = """
alt | old @ person animal thing place clothing text vehicle tool machine
klein | small, little @ person animal thing place food clothing text vehicle
groß | tall @ person ; big, large @ animal thing place food vehicle machine
schwer | hard, difficult @ abstract text ; heavy @ thing tool machine food
neu | new @ person thing place clothing text vehicle tool machine abstract
schön | beautiful @ person animal thing place clothing text
leicht | easy @ abstract text ; light @ thing tool clothing
jung | young @ person animal
rot | red @ thing food clothing vehicle place
süß | cute @ person animal ; sweet @ food
krank | sick @ person animal
scharf | spicy @ food ; sharp @ tool
schwarz | black @ animal thing clothing vehicle
müde/müd | tired @ person animal
teuer/teur | expensive @ thing clothing vehicle food tool machine
klug | clever, smart @ person animal
kaputt | broken @ thing vehicle machine tool
hungrig | hungry @ person animal
lang | long @ text clothing thing
traurig | sad @ person text animal
dunkel/dunkl | dark @ place clothing
freundlich | friendly @ person
"""
