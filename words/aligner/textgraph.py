"""Displayed words to a graph of phones, word by word, as text arrives.

Between two words lie two junctions: *spoken*, where the word's last phone ends, and *ready*, where the
next word begins. A pause leads from the first to the second, and a jump does without it; punctuation
says which is likelier. Garbage, sound that no word covers (a breath, "uh", a word missing in the text),
leads back from *ready* to *spoken*. A jump past the word's phones lets a word go unsaid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

from words.aligner.durations import USUAL_MS, duration_row
from words.aligner.pronounce import Phones, pronunciations
from words.aligner.readings import Form, Slot, forms
from words.aligner.search import GraphPart, Jump, Phone, PhoneGraph
from words.aligner.senones import GARBAGE, senone_scorer

MOVE_WEIGHT = 1.6
"""Evens out paths with many and few phones: about what a frame costs in a state that fits, against
none that does. Set on sets of other voices than those we report."""

_PAUSE = {"": -7.0, ",": -1.5, ".": -0.5}
"""Cost of a pause after a word by its punctuation: none, comma, full stop."""

_NO_PAUSE = {"": 0.0, ",": -0.25, ".": -0.9}
_PAUSE_INSIDE = -5.0
"""Cost of a pause between the spoken words of one displayed word ("5 5 5 - 0 1 4 2")."""

_GARBAGE_ENTRY = -30.0
_UNSAID = -60.0
"""Cost of a word of the text that is not in the audio."""

SILENCE = "SIL"
BETWEEN = -1
"""Word number of phones that belong to no word."""

_MAX_KEPT = 24
"""Longer words are not kept for the next time: a page of digits is one word, with the phones of a page."""


@dataclass(frozen=True, slots=True)
class GraphPhone:
    """What a phone of the graph stands for."""

    name: str
    after_ms: float = 0.0
    """Usual time of the phones of the word that follow this one."""


class TextGraph:
    """The graph of an item's text so far."""

    def __init__(self, language: str) -> None:
        self.graph = PhoneGraph()
        self.phones: list[GraphPhone] = []
        self.word_of: list[int] = []
        """For each phone the number of its displayed word, or BETWEEN."""

        self.usual_ms: list[float] = []
        """For each word, how long its first reading usually takes."""

        self._language = language
        self._append(_start())

    @property
    def n_words(self) -> int:
        """How many words were added."""
        return len(self.usual_ms)

    @property
    def ready(self) -> int:
        """The junction at which the next word begins."""
        return self.graph.n_junctions - 1

    def add_word(self, word: str) -> None:
        """Append one displayed word."""
        made = _kept if len(word) <= _MAX_KEPT else _made
        part = made(word, self._language)
        self._append(part)
        self.usual_ms.append(part.usual_ms)

    def _append(self, part: _WordPart) -> None:
        self.graph.append(part.graph)
        self.phones += part.phones
        self.word_of += [self.n_words] * part.n_inside
        self.word_of += [BETWEEN] * (len(part.phones) - part.n_inside)


@dataclass(frozen=True, slots=True)
class _WordPart:
    """One displayed word, with what lies between it and the next."""

    graph: GraphPart
    phones: tuple[GraphPhone, ...]
    n_inside: int
    """How many phones belong to the word; the others follow it."""

    usual_ms: float


@lru_cache(maxsize=1)
def _start() -> _WordPart:
    """What comes before the first word: a pause, or nothing."""
    graph = GraphPart(2, [_phone(SILENCE, 0, 1)], [Jump(0, 1)])
    return _WordPart(graph, (GraphPhone(SILENCE),), 0, 0.0)


def _made(word: str, language: str) -> _WordPart:
    draft = _Draft(language)
    usual_ms = [draft.form(form) for form in forms(word, language)]
    numbers = {draft.start: 0}
    for number, node in enumerate(sorted(draft.nodes), 1):
        numbers[node] = number
    spoken = numbers[draft.end] = len(numbers)
    ready = spoken + 1

    mark = _punctuation(word)
    jumps = [Jump(numbers[source], numbers[target]) for source, target in draft.jumps]
    jumps.append(Jump(0, spoken, _UNSAID if draft.phones else 0.0))
    jumps.append(Jump(spoken, ready, _NO_PAUSE[mark]))
    phones = [
        _phone(
            phone.name,
            numbers[phone.source],
            numbers[phone.target],
            _PAUSE_INSIDE if phone.name == SILENCE else 0.0,
        )
        for phone in draft.phones
    ]
    phones.append(_phone(SILENCE, spoken, ready, _PAUSE[mark]))
    phones.append(_phone(GARBAGE, ready, spoken, _GARBAGE_ENTRY))
    inside = [GraphPhone(phone.name, phone.after_ms) for phone in draft.phones]
    return _WordPart(
        GraphPart(ready + 1, phones, jumps),
        (*inside, GraphPhone(SILENCE), GraphPhone(GARBAGE)),
        len(inside),
        usual_ms[0] if usual_ms else 0.0,
    )


