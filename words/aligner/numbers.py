"""Numbers in words: English, Spanish, German, French, Italian, Portuguese, Dutch.

Each function gives one usual reading as a list of spoken words. Readings that differ only in how the
words are glued together ("treinta y uno") sound the same, so nothing here cares about hyphens.
"""

from __future__ import annotations

from collections.abc import Callable

GREATEST = 999_999_999
"""Longer numbers are read digit by digit."""


def _list(text: str) -> list[str]:
    """Words of a table; one string a table is easier on the eye than a string a word."""
    return text.split()


_EN_ONES = _list(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
_EN_TENS = _list("- - twenty thirty forty fifty sixty seventy eighty ninety")
_EN_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}


def english(n: int, *, with_and: bool = False) -> list[str]:
    """``one hundred (and) five``."""
    if n < 20:
        return [_EN_ONES[n]]
    if n < 100:
        return [_EN_TENS[n // 10]] + ([_EN_ONES[n % 10]] if n % 10 else [])
    if n < 1000:
        rest = ["and"] * with_and + english(n % 100) if n % 100 else []
        return [_EN_ONES[n // 100], "hundred", *rest]
    for value, name in ((1_000_000, "million"), (1000, "thousand")):
        if n >= value:
            below = n % value
            rest = english(below, with_and=with_and) if below else []
            if with_and and 0 < below < 100:
                rest.insert(0, "and")
            return [*english(n // value, with_and=with_and), name, *rest]
    raise AssertionError("every number from 1000 up has thousands")


def english_ordinal(n: int) -> list[str]:
    """``twenty second``."""
    *words, last = english(n)
    regular = last[:-1] + "ieth" if last.endswith("y") else last + "th"
    return [*words, _EN_ORDINALS.get(last, regular)]


_ES_ONES = _list(
    "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince "
    "dieciséis diecisiete dieciocho diecinueve veinte veintiuno veintidós veintitrés veinticuatro "
    "veinticinco veintiséis veintisiete veintiocho veintinueve"
)
_ES_TENS = _list("- - - treinta cuarenta cincuenta sesenta setenta ochenta noventa")
_ES_HUNDREDS = _list(
    "- ciento doscientos trescientos cuatrocientos quinientos seiscientos setecientos ochocientos "
    "novecientos"
)


def _spanish(n: int) -> list[str]:
    if n < 30:
        return [_ES_ONES[n]]
    if n < 100:
        return [_ES_TENS[n // 10]] + (["y", _ES_ONES[n % 10]] if n % 10 else [])
    if n < 1000:
        return ["cien"] if n == 100 else [_ES_HUNDREDS[n // 100], *_rest(_spanish, n % 100)]
    if n < 1_000_000:
        head = [] if n < 2000 else _spanish(n // 1000)
        return [*head, "mil", *_rest(_spanish, n % 1000)]
    millions = ["un", "millón"] if n < 2_000_000 else [*_spanish(n // 1_000_000), "millones"]
    return [*millions, *_rest(_spanish, n % 1_000_000)]


_DE_ONES = _list(
    "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn "
    "sechzehn siebzehn achtzehn neunzehn"
)
_DE_TENS = _list("- - zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig")


def _german(n: int) -> list[str]:
    if n < 20:
        return [_DE_ONES[n]]
    if n < 100:
        one = {0: [], 1: ["ein", "und"]}.get(n % 10, [_DE_ONES[n % 10], "und"])
        return [*one, _DE_TENS[n // 10]]
    if n < 1000:
        head = "ein" if n < 200 else _DE_ONES[n // 100]
        return [head, "hundert", *_rest(_german, n % 100)]
    if n < 1_000_000:
        thousands = ["ein"] if n < 2000 else _german(n // 1000)
        return [*thousands, "tausend", *_rest(_german, n % 1000)]
    millions = ["eine", "million"] if n < 2_000_000 else [*_german(n // 1_000_000), "millionen"]
    return [*millions, *_rest(_german, n % 1_000_000)]


def german_ordinal(n: int) -> list[str]:
    """``zweiundzwanzigsten``: the form dates take; its other endings sound nearly the same."""
    special = {1: "ersten", 3: "dritten", 7: "siebten", 8: "achten"}
    if n in special:
        return [special[n]]
    *words, last = _german(n)
    return [*words, last + ("ten" if n < 20 else "sten")]


_FR_ONES = _list(
    "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize "
    "dix-sept dix-huit dix-neuf"
)
_FR_TENS = _list("- - vingt trente quarante cinquante soixante soixante quatre-vingt quatre-vingt")


def _french(n: int) -> list[str]:
    if n < 20:
        return _FR_ONES[n].split("-")
    if n < 100:
        tens, ones = divmod(n, 10)
        head = _FR_TENS[tens].split("-")
        if tens in (7, 9):
            ones += 10
        if ones == 0:
            return head
        joint = ["et"] if ones in (1, 11) and tens < 8 else []
        return [*head, *joint, *_french(ones)]
    if n < 1000:
        head = [] if n < 200 else _french(n // 100)
        return [*head, "cent", *_rest(_french, n % 100)]
    if n < 1_000_000:
        head = [] if n < 2000 else _french(n // 1000)
        return [*head, "mille", *_rest(_french, n % 1000)]
    return [*_french(n // 1_000_000), "million", *_rest(_french, n % 1_000_000)]


_IT_ONES = _list(
    "zero uno due tre quattro cinque sei sette otto nove dieci undici dodici tredici quattordici "
    "quindici sedici diciassette diciotto diciannove"
)
_IT_TENS = _list("- - venti trenta quaranta cinquanta sessanta settanta ottanta novanta")


def _italian(n: int) -> list[str]:
    if n < 20:
        return [_IT_ONES[n]]
    if n < 100:
        tens, ones = _IT_TENS[n // 10], n % 10
        if ones in (1, 8):  # ventuno, ventotto
            tens = tens[:-1]
        return [tens + (_IT_ONES[ones] if ones else "")]
    if n < 1000:
        head = [] if n < 200 else _italian(n // 100)
        return [*head, "cento", *_rest(_italian, n % 100)]
    if n < 1_000_000:
        head = ["mille"] if n < 2000 else [*_italian(n // 1000), "mila"]
        return [*head, *_rest(_italian, n % 1000)]
    millions = ["un", "milione"] if n < 2_000_000 else [*_italian(n // 1_000_000), "milioni"]
    return [*millions, *_rest(_italian, n % 1_000_000)]


_PT_ONES = _list(
    "zero um dois três quatro cinco seis sete oito nove dez onze doze treze catorze quinze "
    "dezesseis dezessete dezoito dezenove"
)
_PT_TENS = _list("- - vinte trinta quarenta cinquenta sessenta setenta oitenta noventa")
_PT_HUNDREDS = _list(
    "- cento duzentos trezentos quatrocentos quinhentos seiscentos setecentos oitocentos novecentos"
)


def _portuguese(n: int) -> list[str]:
    if n < 20:
        return [_PT_ONES[n]]
    if n < 100:
        return [_PT_TENS[n // 10]] + (["e", _PT_ONES[n % 10]] if n % 10 else [])
    if n < 1000:
        rest = ["e", *_portuguese(n % 100)] if n % 100 else []
        return ["cem"] if n == 100 else [_PT_HUNDREDS[n // 100], *rest]
    if n < 1_000_000:
        head = [] if n < 2000 else _portuguese(n // 1000)
        below = n % 1000
        joint = ["e"] if 0 < below <= 100 or (below and below % 100 == 0) else []
        return [*head, "mil", *joint, *_rest(_portuguese, below)]
    millions = ["um", "milhão"] if n < 2_000_000 else [*_portuguese(n // 1_000_000), "milhões"]
    return [*millions, *_rest(_portuguese, n % 1_000_000)]


_NL_ONES = _list(
    "nul een twee drie vier vijf zes zeven acht negen tien elf twaalf dertien veertien vijftien "
    "zestien zeventien achttien negentien"
)
_NL_TENS = _list("- - twintig dertig veertig vijftig zestig zeventig tachtig negentig")


def _dutch(n: int) -> list[str]:
    if n < 20:
        return [_NL_ONES[n]]
    if n < 100:
        return ([_NL_ONES[n % 10], "en"] if n % 10 else []) + [_NL_TENS[n // 10]]
    if n < 1000:
        head = [] if n < 200 else [_NL_ONES[n // 100]]
        return [*head, "honderd", *_rest(_dutch, n % 100)]
    if n < 1_000_000:
        head = [] if n < 2000 else _dutch(n // 1000)
        return [*head, "duizend", *_rest(_dutch, n % 1000)]
    return [*_dutch(n // 1_000_000), "miljoen", *_rest(_dutch, n % 1_000_000)]


def _rest(say: Callable[[int], list[str]], n: int) -> list[str]:
    """What follows hundreds or thousands: nothing for zero."""
    return say(n) if n else []


_CARDINALS: dict[str, Callable[[int], list[str]]] = {
    "en": english,
    "es": _spanish,
    "de": _german,
    "fr": _french,
    "it": _italian,
    "pt": _portuguese,
    "nl": _dutch,
}


def cardinal(n: int, language: str) -> list[str] | None:
    """Say a number, or None for a language without number words or a number too great.

    Raises:
        ValueError: The number is negative.
    """
    if n < 0:
        raise ValueError(f"n must be 0 or more, got {n}")
    say = _CARDINALS.get(language)
    return say(n) if say is not None and n <= GREATEST else None
