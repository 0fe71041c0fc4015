-- Family: language.  The words, endings and letters that tell languages apart.  Reads and writes nothing.
-- Callers: 231_detect_language.sql.
--
-- PostgreSQL's own lists of stop words know 15 languages, are asked through a stemmer (some 2 us a word and
-- language) and hold no frequencies.  These are our own: the commonest words of a language, commonest first, from
-- which a frequency follows (Zipf's law); the endings that its long words have; letters that few others have.
-- A language that is wanted is one more line.

create or replace function _pgstack.language_words()
returns table (language text, words text, endings text, letters text)
language sql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  values
    (
      'en',
      'the of and to in a is that for it with as was on be by this are from or an at which not you have can if has '
      'but were their will they its more been when his also he other these all into who we your what how one any '
      'does did about after than there some our her she do i my no where why would many',
      'ing tion ness able ally ment ould', ''
    ),
    (
      'de',
      'der die und in den von zu das mit des ist im für auf sich eine nicht dem ein als auch an werden es aus wird '
      'oder bei sind einer einen wie zum hat nach durch zur kann dass über sie am um einem eines können wurde nur so '
      'noch ich er war aber man bis wenn diese dieser dieses haben sein welche welcher wer was wo',
      'ung ungen lich keit heit isch ischen schen chen', 'ßäöü'
    ),
    (
      'fr',
      'de la le et les l à des en d un une du est pour que dans qui sur par il ce au plus pas avec ne s cette qu ou '
      'se sont aux vous être n son peut ces elle fait comme mais ont sa été nous leur permet ses c je y si tout même '
      'on deux j très quel quelle où',
      'tion ment eurs euse ique iques ité aient', 'çèêàùœûî'
    ),
    (
      'es',
      'de la que el en y a los del se las por un para con una no su es al lo como más o este sus pero esta son entre '
      'ha sin sobre puede también muy fue ser está le ya cuando todo hay desde cual qué si yo porque estos otros '
      'cada donde hasta eso cuál quién cómo',
      'ción ciones dad mente ando iendo ado ados', 'ñ¿¡óíáú'
    ),
    (
      'pt',
      'de a o que e do da em um para com não uma os no se na por mais as dos como mas ao das à seu sua ou é quando '
      'muito nos já eu também só pelo pela até isso ele são foi tem pode este esta ser está nas você há num qual '
      'quem onde',
      'ção ções dade mente ando endo ado ados', 'ãõçêâó'
    ),
    (
      'it',
      'di e il la che in un a per è una del con i da le si non della sono dei al come gli ed alla più lo nel l dell '
      'questo anche ma delle può questa essere su o ha dal se nella ad cui tra due all dalla sul cosa stato quando '
      'loro suo sua degli molto chi dove perché quale',
      'zione zioni ità mente ando endo ato ati oni', 'èàùòì'
    ),
    (
      'nl',
      'de van het een en in is dat op te voor met zijn die niet aan er om ook als bij of door uit naar maar dan over '
      'wordt worden deze kan tot dit heeft hij wat nog wel hebben meer was zich ze u ik je geen kunnen onder waar '
      'wie hoe welke',
      'ing ingen lijk heid eren atie isch', ''
    ),
    (
      'da',
      'og i at er en det til af den for som på de med ikke der et kan har fra vil om blive eller men være havde hvor '
      'efter også når var bliver man mere sig du jeg han nogle hvis alle denne skal ud over ind ved mod hvad hvilken '
      'meget kun vi blev sådan flere ingen hver noget nogen andet anden uden mellem følgende findes bruges ikke gør sin dem',
      'ning else hed erne ede ende igt tion tioner', 'æøå'
    ),
    (
      'no',
      'og i det er en på til av som for å med at ikke de den har et fra om kan eller men var når vil også ble bli '
      'etter være ved da dette skal hvor ut over blir man mer seg du jeg han noen hvis alle denne inn mot hva '
      'hvilken mye bare vi sånn flere ingen hver noe annet annen uten mellom følgende finnes brukes gjør sin dem enn',
      'ning else het ene sjon sjoner ende', 'æøå'
    ),
    (
      'sv',
      'och i att det som en på är av för med till den har de inte om ett han men var jag från vi så kan man när år '
      'eller också där vid sig efter under ska mot bara skulle blir finns hur då vara mycket detta denna alla din '
      'dig ur vad vilken vem några inga',
      'ning het ande ade erna else igt', 'åäö'
    ),
    (
      'fi',
      'ja on ei että se oli ovat hän joka mutta tai myös kun niin kuin sen jos vain ole voi jo nyt mitä olla siitä '
      'ne tämä kanssa sekä mukaan jotka ollut minä sitä mikä olen voidaan tämän kaikki mukaisesti kuka missä '
      'miten eivät tätä voi kuten sitä myöskään niiden joka eikä käyttää kaikkien',
      'inen ssa ssä sta stä lla llä sti nen', 'äö'
    ),
    (
      'et',
      'ja on ei et see ta kui oli mis ka aga või ning selle kes olema siis mida nii veel oma pole kuid tema saab '
      'ole võib seda tuleb kas välja mitte ainult peab üks kus olnud enam pärast mille',
      'mine misel use tud dud ist', 'õäöü'
    ),
    (
      'hu',
      'a az és hogy nem is egy ez meg van volt ki csak de ha mint vagy már el még kell lehet azt ezt mert minden '
      'amely én sem után szerint majd le fel be nagy között lesz pedig így alapján ami aki hol mi',
      'ban ben nak nek ság ség tás tés', 'őűöüóéá'
    ),
    (
      'tr',
      've bir bu için ile olarak da de daha çok gibi olan ne en kadar var sonra o değil mi her ya ancak ama ise '
      'olduğu göre veya tarafından yok şey ben iki kendi zaman diye edilen nasıl hangi kim nerede',
      'lar ler ması mesi dır dir ları leri yor', 'ğışçöü'
    ),
    (
      'pl',
      'w i na z do się nie jest to że o a jak po od za przez dla ale co tym są oraz może tego lub ma być jego który '
      'które tylko przy już ten czy ze która tak nr jej roku można dnia tej kto gdzie jaki jakie został',
      'anie enie ość ości ych ego ach ami', 'łąęśżźćń'
    ),
    (
      'cs',
      'a v se na je že s z do o to i k ve pro by jsem za ale jako po jsou od jeho nebo tak které který jen si při '
      'jak už však byl může podle bylo není aby být co tento tato ze která kdo kde jaký má byla',
      'ání ení ost osti ých ého ách ovat', 'ěřůčšžý'
    ),
    (
      'sk',
      'a v na sa je že s z do o to i k vo pre by som za ale ako po sú od jeho alebo tak ktoré ktorý len si pri už '
      'však bol môže podľa bolo nie aby byť čo tento táto zo ktorá kto kde aký má bola',
      'anie enie osť osti ých ého ách ovať', 'ľĺŕôčšžýť'
    ),
    (
      'sl',
      'in je v se na za da so ki z s ne pa tudi o do po iz bi kot ali od ko le pri še ni tako bil kar bo lahko samo '
      'bolj mora biti med svoje ima če vse več ter sta nekaj kdo kje kaj bila',
      'anje enje ost osti ega ih ati', 'čšž'
    ),
    (
      'hr',
      'i u je na se da za su od s a koji ne o ili kao iz nije to do koja sa po bi ali što koje te već samo ako biti '
      'može prema kako bilo svoje tako sve bio ima ovaj ova nakon tko gdje šta bila',
      'anje enje ost osti ima ih ati', 'čćšžđ'
    ),
    (
      'ro',
      'de și în a la care cu pe nu din o că un este se mai pentru sau ce să au fi al lui ca dar sunt prin fost după '
      'poate ale dacă unui cele numai unei până acest această către iar ar fără între cum cine unde',
      'ului ilor ție ții are ează itate', 'șțăâîşţ'
    ),
    (
      'ca',
      'de la i a el que en els les l d un per una amb no és del al es o ha més com són va dels també però si seu '
      'aquest aquesta pot ser sobre on fins qui quan sense molt entre ho hi han qual',
      'ció cions tat ment ador ari', 'çàèòï'
    ),
    (
      'lt',
      'ir yra kad į su iš ne tai bet o kaip nuo už dėl ar jis apie tik po jau dar buvo gali taip kuris arba jo prie '
      'bus turi per būti jei kai kurie pagal jų visi kas kur',
      'mas imas ybė iai ius ais oje', 'ėęįųūąčšž'
    ),
    (
      'lv',
      'un ir ka no uz ar par tas bet kas nav kā arī vai pie tiek tika lai ja līdz jau to bija var tikai es pēc būt '
      'kur ko savu šo viņš jo vairāk tā kurš',
      'šana šanas ība ības iem ajā', 'āēīūģķļņ'
    ),
    (
      'is',
      'og að í á er sem til en við um ekki var með fyrir það af hann eru ég frá hafa þetta ef eða þá verður svo eftir '
      'vera þessi því hefur upp hún þeir þeim má einnig hvað hver hvar',
      'inn num unum legt lega', 'ðþ'
    ),
    (
      'id',
      'yang dan di untuk dengan dari ini dalam pada tidak itu adalah akan ke oleh dapat atau sebagai juga ada telah '
      'tersebut lebih bisa saya mereka kami karena seperti hanya anda jika bahwa apa siapa mana setiap orang',
      'kan nya', ''
    ),
    (
      'vi',
      'của và là các có được cho trong không một những với người đã này khi để đến từ về như ở tại năm cũng ra nhiều '
      'vào sẽ hay bạn trên phải nếu thì mà',
      '', 'ươđạảấầậếệộớờợữự'
    ),
    (
      'ru',
      'и в не на с что по для к это из как а то от он при или его за так если у быть о же все может также было их но '
      'был только которые этого можно вы более есть я мы она они до бы который которая чем кто где какой она была',
      'ость ного ение ания ться ный ских', 'ыэёъ'
    ),
    (
      'uk',
      'і в не на з що та до у для як за від є це або про його також може бути якщо при але й так вони було які який '
      'яка із він все через ви ми по має чи лише того де хто',
      'ість ння ого ати ися ний ських', 'іїєґ'
    ),
    (
      'be',
      'і ў не на з што да у для як па гэта ад або яго калі таксама можа быць ён але я пра яны было які якая за каб '
      'пры ці толькі ёсць дзе хто',
      'асць ння ага аць ца ыя', 'ўіыэё'
    ),
    (
      'bg',
      'на и да за се от в с не е че са по като или до този който със при това може ще към но си също ако има които '
      'бъде са тази което през след само когато й къде кой',
      'ите ата ето ност ния ване', 'ъ'
    ),
    (
      'sr',
      'и у је на се да за су од са а који не о или као из није то до која с по би али што које те већ само ако бити '
      'може према како било',
      'ање ење ост ости има ати', 'јљњћђџ'
    ),
    (
      'mk',
      'на и да за се од во со не е дека са по како или до овој кој при ова може ќе кон но исто ако има кои биде оваа '
      'ги го што ја',
      'ите ата ето ост ње', 'јќѓѕљњџ'
    ),
    ('hi', 'के है में की और को से का यह पर एक नहीं लिए कि भी हैं इस ने या था जो हो कर', '', ''),
    ('ne', 'र छ को मा यो लागि भएको पनि हो छन् गर्न वा एक गर्ने तथा', '', ''),
    ('mr', 'आहे आणि या व हे ते आहेत होते नाही साठी एक हा ही मध्ये', '', '');
$$;

comment on function _pgstack.language_words() is
'What tells languages apart: their commonest words (commonest first), endings of their long words, their letters.';

-- One object, so that a word is looked up by one search in it; PostgreSQL computes a constant once per session and
-- statement.  Keys: 'word', '-ending', '.letter'.
create or replace function _pgstack.language_profile()
returns jsonb
language sql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_object_agg(f.feature, f.weights)
  from (
    select e.feature, jsonb_object_agg(e.language, e.weight) as weights
    from (
      -- How much likelier a word is in this language than in a text of any other: it has one of
      -- its n-th rank in some 0.06 / n^0.75 of its words, others by accident in 0.0012.
      select t.word as feature, l.language, 
        round((ln(0.06 / power(min(t.nr), 0.75) / 0.0012) * case when t.word ~ '^[a-z]$' then 0.5 else 1 end)::numeric, 2)
          as weight
      from _pgstack.language_words() as l
      cross join string_to_table(l.words, ' ') with ordinality as t (word, nr)
      group by t.word, l.language
      union all
      select '-' || t.ending, l.language, 0.7
      from _pgstack.language_words() as l cross join string_to_table(l.endings, ' ') as t (ending)
      union all
      select '.' || t.letter, l.language, 1.2
      from _pgstack.language_words() as l cross join string_to_table(l.letters, null) as t (letter)
    ) as e
    group by e.feature
  ) as f;
$$;

comment on function _pgstack.language_profile() is
'_pgstack.language_words() as {"word": {"en": 3.9, ...}, "-ending": ..., ".letter": ...}: the logarithm of how much
likelier that is in a text of the language than in others.';
