"""How right the playhead is, per condition of the network, beside what others do in the same runs.

The product's own simulated Twilio plays (``simulators.twilio``) and knows the truth; time is
virtual, so there is no sleep in it. In each call an agent speaks five times and is cut each time,
at a random moment. The error is ``best - truth`` in milliseconds, taken without its sign.

The usual methods, all read at the moment of the barge-in:

``elapsed``    newest inbound timestamp minus the one at the item's first delta
``last_mark``  the last echoed mark
``any_mark``   the last echoed mark when all is over: echoes that ``clear`` caused count as playback
``all_sent``   everything that was sent
"""

from __future__ import annotations

import heapq
import json
import math
import random
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count

import msgspec

from gateway.playout import Part, Playhead, PositionFixed
from simulators.network import Link, MarkFaults, Network, Path
from simulators.twilio import Carrier

CALLS = 20
ITEMS = 5
"""Cuts per condition: 100, so that 99 % is the second worst."""

GRANULARITY_CALLS = 8

ITEM_MS = 6_000
DELTA_MS = 250
"""What the Realtime API sends at a time, as recorded."""

CHUNK_MS = 250
"""What the gateway puts into one media message unless the table says otherwise: a whole delta."""

GRANULARITY_MS = (20, 60, 120, 250, 500)


class Method(msgspec.Struct, frozen=True):
    """Errors of one method, in ms."""

    median: int
    p99: int
    max: int
    bias: int
    """Mean with its sign: above 0 it claims more than was heard."""


class PlayheadResult(msgspec.Struct, frozen=True, kw_only=True):
    """One condition."""

    bench: str = "playhead"
    condition: str
    chunk_ms: int
    cuts: int
    best: Method
    width_median_ms: int
    """Of the range."""
    width_max_ms: int
    outside: int
    """Cuts whose truth lay outside the range: 0 is the promise."""
    elapsed: Method
    last_mark: Method
    any_mark: Method
    all_sent: Method
    marks_per_minute: int
    """Marks written per minute of agent audio."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What a call goes through."""

    name: str
    way: Path = Path(20)
    marks: MarkFaults = MarkFaults()
    every_third_lost: bool = False
    speed: float = 4.0
    """How much faster than real time the model generates."""
    omit_silence: bool = False
    step_ms: int = 0
    """By how much timestamps step each four seconds."""
    send_frames: bool = True
    fence_lost: bool = False
    queued: bool = False
    """Each answer is two items, generated one right after the other."""


JITTER = Path(50, 200)
"""150 ± 100 ms, as a delay of 50 ms and 0 to 200 ms on top."""

CONDITIONS = (
    Condition("steady 5 ms each way", Path(5)),
    Condition("steady 40 ms", Path(40)),
    Condition("steady 150 ms", Path(150)),
    Condition("jitter 40 ± 20 ms", Path(20, 40)),
    Condition("jitter 150 ± 100 ms", JITTER),
    Condition("two items in the queue, 40 ms", Path(40), queued=True),
    Condition("every third echo lost", Path(40), every_third_lost=True),
    Condition("every third echo lost, jitter 150 ± 100 ms", JITTER, every_third_lost=True),
    Condition("a tenth of the echoes 400 ms late", Path(40), MarkFaults(late=0.1)),
    Condition("half of the echoes repeated", Path(40), MarkFaults(duplicated=0.5)),
    Condition("no echo ever", Path(40), MarkFaults(lost=1.0)),
    Condition("the fence never returns", Path(40), fence_lost=True),
    Condition("model at 1.0 x real time, jitter 40 ± 20 ms", Path(20, 40), speed=1.0),
    Condition("model at 0.8 x real time, jitter 150 ± 100 ms", JITTER, speed=0.8),
    Condition("silence omitted, jitter 40 ± 20 ms", Path(20, 40), omit_silence=True),
    Condition("timestamps step back 3 s", Path(40), step_ms=-3_000),
    Condition("timestamps jump 2 s", Path(40), step_ms=2_000),
    Condition("no inbound media, jitter 150 ± 100 ms", JITTER, send_frames=False),
)


@dataclass(slots=True)
class Cut:
    """One item that was cut: what each method said, and the truth."""

    truth_ms: float
    low_ms: int
    best_ms: int
    high_ms: int
    elapsed_ms: int
    last_mark_ms: int
    any_mark_ms: int
    sent_ms: int


@dataclass(slots=True)
class _Item:
    part: Part
    from_byte: int
    sent_bytes: int = 0
    media_ms_at_first: int | None = None
    echoed_bytes: int = 0
    elapsed_ms: int = 0
    last_mark_bytes: int = 0
    ends: dict[str, int] = field(default_factory=dict)


