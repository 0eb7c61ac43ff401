"""A stored trace as a call again, and as a scenario file that a test can hold.

The playhead is a pure function of its inputs, and its trace is all of them but for the inbound
media that ticked on regularly; those are put in again where they were. So a replay gives the same
positions to the millisecond, and a call from the field becomes a test: ``scenario_text(events)``
writes it down, ``answers(text)`` plays it back.

A scenario file::

    # Prose: what this call proves. Lines that begin with # are kept as they are.

    at    12.000  media   -              sent     item_1/0 480
    at   262.125  media 240 @ 251.000    echoed   p2
    ...
    =>  started   item_1/0 at 45
    =>  fixed     item_1/0 low 1740 best 1771 high 1800 sent 5000 ...

Times are milliseconds of the gateway's clock, to the microsecond; ``media`` is the newest
``media.timestamp`` then and when it came. Lines that begin with ``=>`` are what the playhead
answers; they belong to the line above.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from msgspec import structs

from gateway.playout.playhead import Playhead
from gateway.playout.positions import (
    Flushed,
    Part,
    PlaybackProgressed,
    PlaybackStarted,
    PlayoutEvent,
    PositionFixed,
    PositionsSettled,
    TraceEvent,
    TraceKind,
)
from runtime.units import BYTES_PER_MS, FRAME_BYTES

ANSWER = "=>"
COMMENT = "#"


class ScenarioError(ValueError):
    """A scenario line that cannot be read; names the line and what was expected."""


# -- replay ------------------------------------------------------------------------------------


class _Feeder:
    """Gives a playhead the inputs of a trace, the regular inbound media among them."""

    def __init__(self, playhead: Playhead) -> None:
        self.playhead = playhead
        self._newest: tuple[int, int] | None = None
        self._frame_bytes = FRAME_BYTES
        self._follows = False
        """The last event was the first of a MEDIA pair, so the next does not follow regularly."""

    def feed(self, event: TraceEvent) -> None:
        """Do what the event says was done."""
        media = event.kind is TraceKind.MEDIA
        self._media(event, regular=not (media and self._follows))
        self._follows = media and not self._follows
        head, now_us = self.playhead, event.now_us
        part = event.part or Part("")
        match event.kind:
            case TraceKind.SENT:
                head.send(part, event.audio_bytes, now_us=now_us)
            case TraceKind.ENDED:
                head.end(part, now_us=now_us)
            case TraceKind.ECHOED:
                head.receive_mark(event.mark, now_us=now_us)
            case TraceKind.CLEARED:
                head.interrupt(event.interrupt_id, now_us=now_us)
            case TraceKind.STOPPED:
                head.stop(now_us=now_us)
            case TraceKind.DROPPED:
                head.drop(now_us=now_us)
            case TraceKind.TIMED:
                head.handle_timer(now_us=now_us)
            case TraceKind.MEDIA:
                pass

    def _media(self, event: TraceEvent, *, regular: bool) -> None:
        if event.media_ms is None or event.media_us is None:
            return
        newest = (event.media_ms, event.media_us)
        if newest == self._newest:
            return
        if event.kind is TraceKind.MEDIA and not regular:
            self._frame_bytes = event.audio_bytes or self._frame_bytes
        frame_ms = max(1, self._frame_bytes // BYTES_PER_MS)
        if self._newest is not None and regular:
            # What came between was regular, or it would have been traced.
            before_ms, before_us = self._newest
            steps = max(1, round((event.media_ms - before_ms) / frame_ms))
            for step in range(1, steps):
                self.playhead.receive_media(
                    before_ms + (event.media_ms - before_ms) * step // steps,
                    self._frame_bytes,
                    now_us=before_us + (event.media_us - before_us) * step // steps,
                )
        self._newest = newest
        self.playhead.receive_media(event.media_ms, self._frame_bytes, now_us=event.media_us)


def replay(
    events: Iterable[TraceEvent], *, fence_wait_us: int | None = None
) -> Iterator[tuple[TraceEvent, list[PlayoutEvent]]]:
    """Play a trace again; give each input with the answers that it brought.

    Args:
        events: A whole trace, from the stream's start.
        fence_wait_us: As the playhead of the call had it. None: the default.
    """
    playhead = Playhead() if fence_wait_us is None else Playhead(fence_wait_us=fence_wait_us)
    feeder = _Feeder(playhead)
    for event in events:
        feeder.feed(event)
        yield event, playhead.events()


# -- text --------------------------------------------------------------------------------------


def scenario_text(events: Iterable[TraceEvent], prose: str = "") -> str:
    """Write a trace down as a scenario, with the answers it gives today.

    Args:
        events: A whole trace, from the stream's start.
        prose: What the call proves; one ``#`` is put before each line.
    """
    lines = [f"{COMMENT} {line}".rstrip() for line in prose.splitlines()]
    if lines:
        lines.append("")
    for event, answers_ in replay(events):
        lines.append(_fact_line(event))
        lines += [f"{ANSWER}  {answer_text(answer)}" for answer in answers_]
    return "\n".join(lines) + "\n"


def read_scenario(text: str) -> list[TraceEvent]:
    """Read the inputs of a scenario; its answers are not looked at.

    Raises:
        ScenarioError: A line is neither an input, an answer, a comment nor empty.
    """
    return [
        _read_fact(line, number)
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.startswith((COMMENT, ANSWER))
    ]


def answers(text: str) -> list[PlayoutEvent]:
    """What the playhead answers to a scenario.

    Raises:
        ScenarioError: See :func:`read_scenario`.
    """
    return [answer for _, given in replay(read_scenario(text)) for answer in given]


def rewrite(text: str) -> str:
    """The same scenario with the answers of today; comments and inputs stay as they are.

    Raises:
        ScenarioError: See :func:`read_scenario`.
    """
    given = replay(read_scenario(text))
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(ANSWER):
            continue
        lines.append(line)
        if line.strip() and not line.startswith(COMMENT):
            lines += [f"{ANSWER}  {answer_text(answer)}" for answer in next(given)[1]]
    return "\n".join(lines) + "\n"


def _ms(us: int) -> str:
    return f"{us // 1000}.{us % 1000:03d}"


def _us(ms: str) -> int:
    whole, fraction = ms.split(".")
    return int(whole) * 1000 + int(fraction)


def _part_text(part: Part) -> str:
    return f"{part.item_id}/{part.content_index}"


def _fact_line(event: TraceEvent) -> str:
    media = "-"
    if event.media_ms is not None and event.media_us is not None:
        media = f"{event.media_ms} @ {_ms(event.media_us)}"
    what = event.kind.name.lower()
    match event.kind:
        case TraceKind.SENT if event.part is not None:
            what += f" {_part_text(event.part)} {event.audio_bytes}"
        case TraceKind.ENDED if event.part is not None:
            what += f" {_part_text(event.part)}"
        case TraceKind.ECHOED:
            what += f" {event.mark}"
        case TraceKind.CLEARED:
            what += f" {event.interrupt_id}"
        case TraceKind.MEDIA:
            what += f" {event.audio_bytes}"
    return f"at {_ms(event.now_us):>10}  media {media:<18}  {what}"


_FACT = re.compile(
    r"at\s+(?P<now>\d+\.\d{3})\s+media\s+(?:-|(?P<media>-?\d+) @ (?P<came>\d+\.\d{3}))\s+"
    r"(?P<kind>[a-z]+)(?: (?P<rest>.+))?"
)
_PART = re.compile(r"(?P<item>\S+)/(?P<index>\d+)(?: (?P<bytes>\d+))?")


def _read_fact(line: str, number: int) -> TraceEvent:
    found = _FACT.fullmatch(line.strip())
    if found is None or found["kind"].upper() not in TraceKind.__members__:
        raise ScenarioError(
            f"line {number}: expected 'at MS media MS @ MS KIND ...' with a kind of "
            f"{', '.join(kind.name.lower() for kind in TraceKind)}"
        )
    event = TraceEvent(
        kind=TraceKind[found["kind"].upper()],
        now_us=_us(found["now"]),
        media_ms=None if found["media"] is None else int(found["media"]),
        media_us=None if found["came"] is None else _us(found["came"]),
    )
    rest = found["rest"] or ""
    match event.kind:
        case TraceKind.SENT | TraceKind.ENDED:
            part = _PART.fullmatch(rest)
            if part is None:
                raise ScenarioError(f"line {number}: expected ITEM/INDEX and, if sent, the bytes")
            return structs.replace(
                event,
                part=Part(part["item"], int(part["index"])),
                audio_bytes=int(part["bytes"] or 0),
            )
        case TraceKind.ECHOED:
            return structs.replace(event, mark=rest)
        case TraceKind.CLEARED | TraceKind.MEDIA:
            if not rest.isdecimal():
                raise ScenarioError(f"line {number}: expected a number after the kind")
            if event.kind is TraceKind.MEDIA:
                return structs.replace(event, audio_bytes=int(rest))
            return structs.replace(event, interrupt_id=int(rest))
    return event


def answer_text(answer: PlayoutEvent) -> str:
    """One answer of the playhead on one line, for people and for golden files."""
    match answer:
        case PlaybackStarted():
            return f"started    {_part_text(answer.part)} at {answer.at_ms}"
        case PlaybackProgressed():
            return (
                f"progressed {_part_text(answer.part)} played {answer.played_ms} "
                f"of {answer.sent_ms} at {answer.at_ms}"
            )
        case Flushed():
            at = "unknown" if answer.at_ms is None else answer.at_ms
            return (
                f"flushed    {answer.interrupt_id} at {at} by {answer.timed_by.value} "
                f"unheard {answer.unheard_ms}"
            )
        case PositionsSettled():
            return f"settled    {answer.interrupt_id}"
        case PositionFixed():
            return _fixed_text(answer)


def _fixed_text(fixed: PositionFixed) -> str:
    position, evidence = fixed.position, fixed.position.evidence
    words = [
        f"fixed      {_part_text(position.part)} {fixed.cause.name}",
        f"low {position.low_ms} best {position.best_ms} high {position.high_ms}",
        f"sent {position.sent_ms} by {evidence.rule.name}",
    ]
    if evidence.proven_mark:
        words.append(f"proven {evidence.proven_mark} at {evidence.proven_at_ms}")
    if evidence.next_mark:
        words.append(f"next {evidence.next_mark}")
    if evidence.stopped_at_ms is not None:
        words.append(f"stopped {evidence.stopped_at_ms}")
    if fixed.at_ms is not None:
        words.append(f"ended {fixed.at_ms}")
    if fixed.interrupt_id:
        words.append(f"interrupt {fixed.interrupt_id}")
    return " ".join(words)
