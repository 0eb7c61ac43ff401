"""The ways a displayed word may be read aloud.

A transcript shows ``$9.05``; the voice says "nine dollars and five cents", "nine oh five" or "nine
dollars five". All usual readings go into the graph side by side and the audio decides.

A *reading* is a sequence of spoken words in small letters; ``b.`` is the name of the letter b. A
*slot* holds readings to choose from, and a *form* is slots one after the other: ``555-0142`` has a
slot for each group of digits and an optional one for the dash, which keeps choices from multiplying.
A word without sound (a dash, an emoji) has no form at all.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

from words.aligner.number_words import NUMBER_WORDS, NumberWords, words_of
from words.aligner.numbers import cardinal, english, english_ordinal, german_ordinal

Reading = tuple[str, ...]
Slot = tuple[Reading, ...]
"""Readings to choose from; an empty reading: the slot may go unsaid."""

Form = tuple[Slot, ...]

MAX_READINGS = 12
"""Readings kept of one slot: real ones rarely have more, and each costs search."""

MAX_READING_WORDS = 60
"""Spoken words kept of one reading, and slots of one form: a page of digits without a space is not
speech."""


_QUOTES = '"“”„‘’«»()[]{}<>*~…¿¡'
_STOPS = ".,;:!?—–-…。，、！？；：।؟،"

_MONEY = re.compile(r"([$€£¥])(\d[\d.,]*)|(\d[\d.,]*)([$€£¥])")
_CLOCK = re.compile(r"(\d{1,2})[:h.](\d\d)(?:-?([ap])\.?m\.?)?(uhr|h)?")
_HOUR = re.compile(r"(\d{1,2})(?:([ap])\.?m\.?|h)")
_ORDINAL = re.compile(r"(\d+)(?:st|nd|rd|th)")
_DATE = re.compile(r"(\d{1,4})[/.\-](\d{1,2})(?:[/.\-](\d{1,4}))?")
_NUMBER = re.compile(r"\d[\d.,’']*\d|\d")
_SPELLED = re.compile(r"(?:[^\W\d_][.\-])+[^\W\d_]?\.?")
_PIECE = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:['’][^\W\d_]+)*|[^\w\s]|_")

_MONTHS = words_of(
    "january february march april may june july august september october november december"
)


@lru_cache(maxsize=8192)
def forms(word: str, language: str) -> tuple[Form, ...]:
    """Ways to read a displayed word; empty for one that is not spoken.

    Args:
        word: As displayed, with the punctuation that clings to it.
        language: Primary language, such as ``en``.
    """
    # Compatibility forms first: ² is a 2, ½ is 1⁄2, ﬃ is three letters.
    text = unicodedata.normalize("NFKC", word).lower().replace("’", "'").replace("⁄", "/")
    text = text.strip(_QUOTES).strip(_QUOTES + _STOPS + "'").strip()
    if not text:
        return ()
    whole = _slot(_readings(text, word, language))
    found: list[Form] = [(whole,)] if any(whole) else []
    if not found or (
        _in_pieces(text) and not _NUMBER.fullmatch(text) and not _SPELLED.fullmatch(text)
    ):
        pieces = tuple(slot for slot in _spread(text, language) if slot and slot != ((),))
        if pieces and any(any(slot) for slot in pieces):
            found.append(pieces)
    return tuple(found)


def _slot(found: Iterable[Sequence[str]]) -> Slot:
    """Readings without repeats, not too many, not too long."""
    kept = dict.fromkeys(_clean(r)[:MAX_READING_WORDS] for r in found)
    return tuple(itertools.islice(kept, MAX_READINGS))


def _in_pieces(text: str) -> bool:
    """Whether symbols or changes between letters and digits divide the word."""
    return re.fullmatch(r"[^\W\d_]+(['’\-][^\W\d_]+)*|\d+", text) is None


def _clean(reading: Iterable[str]) -> Reading:
    """Split what a table gave as several words, drop what it gave as none."""
    return tuple(part for word in reading for part in word.split())


def _readings(text: str, shown: str, language: str) -> list[Sequence[str]]:
    words = NUMBER_WORDS.get(language)
    if not any(char.isdecimal() for char in text):
        return _without_digits(text, shown, language, words)
    if words is None:
        return []
    if language == "en":
        special = _english_only(text)
        if special:
            return special
    if match := _MONEY.fullmatch(text):
        symbol, amount = match[1] or match[4], match[2] or match[3]
        return _money(symbol, amount.rstrip(".,"), language, words)
    if match := _CLOCK.fullmatch(text):
        spoken = _clock(int(match[1]), int(match[2]), match[3], language, words)
        if text[len(match[1])] == "." or match[3] is None and language == "en":
            spoken += _number(text, language) if "." in text else []
        if spoken:
            return spoken
    if match := _HOUR.fullmatch(text):
        hour = cardinal(int(match[1]), language) or []
        suffix = [f"{match[2]}.", "m."] if match[2] else [words.hour[0]]
        return [[*hour, *suffix]]
    if text[-1] == "%" and _NUMBER.fullmatch(text[:-1]):
        return [[*r, words.percent] for r in _number(text[:-1], language)]
    if _NUMBER.fullmatch(text):
        found = _number(text, language)
        if language == "de" and shown.rstrip('"”)').endswith(".") and len(text) <= 2:
            found.insert(0, german_ordinal(int(text)))
        return found
    if match := _DATE.fullmatch(text):
        return _date(match, language)
    return []


# -- words ----------------------------------------------------------------------------------------


def _without_digits(
    text: str, shown: str, language: str, words: NumberWords | None
) -> list[Sequence[str]]:
    found: list[Sequence[str]] = []
    if words is not None:
        abbreviation = (
            words.abbreviations.get(text)
            if shown.rstrip(_QUOTES + ",;").endswith(".") or text not in _ORDINARY
            else None
        )
        if abbreviation:
            found += [name.split() for name in abbreviation]
    if len(text) == 1 and text.isalpha():
        found += [[f"{text}."], [text]] if text in _ONE_LETTER_WORDS.get(language, "") else []
        return found or [[f"{text}."]]
    if _SPELLED.fullmatch(text):
        return [*found, [f"{char}." for char in text if char.isalnum()]]
    if re.search(r"[^\w'\-]|_", text):
        return found
    if "-" in text:
        return [*found, [part for part in text.split("-") if part]]
    found.append([text])
    if "'" in text and language in ("fr", "it", "ca"):
        found = [[part for part in text.split("'") if part]]
    capitals = shown.strip(_QUOTES + _STOPS)
    if capitals.isupper() and 2 <= len(text) <= 5 and text.isalpha():
        found.append([f"{char}." for char in text])
    return found


_ORDINARY = frozenset(words_of("no st sat sun mar wed ms di do mi m n r h fr c min co sec st mon"))
"""Abbreviations that are words, too: expanded only before a full stop."""

_ONE_LETTER_WORDS = {
    "en": "ai",
    "es": "aeouy",
    "fr": "ay",
    "it": "aeio",
    "pt": "aeo",
    "nl": "u",
    "ca": "aio",
    "de": "",
}


def _spread(text: str, language: str) -> list[Slot]:
    """E-mail, URL, code, range: every piece by itself, with the names of the symbols between."""
    words = NUMBER_WORDS.get(language, NUMBER_WORDS["en"])
    mixed = any(c.isdecimal() for c in text)
    slots: list[Slot] = []
    for piece in _PIECE.findall(text)[:MAX_READING_WORDS]:
        if piece[0].isdecimal():
            slots.append(_slot(_number(piece, language)))
        elif piece in words.symbols:
            slots.append(_slot([[name] for name in words.symbols[piece]]))
        elif piece[0].isalpha():
            spelled = [f"{char}." for char in piece]
            whole = [piece] if len(piece) > 1 else spelled
            short = 1 < len(piece) <= 4 and mixed
            slots.append(_slot([whole, spelled] if short else [whole]))
    return slots


# -- numbers --------------------------------------------------------------------------------------

_DIGIT_NAMES = {
    "ca": words_of("zero un dos tres quatre cinc sis set vuit nou"),
    "pl": words_of("zero jeden dwa trzy cztery pięć sześć siedem osiem dziewięć"),
    "tr": words_of("sıfır bir iki üç dört beş altı yedi sekiz dokuz"),
    "sv": words_of("noll ett två tre fyra fem sex sju åtta nio"),
    "da": words_of("nul en to tre fire fem seks syv otte ni"),
    "nb": words_of("null en to tre fire fem seks sju åtte ni"),
    "fi": words_of("nolla yksi kaksi kolme neljä viisi kuusi seitsemän kahdeksan yhdeksän"),
    "ru": words_of("ноль один два три четыре пять шесть семь восемь девять"),
    "zh": words_of("líng yī èr sān sì wǔ liù qī bā jiǔ"),
    "ja": words_of("zero ichi ni san yon go roku nana hachi kyu"),
    "ko": words_of("yeong il i sam sa o yuk chil pal gu"),
}


_SOME_DIGIT = "dana"
"""Stands for a digit of a language whose digits we do not know: two syllables."""


def _digits(text: str, language: str, zero: str | None = None) -> list[str]:
    """One by one."""
    names = _DIGIT_NAMES.get(language)
    spoken: list[str] = []
    for char in text:
        if not char.isdecimal():
            continue
        value = int(char)
        if value == 0 and zero is not None:
            spoken.append(zero)
        else:
            spoken += [names[value]] if names else cardinal(value, language) or [_SOME_DIGIT]
    return spoken


def _whole_and_part(text: str, language: str) -> tuple[str, str]:
    """Digits before and after the decimal mark, thousands' separators dropped."""
    mark, separator = (".", ",") if language == "en" else (",", ".")
    text = text.replace("'", "")
    if separator in text and mark not in text:
        groups = text.split(separator)
        if not all(len(group) == 3 for group in groups[1:]):
            mark, separator = separator, mark  # 9.50 in a language that writes 9,50
    whole, _, part = text.replace(separator, "").partition(mark)
    return whole, part.replace(mark, "")


