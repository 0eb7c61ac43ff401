"""Where nobody spoke though the agent owed an answer, as the carrier knows it. Pure.

What sounded is the carrier's truth: the agent's audio that was played, the caller's lines and noises.
Between two sounds the line is silent, and what came last says whether an answer is owed:

=============================================  ====================================================
what came last                                 then
=============================================  ====================================================
nothing yet                                    the greeting is owed
a line of the caller's                         its answer is owed
an agent's line that noise cut off             the rest of it is owed
an agent's line that says it will look it up   the result is owed
the middle of an agent's line: it ran dry      the rest of it is owed
a noise; a word that bridges a wait            what was owed before, still is
any other line of the agent's, a notice that   nothing is owed
asks the caller to say it again or ends
=============================================  ====================================================

Nothing of the bridge's own takes part in this: its account is compared with it afterwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from simulators.speech.g711 import BYTES_PER_MS
from simulators.truth import HeardCall, HeardItem
from simulators.twilio import CallTruth
from simulators.twilio.stream_truth import StreamTruth

GREETING, ANSWER, REST, RESULT = "greeting", "answer", "rest", "result"
"""What may be owed."""

_KEEP = "as before"
_NOTHING = ""
_EVER_MS = 86_400_000
_SAME_MS = 40
"""Two instants that are as near as this are one: two frames."""


@dataclass(frozen=True, slots=True)
class Silence:
    """A stretch in which nobody spoke and the agent owed something; media clock."""

    start_ms: int
    end_ms: int
    owed: str
    ended_call: bool = False
    """Nobody spoke any more."""

    @property
    def lasted_ms(self) -> int:
        """How long it was."""
        return self.end_ms - self.start_ms


@dataclass(frozen=True, slots=True)
class Script:
    """What the judge must know of what the agent says, to know what is owed after it."""

    announcements: Set[str]
    """Lines that are followed by a function's result."""
    bridging: Set[str]
    """Lines that only say that the caller must wait."""
    notices: Mapping[bytes, bool]
    """Audio of each sentence that the system says by itself, and whether it only bridges a wait."""


def silences(call: CallTruth, heard: HeardCall, script: Script) -> list[Silence]:
    """All of a call's, the shortest too, in order. Each stream begins with a greeting owed."""
    found: list[Silence] = []
    for index, stream in enumerate(call.streams):
        items = [item for item in heard.items if item.stream == index]
        found += _of_stream(stream, items, script)
    return found


def _of_stream(
    stream: StreamTruth, items: Sequence[HeardItem], script: Script
) -> Iterator[Silence]:
    sounds = [(s.start_ms, s.end_ms) for s in stream.played]
    sounds += [(line.onset_ms, line.end_ms) for line in (*stream.caller_lines, *stream.noises)]
    endings = sorted(_endings(stream, items, script))
    spans = [
        (i.start_ms, i.end_ms) for i in items if i.start_ms is not None and i.end_ms is not None
    ]
    ended_ms = stream.ended_ms or max((end for _, end in sounds), default=0)
    for start_ms, end_ms in _gaps(sounds, ended_ms):
        owed = GREETING
        for at_ms, what in endings:
            if at_ms > start_ms + _SAME_MS:
                break
            owed = owed if what == _KEEP else what
        if any(a < start_ms - _SAME_MS and start_ms + _SAME_MS < b for a, b in spans):
            owed = REST
        if owed:
            yield Silence(start_ms, end_ms, owed, ended_call=end_ms == ended_ms)


def _gaps(sounds: Iterable[tuple[int, int]], until_ms: int) -> Iterator[tuple[int, int]]:
    at_ms = 0
    for start_ms, end_ms in sorted(sounds):
        if start_ms > at_ms:
            yield at_ms, start_ms
        at_ms = max(at_ms, end_ms)
    if until_ms > at_ms:
        yield at_ms, until_ms


