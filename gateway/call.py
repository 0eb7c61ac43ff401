"""The shell of one call: the playhead between Twilio's socket and the session worker's link.

::

    Twilio ── media, marks, keys ──▶ Call ── caller audio, positions ──▶ lane ──▶ session worker
    Twilio ◀─ media, marks, clear ── Call ◀─ agent audio, interrupts ─── lane ◀── session worker
                                      │▲
                                    Playhead: what was sent, echoed, cleared
                                      │
                                      ▼ facts ──▶ transcript service (never waited for)

A call has no task. Whoever brings something (the socket's reader, the link's reader, a timer)
calls a method; the method feeds the playhead, writes what there is to write, and returns. So a
``clear`` is in the socket before the method that brought the interrupt has returned.

Agent audio that the socket cannot take yet waits here, where an interrupt can still drop it. The
playhead hears of audio when it is written, not before.

Whatever a call raises ends that call alone. Its end goes step by step, each guarded (:mod:`gateway.barrier`),
and the last of them (the last fact, the worker's release, the counts) are taken whatever became of the others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import msgspec

from asheard.v1 import fact_pb2, session_service_pb2, transcript_pb2
from gateway import evidence
from gateway.bargein import BargeIn, between_wall_clocks, is_plausible
from gateway.barrier import FAULTS, guarded, report
from gateway.caller_path import CallerPath
from gateway.instant import Instant, now
from gateway.lane import Lane, LaneListener
from gateway.metrics import GatewayMetrics, outcome_label
from gateway.playout.clock import MAX_AHEAD_US
from gateway.playout.playhead import LONG_TRACE, Playhead
from gateway.playout.positions import (
    BYTES_PER_MS,
    Cause,
    Flushed,
    Part,
    PlaybackProgressed,
    PlaybackStarted,
    PlayoutEvent,
    PositionFixed,
    PositionsSettled,
)
from gateway.twilio.frames import text_frame
from gateway.twilio.messages import (
    POLICY_VIOLATION,
    Encoder,
    MediaDetails,
    Start,
    TwilioProtocolError,
    split,
)
from gateway.webhook import STREAM_PARAMETER, stream_number_of
from runtime.facts import FactWriter
from runtime.log import get_log

SOCKET_AHEAD_BYTES = 16 * 1024
"""Written ahead of what the network took: 1.5 s of speech. What is in the socket can no longer be
overtaken by a ``clear``, so it is no more than a slow network needs to keep up."""

MAX_UNSENT_BYTES = 20 * 60 * 1000 * BYTES_PER_MS
"""Of agent audio that waits behind Twilio's ten minutes: twenty minutes. No answer is as long; beyond it the
rest of a part is dropped, and counts as unheard."""

BACKED_UP_RETRY_S = 0.01
"""When a backed-up socket is looked at again: it holds enough for a second and more."""

TWILIO_FULL_RETRY_S = 1.0
"""When Twilio's ten minutes of buffer are looked at again: they empty at the pace of speech."""

TRACE_EVERY_US = 30_000_000
"""A trace is handed in when positions are fixed, in a long monologue every half minute, and when it is
long: where inbound media is ragged, say."""

AUDIO_AT_ONCE_US = MAX_AHEAD_US
"""How much audio of the caller may be ahead of the time that has passed."""

FINISH_MARGIN_S = 5.0
"""After the session finished, how much longer than its audio the last mark may take: Twilio's way
there and back with a bad network's jitter."""

QUIET_S = 15.0
"""Nothing at all came for so long, no media and no mark: Twilio may leave out silence, and it may be gone.
So it is asked by a mark, which it sends back at once when nothing is left to play; and marks that are
under way already are an answer as well."""

PROBE_WAIT_S = 10.0
"""How long that answer may take. With the quiet before it, a peer that vanished behind a proxy or tunnel that
holds the socket open is noticed within half a minute."""

STOOD_STILL_US = 1_000_000
"""A watch that comes so late says that this process stood still, and nothing of the peer: what came meanwhile
is not read yet."""

STOP_WAIT_S = 2.0
"""How long a stream that Twilio's callback calls over is given to say so itself. Callbacks overtake the
socket's last bytes by tenths of a second; and where the call goes on, Twilio asks for a new stream after
about one."""

