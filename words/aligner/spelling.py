"""From letters to phones by rules: words that are in no dictionary, and languages without one.

A rule is ``letters:PHONES``, tried longest first from left to right; ``^`` ties a rule to the start
of the word, ``$`` to its end. The phones are those of the English model, so a foreign sound becomes
the nearest English one: that is enough to tell where a word ends, which is all that is asked.

Scripts without rules of their own go by the names Unicode gives their letters ("HIRAGANA LETTER KA",
"HANGUL SYLLABLE GAN"). What is left, Han characters above all, becomes a syllable of any consonant
and any vowel.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

ANY_VOWEL = "ANY_VOWEL"
ANY_CONSONANT = "ANY_CONSONANT"

VOWELS = frozenset(
    ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
)

_COMMON = """
a:AA b:B c:K d:D e:EH f:F g:G h: i:IY j:JH k:K l:L m:M n:N o:OW p:P q:K r:R s:S t:T u:UW v:V w:W
x:K+S y:IY z:Z á:AA à:AA â:AA ä:EH ã:AA å:AO ą:AO+N é:EY è:EH ê:EH ë:EH ę:EH+N í:IY ì:IY ï:IY î:IY
ó:OW ò:AO ô:OW ö:ER õ:OW ø:ER ú:UW ù:UW û:UW ü:UW ñ:N+Y ç:S ß:S œ:ER æ:AE ð:DH þ:TH ł:W ń:N+Y ś:SH
ź:ZH ż:ZH č:CH š:SH ž:ZH ř:R+ZH ě:Y+EH ů:UW ý:IY ć:CH đ:JH ğ: ı:IH ş:SH ț:T+S ș:SH ă:AH ő:ER ű:UW
bb:B cc:K dd:D ff:F gg:G kk:K ll:L mm:M nn:N pp:P rr:R ss:S tt:T vv:V zz:Z
"""

_LANGUAGES = {
    "en": """
    tch:CH igh:AY eigh:EY ough:AO augh:AO tion:SH+AH+N sion:ZH+AH+N ture:CH+ER ch:CH sh:SH th:TH ph:F
    wh:W ^wr:R ^kn:N ^ps:S ck:K ng:NG ng$:NG nk:NG+K qu:K+W ee:IY ea:IY oo:UW ou:AW ow:OW oa:OW ai:EY
    ay:EY ey:IY ei:EY ie:IY au:AO aw:AO oi:OY oy:OY ew:UW er$:ER er:ER ir:ER ur:ER ar:AA+R or:AO+R
    e$: es$:Z ed$:D le$:AH+L ce:S+EH ci:S+IH cy:S+IY ce$:S ge$:JH ge:JH+EH gi:JH+IH a:AE e:EH i:IH
    o:AA u:AH a$:AH y$:IY ^y:Y y:IH h:HH j:JH x:K+S ^x:Z
    """,
    "es": """
    ch:CH ll:Y rr:R que:K+EH qui:K+IY gue:G+EH gui:G+IY qué:K+EY quí:K+IY gué:G+EY güe:G+W+EH ce:S+EH
    ci:S+IY cé:S+EY cí:S+IY ge:HH+EH gi:HH+IY gé:HH+EY gí:HH+IY j:HH z:S v:B ñ:N+Y y:Y y$:IY ^y$:IY
    ia:Y+AA ie:Y+EH io:Y+OW ió:Y+OW ue:W+EH ué:W+EY ua:W+AA ai:AY ay$:AY ei:EY ey$:EY oi:OY oy$:OY
    au:AW eu:EH+UW h:
    """,
    "de": """
    tsch:CH sch:SH chs:K+S ^ch:K ch:HH ich:IH+SH ech:EH+SH ig$:IH+SH ck:K ng:NG nk:NG+K ei:AY ai:AY
    ie:IY ih:IY ieh:IY eu:OY äu:OY au:AW ^st:SH+T ^sp:SH+P pf:P+F ph:F qu:K+V z:T+S tz:T+S w:V v:F j:Y
    er$:AH e$:AH en$:AH+N el$:AH+L ern$:AH+N ^s:Z s:S ss:S sse:S+AH se:Z+AH sa:Z+AA so:Z+OW si:Z+IH
    ah:AA eh:EY oh:OW uh:UW üh:UW öh:ER äh:EH ä:EH ö:ER ü:UW y:UW aa:AA ee:EY oo:OW h: ^h:HH i:IH o:AO
    b$:P d$:T g$:K tion:T+S+Y+OW+N ^ge:G+AH ^be:B+AH ^ver:F+EH+R u:UH
    """,
    "fr": """
    eau:OW au:OW aux$:OW eaux$:OW ou:UW où:UW oû:UW oi:W+AA oî:W+AA oy:W+AA+Y oin:W+AE+N ain:AE+N
    ein:AE+N aim:AE+N in:AE+N im:AE+N un:AE+N um$:AE+N ine:IY+N ina:IY+N+AA imme:IY+M inn:IY+N imm:IY+M
    une:UW+N una:UW+N+AA ien:Y+AE+N ienne:Y+EH+N ann:AA+N enn:EH+N onn:AO+N amm:AA+M emm:AA+M omm:AO+M
    ane:AA+N ana:AA+N+AA ani:AA+N+IY ame:AA+M ami:AA+M+IY ama:AA+M+AA ene:AH+N ena:AH+N+AA eni:AH+N+IY
    emi:AH+M+IY eme:AH+M one:AO+N oni:AO+N+IY ona:AO+N+AA ome:AO+M omi:AO+M+IY oma:AO+M+AA an:AA+N
    am:AA+N en:AA+N em:AA+N on:AO+N om:AO+N ai:EH aî:EH ei:EH eu:ER œu:ER eû:ER gn:N+Y ph:F th:T
    qu:K que$:K ill:IY+Y ille$:IY+Y aill:AA+Y eill:EH+Y ouill:UW+Y ail$:AA+Y eil$:EH+Y euil$:ER+Y
    ge:ZH gea:ZH+AA geo:ZH+AO gi:ZH+IY gé:ZH+EY gè:ZH+EH gue:G gui:G+IY gu:G+UW ce:S ci:S+IY cé:S+EY
    cè:S+EH cea:S+AA ç:S j:ZH y:IY ^y$:IY es$: ent$:AA+N aient$:EH e$: ée$:EY ées$:EY é:EY er$:EY
    ez$:EY et$:EH t$: s$: d$: x$: p$: z$: ts$: ^les$:L+EY ^des$:D+EY ^mes$:M+EY ^ses$:S+EY ^ces$:S+EY
    ^est$:EH ^et$:EY ^le$:L+AH ^de$:D+AH ^je$:ZH+AH ^ne$:N+AH ^que$:K+AH ^ce$:S+AH ^se$:S+AH ^me$:M+AH
    ^te$:T+AH ^un$:AE+N ^vingt$:V+AE+N ^sept$:S+EH+T ^huit$:W+IY+T ^six$:S+IY+S ^dix$:D+IY+S
    ^mer$:M+EH+R ^hiver$:IY+V+EH+R ^fier$:F+Y+EH+R ^cher$:SH+EH+R
    e:AH h: u:UW û:UW ille:IY+Y il$:IY+L tion:S+Y+AO+N tions$:S+Y+AO+N ss:S ase:AA+Z ise:IY+Z ose:OW+Z
    use:UW+Z asi:AA+Z+IY isi:IY+Z+IY aisi:EH+Z+IY ui:W+IY uit$:W+IY o:AO oe:AO+EH ch:SH
    """,
    "it": """
    cch:K ch:K gh:G gli:L+Y glia:L+Y+AA glio:L+Y+OW glie:L+Y+EH gn:N+Y sci:SH+IY scia:SH+AA scio:SH+OW
    sciu:SH+UW sce:SH+EH cci:CH+IY ccia:CH+AA ccio:CH+OW cce:CH+EH cia:CH+AA cio:CH+OW ciu:CH+UW
    ci:CH+IY ce:CH+EH cì:CH+IY gia:JH+AA gio:JH+OW giu:JH+UW giù:JH+UW gi:JH+IY ge:JH+EH ggi:JH+IY
    ggia:JH+AA ggio:JH+OW gge:JH+EH qu:K+W cqu:K+W zz:T+S z:T+S h: uo:W+OW uò:W+AO ie:Y+EH iù:Y+UW
    ia:Y+AA io:Y+OW asi:AA+Z+IY eso:EH+Z+OW ase:AA+Z+EH ose:OW+Z+EH
    """,
    "pt": """
    lh:L+Y nh:N+Y ch:SH qu:K que:K+AH qui:K+IY gue:G+AH gui:G+IY quê:K+EY ce:S+EH ci:S+IY cê:S+EY
    ge:ZH+EH gi:ZH+IY j:ZH ç:S x:SH ss:S ase:AA+Z+AH asa:AA+Z+AA iso:IY+Z+UW isa:IY+Z+AA osa:OW+Z+AA
    ese:EY+Z+AH eso:EY+Z+UW usa:UW+Z+AA s$:SH z$:SH st:SH+T sc:SH+K sp:SH+P ão:AW+N ões$:OY+N+SH
    ães$:AY+N+SH ã:AH+N am$:AW+N em$:EY+N ém$:EY+N ens$:EY+N+SH im$:IY+N om$:OW+N um$:UW+N an:AH+N
    en:EH+N in:IY+N on:OW+N un:UW+N ana:AH+N+AA ano:AH+N+UW ina:IY+N+AA ine:IY+N+EH ono:OW+N+UW
    ena:EY+N+AA eno:EY+N+UW una:UW+N+AA uni:UW+N+IY eni:EH+N+IY ona:OW+N+AA ini:IY+N+IY ani:AH+N+IY
    o$:UW os$:UW+SH e$:AH es$:AH+SH ^e$:IY ^o$:UW ^a$:AH a$:AH as$:AH+SH ei:EY ou:OW oi:OY ai:AY au:AW
    eu:EH+UW ói:OY ui:UW+IY ia:Y+AA io:Y+UW ^h: h: ^r:HH rr:HH l$:L lá$:L+AA
    """,
    "nl": """
    sch:S+HH sch$:S ch:HH ng:NG nk:NG+K ij:EY ei:EY ui:AW ou:AW au:AW oe:UW ie:IY eu:ER uu:UW aa:AA ee:EY
    oo:OW eeuw:EY+UW ieuw:IY+UW aai:AA+IY ooi:OW+IY oei:UW+IY g:HH ^g:HH gg:HH w:V v:F ^v:F j:Y sj:SH tj:CH
    tie$:S+IY en$:AH er$:AH+R el$:AH+L e$:AH ^de$:D+AH ^ge:HH+AH ^be:B+AH ^ver:F+EH+R lijk:L+AH+K ig$:AH+HH
    ^een$:AH+N ^het$:HH+AH+T a:AA e:EH i:IH o:AO u:AH d$:T b$:P h:HH ë:AH c:K ce:S+EH ci:S+IY y:IY x:K+S
    """,
    "ca": """
    ny:N+Y ll:L+Y ix:SH tx:CH tg:JH tj:JH que:K+AH qui:K+IY què:K+EH gue:G+AH gui:G+IY ce:S+AH ci:S+IY
    ge:ZH+AH gi:ZH+IY j:ZH x:SH ss:S rr:R r$: o:UW ó:OW ò:AO h: v:B qu:K+W e:AH a:AH à:AA e$:AH a$:AH
    l·l:L
    """,
    "pl": "sz:SH cz:CH rz:ZH ch:HH dz:D+Z dź:JH dż:JH w:V c:T+S ci:CH si:SH zi:ZH ni:N+Y j:Y h:HH ó:UW y:IH",
    "tr": "c:JH ç:CH j:ZH y:Y h:HH",
    "sv": "sj:SH tj:SH skj:SH stj:SH ng:NG j:Y y:UW h:HH ck:K ä:EH g:G",
    "da": "j:Y y:UW h:HH ng:NG hv:V hj:Y",
    "nb": "j:Y y:UW h:HH ng:NG hv:V kj:SH skj:SH sj:SH",
    "fi": "j:Y y:UW h:HH ng:NG",
    "id": "c:CH j:JH y:Y h:HH ng:NG ny:N+Y",
}  # fmt: skip

_CYRILLIC = (
    "а:AA б:B в:V г:G д:D е:Y+EH ё:Y+OW ж:ZH з:Z и:IY й:Y к:K л:L м:M н:N о:OW п:P р:R с:S т:T у:UW "
    "ф:F х:HH ц:T+S ч:CH ш:SH щ:SH ъ: ы:IH ь: э:EH ю:Y+UW я:Y+AA і:IY ї:Y+IY є:Y+EH ґ:G"
)
_GREEK = (
    "α:AA β:V γ:G δ:DH ε:EH ζ:Z η:IY θ:TH ι:IY κ:K λ:L μ:M ν:N ξ:K+S ο:OW π:P ρ:R σ:S ς:S τ:T υ:IY "
    "φ:F χ:HH ψ:P+S ω:OW ά:AA έ:EH ή:IY ί:IY ό:OW ύ:IY ώ:OW ου:UW ού:UW αι:EH αί:EH ει:IY εί:IY "
    "οι:IY οί:IY μπ:B ντ:D γκ:G γγ:NG+G"
)

_VOWELLESS = ("ARABIC", "HEBREW")
"""Scripts that leave short vowels out."""

_LETTER_NAME = re.compile(
    r"(HIRAGANA|KATAKANA|HANGUL|DEVANAGARI|BENGALI|TAMIL|TELUGU|GUJARATI|THAI|LAO|KHMER|MYANMAR|"
    r"ARABIC|HEBREW|ARMENIAN|GEORGIAN|ETHIOPIC)\s"
    r"(?:SMALL |CAPITAL |HALFWIDTH )?(?:LETTER|SYLLABLE|VOWEL SIGN|CHARACTER)\s"
    r"(?:SMALL |SARA )?([A-Z]+)"
)


@lru_cache(maxsize=32)
def _rules(language: str) -> tuple[re.Pattern[str], dict[str, tuple[str, ...]]]:
    """One pattern that finds the longest rule, and the phones of each rule."""
    text = " ".join((_COMMON, _CYRILLIC, _GREEK, _LANGUAGES.get(language, "")))
    phones: dict[str, tuple[str, ...]] = {}
    for rule in text.split():
        letters, _, spoken = rule.partition(":")
        phones[letters] = tuple(p for p in spoken.replace(":", "").split("+") if p)
    ordered = sorted(phones, key=lambda r: (-len(r.strip("^$")), -len(r)))
    parts = [
        ("^" if r[0] == "^" else "") + re.escape(r.strip("^$")) + ("$" if r[-1] == "$" else "")
        for r in ordered
    ]
    pattern = re.compile("|".join(f"({part})" for part in parts))
    by_group = {str(number): phones[rule] for number, rule in enumerate(ordered, 1)}
    return pattern, by_group


def phones_by_rule(word: str, language: str) -> tuple[str, ...]:
    """Phones of a word in small letters; never empty for a word with a letter in it."""
    pattern, by_group = _rules(language)
    phones: list[str] = []
    place = 0
    while place < len(word):
        match = _match_at(pattern, word, place)
        if match is not None:
            phones.extend(by_group[str(match.lastindex)])
            place = match.end()
            continue
        phones.extend(_phones_by_letter_name(word[place], language))
        place += 1
    if not phones and any(c.isalpha() for c in word):
        return ("AH",)
    return tuple(p for k, p in enumerate(phones) if k == 0 or p != phones[k - 1] or p in VOWELS)


def _match_at(pattern: re.Pattern[str], word: str, place: int) -> re.Match[str] | None:
    # ``^`` holds only at the very start: Pattern.match with a position keeps that.
    return pattern.match(word, place)


@lru_cache(maxsize=4096)
def _phones_by_letter_name(char: str, language: str) -> tuple[str, ...]:
    """Phones of one character of a script without rules."""
    category = unicodedata.category(char)
    if category[0] not in "LM":
        return ()
    plain = unicodedata.normalize("NFD", char)[0]
    pattern, by_group = _rules(language)
    match = pattern.match(plain)
    if match is not None:
        return by_group[str(match.lastindex)]
    named = _LETTER_NAME.match(unicodedata.name(char, ""))
    if named is None:
        return (ANY_CONSONANT, ANY_VOWEL) if category == "Lo" else ()
    script, name = named.groups()
    if script in ("HIRAGANA", "KATAKANA", "HANGUL", "ETHIOPIC") or category[0] == "M":
        return phones_by_rule(name.lower(), "it") if name != "TU" else ("T", "UW")
    # An abjad or abugida letter is named for its consonant: the first sound of the name, and the
    # vowel that goes with it unless a vowel letter says otherwise.
    sound = phones_by_rule(name.lower(), "it")[:1]
    if sound and sound[0] in VOWELS:
        return sound
    return (*sound, ANY_VOWEL) if script not in _VOWELLESS else sound