def _endings(
    stream: StreamTruth, items: Sequence[HeardItem], script: Script
) -> Iterator[tuple[int, str]]:
    """What ended when, and what is owed after it."""
    for line in stream.caller_lines:
        yield line.end_ms, ANSWER
    for item in items:
        if item.end_ms is not None:
            yield item.end_ms, _after(item, stream, script)
    audio = bytes(stream.audio)
    for notice, bridging in script.notices.items():
        at = audio.find(notice[: 400 * BYTES_PER_MS])
        while notice and at >= 0:
            end = at + len(notice)
            for stretch in stream.played:
                if stretch.start_byte < end and at < stretch.end_byte:
                    played = min(end, stretch.end_byte) - stretch.start_byte
                    yield stretch.start_ms + played // BYTES_PER_MS, _KEEP if bridging else _NOTHING
            at = audio.find(notice[: 400 * BYTES_PER_MS], end)


def _after(item: HeardItem, stream: StreamTruth, script: Script) -> str:
    if cut_by_noise(item, stream):
        return REST
    if item.generated_text in script.announcements:
        return RESULT
    return _KEEP if item.generated_text in script.bridging else _NOTHING


def cut_by_noise(item: HeardItem, stream: StreamTruth) -> bool:
    """Whether a noise, and no line of the caller's, broke this item off."""
    if item.start_ms is None or item.end_ms is None or not item.unheard_text:
        return False
    start_ms, end_ms = item.start_ms, item.end_ms + _SAME_MS
    flushed = any(abs(flush.at_ms - item.end_ms) <= _SAME_MS for flush in stream.flushes)
    noise = any(start_ms <= noise.onset_ms <= end_ms for noise in stream.noises)
    line = any(start_ms <= line.onset_ms <= end_ms for line in stream.caller_lines)
    return flushed and noise and not line


def lost_words(call: CallTruth, heard: HeardCall) -> tuple[int, int]:
    """How many words noise cut off, and how many of them were not heard before the caller's next."""
    cut = lost = 0
    for item in heard.items:
        if item.stream is None or item.end_ms is None:
            continue
        stream = call.streams[item.stream]
        if not cut_by_noise(item, stream):
            continue
        onsets = (line.onset_ms for line in stream.caller_lines)
        until_ms = min((ms for ms in onsets if ms > item.end_ms), default=item.end_ms + _EVER_MS)
        after: Counter[str] = Counter()
        for later in heard.items:
            begins_ms = later.start_ms if later.stream == item.stream else None
            if begins_ms is not None and item.end_ms <= begins_ms < until_ms:
                after.update(later.heard_text.split())
        unheard = Counter(item.unheard_text.split())
        cut += unheard.total()
        lost += (unheard - after).total()
    return cut, lost


# --- a bridge's own account --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Told:
    """A silence as a transcript has it."""

    start_ms: int | None
    end_ms: int | None
    lasted_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a transcript's silences compare with the true ones of one call."""

    errors_ms: list[int]
    """How much longer each long silence is told than it was."""
    missed: list[Silence]
    """Long ones that are not told."""
    invented: list[Told]
    """Told where there was none."""
    reasons: list[tuple[Silence, str]]
    """Why, as the transcript says; of those that are told."""


def compare(
    truth: Sequence[Silence], told: Sequence[Told], *, long_ms: int, tolerance_ms: int
) -> Agreement:
    """Hold a transcript against the truth of one call.

    Args:
        truth: All true silences.
        told: Those of the transcript.
        long_ms: What is as long as this must be told.
        tolerance_ms: By how much either may be beside ``long_ms`` and be no fault.
    """
    agreement = Agreement([], [], [], [])
    used: set[int] = set()
    for silence in truth:
        parts = [n for n, t in enumerate(told) if n not in used and _overlap_ms(silence, t) > 0]
        used.update(parts)
        if parts:
            lasted_ms = sum(told[n].lasted_ms for n in parts)
            agreement.errors_ms.append(lasted_ms - silence.lasted_ms)
            longest = max((told[n] for n in parts), key=lambda t: t.lasted_ms)
            agreement.reasons.append((silence, longest.reason))
        elif silence.lasted_ms >= long_ms + tolerance_ms:
            agreement.missed.append(silence)
    agreement.invented.extend(t for n, t in enumerate(told) if n not in used)
    return agreement


def _overlap_ms(silence: Silence, told: Told) -> int:
    if told.end_ms is None and told.start_ms is None:
        return 0
    end_ms = told.end_ms if told.end_ms is not None else (told.start_ms or 0) + told.lasted_ms
    start_ms = told.start_ms if told.start_ms is not None else end_ms - told.lasted_ms
    return min(end_ms, silence.end_ms) - max(start_ms, silence.start_ms)
