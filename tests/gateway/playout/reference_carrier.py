"""A second opinion on Twilio: a small carrier that knows the truth, and a call through it.

Written from Twilio's documents, without regard to ``simulators/``: where both agree with the playhead,
neither can have bent the other. Time is virtual, in microseconds of the carrier's clock.

The carrier plays audio in the order it came, sample by sample, in real time; echoes a mark when all
before it was played; on ``clear`` drops what it has and echoes what is pending, in order, at once. All
it sends goes through one ordered socket with its inbound media; so does all that it is sent.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from gateway.playout import (
    Flushed,
    Part,
    Playhead,
    PlayoutEvent,
    PositionFixed,
    TraceEvent,
)

US_PER_BYTE = 125
FRAME_US = 20_000
LIMIT_BYTES = 600 * 8000


@dataclass(frozen=True, slots=True)
class Way:
    """One direction of the network: ordered, so nothing overtakes."""

    delay_us: int = 0
    jitter_us: int = 0
    """Up to so much more or less, evenly spread, for each write by itself."""
    stalls: tuple[tuple[int, int], ...] = ()
    """(from, until): what is written then arrives at the earliest when the stall ends."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong with echoes and with the media clock."""

    lost: float = 0.0
    every_third_lost: bool = False
    late: float = 0.0
    late_us: tuple[int, int] = (20_000, 400_000)
    """Held back by so much, from and to, while what follows passes it."""
    repeated: float = 0.0
    no_media: bool = False
    omitted: tuple[tuple[int, int], ...] = ()
    """(from, until): inbound media left out; timestamps jump."""
    shifts: tuple[tuple[int, int], ...] = ()
    """(when, by how many ms): timestamps are wrong by that much from then on."""
    fence_lost: bool = False
    silent: tuple[tuple[int, int], ...] = ()
    """(from, until): no echo leaves."""


@dataclass(frozen=True, slots=True)
class Network:
    """Everything about the line between the gateway and the carrier."""

    down: Way = Way()
    up: Way = Way()
    faults: Faults = Faults()
    tick: bool = False
    """Playback begins on a grid of 20 ms instead of at once."""
    split_writes: bool = False
    """Each message has its own delay; otherwise what is written together arrives together."""
    drift_ppm: int = 0
    """How much faster the gateway's clock runs."""
    phase_us: int = 7_000
    """Where in a frame the gateway's clock was 0."""
    limit_bytes: int = LIMIT_BYTES


class Line:
    """Says when what is written now arrives."""

    def __init__(self, way: Way, rng: random.Random) -> None:
        self._way, self._rng, self._last_us = way, rng, 0

    def arrival(self, now_us: int) -> int:
        jitter_us = self._way.jitter_us
        at_us = now_us + self._way.delay_us
        if jitter_us:
            at_us += self._rng.randint(-jitter_us, jitter_us)
        for begin_us, until_us in self._way.stalls:
            if begin_us <= now_us < until_us:
                at_us = max(at_us, until_us)
        self._last_us = max(self._last_us, at_us, now_us)
        return self._last_us