def _number(text: str, language: str) -> list[Sequence[str]]:
    """A number alone: whole, as a year or in pairs, digit by digit; with decimals."""
    words = NUMBER_WORDS.get(language)
    if words is None:
        return [_digits(text, language)]
    whole, part = _whole_and_part(text, language)
    if not whole:
        return [_digits(text, language)]
    value = int(whole[:18])
    said = cardinal(value, language) if len(whole) <= 9 else None
    found: list[Sequence[str]] = []
    zeros = words.zero if "0" in whole + part else words.zero[:1]
    if part:
        head = said or _digits(whole, language)
        for point in words.point:
            tens = cardinal(int(part), language) if part[0] != "0" and len(part) <= 2 else None
            options = [_digits(part, language, zero) for zero in zeros]
            options = ([tens] if tens else []) + options if language != "en" else options
            found += [[*head, point, *option] for option in options]
        return found
    if said and not (len(whole) > 1 and whole[0] == "0"):
        found.append(said)
        if language == "en":
            found.append(english(value, with_and=True))
            if 1000 < value < 10000 and value % 100 == 0 and value % 1000:
                found.append([*english(value // 100), "hundred"])
    found += _in_pairs(whole, language)
    if len(whole) > 1:
        found += [_digits(whole, language, zero) for zero in zeros]
    return found


def _in_pairs(digits: str, language: str) -> list[Sequence[str]]:
    """Years, room and phone numbers: ``nineteen ninety``, ``four oh five``, ``zwanzig zehn``."""
    if len(digits) == 3:
        groups = [digits[:1], digits[1:]]
    elif len(digits) in (4, 6, 8):
        groups = [digits[k : k + 2] for k in range(0, len(digits), 2)]
    else:
        return []
    if groups[0][0] == "0" and language == "en":
        return []
    spoken: list[str] = []
    for group in groups:
        if group == "00" and language == "en":
            spoken.append("hundred")
        elif group[0] == "0":
            spoken += [*NUMBER_WORDS[language].zero[:1], *_digits(group[1:], language)]
        else:
            spoken += cardinal(int(group), language) or []
    return [spoken]


def _money(symbol: str, amount: str, language: str, words: NumberWords) -> list[Sequence[str]]:
    names = words.currency[symbol]
    whole, part = _whole_and_part(amount, language)
    if not whole:
        return [_digits(amount, language)]
    units = [r for r in _number(whole, language)[:3] if r]
    if not part.strip("0"):
        return [[*unit, name] for name in names for unit in units]
    cents_value = int(part[:2].ljust(2, "0"))
    cents = cardinal(cents_value, language) or []
    found: list[Sequence[str]] = []
    oh = [words.zero[0]] if cents_value < 10 else []
    unit = units[0]
    small = [c for c in words.cents if (c == "pence") == (symbol == "£") or not c]
    for name in names[:1] if int(whole[:9]) != 1 else names[:2]:
        for cent in small[:2]:
            found.append([*unit, name, words.joint, *cents, cent])
        found.append([*unit, name, *cents, small[0]])
        found.append([*unit, name, *oh, *cents])
        found.append([*unit, words.point[0], *_digits(part, language), name])
        found.append([*unit, words.point[0], *cents, name])
    found.insert(1, [*unit, *oh, *cents])
    found.insert(2, [*unit, words.joint, *cents])
    return found


def _clock(
    hour: int, minute: int, half_day: str | None, language: str, words: NumberWords
) -> list[Sequence[str]]:
    if hour > 24 or minute > 59:
        return []
    h, m = cardinal(hour, language) or [], cardinal(minute, language) or []
    suffix = [f"{half_day}.", "m."] if half_day else []
    if language != "en":
        found: list[Sequence[str]] = [[*h, name, *(m if minute else [])] for name in words.hour]
        if minute and minute < 10:
            found.append([*h, words.zero[0], *m])
        spoken_hour = (hour - 1) % 12 + 1
        late = cardinal(spoken_hour, language) or []
        following = cardinal(spoken_hour % 12 + 1, language) or []
        half = {
            "es": [*late, "y", "media"], "de": ["halb", *following], "fr": [*h, "heures", "et", "demie"],
            "it": [*late, "e", "mezza"], "pt": [*late, "e", "meia"], "nl": ["half", *following],
        }  # fmt: skip
        if minute == 30 and language in half:
            found.append(half[language])
        if hour != spoken_hour:
            found.append([*late, words.hour[0], *(m if minute else [])])
        return found
    if minute == 0:
        spoken: list[Sequence[str]] = [[*h, "o'clock"], h, [*h, "hundred"]]
    elif minute < 10:
        spoken = [[*h, "oh", *m], [*h, "zero", *m]]
    else:
        spoken = [[*h, *m]]
    if minute == 30:
        spoken.append(["half", "past", *h])
    if minute == 15:
        spoken.append(["quarter", "past", *h])
    return [[*r, *suffix] for r in spoken]


def _date(match: re.Match[str], language: str) -> list[Sequence[str]]:
    """Dates in figures; only English names the month here, others read figures."""
    parts = [int(part) for part in match.groups() if part]
    year = cardinal(parts[-1], language) if len(parts) == 3 else []
    found: list[Sequence[str]] = []
    if language == "en" and 1 <= parts[0] <= 12 and 1 <= parts[1] <= 31:
        years: list[Sequence[str]] = [[]]
        if len(parts) == 3:
            years = [*_in_pairs(str(parts[2]), "en"), year or []]
        found += [[_MONTHS[parts[0] - 1], *english_ordinal(parts[1]), *y] for y in years]
    if language == "de" and parts[0] <= 31 and parts[1] <= 12:
        found.append([*german_ordinal(parts[0]), *german_ordinal(parts[1]), *(year or [])])
    return found


def _english_only(text: str) -> list[Sequence[str]]:
    """Forms that only English has."""
    if match := _ORDINAL.fullmatch(text):
        return [english_ordinal(int(match[1][:9]))]
    if match := re.fullmatch(r"(\d{2,4})'?s", text):  # the 1990s, the 80s
        decades = _in_pairs(match[1], "en") or [english(int(match[1]))]
        return [[*r[:-1], _plural(r[-1])] for r in decades if r]
    if match := re.fullmatch(r"([$€£]?)(\d[\d.,]*)(k|m|b)", text):  # $1.5M
        size = {"k": "thousand", "m": "million", "b": "billion"}[match[3]]
        unit = [NUMBER_WORDS["en"].currency[match[1]][0]] if match[1] else []
        amounts = _number(match[2], "en")[:2]
        spoken: list[Sequence[str]] = [[*a, size, *unit] for a in amounts]
        return [*spoken, *([*a, f"{match[3]}."] for a in amounts)]
    if text == "1/2":
        return [["one", "half"], ["a", "half"], ["half"]]
    if text == "1/4":
        return [["one", "quarter"], ["a", "quarter"], ["quarter"]]
    if text == "3/4":
        return [["three", "quarters"]]
    if text == "24/7":
        return [["twenty", "four", "seven"]]
    return []


def _plural(word: str) -> str:
    return word[:-1] + "ies" if word.endswith("y") else word + "s"
