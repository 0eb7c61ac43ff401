"""What the session worker gave to be heard, on its way to Twilio, and what became of it. Pure.

Facts go in (audio, interrupts, echoed marks, times), answers come out: frames to be written, and
what the rest of the system is to know, in order (:meth:`Delivery.answers`). ``now_us`` is an
argument and counts microseconds of a monotonic clock from the stream's start. What was played is
the playhead's to say (:mod:`gateway.playout`); here is the queue before it, and who is told what
after it.

========================  ============================  =============================  ===================
of a part                 WAITING: nothing is written   SENT: the playhead knows it    FIXED
========================  ============================  =============================  ===================
audio is given            it joins the queue            it joins the queue             it joins the queue
too much of it waits      the rest is dropped           the rest is dropped            it is dropped
audio is written          → SENT                        more of it is sent             it is played, and
                                                                                       nothing more
                                                                                       is told
an interrupt              → FIXED, with 0 ms heard;     what waits is dropped;         what waits is dropped
                          what waits is dropped         → FIXED, when its clear is
                                                        settled
all of it is played       cannot be                     → FIXED                        –
the call ends             → FIXED, with 0 ms heard      → FIXED                        –
========================  ============================  =============================  ===================

An interrupt is *asked*, then *answered*: with the positions of all parts that it cut, when the
playhead has settled them, and when the call ends at the latest. So each part is fixed once, and
each interrupt is answered once, after all its positions.

What the shell owes: write at once what :meth:`Delivery.write` and :meth:`Delivery.interrupt`
return, before anything else is written; after each call act on :meth:`Delivery.answers`, and look
at :meth:`Delivery.next_timer_us`; at the end call :meth:`Delivery.drop`,
:meth:`Delivery.fix_waiting`, and, after the answers to those, :meth:`Delivery.close`.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import NamedTuple

import msgspec

from gateway.bargein import BargeIn
from gateway.playout.clock import MediaClock
from gateway.playout.echoes import Counts
from gateway.playout.playhead import Playhead
from gateway.playout.positions import (
    Cause,
    Flushed,
    ItemPosition,
    Part,
    PlaybackProgressed,
    PlaybackStarted,
    PlayoutEvent,
    PositionFixed,
    TraceEvent,
    floor_ms,
    never_sent,
)
from gateway.playout.trace import LONG_TRACE
from gateway.twilio.frames import text_frame
from gateway.twilio.messages import Encoder, split
from runtime.units import BYTES_PER_MS

SOCKET_AHEAD_BYTES = 16 * 1024
"""Written ahead of what the network took: 1.5 s of speech. What is in the socket can no longer be
overtaken by a ``clear``, so it is no more than a slow network needs to keep up."""

MAX_UNSENT_BYTES = 20 * 60 * 1000 * BYTES_PER_MS
"""Of agent audio that waits after Twilio's ten minutes: twenty minutes. No answer is as long;
beyond it the rest of a part is dropped, and counts as unheard."""

BACKED_UP_RETRY_US = 10_000
"""When a backed-up socket is looked at again: it holds enough for a second and more."""

TWILIO_FULL_RETRY_US = 1_000_000
"""When Twilio's ten minutes of buffer are looked at again: they empty at the pace of speech."""

TRACE_EVERY_US = 30_000_000
"""A trace is handed in when positions are fixed, in a long monologue every half minute, and when it
is long: where inbound media is ragged, say."""

FINISH_MARGIN_US = 5_000_000
"""After the session finished, how much longer than its audio the last mark may take: Twilio's round
trip with a bad network's jitter."""


class Written(NamedTuple):
    """What is to be written now."""

    frames: bytes
    """Whole WebSocket frames: audio, and the marks around it."""
    audio_bytes: int
    """How much audio is in them, as it is decoded."""


class PartFixed(msgspec.Struct, frozen=True):
    """A part's last word, for the transcript and the figures."""

    fixed: PositionFixed
    unheard_ms: int
    """How much of what was given of it was not heard, at best knowledge."""


class TellPositions(msgspec.Struct, frozen=True):
    """Positions for the session worker: the answer to an interrupt, or of parts that no interrupt
    cut."""

    interrupt_id: int
    """0: of parts that no interrupt cut."""
    cause: Cause
    positions: list[ItemPosition]