_kept = lru_cache(maxsize=512)(_made)
"""Agents repeat their words. A plain one takes 2 KB, a card number with all its readings 50."""


def _phone(name: str, source: int, target: int, entry_weight: float = 0.0) -> Phone:
    silent = name in (SILENCE, GARBAGE)
    return Phone(
        senone_scorer().columns(name),
        source,
        target,
        entry_weight,
        0.0 if silent else MOVE_WEIGHT,
        duration_row(name),
    )


Node = tuple[float, int]
"""Where a junction lies within a word, from 0 to 1, and a number that tells apart those alike."""


@dataclass(frozen=True, slots=True)
class _DraftPhone:
    name: str
    source: Node
    target: Node
    after_ms: float


class _Draft:
    """One word's phones, with junctions known only by where they lie within the word."""

    def __init__(self, language: str) -> None:
        self.start: Node = (0.0, 0)
        self.end: Node = (1.0, 1)
        self.nodes: list[Node] = []
        self.phones: list[_DraftPhone] = []
        self.jumps: list[tuple[Node, Node]] = []
        self._language = language

    def form(self, form: Form) -> float:
        """Add one way to read the word; return its usual length."""
        return self._sequence([partial(self._slot, slot) for slot in form], self.start, self.end, 0)

    def _node(self, place: float) -> Node:
        node = (place, len(self.nodes) + 2)
        self.nodes.append(node)
        return node

    def _sequence(self, parts: Sequence[_Part], start: Node, end: Node, after_ms: float) -> float:
        """Add parts one after the other with room for a pause between; return their length."""
        step = (end[0] - start[0]) / (2 * len(parts) - 1)
        # From the last to the first, so that each part knows what follows it.
        length_ms = 0.0
        target = end
        for k in range(len(parts) - 1, -1, -1):
            source = self._node(start[0] + 2 * k * step) if k else start
            length_ms += parts[k](source, target, after_ms + length_ms)
            if k:
                target = self._node(source[0] - step)
                self.phones.append(_DraftPhone(SILENCE, target, source, after_ms + length_ms))
                self.jumps.append((target, source))
        return length_ms

    def _slot(self, slot: Slot, start: Node, end: Node, after_ms: float) -> float:
        """Add the readings of a slot side by side; return the length of the first."""
        lengths: list[float] = []
        for reading in slot:
            words = [pronunciations(word, self._language) for word in reading]
            parts = [partial(self._word, variants) for variants in words if variants]
            if parts:
                lengths.append(self._sequence(parts, start, end, after_ms))
            else:
                self.jumps.append((start, end))
                lengths.append(0.0)
        return lengths[0] if lengths else 0.0

    def _word(self, variants: Sequence[Phones], start: Node, end: Node, after_ms: float) -> float:
        """Add the pronunciations of a spoken word side by side; return the length of the first."""
        for phones in variants:
            rest_ms = after_ms + float(sum(USUAL_MS[name] for name in phones))
            step = (end[0] - start[0]) / len(phones)
            source = start
            for k, name in enumerate(phones, 1):
                target = end if k == len(phones) else self._node(start[0] + k * step)
                rest_ms -= USUAL_MS[name]
                self.phones.append(_DraftPhone(name, source, target, rest_ms))
                source = target
        return float(sum(USUAL_MS[name] for name in variants[0]))


_Part = Callable[[Node, Node, float], float]


def _punctuation(word: str) -> str:
    """Key of the pause tables: a full stop, a comma or nothing at the end of a word."""
    last = word.rstrip("\"'”’)]»」』")[-1:]
    if last and last in ".?!:;…。？！؟":
        return "."
    return "," if last and last in ",—–-、，،" else ""