class Carrier:
    """Plays, echoes, and remembers what was played."""

    def __init__(self, *, tick: bool, limit_bytes: int) -> None:
        self._tick, self._limit = tick, limit_bytes
        self._queue: deque[tuple[Part, int] | str] = deque()
        self._busy_until_us = 0
        """When the audio at the head of the queue began, or the last audio ended."""
        self.played: dict[Part, int] = {}
        self.discarded: set[Part] = set()
        self.underruns_us: list[int] = []
        self.silent_since_us: int | None = None

    def _buffered(self) -> int:
        return sum(entry[1] for entry in self._queue if not isinstance(entry, str))

    def media(self, part: Part, audio_bytes: int, now_us: int) -> list[tuple[int, str]]:
        echoes = self.advance(now_us)
        taken = min(audio_bytes, self._limit - self._buffered())
        if taken < audio_bytes:
            self.discarded.add(part)
        self.played.setdefault(part, 0)
        if not self._queue:
            self._busy_until_us = max(self._busy_until_us, self._start(now_us))
        if taken:
            self._queue.append((part, taken))
        return echoes

    def _start(self, now_us: int) -> int:
        return -(-now_us // FRAME_US) * FRAME_US if self._tick else now_us

    def mark(self, name: str, now_us: int) -> list[tuple[int, str]]:
        echoes = self.advance(now_us)
        if not self._queue:
            return [*echoes, (now_us, name)]
        self._queue.append(name)
        return echoes

    def clear(self, now_us: int) -> list[tuple[int, str]]:
        echoes = self.advance(now_us)
        self._stop_here(now_us)
        echoes += [(now_us, entry) for entry in self._queue if isinstance(entry, str)]
        self._queue.clear()
        return echoes

    def end(self, now_us: int) -> list[tuple[int, str]]:
        """The call is over; pending marks stay silent."""
        echoes = self.advance(now_us)
        self._stop_here(now_us)
        self._queue.clear()
        return echoes

    def _stop_here(self, now_us: int) -> None:
        """Count what sounded of the audio at the head."""
        if self._queue and not isinstance(self._queue[0], str):
            part, size = self._queue[0]
            sounded = max(0, now_us - self._busy_until_us) // US_PER_BYTE
            self.played[part] += min(size, sounded)
        self._busy_until_us = now_us

    def next_us(self) -> int | None:
        """When the audio at the head ends."""
        if not self._queue:
            return None
        head = self._queue[0]
        return self._busy_until_us + (0 if isinstance(head, str) else head[1] * US_PER_BYTE)

    def advance(self, now_us: int) -> list[tuple[int, str]]:
        echoes = []
        while self._queue:
            head = self._queue[0]
            if isinstance(head, str):
                echoes.append((self._busy_until_us, head))
            else:
                ends_us = self._busy_until_us + head[1] * US_PER_BYTE
                if ends_us > now_us:
                    break
                self._busy_until_us = ends_us
                self.played[head[0]] += head[1]
            self._queue.popleft()
        return echoes


@dataclass(slots=True)
class Outcome:
    """What came of one call."""

    events: list[PlayoutEvent] = field(default_factory=list)
    trace: list[TraceEvent] = field(default_factory=list)
    truth_bytes: dict[Part, int] = field(default_factory=dict)
    discarded: set[Part] = field(default_factory=set)
    cleared_us: dict[int, int] = field(default_factory=dict)
    """When the carrier did the clear of each interrupt."""
    elapsed_ms: dict[Part, int] = field(default_factory=dict)
    """What elapsed media timestamps since the part's first audio said when it was cut."""
    last_mark_ms: dict[Part, int] = field(default_factory=dict)
    """What the last echoed mark said when the call was over, cleared ones included."""
    last_mark_at_cut_ms: dict[Part, int] = field(default_factory=dict)
    """The same when it was cut."""
    inputs: list[tuple[int, str]] = field(default_factory=list)
    """What the gateway heard, and when by the carrier's clock."""
    interrupted: list[int] = field(default_factory=list)
    fences: list[int] = field(default_factory=list)
    """The interrupts that wrote a clear."""
    flushed_marks: set[str] = field(default_factory=set)

    def fixed(self) -> dict[Part, PositionFixed]:
        return {e.position.part: e for e in self.events if isinstance(e, PositionFixed)}

    def flushes(self) -> dict[int, Flushed]:
        return {e.interrupt_id: e for e in self.events if isinstance(e, Flushed)}

    def truth_ms(self, part: Part) -> float:
        return self.truth_bytes.get(part, 0) / 8


class Call:
    """A playhead, a network, a carrier and a script of what happens between them."""

    def __init__(self, network: Network = Network(), *, seed: int = 0) -> None:
        self.network = network
        self.rng = random.Random(seed)
        self.playhead = Playhead()
        self.carrier = Carrier(tick=network.tick, limit_bytes=network.limit_bytes)
        self.outcome = Outcome()
        self._down = Line(network.down, self.rng)
        self._up = Line(network.up, self.rng)
        self._heap: list[tuple[int, int, Callable[[int], None]]] = []
        self._order = count()
        self._now_us = 0
        self._over = False
        self._carrier_ended = False
        self._refused: set[Part] = set()
        self._given: set[Part] = set()
        self._timer_us: int | None = None
        self._echoes = 0
        self._carrier_due: int | None = None
        self._media_ms: int | None = None
        self._first_media_ms: dict[Part, int] = {}
        self._mark_ends: dict[str, tuple[Part, int]] = {}
        self._sent: dict[Part, int] = {}
        if not network.faults.no_media:
            self.at(FRAME_US, self._emit_media)

    # -- the script ----------------------------------------------------------------------------

    def at(self, at_us: int, do: Callable[[int], None]) -> None:
        heapq.heappush(self._heap, (at_us, next(self._order), do))

    def say(
        self,
        part: Part,
        at_ms: int,
        length_ms: int,
        *,
        delta_ms: int = 250,
        speed: float = 4.0,
        chunk_ms: int = 60,
        end: bool = True,
    ) -> None:
        """The model generates: deltas, ``speed`` times as fast as they play."""
        done = 0
        while done < length_ms:
            size = min(delta_ms, length_ms - done)
            self.at(
                int((at_ms + done / speed) * 1000),
                lambda now, size=size: self._give(part, size * 8, chunk_ms * 8, now),  # type: ignore[misc]
            )
            done += size
        if end:
            self.at(int((at_ms + length_ms / speed) * 1000) + 1, lambda now: self._end(part, now))

    def interrupt(self, at_ms: int, interrupt_id: int = 1) -> None:
        self.at(at_ms * 1000, lambda now: self._interrupt(interrupt_id, now))

    def hang_up(self, at_ms: int) -> None:
        """The caller hangs up: at the carrier, at that moment."""
        self.at(at_ms * 1000, self._hang_up)

    def press(self, at_ms: int) -> None:
        """The caller presses a key: one more message in the socket, none of the playhead's."""
        self.at(at_ms * 1000, lambda now: self._send("dtmf", "5", now))

    def drop(self, at_ms: int, *, plays_on_ms: int = 0) -> None:
        """The socket breaks; the carrier may play on for a while."""
        self.at(at_ms * 1000, lambda now: self._drop(now, plays_on_ms * 1000))

    def run(self, until_ms: int) -> Outcome:
        while self._heap and self._heap[0][0] <= until_ms * 1000:
            at_us, _, do = heapq.heappop(self._heap)
            self._now_us = max(self._now_us, at_us)
            do(self._now_us)
        self.outcome.truth_bytes = dict(self.carrier.played)
        self.outcome.discarded = set(self.carrier.discarded)
        return self.outcome

    # -- the gateway's end ---------------------------------------------------------------------

    def local(self, now_us: int) -> int:
        return now_us + now_us * self.network.drift_ppm // 1_000_000 + self.network.phase_us

    def _true(self, local_us: int) -> int:
        since_us = local_us - self.network.phase_us
        return since_us * 1_000_000 // (1_000_000 + self.network.drift_ppm) + 1

    def _collect(self) -> None:
        self.outcome.events += self.playhead.events()
        self.outcome.trace += self.playhead.trace()
        due_us = self.playhead.next_timer_us()
        if due_us is not None and due_us != self._timer_us:
            self._timer_us = due_us
            self.at(max(self._now_us, self._true(due_us)), self._timer)

    def _timer(self, now_us: int) -> None:
        self._timer_us = None
        self.playhead.handle_timer(now_us=self.local(now_us))
        self._collect()

    def _write(self, messages: list[tuple[str, Part | str, int]], now_us: int) -> None:
        together_us = None if self.network.split_writes else self._down.arrival(now_us)
        for kind, what, size in messages:
            at_us = self._down.arrival(now_us) if together_us is None else together_us
            self.at(at_us, lambda now, k=kind, w=what, s=size: self._arrive(k, w, s, now))  # type: ignore[misc]

    def _give(self, part: Part, audio_bytes: int, chunk_bytes: int, now_us: int) -> None:
        if self._over or part in self._refused:
            return
        self._given.add(part)
        messages: list[tuple[str, Part | str, int]] = []
        if self._media_ms is not None:
            self._first_media_ms.setdefault(part, self._media_ms)
        while audio_bytes:
            size = min(chunk_bytes, audio_bytes)
            sent = self.playhead.send(part, size, now_us=self.local(now_us))
            self._sent[part] = self._sent.get(part, 0) + size
            messages += [("mark", name, 0) for name in sent.marks_before]
            messages.append(("media", part, size))
            messages += [("mark", name, 0) for name in sent.marks_after]
            for name in sent.marks_after:
                self._mark_ends[name] = (part, self._sent[part])
            audio_bytes -= size
        self._write(messages, now_us)
        self._collect()

    def _end(self, part: Part, now_us: int) -> None:
        if not self._over and part not in self._refused:
            self.playhead.end(part, now_us=self.local(now_us))
            self._collect()

    def _interrupt(self, interrupt_id: int, now_us: int) -> None:
        if self._over:
            return
        for part in self._given:
            sent_ms = self._sent.get(part, 0) // 8
            if part not in self._refused and self._media_ms is not None:
                elapsed_ms = self._media_ms - self._first_media_ms.get(part, self._media_ms)
                self.outcome.elapsed_ms[part] = min(elapsed_ms, sent_ms)
                self.outcome.last_mark_at_cut_ms[part] = self.outcome.last_mark_ms.get(part, 0)
        self._refused |= self._given
        fence = self.playhead.interrupt(interrupt_id, now_us=self.local(now_us))
        self.outcome.interrupted.append(interrupt_id)
        if fence is not None:
            self.outcome.fences.append(interrupt_id)
            self._write([("clear", fence, interrupt_id), ("mark", fence, 0)], now_us)
        self._collect()

    def _hear(self, kind: str, what: str | int, now_us: int) -> None:
        if self._over:
            return
        if kind == "media":
            self._media_ms = int(what)
            self.playhead.receive_media(int(what), 160, now_us=self.local(now_us))
        elif kind == "mark":
            if str(what) in self._mark_ends:
                part, size = self._mark_ends[str(what)]
                self.outcome.last_mark_ms[part] = size // 8
            self.playhead.receive_mark(str(what), now_us=self.local(now_us))
        elif kind == "stop":
            self.playhead.stop(now_us=self.local(now_us))
            self._over = True
        self.outcome.inputs.append((now_us, f"{kind} {what}"))
        self._collect()

    # -- the carrier's end ---------------------------------------------------------------------

    def _arrive(self, kind: str, what: Part | str, size: int, now_us: int) -> None:
        if self._over or self._carrier_ended:
            return
        if kind == "media":
            assert isinstance(what, Part)
            self._echo(self.carrier.media(what, size, now_us), now_us)
        elif kind == "clear":
            self.outcome.cleared_us[size] = now_us
            played = self.carrier.advance(now_us)
            flushed = self.carrier.clear(now_us)
            self.outcome.flushed_marks |= {name for _, name in flushed}
            self._echo(played + flushed, now_us)
        else:
            self._echo(self.carrier.mark(str(what), now_us), now_us)
        self._schedule_carrier()

    def _schedule_carrier(self) -> None:
        due_us = self.carrier.next_us()
        if due_us is not None and due_us != self._carrier_due:
            self._carrier_due = due_us
            self.at(due_us, self._play)

    def _play(self, now_us: int) -> None:
        self._carrier_due = None
        self._echo(self.carrier.advance(now_us), now_us)
        self._schedule_carrier()

    def _echo(self, echoes: list[tuple[int, str]], now_us: int) -> None:
        faults = self.network.faults
        for _, name in echoes:
            self._echoes += 1
            if faults.every_third_lost and self._echoes % 3 == 0:
                continue
            if any(begin <= now_us < until for begin, until in faults.silent):
                continue
            if faults.fence_lost and name.startswith("f"):
                continue
            if faults.lost and self.rng.random() < faults.lost:
                continue
            if faults.late and self.rng.random() < faults.late:
                late_us = self.rng.randint(*faults.late_us)
                self.at(now_us + late_us, lambda now, name=name: self._send("mark", name, now))  # type: ignore[misc]
                continue
            for _ in range(2 if self.rng.random() < faults.repeated else 1):
                self._send("mark", name, now_us)

    def _send(self, kind: str, what: str | int, now_us: int) -> None:
        at_us = self._up.arrival(now_us)
        self.at(at_us, lambda now: self._hear(kind, what, now))

    def _emit_media(self, now_us: int) -> None:
        faults = self.network.faults
        if not any(begin <= now_us < until for begin, until in faults.omitted):
            shift_ms = sum(by for when, by in faults.shifts if now_us >= when)
            self._send("media", now_us // 1000 - 20 + 5 + shift_ms, now_us)
        self.at(now_us + FRAME_US, self._emit_media)

    def _hang_up(self, now_us: int) -> None:
        self._echo(self.carrier.end(now_us), now_us)
        self._carrier_ended = True
        self._send("stop", "", now_us)

    def _drop(self, now_us: int, plays_on_us: int) -> None:
        self.carrier.end(now_us + plays_on_us)
        self.playhead.drop(now_us=self.local(now_us))
        self._over = True
        self._collect()