class HandInTrace(msgspec.Struct, frozen=True):
    """What the playhead was told since the last trace."""

    events: list[TraceEvent]


Answer = PlaybackStarted | PlaybackProgressed | PartFixed | TellPositions | BargeIn | HandInTrace


class _State(enum.Enum):
    """Of a part, see the table above."""

    WAITING = enum.auto()
    SENT = enum.auto()
    FIXED = enum.auto()


class _Given(msgspec.Struct):
    """A part, and how much of it was given."""

    state: _State = _State.WAITING
    audio_bytes: int = 0
    played_ms: int = 0
    dropping: bool = False
    """The rest of it is dropped, since too much waited."""


class _Unsent(msgspec.Struct, frozen=True):
    """Agent audio that is not written yet; empty for the end of a part."""

    part: Part
    payload: bytes
    audio_bytes: int


class Delivery:
    """One stream's. See the module's docstring.

    Args:
        stream_sid: Twilio's identifier of the stream.
        clock: The stream's media clock. Somebody else may give it regular media as well.
    """

    def __init__(self, stream_sid: str, clock: MediaClock) -> None:
        self._encoder = Encoder(stream_sid)
        self._playhead = Playhead(clock)
        self._unsent: deque[_Unsent] = deque()
        self._unsent_bytes = 0
        self._given: dict[Part, _Given] = {}
        """Parts whose position is not fixed; and those of which audio came after it was."""
        self._fixed: set[Part] = set()
        self._unanswered: dict[int, list[ItemPosition]] = {}
        """Interrupts whose positions the worker waits for, with those that are known."""
        self._untold: dict[Cause, list[ItemPosition]] = {}
        """Positions that no interrupt cut, and that the worker is not told yet."""
        self._barge_ins: dict[int, BargeIn] = {}
        self._retry_us: int | None = None
        """When writing goes on. None: nothing keeps it from going on at once."""
        self._finish_us: int | None = None
        """When the stream is over whatever was played. None: more may be given."""
        self._traced_us = 0
        self._heard: deque[PlayoutEvent] = deque()
        """What the playhead said and is not taken yet; empty but while it is, or when that
        raised."""
        self._answers: list[Answer] = []

    # -- what the session worker says ----------------------------------------------------------

    def give(self, part: Part, payload: bytes, *, last: bool) -> bool:
        """Take audio to be played after all that was given before.

        Args:
            part: What it belongs to.
            payload: Base64 text of µ-law.
            last: No more of this part will come.

        Returns:
            False when from here on audio of this part is dropped, since too much waits; said once.
        """
        given = self._given.get(part)
        if given is None:
            state = _State.FIXED if part in self._fixed else _State.WAITING
            given = self._given[part] = _Given(state)
        was_dropping = given.dropping
        unsent = self._unsent
        for piece, audio_bytes in split(payload):
            given.audio_bytes += audio_bytes
            if given.dropping or self._unsent_bytes + audio_bytes > MAX_UNSENT_BYTES:
                given.dropping = True  # what follows a gap must not be taken for what was in it
                continue
            self._unsent_bytes += audio_bytes
            unsent.append(_Unsent(part, piece, audio_bytes))
        if last:
            unsent.append(_Unsent(part, b"", 0))
        return given.dropping is was_dropping

    def interrupt(self, barge_in: BargeIn, *, now_us: int) -> bytes:
        """The caller speaks: nothing more is to be heard of what was given before.

        Args:
            barge_in: The interrupt. Its ``cleared_us`` is for whoever writes what this returns.
            now_us: The gateway's clock.

        Returns:
            Frames to be written at once: ``clear`` and a mark. Empty when nothing is playing.
        """
        interrupt_id = barge_in.interrupt_id
        self._unsent.clear()
        self._unsent_bytes = 0
        self._retry_us = None
        self._unanswered.setdefault(interrupt_id, [])
        fence = self._playhead.interrupt(interrupt_id, now_us=now_us)
        self._fix_waiting(Cause.CLEARED, interrupt_id)
        if fence is None:
            return b""
        self._barge_ins[interrupt_id] = barge_in
        return text_frame(self._encoder.clear()) + text_frame(self._encoder.mark(fence))

    def finish(self, *, now_us: int) -> None:
        """Note that nothing more will be given: see :meth:`is_done`."""
        unplayed_ms = sum(
            floor_ms(given.audio_bytes) - given.played_ms for given in self._given.values()
        )
        self._finish_us = now_us + unplayed_ms * 1000 + FINISH_MARGIN_US

    # -- what Twilio says ----------------------------------------------------------------------

    def receive_media(self, timestamp_ms: int, audio_bytes: int, now_us: int) -> bool:
        """Note an inbound media message; whether there may be something to act on."""
        return self._playhead.receive_media(timestamp_ms, audio_bytes, now_us)

    def receive_mark(self, name: str, *, now_us: int) -> None:
        """Note that Twilio sent a mark back."""
        self._playhead.receive_mark(name, now_us=now_us)

    def stop(self, *, now_us: int) -> None:
        """Note Twilio's ``stop``: playback is over."""
        self._playhead.stop(now_us=now_us)

    # -- the time ------------------------------------------------------------------------------

    def next_timer_us(self) -> int | None:
        """When :meth:`handle_timer` wants to be called. None: not at all."""
        due_us = self._playhead.next_timer_us()
        if self._retry_us is None and self._finish_us is None:  # as a rule
            return due_us
        dues_us = (due_us, self._retry_us, self._finish_us)
        return min(one_us for one_us in dues_us if one_us is not None)

    def handle_timer(self, *, now_us: int) -> None:
        """Do what is due. Too early a call does nothing. :meth:`write` may have something then."""
        if self._retry_us is not None and now_us >= self._retry_us:
            self._retry_us = None
        self._playhead.handle_timer(now_us=now_us)

    def is_done(self, *, now_us: int) -> bool:
        """Whether nothing more will be given, and all is played that can be expected to be."""
        if self._finish_us is None:
            return False
        return now_us >= self._finish_us or self.all_played

    # -- what is to be written -----------------------------------------------------------------

    def write(self, backlog_bytes: int, *, now_us: int) -> Written | None:
        """Take what is to be written now, as much as the socket takes without a jam.

        Args:
            backlog_bytes: How much was written that the network has not taken.
            now_us: The gateway's clock.

        Returns:
            None when there is nothing, or it has to wait.
        """
        unsent = self._unsent
        if not unsent or self._retry_us is not None:
            return None
        room = SOCKET_AHEAD_BYTES - backlog_bytes
        if room <= 0:
            self._retry_us = now_us + BACKED_UP_RETRY_US
            return None
        playhead, encoder = self._playhead, self._encoder
        frames = bytearray()
        sent_bytes = 0
        while unsent and len(frames) < room:
            audio_bytes = unsent[0].audio_bytes
            if audio_bytes > playhead.room_bytes:
                break
            next_one = unsent.popleft()
            part = next_one.part
            self._unsent_bytes -= audio_bytes
            if not audio_bytes:
                playhead.end(part, now_us=now_us)
                continue
            marks = playhead.send(part, audio_bytes, now_us=now_us)
            given = self._given.get(part)
            if given is None:  # it was fixed meanwhile: the model went on after its end
                self._given[part] = _Given(_State.FIXED, audio_bytes)
            elif given.state is _State.WAITING:
                given.state = _State.SENT
            for name in marks.marks_before:
                frames += text_frame(encoder.mark(name))
            frames += text_frame(encoder.media(next_one.payload))
            for name in marks.marks_after:
                frames += text_frame(encoder.mark(name))
            sent_bytes += audio_bytes
        if unsent:
            # A full socket may well take all of it; it can only try when this turn of the loop ends.
            full = len(frames) < room
            self._retry_us = now_us + TWILIO_FULL_RETRY_US if full else now_us
        return Written(bytes(frames), sent_bytes) if frames else None

    def mark(self, name: str) -> bytes:
        """A mark of the shell's own, as a frame."""
        return text_frame(self._encoder.mark(name))

    # -- what others are to know ---------------------------------------------------------------

    def answers(self, *, now_us: int) -> list[Answer]:
        """Hand over what is to be told since the last call, in order."""
        heard = self._heard
        heard.extend(self._playhead.events())
        while heard:
            self._take(heard.popleft(), now_us)
        if self._playhead.trace_events >= LONG_TRACE:
            self._hand_in_trace(now_us)
        if self._untold:
            self._tell_untold()
        if not self._answers:
            return []
        answers, self._answers = self._answers, []
        return answers

    @property
    def media_ms(self) -> int | None:
        """The call's clock. None before the first media message."""
        return self._playhead.media_ms

    @property
    def counts(self) -> Counts:
        """What did not go as it should."""
        return self._playhead.counts

    @property
    def idle(self) -> bool:
        """Nothing that was written is still unplayed, as far as one can know."""
        return self._playhead.idle

    @property
    def all_played(self) -> bool:
        """All that was given is written and played, as far as one can know."""
        return not self._unsent and self._playhead.idle

    # -- the end -------------------------------------------------------------------------------

    def drop(self, *, now_us: int) -> None:
        """Note that nothing more can be written or played; after :meth:`stop` this changes
        nothing."""
        self._unsent.clear()
        self._unsent_bytes = 0
        self._playhead.drop(now_us=now_us)

    def fix_waiting(self, cause: Cause) -> None:
        """Fix the parts that were dropped before their first byte was written."""
        self._fix_waiting(cause, 0)

    def close(self, *, now_us: int) -> None:
        """Tell what nobody was told, also when what should have told it has raised."""
        while self._unanswered:
            interrupt_id, positions = self._unanswered.popitem()
            self._answers.append(TellPositions(interrupt_id, Cause.CLEARED, positions))
        self._tell_untold()
        self._answers += self._barge_ins.values()
        self._barge_ins.clear()
        self._hand_in_trace(now_us)

    # -- what the playhead says ----------------------------------------------------------------

    def _take(self, event: PlayoutEvent, now_us: int) -> None:
        match event:
            case PlaybackStarted():
                if event.part not in self._fixed:
                    self._answers.append(event)
            case PlaybackProgressed():
                given = self._given.get(event.part)
                if given is None or given.state is _State.FIXED:
                    return
                given.played_ms = event.played_ms
                self._answers.append(event)
                if now_us - self._traced_us >= TRACE_EVERY_US:
                    self._hand_in_trace(now_us)
            case PositionFixed():
                if event.position.part not in self._fixed:
                    self._fix(event)
            case Flushed():
                barge_in = self._barge_ins.get(event.interrupt_id)
                if barge_in is not None:
                    barge_in.flushed_us = now_us
                    barge_in.flushed_at_ms = event.at_ms
            case _:
                self._answer(event.interrupt_id, now_us)

    def _fix_waiting(self, cause: Cause, interrupt_id: int) -> None:
        """Of these the playhead has no word."""
        for part in [p for p, given in self._given.items() if given.state is _State.WAITING]:
            self._fix(PositionFixed(never_sent(part), cause, None, interrupt_id))

    def _fix(self, event: PositionFixed) -> None:
        position = event.position
        given = self._given.pop(position.part, None)
        self._fixed.add(position.part)
        given_ms = 0 if given is None else floor_ms(given.audio_bytes)
        self._answers.append(PartFixed(event, max(0, given_ms - position.best_ms)))
        if event.interrupt_id:
            self._unanswered.setdefault(event.interrupt_id, []).append(position)
        else:
            self._untold.setdefault(event.cause, []).append(position)

    def _answer(self, interrupt_id: int, now_us: int) -> None:
        """All positions that an interrupt cut are known: tell the worker, even if there is none."""
        positions = self._unanswered.pop(interrupt_id, None)
        if positions is None:
            return
        self._answers.append(TellPositions(interrupt_id, Cause.CLEARED, positions))
        barge_in = self._barge_ins.pop(interrupt_id, None)
        if barge_in is not None:
            self._answers.append(barge_in)
        self._hand_in_trace(now_us)

    def _tell_untold(self) -> None:
        untold, self._untold = self._untold, {}
        self._answers += [TellPositions(0, cause, told) for cause, told in untold.items()]

    def _hand_in_trace(self, now_us: int) -> None:
        self._traced_us = now_us
        trace = self._playhead.trace()
        if trace:
            self._answers.append(HandInTrace(trace))
