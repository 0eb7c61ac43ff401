"""When a reply's text, audio and arguments come out of the model: a plan of timed steps. Pure.

As recorded (protocol notes B.10): one to several tokens of text before any audio, then audio
deltas of 250 ms with text in between, "tttt AAA ttt AA ttt AAA tttttt A...". Text runs ahead of
the audio and the lead grows with the reply. Audio comes several times faster than it plays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from simulators.realtime.script import AgentScript, CallTool, Reply, Speak
from simulators.speech import Speech, spoken
from simulators.speech.g711 import BYTES_PER_MS

_PATTERN = ((3, 3), (2, 3), (3, 6))
"""After so many audio deltas, so many tokens; then six tokens after every delta."""
_LATER_TOKENS = 6
_TOOL_TOKEN_MS = 8

Kind = Literal["open", "text", "audio", "arguments", "close", "fail", "drop", "done"]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that comes out of the model."""

    due_ms: int
    """From the start of the response."""
    kind: Kind
    part: int = 0
    """Index of the reply's part."""
    text: str = ""
    """Token or piece of the arguments."""
    start_byte: int = 0
    end_byte: int = 0
    """Range of the part's speech, mono µ-law at 8 kHz."""


def plan(reply: Reply, script: AgentScript, *, audio: bool) -> list[Step]:
    """All steps of a reply, in order; their times never go back.

    Args:
        reply: What the model says and does.
        script: Where the reply's times come from if it has none of its own.
        audio: The session speaks; otherwise it writes.
    """
    steps = list(_Planner(reply, script, audio=audio).steps())
    if reply.failure is not None:
        steps = _cut(steps, reply.failure.after_audio_ms, "fail")
    if reply.drop is not None:
        steps = _cut(steps, reply.drop.after_audio_ms, "drop", go_on=True)
    return steps


def _cut(steps: list[Step], after_audio_ms: int, kind: Kind, *, go_on: bool = False) -> list[Step]:
    """Put an end after so much audio (or after all there is); ``go_on`` keeps the rest."""
    audio_ms = 0
    for position, step in enumerate(steps):
        if audio_ms >= after_audio_ms or step.kind == "done":
            rest = steps[position:] if go_on else []
            return [*steps[:position], Step(step.due_ms, kind), *rest]
        audio_ms += (step.end_byte - step.start_byte) // BYTES_PER_MS
    raise AssertionError("a plan always ends with done")


def tokens(text: str) -> list[str]:
    """A text in pieces as a model's tokenizer would give: leading spaces stay with the word."""
    return re.findall(r" ?[^\W\d_]{1,9}|\d{1,3}| ?[^\w\s]|\s|\w", text)


class _Planner:
    def __init__(self, reply: Reply, script: AgentScript, *, audio: bool) -> None:
        self._reply = reply
        self._audio = audio
        self._delta_ms = script.delta_ms
        self._speed = reply.speed or script.speed
        self._at_ms = script.first_text_ms if reply.first_text_ms is None else reply.first_text_ms
        first_audio_ms = (
            script.first_audio_ms if reply.first_audio_ms is None else reply.first_audio_ms
        )
        self._audio_from_ms = max(self._at_ms, first_audio_ms)
        """When the next audio delta is ready."""
        self._audio_done_ms = 0
        """Audio planned so far, over all parts."""
        self._stall = reply.stall

    def steps(self) -> Iterator[Step]:
        waiting: int | None = None
        parts = self._reply.parts
        for index, part in enumerate(parts):
            body = list(
                self._speak(index, part) if isinstance(part, Speak) else self._call(index, part)
            )
            if waiting is not None:
                # The part before closes after this one's first delta (or after all of them, as
                # recorded for a message before a function call).
                split = len(body) if isinstance(part, CallTool) else self._behind_first_delta(body)
                closing = Step(body[split - 1].due_ms, "close", waiting)
                body[split:split] = [closing]
                waiting = None
            yield from body
            following = parts[index + 1] if index + 1 < len(parts) else None
            if (
                isinstance(following, CallTool)
                and isinstance(part, Speak)
                or following is not None
                and self._reply.overlap_items
            ):
                waiting = index
            else:
                yield Step(self._at_ms, "close", index)
        yield Step(self._at_ms, "done")

    @staticmethod
    def _behind_first_delta(body: list[Step]) -> int:
        for position, step in enumerate(body):
            if step.kind == "audio" or (step.kind == "text" and position + 1 == len(body)):
                return position + 1
        return len(body)

    def _call(self, index: int, part: CallTool) -> Iterator[Step]:
        yield Step(self._at_ms, "open", index)
        for piece in re.findall(r"\W+|\w+", part.arguments):
            self._at_ms += _TOOL_TOKEN_MS
            yield Step(self._at_ms, "arguments", index, text=piece)

    def _speak(self, index: int, part: Speak) -> Iterator[Step]:
        pieces = tokens(part.text)
        yield Step(self._at_ms, "open", index)
        if not self._audio:
            for piece in pieces:
                self._at_ms += _TOOL_TOKEN_MS
                yield Step(self._at_ms, "text", index, text=piece)
            return
        speech = spoken(part.text)
        groups = self._groups(pieces, -(-speech.duration_ms // self._delta_ms))
        lead_ms = max(0, self._audio_from_ms - self._at_ms)
        for number, piece in enumerate(groups[0]):
            due_ms = self._at_ms + lead_ms * number // len(groups[0])
            yield Step(due_ms, "text", index, text=piece)
        for number, step in enumerate(self._deltas(index, speech)):
            yield step
            for piece in groups[number + 1]:
                yield Step(step.due_ms, "text", index, text=piece)

    def _deltas(self, index: int, speech: Speech) -> Iterator[Step]:
        size = self._delta_ms * BYTES_PER_MS
        for start in range(0, len(speech.ulaw), size):
            end = min(start + size, len(speech.ulaw))
            if self._stall is not None and self._audio_done_ms >= self._stall.at_audio_ms:
                self._audio_from_ms += self._stall.for_ms
                self._stall = None
            self._at_ms = max(self._at_ms, self._audio_from_ms)
            yield Step(self._at_ms, "audio", index, start_byte=start, end_byte=end)
            length_ms = (end - start) // BYTES_PER_MS
            self._audio_done_ms += length_ms
            self._audio_from_ms = self._at_ms + int(length_ms / self._speed)

    @staticmethod
    def _groups(pieces: list[str], deltas: int) -> list[list[str]]:
        """Tokens before the first delta, then those after each; none are left after the last."""
        first = min(len(pieces), 3 + len(pieces) % 4)
        groups = [pieces[:first]]
        after = {}
        count = 0
        for run, size in _PATTERN:
            count += run
            after[count] = size
        at = first
        for number in range(1, deltas + 1):
            size = after.get(number, _LATER_TOKENS if number > count else 0)
            if number == deltas - 1:
                size = len(pieces)
            groups.append(pieces[at : at + size])
            at += size
        if at < len(pieces):
            groups[0] = pieces
            groups[1:] = [[] for _ in groups[1:]]
        return groups
