"""The shell of one call: carries what comes to its cores, and their answers to whom they are for.

::

    Twilio ── media, marks, keys ──▶ Call ── caller audio, positions ──▶ lane ──▶ session worker
    Twilio ◀─ media, marks, clear ── Call ◀─ agent audio, interrupts ─── lane ◀── session worker
                                      │▲
                    Delivery: what was given, sent, echoed, cleared, and what of it was heard
                    Presence: whether Twilio is still there
                                      │
                                      ▼ facts ──▶ transcript service (never waited for)

A call has no task. Whoever brings something (the socket's reader, the link's reader, its timer)
calls a method and says when that came; the method tells the core, writes what there is to write,
and returns. So a ``clear`` is in the socket before the method that brought the interrupt has
returned. There is one timer, for whatever of the call is due next.

Whatever a call raises ends that call alone. Its end goes step by step, each guarded
(:mod:`gateway.barrier`), and the last of them (the last fact, the worker's release, the counts) are
taken whatever became of the others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from asheard.v1 import fact_pb2, session_service_pb2
from gateway import evidence
from gateway.bargein import BargeIn
from gateway.barrier import FAULTS, guarded, report
from gateway.caller_path import CallerPath
from gateway.delivery import Answer, Delivery, TellPositions
from gateway.instant import Instant, now
from gateway.lane import Lane, LaneListener
from gateway.metrics import GatewayMetrics, outcome_label
from gateway.pace import Pace
from gateway.playout.clock import MediaClock
from gateway.playout.positions import Cause, Part
from gateway.presence import Ask, GoesOn, Presence, Stopped, Vanished, Verdict
from gateway.record import CallRecord
from gateway.twilio.messages import POLICY_VIOLATION, MediaDetails, Start
from runtime.facts import FactWriter
from runtime.log import get_log
from runtime.units import BYTES_PER_MS

_DROPPED = fact_pb2.CALL_OUTCOME_DROPPED
_MODEL_FAILED = fact_pb2.CALL_OUTCOME_MODEL_FAILED

_BY_CALLBACK = "media stream is over by Twilio's callback; its socket is still open"

NORMAL_CLOSURE = 1000
INTERNAL_ERROR = 1011
TRY_AGAIN_LATER = 1013

OnEnd = Callable[[str, "fact_pb2.CallOutcome.ValueType", int, str], None]
LastStep = Callable[["fact_pb2.CallOutcome.ValueType", Instant], None]


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
        """Tell all that Twilio says that a stream of another gateway is over; an empty
        ``stream_sid``: whichever the call has."""


@dataclass(frozen=True, slots=True)
class CallServices:
    """What all calls of a gateway share."""

    links: Workers
    outbox: FactWriters
    metrics: GatewayMetrics
    now: Callable[[], Instant] = now
    """Read once each time a timer fires; all else is told when it happens."""


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
        clock = MediaClock()
        self._delivery = Delivery(start.stream_sid, clock)
        self._presence = Presence(clock)
        self._pace = Pace(clock)
        self._finished: session_service_pb2.CallFinished | None = None
        self.told = False
        """The caller heard in words that the call ends."""
        self._session_writer = ""
        self._over = False
        self._unacted: deque[Answer] = deque()
        """What was answered and is not acted on yet; empty but while it is, or when that raised."""
        self._timer: asyncio.Handle | None = None
        self._timer_us = 0
        """When that timer fires; means nothing without it."""

        self._log = get_log(__name__).bind(call=self._call_sid, stream=start.stream_sid)
        facts = services.outbox.writer(self._call_sid, f"gateway/{start.stream_sid}")
        self._record = CallRecord(facts, services.metrics, self._delivery, at, self._log)
        self._lane = services.links.place(self, self._call_sid, start.stream_sid)
        count_dropped = self._metrics.caller_frames_dropped.inc
        self.path = CallerPath(start.stream_sid, at, clock, self._lane, count_dropped)
        self._last_steps: tuple[LastStep, ...] = (
            self._record.end, self._release_worker, self._record.count_end, self._say_end
        )  # fmt: skip
        """What is still to be done whatever happens, in this order."""
        self._record.count_begin()
        try:
            self._log.info("call started")
            self._record.begin(start)
            self._arm(0)
        except BaseException:
            self.abandon(_DROPPED, at)
            raise

    # -- what Twilio says ----------------------------------------------------------------------

    def receive_media(self, media: MediaDetails, at: Instant) -> None:
        """Take what the caller said, when it is not regular.

        Raises:
            TwilioProtocolError: The payload is not base64, or too long, or the stream outruns time.
        """
        if self._over:
            return
        base64, audio_bytes = media.audio()
        now_us = at.mono_us - self._started.mono_us
        if media.track != "inbound" or not audio_bytes:
            self._presence.heard_us = now_us
            return
        timestamp_ms = media.timestamp
        told = self._delivery.receive_media(timestamp_ms, audio_bytes, now_us)
        if not self._lane.send_audio(base64, timestamp_ms, at.unix_us):
            self._metrics.caller_frames_dropped.inc()
        self._pace.take(audio_bytes, now_us, look=told)
        if (
            told
        ):  # seldom: a flush that waited for this message, a long trace, a clock that runs away
            self._act(at)

    def receive_mark(self, name: str, at: Instant) -> None:
        """Take an echoed mark."""
        if self._over:
            return
        self._presence.heard_us = now_us = at.mono_us - self._started.mono_us
        if name == self._presence.probe:
            return  # that it came is all that it says
        self._delivery.receive_mark(name, now_us=now_us)
        self._act(at)

    def receive_key(self, digit: str, at: Instant) -> None:
        """Take a pressed key."""
        if self._over:
            return
        self._presence.heard_us = self._us(at)
        self._record.key_pressed(self._delivery.media_ms or 0)
        self._lane.send(
            session_service_pb2.GatewayControl(
                key_pressed=session_service_pb2.CallerKeyPressed(digit=digit)
            )
        )

    def receive_stop(self, at: Instant) -> None:
        """The caller hung up."""
        if self._over:
            return
        self._delivery.stop(now_us=self._us(at))
        outcome = fact_pb2.CALL_OUTCOME_COMPLETED
        if self._finished is not None and self._finished.outcome == _MODEL_FAILED:
            outcome = _MODEL_FAILED  # that was before; the caller only ran out of patience
        self.end(outcome, NORMAL_CLOSURE, "", at)

    def stream_stopped(self, at: Instant) -> None:
        """Twilio told a webhook, here or elsewhere, that the stream is over. Repeats are ignored.

        The socket's own ``stop`` may be on its way, or the word that the call is over
        (:meth:`call_over`). If neither comes, the stream was lost: the call may go on in another
        one, and its transcript must stay open for that.
        """
        if not self._over:
            self._presence.stream_stopped(self._us(at))
            self._arm(self._us(at))

    def stream_failed(self, at: Instant) -> None:
        """Twilio told a webhook of an error of the stream, and does not say whether it goes on: it
        is over if nothing more comes. Repeats are ignored."""
        if not self._over:
            self._presence.stream_failed(self._us(at))
            self._arm(self._us(at))

    def call_over(self, at: Instant) -> None:
        """Twilio told a webhook, here or at another gateway, that the call is over: as good as its
        ``stop``. Repeats are ignored."""
        if not self._over:
            self._log.warning(_BY_CALLBACK)
            self.receive_stop(at)

    # -- what the session worker says (LaneListener) -------------------------------------------

    def session_accepted(self, session_writer: str) -> None:
        """A worker took the call."""
        if self._over:
            return
        self._session_writer = session_writer
        self._record.session_assigned(session_writer)

    def session_refused(self, reason: str, at: Instant) -> None:
        """No worker took the call."""
        self._log.warning("no session worker for the call", reason=reason)
        self.end(fact_pb2.CALL_OUTCOME_REFUSED, TRY_AGAIN_LATER, "no room", at)

    def session_lost(self, reason: str, at: Instant) -> None:
        """The link to the worker broke: Twilio will be given a new stream, another worker."""
        if self._over:
            return
        guarded(self._log, self._log.warning, "session lost", reason=reason)
        guarded(self._log, self._record.session_lost, self._session_writer, reason)
        self.end(fact_pb2.CALL_OUTCOME_SESSION_LOST, INTERNAL_ERROR, "session lost", at)

    def session_finished(self, finished: session_service_pb2.CallFinished, at: Instant) -> None:
        """The session is over: end the call when Twilio has played what it was given."""
        if self._over:
            return
        self._finished = finished
        self._delivery.finish(now_us=self._us(at))
        self._act(at)

    def agent_audio(
        self, item_id: str, content_index: int, payload: bytes, last: bool, at: Instant
    ) -> None:
        """Audio to be played."""
        if self._over:
            return
        if not self._delivery.give(Part(item_id, content_index), payload, last=last):
            self._log.error("agent audio dropped: too much of it waits to be played")
        self._write(at.mono_us - self._started.mono_us)
        self._act(at)

    def interrupted(self, interrupt: session_service_pb2.Interrupt, at: Instant) -> None:
        """The caller speaks: nothing more is to be heard of what was given before."""
        if self._over:
            return
        now_us = self._us(at)
        barge_in = BargeIn.from_message(interrupt, arrived_us=now_us, arrived_unix_us=at.unix_us)
        frames = self._delivery.interrupt(barge_in, now_us=now_us)
        if frames:
            self._sink.write(frames)
            barge_in.cleared_us = self._us(self._now())
        self._act(at)

    # -- what the cores answer -----------------------------------------------------------------

    def _write(self, now_us: int) -> None:
        """Write agent audio, as much as the socket takes now."""
        written = self._delivery.write(self._sink.unsent_bytes(), now_us=now_us)
        if written is not None:
            self._sink.write(written.frames)
            self._metrics.sent_audio.inc(written.audio_bytes / (1000 * BYTES_PER_MS))

    def _act(self, at: Instant) -> None:
        """Act on what became of the last input, and keep the timer."""
        now_us = at.mono_us - self._started.mono_us
        answers = self._delivery.answers(now_us=now_us)
        if answers:
            unacted = self._unacted
            unacted.extend(answers)
            while unacted:
                self._act_on(unacted.popleft())
        if self._finished is not None and self._delivery.is_done(now_us=now_us):
            self.told = self._finished.told and self._delivery.all_played
            self.end(self._finished.outcome, NORMAL_CLOSURE, "", at)
        else:
            self._arm(now_us)

    def _act_on(self, answer: Answer) -> None:
        if isinstance(answer, TellPositions):
            self._lane.send(evidence.positions_fixed(answer))
        else:
            self._record.keep(answer)

    # -- the time ------------------------------------------------------------------------------

    def _us(self, at: Instant) -> int:
        """By the cores' clock: microseconds since the call started, monotonic."""
        return at.mono_us - self._started.mono_us

    def _arm(self, now_us: int) -> None:
        """Have the cores called when they want to be, or earlier, when they do nothing.

        What they want moves with every mark; a timer that fires too early is cheaper than one that
        is set anew each time.
        """
        due_us = self._presence.next_timer_us()
        wanted_us = self._delivery.next_timer_us()
        if wanted_us is not None and wanted_us < due_us:
            due_us = wanted_us
        if self._timer is not None:
            if due_us >= self._timer_us:
                return
            self._timer.cancel()
        self._timer_us = due_us
        self._timer = self._loop.call_later(max(0, due_us - now_us) / 1e6, self._timed)

    def _timed(self) -> None:
        """Do what is due. There is nobody above it who would end the call when it raises."""
        self._timer = None
        at = self._now()
        try:
            self._do_due(at)
        except FAULTS as error:
            report(self._log, "fault in a timer of a call", error)
            if not guarded(self._log, self.end, _DROPPED, INTERNAL_ERROR, "internal error", at):
                self.cut()

    def _do_due(self, at: Instant) -> None:
        now_us = self._us(at)
        self._delivery.handle_timer(now_us=now_us)
        verdict = self._presence.handle_timer(now_us, idle=self._delivery.idle)
        if verdict is not None:
            self._do_about_twilio(verdict, at)
        if not self._over:
            self._write(now_us)
            self._act(at)

    def _do_about_twilio(self, verdict: Verdict, at: Instant) -> None:
        match verdict:
            case Ask(mark):
                self._sink.write(self._delivery.mark(mark))
            case GoesOn():
                self._log.warning("media stream goes on after an error that Twilio reported")
            case Stopped():
                self._log.warning(_BY_CALLBACK)
                self.end(_DROPPED, NORMAL_CLOSURE, "stream stopped", at)
            case Vanished(silent_s):
                self._metrics.vanished.inc()
                self._log.warning("nothing comes from Twilio any more", seconds=silent_s)
                self.end(_DROPPED, POLICY_VIOLATION, f"silent for {silent_s} s", at)

    # -- the end -------------------------------------------------------------------------------

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
        now_us, delivery = self._us(at), self._delivery
        steps: tuple[Callable[[], None], ...] = (
            self._stop_timer,
            partial(delivery.drop, now_us=now_us),
            partial(delivery.fix_waiting, _cause_of_end(outcome)),
            partial(self._act_on_rest, now_us),
            partial(delivery.close, now_us=now_us),
            partial(self._act_on_rest, now_us),
        )
        for step in steps:
            guarded(self._log, step)
        if not guarded(self._log, self.abandon, outcome, at):
            guarded(self._log, self.abandon, outcome, at)  # nobody else would: the call is over
        if not guarded(self._log, self._on_end, self._call_sid, outcome, code, reason):
            self.cut()

    def cut(self) -> None:
        """Lose the socket, when nothing else can end the call: what is left is seen to there."""
        self._sink.abort()

    def abandon(self, outcome: fact_pb2.CallOutcome.ValueType, at: Instant) -> None:
        """Take the last steps of a call, whatever state it is in: its last fact, the worker's
        release, the counts. Each is taken once; what one raises keeps none of the others.

        Args:
            outcome: Why the call ended.
            at: When.
        """
        self._over = True
        steps, self._last_steps = self._last_steps, ()
        for step in steps:
            guarded(self._log, step, outcome, at)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _act_on_rest(self, now_us: int) -> None:
        """Act on all that is answered, also after something that raised."""
        self._unacted.extend(self._delivery.answers(now_us=now_us))
        while self._unacted:
            guarded(self._log, self._act_on, self._unacted.popleft())

    def _release_worker(self, outcome: fact_pb2.CallOutcome.ValueType, at: Instant) -> None:
        self._lane.close(outcome)

    def _say_end(self, outcome: fact_pb2.CallOutcome.ValueType, at: Instant) -> None:
        said = {"detail": self._finished.detail} if self._finished is not None else {}
        seconds = round(self._us(at) / 1e6, 3)
        self._log.info("call ended", outcome=outcome_label(outcome), seconds=seconds, **said)


def _cause_of_end(outcome: fact_pb2.CallOutcome.ValueType) -> Cause:
    return Cause.HUNG_UP if outcome == fact_pb2.CALL_OUTCOME_COMPLETED else Cause.DROPPED
