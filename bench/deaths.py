"""What a transcript claims after a session worker or a gateway was killed in mid-sentence.

    python -m bench.deaths [--deaths 100] [--sets DIRECTORY] [--save FILE]

The product's playhead plays to the simulated Twilio in virtual time, an agent says one line, and at a
random moment of it one of the two is gone: what it wrote in the last fraction of a second was not yet
delivered, and the other goes on as it does. What the two have left is joined, closed as the transcript
service closes such calls, and held against what Twilio played and when each word of it sounds: no
word may be claimed that was not heard. What that costs are words that were heard and are not claimed.

The lines are the simulators' own; with ``--sets`` also labelled speech, as
``bench/estimated_times.py`` reads it. ``--save`` keeps the facts and the truth, to join them otherwise.
One JSON object a line on standard output.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import sys
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import msgspec

from asheard.v1.fact_pb2 import (
    CallClosed,
    CallEnded,
    CallOutcome,
    CallStarted,
    Fact,
    GenerationStatus,
    ItemAdded,
    ItemGenerated,
    ItemProgressed,
    SessionAssigned,
    SessionEnded,
    SessionLost,
    SessionStarted,
    WordsTimed,
    WriterLost,
)
from asheard.v1.transcript_pb2 import Role, Transcript
from bench.estimated_times import pieces_in
from gateway import evidence
from gateway.playout import (
    Part,
    PlaybackProgressed,
    PlaybackStarted,
    Playhead,
    PositionFixed,
)
from simulators.network import Link
from simulators.network import Path as Way
from simulators.speech.corpus import corpus
from simulators.twilio import Carrier
from transcript.join import join
from words.aligner.item import ItemAligner
from words.timing import Speech

WORKER, GATEWAY = "worker", "gateway"

WAYS = (Way(5), Way(20), Way(40), Way(150), Way(50, 200))
"""Between gateway and Twilio, each way: delay, and jitter on top."""

SPEEDS = (1.2, 2.0, 4.0, 8.0)
"""How much faster than real time the model generates."""

TEXT_AHEAD_MS = (200, 6_000)
"""How far the text runs ahead of the audio: OpenAI's does so by seconds."""

UNDELIVERED_MS = (50, 400)
"""Facts are on their way to the store for 0.05 s on a quiet process and 0.25 s on a busy one."""

NOTICED_MS = (0, 100)
"""How soon the other end of the link knows: the kernel of the killed process closes it."""

DELTA_MS = 250
MESSAGE_MS = 60
PROGRESS_MS = 1_000
"""How often a worker says what was generated so far."""


@dataclass(frozen=True, slots=True)
class Line:
    """Something to say, and when each word of it sounds."""

    words: list[str]
    middles_ms: list[float]
    ulaw: bytes
    language: str = "en"

    @property
    def audio_ms(self) -> int:
        """Length, rounded down."""
        return len(self.ulaw) // 8


@dataclass(slots=True)
class Death:
    """One call that was cut off, and the truth about it."""

    facts: list[Fact]
    words: list[str]
    middles_ms: list[float]
    played_ms: float

    def heard(self) -> list[str]:
        """The words of which at least half was played."""
        pairs = zip(self.words, self.middles_ms, strict=True)
        return [word for word, middle_ms in pairs if middle_ms <= self.played_ms]


class DeathsResult(msgspec.Struct, frozen=True, kw_only=True):
    """Many deaths of one kind."""

    bench: str = "deaths"
    killed: str
    deaths: int
    final: int
    words_heard: int
    claimed_unheard: int
    """Transcripts that claim a word which was not heard: there must be none."""
    heard_unclaimed: int
    """Words that were heard and are not claimed."""
    of_which_uncertain: int
    """The transcript marks them, as far as it has their text."""
    heard_unclaimed_by_item: float
    whole: int
    """Deaths after the item was generated."""
    heard_unclaimed_by_whole_item: float


def lines(sets: Path | None) -> list[Line]:
    """All that may be said."""
    found = [
        Line([word.text for word in speech.words],
             [(word.start_ms + word.end_ms) / 2 for word in speech.words], speech.ulaw)
        for speech in corpus().values()
    ]  # fmt: skip
    if sets is not None:
        found += [Line(p.words, p.middles(), p.ulaw, p.language) for p in pieces_in(sets, None)]
    return [line for line in found if line.audio_ms > 1_500 and len(line.words) > 3]