_BY_CALLBACK = "media stream is over by Twilio's callback; its socket is still open"

NORMAL_CLOSURE = 1000
INTERNAL_ERROR = 1011
TRY_AGAIN_LATER = 1013

OnEnd = Callable[[str, "fact_pb2.CallOutcome.ValueType", int, str], None]


class Sink(Protocol):
    """Where frames for Twilio go. Nothing here waits."""

    def write(self, frames: bytes) -> None:
        """Write whole WebSocket frames."""

    def unsent_bytes(self) -> int:
        """How much was written that the network has not taken."""

    def abort(self) -> None:
        """Close at once and without a word."""


class FactWriters(Protocol):
    """Where a call gets its writer of facts: :class:`runtime.facts.FactOutbox`, say."""

    def writer(self, call_sid: str, writer: str) -> FactWriter:
        """A writer for one stream of a call."""


class Workers(Protocol):
    """The session workers, as calls and webhooks need them: :class:`gateway.links.Links`."""

    def place(self, listener: LaneListener, call_sid: str, stream_sid: str) -> Lane:
        """A lane for the call; the listener hears later whether it leads anywhere."""

    def announce_stopped(self, call_sid: str, stream_sid: str) -> None:
        """Tell all that Twilio says that a stream of another gateway is over; an empty ``stream_sid``:
        whichever the call has."""


@dataclass(frozen=True, slots=True)
class CallServices:
    """What all calls of a gateway share."""

    links: Workers
    outbox: FactWriters
    metrics: GatewayMetrics
    now: Callable[[], Instant] = now
    """Read once each time a timer fires; all else is told when it happens."""


class _Given(msgspec.Struct):
    """A part that the session worker gave us and whose position is not fixed yet."""

    audio_bytes: int = 0
    cut: bool = False
    """Whether the rest of it is dropped, since too much waited."""
    sent: bool = False
    """Whether the playhead knows of it."""
    played_ms: int = 0


class _Unsent(msgspec.Struct, frozen=True):
    """Agent audio that is not written yet; empty for the end of a part."""

    part: Part
    payload: bytes
    audio_bytes: int


class _Told(msgspec.Struct, frozen=True):
    """What one message of positions says of all of them."""

    interrupt_id: int
    cause: Cause


