"""Displayed words to a graph of phones, word by word, as text arrives.

Between two words lie two junctions: *spoken*, where the word's last phone ends, and *ready*, where the
next word begins. A pause leads from the first to the second, and a jump does without it; punctuation
says which is likelier. Garbage, sound that no word covers (a breath, "uh", a word missing in the text),
leads back from *ready* to *spoken*. A jump past the word's phones lets a word go unsaid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from words.aligner.durations import USUAL_MS, duration_row
from words.aligner.pronounce import Phones, pronunciations
from words.aligner.readings import Form, Slot, forms
from words.aligner.search import PhoneGraph
from words.aligner.senones import GARBAGE, SenoneScorer

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


@dataclass(frozen=True, slots=True)
class GraphPhone:
    """What a phone of the graph stands for."""

    name: str
    word: int
    """Number of the displayed word, or BETWEEN."""

    after_ms: float
    """Usual time of the phones of the word that follow this one."""


class TextGraph:
    """The graph of an item's text so far."""

    def __init__(self, language: str, scorer: SenoneScorer) -> None:
        self.graph = PhoneGraph()
        self.phones: list[GraphPhone] = []
        self.usual_ms: list[float] = []
        """For each word, how long its first reading usually takes."""

        self._language = language
        self._scorer = scorer
        self.start = self.graph.junction()
        self.ready = self.graph.junction()
        self._add(GraphPhone(SILENCE, BETWEEN, 0.0), self.start, self.ready)
        self.graph.jump(self.start, self.ready, 0.0)

    @property
    def n_words(self) -> int:
        """How many words were added."""
        return len(self.usual_ms)

    def add_word(self, word: str) -> int:
        """Append one displayed word; return the number of the first jump that was added."""
        graph, start, number = self.graph, self.ready, self.n_words
        first_jump = graph.n_jumps
        draft = _Draft(self._language)
        usual_ms = [draft.form(form) for form in forms(word, self._language)]
        self.usual_ms.append(usual_ms[0] if usual_ms else 0.0)

        junctions = {draft.start: start}
        for node in sorted(draft.nodes):
            junctions[node] = graph.junction()
        spoken = junctions[draft.end] = graph.junction()
        self.ready = graph.junction()
        jumps = [(junctions[a], junctions[b], 0.0) for a, b in draft.jumps]
        jumps.append((start, spoken, _UNSAID if draft.phones else 0.0))
        for source, target, weight in sorted(jumps):
            graph.jump(source, target, weight)
        for phone in draft.phones:
            source, target = junctions[phone.source], junctions[phone.target]
            if phone.name == SILENCE:
                self._add(
                    GraphPhone(SILENCE, number, phone.after_ms), source, target, _PAUSE_INSIDE
                )
            else:
                self._add(GraphPhone(phone.name, number, phone.after_ms), source, target)

        mark = _punctuation(word)
        self._add(GraphPhone(SILENCE, BETWEEN, 0.0), spoken, self.ready, _PAUSE[mark])
        graph.jump(spoken, self.ready, _NO_PAUSE[mark])
        self._add(GraphPhone(GARBAGE, BETWEEN, 0.0), self.ready, spoken, _GARBAGE_ENTRY)
        return first_jump

    def _add(self, phone: GraphPhone, source: int, target: int, entry_weight: float = 0.0) -> None:
        silent = phone.name in (SILENCE, GARBAGE)
        self.phones.append(phone)
        self.graph.phone(
            self._scorer.columns(phone.name),
            source,
            target,
            entry_weight=entry_weight,
            move_weight=0.0 if silent else MOVE_WEIGHT,
            duration=duration_row(phone.name),
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