class _Call:
    """One call in virtual milliseconds."""

    def __init__(self, line: Line, killed: str, seed: int) -> None:
        chance = random.Random(seed)
        self._line, self._killed = line, killed
        way = chance.choice(WAYS)
        self._up, self._down = Link(way, chance), Link(way, chance)
        self._carrier = Carrier(keep_audio=False)
        self._playhead = Playhead()
        self._part = Part("item")
        self._due: list[tuple[int, int, Callable[[int], None]]] = []
        self._order = count()
        self._timer_ms: int | None = None
        self._over = False
        self._written: list[tuple[int, Fact]] = []
        self._numbers: dict[str, int] = {}
        self._text, self._said = "", 0
        self._received_ms, self._progress_at_ms, self._progress_chars = 0, -PROGRESS_MS, 0
        self._is_whole = False
        self._begin_ms = 300
        self._speed, self._ahead_ms = chance.choice(SPEEDS), chance.uniform(*TEXT_AHEAD_MS)
        self._death_ms = self._begin_ms + chance.randint(100, line.audio_ms + 300)
        self._undelivered_ms = chance.randint(*UNDELIVERED_MS)
        self._noticed_ms = self._death_ms + chance.randint(*NOTICED_MS)

    def run(self) -> tuple[Death, bool]:
        """The death, and whether the item was generated by then."""
        self._at(0, self._open)
        for done_ms in range(0, self._line.audio_ms, DELTA_MS):
            at_ms = self._begin_ms + round(done_ms / self._speed)
            size_ms = min(DELTA_MS, self._line.audio_ms - done_ms)
            self._at(at_ms, lambda now, size_ms=size_ms: self._delta(size_ms, now))  # type: ignore[misc]
        self._at(self._begin_ms + round(self._line.audio_ms / self._speed), self._generated)
        self._at(self._death_ms, self._die)
        self._at(self._noticed_ms, self._notice)
        self._run_until(self._death_ms + 5_000)
        played = sum(
            stretch.end_byte - stretch.start_byte for stretch in self._carrier.truth.played
        )
        facts = [
            fact
            for at_ms, fact in self._written
            if fact.writer.partition("/")[0] != self._writer_killed
            or at_ms <= self._death_ms - self._undelivered_ms
        ]
        said = self._text.split()
        death = Death(
            [*facts, *self._closing()], said, self._line.middles_ms[: len(said)], played / 8
        )
        return death, self._is_whole

    @property
    def _writer_killed(self) -> str:
        return "session" if self._killed == WORKER else "gateway"

    # -- time ----------------------------------------------------------------------------------

    def _at(self, at_ms: int, do: Callable[[int], None]) -> None:
        heapq.heappush(self._due, (at_ms, next(self._order), do))

    def _run_until(self, until_ms: int) -> None:
        while not self._carrier.ended:
            now_ms = self._carrier.next_due_ms()
            if self._due and self._due[0][0] < now_ms:
                now_ms = self._due[0][0]
            if now_ms > until_ms:
                raise AssertionError("the carrier was not told that the socket is lost")
            self._carrier.advance(now_ms)
            while self._due and self._due[0][0] <= now_ms:
                heapq.heappop(self._due)[2](now_ms)
            self._collect(now_ms)
        while self._due:  # what the survivors still have to do
            now_ms, _, do = heapq.heappop(self._due)
            do(now_ms)

    # -- the carrier's end ----------------------------------------------------------------------

    def _collect(self, now_ms: int) -> None:
        for outgoing in self._carrier.take():
            arrives_ms = self._up.arrival_ms(outgoing.at_ms)
            self._at(arrives_ms, lambda now, m=outgoing.message: self._hear(m, now))  # type: ignore[misc]
        self._take_events(now_ms)

    def _hear(self, message: dict[str, dict[str, str]], now_ms: int) -> None:
        if self._over:
            return
        if "media" in message:
            timestamp = int(message["media"]["timestamp"])
            self._playhead.receive_media(timestamp, 160, now_us=now_ms * 1000)
        elif "mark" in message:
            self._playhead.receive_mark(message["mark"]["name"], now_us=now_ms * 1000)
        self._take_events(now_ms)

    def _lose_socket(self, now_ms: int) -> None:
        """What is on its way to the carrier still arrives, and then it knows."""
        self._at(self._down.arrival_ms(now_ms), lambda now: self._carrier.lose_socket(now))

    # -- the gateway ----------------------------------------------------------------------------

    def _write(self, writer: str, now_ms: int, **body: msgspec.Raw | object) -> None:
        self._numbers[writer] = self._numbers.get(writer, 0) + 1
        fact = Fact(call_sid="CA1", writer=writer, sequence=self._numbers[writer], **body)  # type: ignore[arg-type]
        self._written.append((now_ms, fact))

    def _gateway(self, now_ms: int, **body: object) -> None:
        self._write("gateway/MZ1", now_ms, **body)

    def _session(self, now_ms: int, **body: object) -> None:
        self._write("session/1", now_ms, **body)

    def _open(self, now_ms: int) -> None:
        started = CallStarted(stream_sid="MZ1", stream_number=1)
        started.start_time.FromSeconds(1_795_428_000)
        self._gateway(now_ms, call_started=started)
        self._gateway(now_ms, session_assigned=SessionAssigned(session_writer="session/1"))
        self._session(now_ms, session_started=SessionStarted(language="en"))
        self._session(now_ms, item_added=ItemAdded(item_id="item", role=Role.ROLE_AGENT))

    def _take_events(self, now_ms: int) -> None:
        for event in self._playhead.events():
            match event:
                case PlaybackStarted():
                    self._gateway(now_ms, playback_started=evidence.playback_started(event))
                case PlaybackProgressed():
                    self._gateway(now_ms, playback_progressed=evidence.playback_progressed(event))
                case PositionFixed():
                    self._gateway(now_ms, position_fixed=evidence.position_fixed(event))
                case _:
                    pass
        due_us = self._playhead.next_timer_us()
        if due_us is not None and not self._over and -(-due_us // 1000) != self._timer_ms:
            self._timer_ms = -(-due_us // 1000)
            self._at(max(now_ms, self._timer_ms), self._time)

    def _time(self, now_ms: int) -> None:
        if not self._over:
            self._playhead.handle_timer(now_us=now_ms * 1000)

    def _send(self, size_ms: int, now_ms: int) -> None:
        messages: list[dict[str, object]] = []
        for done_ms in range(0, size_ms, MESSAGE_MS):
            size = min(MESSAGE_MS, size_ms - done_ms) * 8
            sent = self._playhead.send(self._part, size, now_us=now_ms * 1000)
            messages += [_mark(name) for name in sent.marks_before]
            payload = b64encode(bytes(size)).decode("ascii")
            messages.append({"event": "media", "media": {"payload": payload}})
            messages += [_mark(name) for name in sent.marks_after]
        arrives_ms = self._down.arrival_ms(now_ms)
        for message in messages:
            text = json.dumps({**message, "streamSid": self._carrier.stream_sid})
            self._at(arrives_ms, lambda now, text=text: self._carrier.receive(text, now))  # type: ignore[misc]

    # -- the worker -----------------------------------------------------------------------------

    def _delta(self, size_ms: int, now_ms: int) -> None:
        if now_ms >= self._stops_ms(WORKER):
            return
        self._received_ms += size_ms
        until_ms = self._received_ms + self._ahead_ms
        while self._said < len(self._line.words) and self._line.middles_ms[self._said] <= until_ms:
            self._text += (" " if self._text else "") + self._line.words[self._said]
            self._said += 1
        if now_ms >= self._progress_at_ms + PROGRESS_MS:
            progressed = ItemProgressed(
                item_id="item", text_offset=self._progress_chars,
                text=self._text[self._progress_chars :], audio_ms=self._received_ms,
            )  # fmt: skip
            self._session(now_ms, item_progressed=progressed)
            self._progress_at_ms, self._progress_chars = now_ms, len(self._text)
        if now_ms < self._stops_ms(GATEWAY):
            self._send(size_ms, now_ms)

    def _generated(self, now_ms: int) -> None:
        if now_ms >= self._stops_ms(WORKER):
            return
        self._is_whole = True
        self._item_generated(GenerationStatus.GENERATION_STATUS_COMPLETED, now_ms)
        if now_ms < self._stops_ms(GATEWAY):
            self._playhead.end(self._part, now_us=now_ms * 1000)

    def _item_generated(self, status: GenerationStatus.ValueType, now_ms: int) -> None:
        generated = ItemGenerated(
            item_id="item", text=self._text, audio_ms=self._received_ms, status=status
        )
        self._session(now_ms, item_generated=generated)

    def _words_timed(self, now_ms: int) -> None:
        """A worker whose gateway is gone times what it does not know to be played."""
        speech = Speech(
            self._text,
            self._line.ulaw[: 8 * self._received_ms],
            self._line.language,
            self._is_whole,
        )
        if not speech.ulaw:
            return
        aligner = ItemAligner(speech.language)
        aligner.add_text(speech.text)
        aligner.add_audio(speech.ulaw)
        times = aligner.finish(speech.complete)
        timed = WordsTimed(item_id="item", audio_ms=times.audio_ms)
        timed.source.method, timed.source.refined = str(times.method), True
        for word in times.words:
            timed.words.add(
                text_start=word.char_start, text_end=word.char_end,
                start_ms=word.start_ms, end_ms=word.end_ms,
            )  # fmt: skip
        self._session(now_ms, words_timed=timed)

    # -- the end --------------------------------------------------------------------------------

    def _stops_ms(self, who: str) -> int:
        """When somebody does nothing more: killed, or told that the other was."""
        return self._death_ms if who == self._killed else self._noticed_ms

    def _die(self, now_ms: int) -> None:
        if self._killed == GATEWAY:
            self._over = True
            self._lose_socket(now_ms)

    def _notice(self, now_ms: int) -> None:
        if self._killed == GATEWAY:
            if not self._is_whole:
                self._item_generated(GenerationStatus.GENERATION_STATUS_CANCELLED, now_ms)
            self._words_timed(now_ms)
            self._session(now_ms, session_ended=SessionEnded(reason="link lost", failed=True))
            return
        self._gateway(now_ms, session_lost=SessionLost(session_writer="session/1"))
        self._playhead.drop(now_us=now_ms * 1000)
        self._take_events(now_ms)
        ended = CallEnded(outcome=CallOutcome.CALL_OUTCOME_SESSION_LOST, at_ms=now_ms)
        self._gateway(now_ms, call_ended=ended)
        self._over = True
        self._lose_socket(now_ms)

    def _closing(self) -> Iterator[Fact]:
        """What the transcript service adds when its time has come."""
        gone = "session/1" if self._killed == WORKER else "gateway/MZ1"
        yield Fact(call_sid="CA1", writer=f"transcript/lost/{gone}", sequence=1,
                   writer_lost=WriterLost(writer=gone))  # fmt: skip
        yield Fact(call_sid="CA1", writer="transcript/closed", sequence=1, call_closed=CallClosed())


def _mark(name: str) -> dict[str, object]:
    return {"event": "mark", "mark": {"name": name}}


def deaths(
    said: list[Line], killed: str, number: int, seed: int = 1
) -> Iterator[tuple[Death, bool]]:
    """Random deaths of one kind, each with whether the item was whole by then."""
    chance = random.Random(f"{killed} {seed}")
    for _ in range(number):
        yield _Call(chance.choice(said), killed, chance.getrandbits(32)).run()


def claimed(transcript: Transcript) -> list[str]:
    """The words that a transcript claims."""
    return " ".join(turn.heard_text for turn in transcript.turns).split()


def measure(found: Iterable[tuple[Death, bool]], killed: str) -> DeathsResult:
    """Join what was left of calls, and judge."""
    number = final = heard_words = false = missing = marked = whole = missing_whole = 0
    for death, is_whole in found:
        transcript = join(death.facts)
        said, heard = claimed(transcript), death.heard()
        uncertain = sum(
            word.uncertain
            for turn in transcript.turns
            for word in turn.words[len(said) : len(heard)]
        )
        number += 1
        final += transcript.final
        heard_words += len(heard)
        false += said != heard[: len(said)]
        missing += max(0, len(heard) - len(said))
        marked += uncertain
        whole += is_whole
        missing_whole += is_whole * max(0, len(heard) - len(said))
    return DeathsResult(
        killed=killed,
        deaths=number,
        final=final,
        words_heard=heard_words,
        claimed_unheard=false,
        heard_unclaimed=missing,
        of_which_uncertain=marked,
        heard_unclaimed_by_item=round(missing / max(1, number), 2),
        whole=whole,
        heard_unclaimed_by_whole_item=round(missing_whole / max(1, whole), 2),
    )


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--deaths", type=int, default=100, help="of each kind (100)")
    parser.add_argument("--sets", type=Path, help="a directory of labelled sets")
    parser.add_argument("--save", type=Path, help="file for facts and truth, one call a line")
    arguments = parser.parse_args()
    said = lines(arguments.sets)
    kept: list[dict[str, object]] = []
    failed = False
    for killed in (WORKER, GATEWAY):
        found = list(deaths(said, killed, arguments.deaths))
        result = measure(found, killed)
        failed |= result.claimed_unheard > 0
        print(msgspec.json.encode(result).decode())
        kept += [
            {"killed": killed, "whole": is_whole, "heard": death.heard(),
             "facts": [fact.SerializeToString().hex() for fact in death.facts]}
            for death, is_whole in found
        ]  # fmt: skip
    if arguments.save is not None:
        arguments.save.write_text("\n".join(map(json.dumps, kept)), "utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