class Call:
    """One call, from ``start`` to its last fact.

    Args:
        start: The message that started it.
        sink: Where frames for Twilio go.
        services: What calls share.
        at: When that message came.
        on_end: Told once, with CallSid, outcome, close code and reason, when the call is over.
    """

    def __init__(
        self, start: Start, sink: Sink, services: CallServices, *, at: Instant, on_end: OnEnd
    ) -> None:
        self._call_sid = start.start.call_sid
        self._sink = sink
        self._metrics = services.metrics
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._now = services.now
        self._started = at
        self._encoder = Encoder(start.stream_sid)
        self._playhead = Playhead()
        self._unsent: deque[_Unsent] = deque()
        self._unsent_bytes = 0
        self._given: dict[Part, _Given] = {}
        self._barge_ins: dict[int, BargeIn] = {}
        self._unanswered: set[int] = set()
        """Interrupts whose positions the worker waits for."""
        self._fixed: dict[_Told, list[transcript_pb2.ItemPosition]] = {}
        """Positions not told to the worker yet, by what they will be told with."""
        self._traced_us = 0
        self._finished: session_service_pb2.CallFinished | None = None
        self._session_writer = ""
        self._received_bytes = 0
        """Of the caller's audio that did not go the quick way."""
        self._received_due = 0
        """At so many its pace is looked at again."""
        self._over = False
        self._pending: deque[PlayoutEvent] = deque()
        """What the playhead said and was not acted on yet; empty but while it is, or when that raised."""
        self._pump_handle: asyncio.Handle | None = None
        """Set while unsent audio waits for the socket."""
        self._playhead_timer: asyncio.TimerHandle | None = None
        self._playhead_due_us = 0
        """When that timer fires; means nothing without it."""
        self._finish_timer: asyncio.TimerHandle | None = None
        self._stopped_timer: asyncio.TimerHandle | None = None
        """Set since Twilio said by a callback that the stream is over."""
        self._stopped_us = 0
        """When it did; means nothing without that timer."""
        self._heard_us = 0
        """When anything but a regular frame last came; of those the media clock knows."""
        self._probes = 0
        self._probed_us: int | None = None
        """When Twilio was asked whether it is still there; None: it need not be."""
        self._watch_due_us = int(QUIET_S * 1e6)
        self._watch_timer = self._loop.call_later(QUIET_S, self._timed, self._watch)

        self._log = get_log(__name__).bind(call=self._call_sid, stream=start.stream_sid)
        self._facts = services.outbox.writer(self._call_sid, f"gateway/{start.stream_sid}")
        self._lane = services.links.place(self, self._call_sid, start.stream_sid)
        self.path = CallerPath(
            start.stream_sid,
            at,
            self._playhead.clock,
            self._lane,
            self._metrics.caller_frames_dropped.inc,
        )
        self._last_steps: tuple[Callable[[fact_pb2.CallOutcome.ValueType, Instant], None], ...] = (
            self._write_end,
            self._release_worker,
            self._count_end,
            self._say_end,
        )
        """What is still to be done whatever happens, in this order."""
        self._metrics.active_calls.inc()
        try:
            self._begin(start)
        except BaseException:
            self.abandon(fact_pb2.CALL_OUTCOME_DROPPED, at)
            raise

    def _begin(self, start: Start) -> None:
        self._log.info("call started")
        started = fact_pb2.CallStarted(
            account_sid=start.start.account_sid,
            stream_sid=start.stream_sid,
            from_number=start.start.parameter("from"),
            to_number=start.start.parameter("to"),
            stream_number=stream_number_of(start.start.parameter(STREAM_PARAMETER)),
        )
        started.start_time.FromMicroseconds(self._started.unix_us)
        self._facts.write(call_started=started)

    # -- what Twilio says ----------------------------------------------------------------------

    def receive_media(self, media: MediaDetails, at: Instant) -> None:
        """Take 20 ms of the caller.

        Raises:
            TwilioProtocolError: The payload is not base64, or too long, or the stream outruns time.
        """
        if self._over:
            return
        base64, audio_bytes = media.audio()
        now_us = at.mono_us - self._started.mono_us
        if media.track != "inbound" or not audio_bytes:
            self._heard_us = now_us
            return
        timestamp_ms = media.timestamp
        told = self._playhead.receive_media(timestamp_ms, audio_bytes, now_us)
        if not self._lane.send_audio(base64, timestamp_ms, at.unix_us):
            self._metrics.caller_frames_dropped.inc()
        self._received_bytes += audio_bytes
        if told or self._received_bytes > self._received_due:
            self._check_pace(now_us)
        if told:  # seldom: a flush that waited to be dated, a long trace, a clock that runs away
            self._act(self._playhead.events(), at)

    def _check_pace(self, now_us: int) -> None:
        """See whether more audio came than anybody can have spoken by now. What went the quick way is
        as long as its timestamps say, or half of it."""
        self._received_due = (now_us + AUDIO_AT_ONCE_US) * BYTES_PER_MS // 1000
        ahead = self._playhead.clock.ahead_us > MAX_AHEAD_US
        if ahead or self._received_bytes > self._received_due:
            raise TwilioProtocolError(
                f"audio more than {MAX_AHEAD_US // 1_000_000} s ahead of the time that has passed",
                POLICY_VIOLATION,
                limit="pace",
            )

    def receive_mark(self, name: str, at: Instant) -> None:
        """Take an echoed mark."""
        if self._over:
            return
        self._heard_us = now_us = self._us(at)
        if name == f"w{self._probes}":
            return  # that it came is all that it says
        self._playhead.receive_mark(name, now_us=now_us)
        self._settle(at)

    def receive_key(self, digit: str, at: Instant) -> None:
        """Take a pressed key."""
        if self._over:
            return
        self._heard_us = self._us(at)
        self._facts.write(key_pressed=fact_pb2.KeyPressed(at_ms=self._playhead.media_ms or 0))
        self._lane.send(
            session_service_pb2.GatewayControl(
                key_pressed=session_service_pb2.CallerKeyPressed(digit=digit)
            )
        )

    def receive_stop(self, at: Instant) -> None:
        """The caller hung up."""
        if self._over:
            return
        self._playhead.stop(now_us=self._us(at))
        # A session that had failed before stays the reason; the caller only ran out of patience.
        failed = self._finished is not None and (
            self._finished.outcome == fact_pb2.CALL_OUTCOME_MODEL_FAILED
        )
        self.end(
            fact_pb2.CALL_OUTCOME_MODEL_FAILED if failed else fact_pb2.CALL_OUTCOME_COMPLETED,
            NORMAL_CLOSURE,
            "",
            at,
        )

    def stream_stopped(self, at: Instant) -> None:
        """Twilio told a webhook, here or at another gateway, that the stream is over. Repeats are ignored.

        The socket's own ``stop`` may be on its way, or the word that the call is over
        (:meth:`call_over`). If neither comes, the stream was lost: the call may go on in another one,
        and its transcript must stay open for that.
        """
        if not self._over and self._stopped_timer is None:
            self._stopped_us = self._us(at)
            self._stopped_timer = self._loop.call_later(STOP_WAIT_S, self._timed, self._end_stopped)

    def stream_failed(self, at: Instant) -> None:
        """Twilio told a webhook of an error of the stream, and does not say whether it goes on: it is over
        if nothing more comes. Repeats are ignored."""
        if not self._over and self._stopped_timer is None:
            self._stopped_us = self._us(at)
            self._stopped_timer = self._loop.call_later(
                STOP_WAIT_S, self._timed, self._end_unless_heard
            )

    def _end_unless_heard(self, at: Instant) -> None:
        self._stopped_timer = None
        # What was under way came within the first half of the wait.
        if self._last_heard_us > self._stopped_us + int(STOP_WAIT_S * 1e6) // 2:
            self._log.warning("media stream goes on after an error that Twilio reported")
        else:
            self._end_stopped(at)

    def call_over(self, at: Instant) -> None:
        """Twilio told a webhook, here or at another gateway, that the call is over: as good as its
        ``stop``. Repeats are ignored."""
        if not self._over:
            self._log.warning(_BY_CALLBACK)
            self.receive_stop(at)

    def _end_stopped(self, at: Instant) -> None:
        self._log.warning(_BY_CALLBACK)
        self.end(fact_pb2.CALL_OUTCOME_DROPPED, NORMAL_CLOSURE, "stream stopped", at)

    # -- what the session worker says (LaneListener) -------------------------------------------

    def session_accepted(self, session_writer: str) -> None:
        """A worker took the call."""
        if self._over:
            return
        self._session_writer = session_writer
        self._facts.write(session_assigned=fact_pb2.SessionAssigned(session_writer=session_writer))

    def session_refused(self, reason: str, at: Instant) -> None:
        """No worker took the call."""
        self._log.warning("no session worker for the call", reason=reason)
        self.end(fact_pb2.CALL_OUTCOME_REFUSED, TRY_AGAIN_LATER, "no room", at)

    def session_lost(self, reason: str, at: Instant) -> None:
        """The link to the worker broke: Twilio will be given a new stream, another worker."""
        if self._over:
            return
        lost = fact_pb2.SessionLost(session_writer=self._session_writer, reason=reason)
        guarded(self._log, self._log.warning, "session lost", reason=reason)
        guarded(self._log, self._facts.write, session_lost=lost)
        self.end(fact_pb2.CALL_OUTCOME_SESSION_LOST, INTERNAL_ERROR, "session lost", at)

    def session_finished(self, finished: session_service_pb2.CallFinished, at: Instant) -> None:
        """The session is over: end the call when Twilio has played what it was given."""
        if self._over:
            return
        self._finished = finished
        unplayed_ms = sum(
            given.audio_bytes // 8 - given.played_ms for given in self._given.values()
        )
        self._finish_timer = self._loop.call_later(
            unplayed_ms / 1000 + FINISH_MARGIN_S, self._timed, self._finish
        )
        self._settle(at)

    def agent_audio(
        self, item_id: str, content_index: int, payload: bytes, last: bool, at: Instant
    ) -> None:
        """Audio to be played."""
        if self._over:
            return
        part = Part(item_id, content_index)
        given = self._given.get(part)
        if given is None:
            given = self._given[part] = _Given()
        for piece, audio_bytes in split(payload):
            given.audio_bytes += audio_bytes
            if given.cut or self._unsent_bytes + audio_bytes > MAX_UNSENT_BYTES:
                self._cut(given)
                continue
            self._unsent_bytes += audio_bytes
            self._unsent.append(_Unsent(part, piece, audio_bytes))
        if last:
            self._unsent.append(_Unsent(part, b"", 0))
        self._pump(at)

    def _cut(self, given: _Given) -> None:
        """Take no more of a part: what follows a gap must not be taken for what was in it."""
        if not given.cut:
            given.cut = True
            self._log.error("agent audio dropped: too much of it waits to be played")

    def interrupted(self, interrupt: session_service_pb2.Interrupt, at: Instant) -> None:
        """The caller speaks: nothing more is to be heard of what was given before."""
        if self._over:
            return
        arrived_us = self._us(at)
        self._unsent.clear()
        self._unsent_bytes = 0
        fence = self._playhead.interrupt(interrupt.interrupt_id, now_us=arrived_us)
        if fence is not None:
            self._sink.write(
                text_frame(self._encoder.clear()) + text_frame(self._encoder.mark(fence))
            )
            self._barge_ins[interrupt.interrupt_id] = BargeIn(
                interrupt_id=interrupt.interrupt_id,
                onset_ms=interrupt.onset_ms if interrupt.HasField("onset_ms") else None,
                detection_us=interrupt.detection_us,
                worker_us=interrupt.worker_us,
                link_us=between_wall_clocks(interrupt.sent_unix_us, at.unix_us),
                arrived_us=arrived_us,
                cleared_us=self._us(self._now()),
            )
        self._unanswered.add(interrupt.interrupt_id)
        self._fix_never_sent(interrupt.interrupt_id, Cause.CLEARED)
        self._settle(at)

    # -- toward Twilio -------------------------------------------------------------------------

    def _pump(self, at: Instant) -> None:
        """Write agent audio, as much as the socket takes without a jam."""
        if self._over or self._pump_handle is not None or not self._unsent:
            return
        room = SOCKET_AHEAD_BYTES - self._sink.unsent_bytes()
        if room <= 0:
            self._pump_handle = self._loop.call_later(BACKED_UP_RETRY_S, self._timed, self._pump_on)
            return
        frames = bytearray()
        sent_bytes = 0
        now_us = self._us(at)
        while self._unsent and len(frames) < room:
            if self._unsent[0].audio_bytes > self._playhead.room_bytes:
                break
            unsent = self._unsent.popleft()
            self._unsent_bytes -= unsent.audio_bytes
            if not unsent.audio_bytes:
                self._playhead.end(unsent.part, now_us=now_us)
                continue
            marks = self._playhead.send(unsent.part, unsent.audio_bytes, now_us=now_us)
            # Anew if the part's position was fixed meanwhile: the model went on behind its end.
            self._given.setdefault(unsent.part, _Given(unsent.audio_bytes)).sent = True
            for name in marks.marks_before:
                frames += text_frame(self._encoder.mark(name))
            frames += text_frame(self._encoder.media(unsent.payload))
            for name in marks.marks_after:
                frames += text_frame(self._encoder.mark(name))
            sent_bytes += unsent.audio_bytes
        if frames:
            self._sink.write(bytes(frames))
            self._metrics.sent_audio.inc(sent_bytes / 8000)
        if self._unsent and len(frames) < room:
            self._pump_handle = self._loop.call_later(
                TWILIO_FULL_RETRY_S, self._timed, self._pump_on
            )
        elif self._unsent:
            # The socket may well take all of it; it can only try when this turn of the loop ends.
            self._pump_handle = self._loop.call_soon(self._timed, self._pump_on)
        self._settle(at)

    def _pump_on(self, at: Instant) -> None:
        self._pump_handle = None
        self._pump(at)

    def _timed(self, action: Callable[[Instant], None]) -> None:
        """Do what a timer is for. There is nobody above it who would end the call when it raises."""
        at = self._now()
        try:
            action(at)
        except FAULTS as error:
            report(self._log, "fault in a timer of a call", error)
            outcome = fact_pb2.CALL_OUTCOME_DROPPED
            if not guarded(self._log, self.end, outcome, INTERNAL_ERROR, "internal error", at):
                self.cut()

    # -- whether Twilio is there ---------------------------------------------------------------

    def _watch(self, at: Instant) -> None:
        """See whether anything came lately; ask, and end the stream when there is no answer."""
        now_us = self._us(at)
        late_us = now_us - self._watch_due_us
        heard_us = self._last_heard_us
        if self._probed_us is not None and heard_us >= self._probed_us:
            self._probed_us = None
        if late_us > STOOD_STILL_US:
            self._watch_at(now_us + STOOD_STILL_US, now_us)
        elif self._probed_us is not None:
            seconds = (now_us - heard_us) // 1_000_000
            self._metrics.vanished.inc()
            self._log.warning("nothing comes from Twilio any more", seconds=seconds)
            self.end(fact_pb2.CALL_OUTCOME_DROPPED, POLICY_VIOLATION, f"silent for {seconds} s", at)
        elif now_us < heard_us + int(QUIET_S * 1e6):
            self._watch_at(heard_us + int(QUIET_S * 1e6), now_us)
        else:
            self._probed_us = now_us
            if self._playhead.idle:  # else there are marks under way
                self._probes += 1
                self._sink.write(text_frame(self._encoder.mark(f"w{self._probes}")))
            self._watch_at(now_us + int(PROBE_WAIT_S * 1e6), now_us)

    @property
    def _last_heard_us(self) -> int:
        """When anything last came of Twilio."""
        return max(self._heard_us, self._playhead.clock.received_us or 0)

    def _watch_at(self, due_us: int, now_us: int) -> None:
        self._watch_due_us = due_us
        wait_s = max(0, due_us - now_us) / 1e6
        self._watch_timer = self._loop.call_later(wait_s, self._timed, self._watch)

    # -- what the playhead says ----------------------------------------------------------------

    def _settle(self, at: Instant) -> None:
        """Act on what the playhead made of its last input, and keep its timer."""
        self._act(self._playhead.events(), at)

    def _act(self, events: Iterable[PlayoutEvent], at: Instant) -> None:
        now_us = self._us(at)
        self._pending.extend(events)
        while self._pending:
            self._act_on(self._pending.popleft(), now_us)
        if self._playhead.trace_events >= LONG_TRACE:
            self._hand_in_trace(now_us)
        if self._fixed:
            self._tell_fixed(0)
        self._arm(now_us)
        if self._finished is not None and not self._unsent and self._playhead.idle:
            self._finish(at)

    def _act_on(self, event: PlayoutEvent, now_us: int) -> None:
        match event:
            case PlaybackStarted():
                self._facts.write(playback_started=evidence.playback_started(event))
            case PlaybackProgressed():
                self._progressed(event, now_us)
            case PositionFixed():
                self._position_fixed(event)
            case Flushed():
                self._flushed(event, now_us)
            case PositionsSettled():
                self._answer(event.interrupt_id, now_us)

    def _arm(self, now_us: int) -> None:
        """Have the playhead called when it wants to be, or earlier, when it does nothing.

        Its wish moves with every mark; a timer that fires too early is cheaper than one that is
        set anew each time.
        """
        due_us = self._playhead.next_timer_us()
        if due_us is None or self._over:
            return
        if self._playhead_timer is not None:
            if due_us >= self._playhead_due_us:
                return
            self._playhead_timer.cancel()
        self._playhead_due_us = due_us
        wait_s = max(0, due_us - now_us) / 1e6
        self._playhead_timer = self._loop.call_later(wait_s, self._timed, self._playhead_timed)

    def _playhead_timed(self, at: Instant) -> None:
        self._playhead_timer = None
        self._playhead.handle_timer(now_us=self._us(at))
        self._settle(at)

    def _progressed(self, event: PlaybackProgressed, now_us: int) -> None:
        given = self._given.get(event.part)
        if given is None:
            return
        given.played_ms = event.played_ms
        self._facts.write(playback_progressed=evidence.playback_progressed(event))
        if now_us - self._traced_us >= TRACE_EVERY_US:
            self._hand_in_trace(now_us)

    def _fix_never_sent(self, interrupt_id: int, cause: Cause) -> None:
        """Parts that were dropped before the first byte was written: the playhead has no word."""
        for part in [part for part, given in self._given.items() if not given.sent]:
            self._position_fixed(
                PositionFixed(evidence.never_sent(part), cause, None, interrupt_id)
            )

    def _position_fixed(self, event: PositionFixed) -> None:
        position = event.position
        self._facts.write(position_fixed=evidence.position_fixed(event))
        cause = event.cause
        if event.interrupt_id and cause is Cause.PLAYED:
            cause = Cause.CLEARED  # of the answer as a whole
        told = self._fixed.setdefault(_Told(event.interrupt_id, cause), [])
        told.append(evidence.item_position(position))
        given = self._given.pop(position.part, _Given())
        self._metrics.heard_audio.inc(position.best_ms / 1000)
        self._metrics.unheard_audio.inc(max(0, given.audio_bytes // 8 - position.best_ms) / 1000)

    def _flushed(self, event: Flushed, now_us: int) -> None:
        barge_in = self._barge_ins.get(event.interrupt_id)
        if barge_in is not None:
            barge_in.flushed_us = now_us
            barge_in.flushed_at_ms = event.at_ms

    def _answer(self, interrupt_id: int, now_us: int) -> None:
        """All positions that an interrupt cut are known: tell the worker, even if there is none."""
        if interrupt_id not in self._unanswered:
            return
        self._unanswered.remove(interrupt_id)
        if not any(told.interrupt_id == interrupt_id for told in self._fixed):
            self._fixed[_Told(interrupt_id, Cause.CLEARED)] = []
        self._tell_fixed(interrupt_id)
        self._account(self._barge_ins.pop(interrupt_id, None))
        self._hand_in_trace(now_us)

    def _tell_fixed(self, interrupt_id: int) -> None:
        for told in [told for told in self._fixed if told.interrupt_id == interrupt_id]:
            self._lane.send(
                session_service_pb2.GatewayControl(
                    positions_fixed=session_service_pb2.PositionsFixed(
                        interrupt_id=interrupt_id,
                        positions=self._fixed.pop(told),
                        cause=evidence.cause(told.cause),
                    )
                )
            )

    def _account(self, barge_in: BargeIn | None) -> None:
        if barge_in is None:
            return
        self._facts.write(barged_in=barge_in.as_fact())
        if barge_in.latency_ms is not None and is_plausible(barge_in.latency_ms * 1000):
            self._metrics.barge_in_latency.observe(barge_in.latency_ms / 1000)
        for stage, duration_us in barge_in.stages_us().items():
            if is_plausible(duration_us):
                self._metrics.barge_in_stage.labels(stage).observe(duration_us / 1e6)

    def _hand_in_trace(self, now_us: int) -> None:
        self._traced_us = now_us
        for piece in evidence.playout_traced(self._playhead.trace()):
            self._facts.write(playout_traced=piece)

    # -- the end -------------------------------------------------------------------------------

    def _finish(self, at: Instant) -> None:
        if self._finished is None:
            raise AssertionError("only a finished session finishes the call")
        if not self._over:
            self.end(self._finished.outcome, NORMAL_CLOSURE, "", at)

    def end(
        self, outcome: fact_pb2.CallOutcome.ValueType, code: int, reason: str, at: Instant
    ) -> None:
        """End the call: fix all positions, tell the worker, write the last facts.

        Repeats are ignored, and nothing is raised. Twilio's socket is for ``on_end`` to close.

        Args:
            outcome: Why.
            code: The WebSocket close code.
            reason: What the close frame says.
            at: When.
        """
        if self._over:
            return
        self._over = True
        now_us = self._us(at)
        self._unsent.clear()
        steps: list[Callable[[], None]] = [
            self._stop_timers,
            partial(self._playhead.drop, now_us=now_us),
            partial(self._fix_never_sent, 0, _cause_of_end(outcome)),
            partial(self._hear_playhead_out, now_us),
            self._tell_all_fixed,
            self._account_all,
            partial(self._hand_in_trace, now_us),
        ]
        for step in steps:
            guarded(self._log, step)
        self.abandon(outcome, at)
        if not guarded(self._log, self._on_end, self._call_sid, outcome, code, reason):
            self.cut()

    def cut(self) -> None:
        """Lose the socket, when nothing else can end the call: who finds it closed sees to the rest."""
        self._sink.abort()

    def abandon(self, outcome: fact_pb2.CallOutcome.ValueType, at: Instant) -> None:
        """Take the last steps of a call, whatever state it is in: its last fact, the worker's release,
        the counts. Each is taken once; what one raises keeps none of the others.

        Args:
            outcome: Why the call ended.
            at: When.
        """
        self._over = True
        steps, self._last_steps = self._last_steps, ()
        for step in steps:
            guarded(self._log, step, outcome, at)

    def _stop_timers(self) -> None:
        timers = (
            self._pump_handle,
            self._playhead_timer,
            self._finish_timer,
            self._stopped_timer,
            self._watch_timer,
        )
        for timer in timers:
            if timer is not None:
                timer.cancel()

    def _hear_playhead_out(self, now_us: int) -> None:
        """Act on all that the playhead says, also behind something that raised."""
        self._pending.extend(self._playhead.events())
        while self._pending:
            guarded(self._log, self._act_on, self._pending.popleft(), now_us)

    def _tell_all_fixed(self) -> None:
        for interrupt_id in sorted({told.interrupt_id for told in self._fixed}):
            self._tell_fixed(interrupt_id)

    def _account_all(self) -> None:
        while self._barge_ins:
            _, barge_in = self._barge_ins.popitem()
            guarded(self._log, self._account, barge_in)

    def _write_end(self, outcome: fact_pb2.CallOutcome.ValueType, at: Instant) -> None:
        ended = fact_pb2.CallEnded(outcome=outcome)
        guarded(self._log, self._date_end, ended, at)
        self._facts.write(call_ended=ended)

    def _date_end(self, ended: fact_pb2.CallEnded, at: Instant) -> None:
        ended.at_ms = self._playhead.media_ms or 0
        # By the clock that nobody sets: a stream does not end before it began.
        ended.end_time.FromMicroseconds(self._started.unix_us + self._us(at))

    def _release_worker(self, outcome: fact_pb2.CallOutcome.ValueType, at: Instant) -> None:
        self._lane.close(outcome)

    def _count_end(self, outcome: fact_pb2.CallOutcome.ValueType, at: Instant) -> None:
        self._metrics.active_calls.dec()
        self._metrics.calls.labels(outcome_label(outcome)).inc()
        self._metrics.call_seconds.observe(self._us(at) / 1e6)
        counts = self._playhead.counts
        for kind, number in (
            ("unknown", counts.unknown_echoes),
            ("repeated", counts.repeated_echoes),
            ("late", counts.late_echoes),
            ("missed", counts.missed_echoes),
        ):
            self._metrics.odd_echoes.labels(kind).inc(number)
        self._metrics.limits.labels("marks").inc(counts.ignored_echoes)

    def _say_end(self, outcome: fact_pb2.CallOutcome.ValueType, at: Instant) -> None:
        said = {"detail": self._finished.detail} if self._finished is not None else {}
        seconds = round(self._us(at) / 1e6, 3)
        self._log.info("call ended", outcome=outcome_label(outcome), seconds=seconds, **said)

    def _us(self, at: Instant) -> int:
        """By the playhead's clock: microseconds since the call started, monotonic."""
        return at.mono_us - self._started.mono_us


def _cause_of_end(outcome: fact_pb2.CallOutcome.ValueType) -> Cause:
    return Cause.HUNG_UP if outcome == fact_pb2.CALL_OUTCOME_COMPLETED else Cause.DROPPED