class _Run:
    """One call in virtual milliseconds: playhead, two ways, carrier."""

    def __init__(self, condition: Condition, chunk_ms: int, seed: int) -> None:
        self._condition, self._chunk_bytes = condition, chunk_ms * 8
        self._random = random.Random(seed)
        self._network = Network(condition.way, condition.way, condition.marks, seed)
        self._up = Link(condition.way, self._random)
        self._down = Link(condition.way, self._random)
        self._carrier = Carrier(
            omit_silence=condition.omit_silence,
            send_frames=condition.send_frames,
            keep_audio=False,
        )
        self._playhead = Playhead()
        self._due: list[tuple[int, int, Callable[[int], None]]] = []
        self._order = count()
        self._echoes = 0
        self._timer_ms: int | None = None
        self._media_ms: int | None = None
        self._sent_bytes = 0
        self._items: dict[Part, _Item] = {}
        self._refused: set[Part] = set()
        self._fixed: dict[Part, PositionFixed] = {}
        self.marks = 0

    @property
    def sent_bytes(self) -> int:
        return self._sent_bytes

    def cuts(self) -> list[Cut]:
        at_ms = 500
        for number in range(ITEMS):
            parts = [Part(f"item_{number}")]
            if self._condition.queued:
                parts.insert(0, Part(f"item_{number}_first"))
            done_ms = 0
            for part in parts:
                for _ in range(ITEM_MS // len(parts) // DELTA_MS):
                    self._at(
                        at_ms + round(done_ms / self._condition.speed),
                        lambda now, part=part: self._delta(part, now),  # type: ignore[misc]
                    )
                    done_ms += DELTA_MS
            at_ms += self._random.randint(150, ITEM_MS - 500)
            self._at(at_ms, lambda now, parts=parts, n=number: self._cut(parts, n + 1, now))  # type: ignore[misc]
            if self._condition.step_ms:
                self._at(
                    at_ms - 100,
                    lambda now: self._carrier.shift_timestamps(self._condition.step_ms, now),
                )
            at_ms += 1_500
        self._run_until(at_ms + 2_000)
        return [self._judge(item) for item in self._items.values()]

    def _judge(self, item: _Item) -> Cut:
        until = item.from_byte + item.sent_bytes
        played = sum(
            max(0, min(stretch.end_byte, until) - max(stretch.start_byte, item.from_byte))
            for stretch in self._carrier.truth.played
        )
        position = self._fixed[item.part].position
        return Cut(
            truth_ms=played / 8,
            low_ms=position.low_ms,
            best_ms=position.best_ms,
            high_ms=position.high_ms,
            elapsed_ms=item.elapsed_ms,
            last_mark_ms=item.last_mark_bytes // 8,
            any_mark_ms=item.echoed_bytes // 8,
            sent_ms=item.sent_bytes // 8,
        )

    def _at(self, at_ms: int, do: Callable[[int], None]) -> None:
        heapq.heappush(self._due, (at_ms, next(self._order), do))

    def _run_until(self, until_ms: int) -> None:
        while True:
            now_ms = self._carrier.next_due_ms()
            if self._due and self._due[0][0] < now_ms:
                now_ms = self._due[0][0]
            if now_ms > until_ms:
                return
            self._carrier.advance(now_ms)
            while self._due and self._due[0][0] <= now_ms:
                heapq.heappop(self._due)[2](now_ms)
            self._collect(now_ms)

    def _collect(self, now_ms: int) -> None:
        """Send on what the carrier said, and what the playhead found."""
        for outgoing in self._carrier.take():
            message = outgoing.message
            if message["event"] == "media":
                self._travel(message, outgoing.at_ms)
            elif message["event"] == "mark":
                self._echoes += 1
                lost = self._condition.every_third_lost and self._echoes % 3 == 0
                lost |= self._condition.fence_lost and message["mark"]["name"].startswith("f")
                for late_ms in () if lost else self._network.marks.fate(self._random):
                    if late_ms:
                        self._at(now_ms + late_ms, lambda now, m=message: self._travel(m, now))  # type: ignore[misc]
                    else:
                        self._travel(message, outgoing.at_ms)
        for event in self._playhead.events():
            if isinstance(event, PositionFixed):
                self._fixed[event.position.part] = event
        due_us = self._playhead.next_timer_us()
        if due_us is not None and -(-due_us // 1000) != self._timer_ms:
            self._timer_ms = -(-due_us // 1000)
            self._at(
                max(now_ms, self._timer_ms),
                lambda now: self._playhead.handle_timer(now_us=now * 1000),
            )

    def _travel(self, message: Mapping[str, object], now_ms: int) -> None:
        arrives_ms = self._up.arrival_ms(now_ms)
        self._at(arrives_ms, lambda now: self._hear(message, now))

    def _hear(self, message: Mapping[str, object], now_ms: int) -> None:
        media, mark = message.get("media"), message.get("mark")
        if isinstance(media, Mapping):
            self._media_ms = int(media["timestamp"])
            self._playhead.receive_media(self._media_ms, 160, now_us=now_ms * 1000)
        elif isinstance(mark, Mapping):
            for item in self._items.values():
                if mark["name"] in item.ends:
                    item.echoed_bytes = max(item.echoed_bytes, item.ends[mark["name"]])
            self._playhead.receive_mark(mark["name"], now_us=now_ms * 1000)

    def _write(self, messages: list[dict[str, object]], now_ms: int) -> None:
        arrives_ms = self._down.arrival_ms(now_ms)
        for message in messages:
            text = json.dumps({**message, "streamSid": self._carrier.stream_sid})
            self._at(arrives_ms, lambda now, text=text: self._carrier.receive(text, now))  # type: ignore[misc]

    def _delta(self, part: Part, now_ms: int) -> None:
        if part in self._refused:
            return
        item = self._items.setdefault(part, _Item(part, self._sent_bytes))
        if item.media_ms_at_first is None:
            item.media_ms_at_first = self._media_ms
        messages: list[dict[str, object]] = []
        left = DELTA_MS * 8
        while left:
            size = min(self._chunk_bytes, left)
            sent = self._playhead.send(part, size, now_us=now_ms * 1000)
            item.sent_bytes += size
            self._sent_bytes += size
            messages += [_mark(name) for name in sent.marks_before]
            payload = b64encode(bytes(size)).decode("ascii")
            messages.append({"event": "media", "media": {"payload": payload}})
            messages += [_mark(name) for name in sent.marks_after]
            item.ends |= dict.fromkeys(sent.marks_after, item.sent_bytes)
            self.marks += len(sent.marks_before) + len(sent.marks_after)
            left -= size
        self._write(messages, now_ms)

    def _cut(self, parts: list[Part], interrupt_id: int, now_ms: int) -> None:
        for item in (self._items[part] for part in parts if part in self._items):
            item.last_mark_bytes = item.echoed_bytes
            if self._media_ms is not None and item.media_ms_at_first is not None:
                item.elapsed_ms = self._media_ms - item.media_ms_at_first
        self._refused.update(parts)
        fence = self._playhead.interrupt(interrupt_id, now_us=now_ms * 1000)
        if fence is not None:
            self._write([{"event": "clear"}, _mark(fence)], now_ms)


def _mark(name: str) -> dict[str, object]:
    return {"event": "mark", "mark": {"name": name}}


def _method(cuts: list[Cut], said_ms: Callable[[Cut], int]) -> Method:
    signed = [said_ms(cut) - cut.truth_ms for cut in cuts]
    errors = sorted(abs(error) for error in signed)
    return Method(
        median=round(errors[len(errors) // 2]),
        p99=round(errors[math.ceil(len(errors) * 99 / 100) - 1]),
        max=round(errors[-1]),
        bias=round(sum(signed) / len(signed)),
    )


def measure(condition: Condition, chunk_ms: int = CHUNK_MS, calls: int = CALLS) -> PlayheadResult:
    """Cut a number of items under one condition."""
    cuts: list[Cut] = []
    marks = sent_bytes = 0
    for seed in range(calls):
        run = _Run(condition, chunk_ms, seed)
        cuts += run.cuts()
        marks += run.marks
        sent_bytes += run.sent_bytes
    widths = sorted(cut.high_ms - cut.low_ms for cut in cuts)
    return PlayheadResult(
        condition=condition.name,
        chunk_ms=chunk_ms,
        cuts=len(cuts),
        best=_method(cuts, lambda cut: cut.best_ms),
        width_median_ms=widths[len(widths) // 2],
        width_max_ms=widths[-1],
        outside=sum(not cut.low_ms <= cut.truth_ms < cut.high_ms + 1 for cut in cuts),
        elapsed=_method(cuts, lambda cut: cut.elapsed_ms),
        last_mark=_method(cuts, lambda cut: cut.last_mark_ms),
        any_mark=_method(cuts, lambda cut: cut.any_mark_ms),
        all_sent=_method(cuts, lambda cut: cut.sent_ms),
        marks_per_minute=round(marks * 60 * 8000 / sent_bytes),
    )


def run(calls: int = CALLS) -> Iterator[PlayheadResult]:
    """Each condition, then what smaller and larger media messages buy."""
    for condition in CONDITIONS:
        yield measure(condition, calls=calls)
    for way in (Path(40), JITTER):
        for chunk_ms in GRANULARITY_MS:
            name = f"every third echo lost, {'jitter 150 ± 100 ms' if way is JITTER else '40 ms'}"
            condition = Condition(f"message size: {name}", way, every_third_lost=True)
            yield measure(condition, chunk_ms, min(calls, GRANULARITY_CALLS))
