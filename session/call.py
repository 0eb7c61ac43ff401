"""The shell of one call: link, conversation, Realtime socket, facts, words and tools.

It carries out what the conversation wants and decides nothing about it. What comes from the link
comes as plain calls, since it comes fifty times a second; what they raise ends this call alone.

The call's course: the socket is opened and configured while the caller's audio is kept; then audio
and events flow; when the media stream ends, words still to be transcribed and timed are waited for,
bounded, and the last fact is written. When the model fails first, the gateway is told and what it
still plays is waited for, since how much of that was heard belongs to the record.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from asheard.v1 import fact_pb2, session_service_pb2
from runtime.errors import Unavailable
from runtime.facts import FactWriter
from runtime.log import get_log
from runtime.metrics import MAX_APART_US, passed_us
from session.agent import Agent
from session.metrics import SessionMetrics
from session.realtime import events, faults
from session.realtime.connection import Connect, RealtimeConnection
from session.realtime.conversation import Conversation
from session.realtime.input_clock import InputClock, audio_bytes, silence_payload
from session.realtime.outputs import (
    AudioReceived,
    CallerStopped,
    CallTool,
    Fatal,
    Interrupt,
    Note,
    Noted,
    Output,
    PartCut,
    PartGenerated,
    PartPlayed,
    TextReceived,
    ToCaller,
    ToModel,
    WriteFact,
)
from session.tools import FAILED, ToolRunner
from session.words import CallWords, Follow, Refine

CONFIGURE_S = 10.0
"""Deadline of the answer to ``session.update``; it takes one round trip."""

KEPT_FRAMES = 1_100
"""Caller's audio kept while the socket opens: 22 s, longer than both deadlines together, 350 KB."""

KEPT_BYTES = 512 * 1024
"""The same in base64 text, for frames that are longer than Twilio's 20 ms."""

MAX_FRAME_BYTES = 64 * 1024
"""The longest frame of the caller's that is taken, 6 s: what a gateway passes on at most."""

TRANSCRIPTION_S = 3.0
"""How long the transcripts of the caller's last words are waited for after the call."""

WORDS_S = 3.0
"""How long refined word times are waited for after the call; they take a second."""

MAX_WAITED_US = 60_000_000
"""The longest time to the first audio of an answer that is believed, with function calls in it."""

AFTER_FAILURE_S = 600.0
"""How long the gateway may play what it has after the model failed: Twilio's buffer holds ten
minutes."""


class Outcome(enum.Enum):
    """Why a session ended; the values are labels of ``asheard_calls_total``."""

    COMPLETED = "completed"
    MODEL_FAILED = "model_failed"
    LINK_LOST = "link_lost"
    FAILED = "failed"


class OutletFull(Exception):
    """The gateway does not take what the call has for it, and more than may wait does. The text says
    what; the call ends."""


class Outlet(Protocol):
    """A call's way to its gateway. Nothing here waits."""

    def audio(self, item_id: str, content_index: int, payload: bytes, last: bool) -> None:
        """Give audio to the gateway, in order.

        Raises:
            OutletFull: Too much waits.
            ValueError: It cannot be in a message.
        """
        ...

    def interrupt(self, interrupt: session_service_pb2.Interrupt) -> None:
        """Take back this call's audio that has not left yet, and overtake everything else."""
        ...

    def finished(self, outcome: fact_pb2.CallOutcome.ValueType, detail: str) -> None:
        """The session is over; comes behind all audio."""
        ...


@dataclass(frozen=True, slots=True)
class CallSettings:
    """What all calls of a worker have in common."""

    agent: Agent
    model: str
    realtime_url: str
    key: str | None
    align: str
    connect: Connect
    tools: ToolRunner
    refine: Refine
    metrics: SessionMetrics
    follow: Follow | None = None
    """None: word times are found when a part is there as a whole."""


class _SessionFailed(Exception):
    """The model said something after which the session cannot go on; the text is the reason."""


class Call:
    """One call. :meth:`run` lives as long as it does; the rest is what the link calls.

    Args:
        call_sid: The call, for the log.
        settings: What it shares with others.
        outlet: To the gateway.
        writer: Of its facts.
    """

    # session/kernel.c does what `receive_audio` does for most frames, by way of these slots.
    __slots__ = ("_clock", "_connection", "_frame_forward", "_kept", "__dict__", "__weakref__")

    def __init__(
        self, call_sid: str, settings: CallSettings, outlet: Outlet, writer: FactWriter
    ) -> None:
        self._log = get_log(__name__).bind(call=call_sid)
        self._settings = settings
        self._frame_forward = settings.metrics.frame_forward
        self._outlet = outlet
        self._writer = writer
        self._clock = InputClock()
        self._conversation = Conversation(settings.agent, settings.model, self._clock)
        self._words = CallWords(
            language=settings.agent.language,
            align=settings.align,
            refine=settings.refine,
            follow=settings.follow,
            write=lambda fact: writer.write(words_timed=fact),
            count=lambda result: settings.metrics.refined_word_times.labels(result).inc(),
        )
        self._connection: RealtimeConnection | None = None
        self._kept: deque[tuple[bytes, int, int]] | None = deque()
        self._kept_bytes = 0
        self._tools: set[asyncio.Task[None]] = set()
        self._todo: deque[Output] = deque()
        """What the conversation wants done and is not done yet."""
        self._warned: set[tuple[str, str]] = set()
        self._end_is_written = False
        self._outlet_is_full = False
        self._over = False
        """Nothing may be fed or written any more."""
        self._began = time.monotonic()
        self._stopped_unix_us: int | None = None
        self._speech_started_at = 0.0
        self._outcome: Outcome | None = None
        self._left = asyncio.Event()
        self._transcribed = asyncio.Event()
        self._deadline: asyncio.Timeout | None = None
        self._loop = asyncio.get_running_loop()
        self._crashed: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.Handle | None = None
        self._timer_at = 0.0
        """When that timer is due; uvloop's own handle need not know."""

    # --- what the link calls ----------------------------------------------------------------

    def receive_audio(
        self, payload: bytes, media_ms: int, received_unix_us: int, now_unix_us: int
    ) -> None:
        """The next frame of the caller's.

        Args:
            payload: Base64 of µ-law at 8 kHz, as Twilio sent it.
            media_ms: Twilio's ``media.timestamp``.
            received_unix_us: The wall clock when the gateway had it, in microseconds.
            now_unix_us: The wall clock.
        """
        try:
            size = len(payload)
            if size > MAX_FRAME_BYTES:
                self._settings.metrics.unappended_frames.labels("too_long").inc()
                return
            if self._kept is None:
                self._append(payload, media_ms, received_unix_us, now_unix_us)
                return
            self._kept.append((payload, media_ms, received_unix_us))
            self._kept_bytes += size
            while len(self._kept) > KEPT_FRAMES or self._kept_bytes > KEPT_BYTES:
                self._kept_bytes -= len(self._kept.popleft()[0])
                self._settings.metrics.unappended_frames.labels("overflow").inc()
        except Exception as error:
            self.crash(error)

    def receive_positions(self, fixed: session_service_pb2.PositionsFixed) -> None:
        """How much of some items was played."""
        if self._over:
            return
        with _Guard(self):
            self._conversation.positions_fixed(fixed)
            self._carry_out()

    def crash(self, error: Exception) -> None:
        """Let :meth:`run` raise what was raised elsewhere."""
        if not self._crashed.done() and not self._over:
            self._crashed.set_exception(error)

    def leave(self, outcome: Outcome = Outcome.COMPLETED) -> None:
        """The media stream is over, or the link to it."""
        if not self._left.is_set():
            self._outcome = self._outcome or outcome
            self._left.set()

    # --- its life ---------------------------------------------------------------------------

    async def run(self) -> Outcome:
        """Live through the call; every fact is written when this returns or is cancelled.

        Raises nothing of its own: whatever breaks, in the call or at its end, ends this call.
        """
        reason = "the worker was stopped"
        self._log.info("call started", writer=self._writer.writer)
        try:
            reason = await self._live()
        except Exception as raised:
            # One call's bug is not the other calls' end.
            error = _innermost(raised)
            if isinstance(error, _SessionFailed | OutletFull):
                self._outcome = Outcome.MODEL_FAILED
                reason = str(error)
            else:
                self._outcome = Outcome.FAILED
                reason = f"internal error: {type(error).__name__}"
                self._log.error("call failed by our own fault", exc_info=error)
            failed, detail = fact_pb2.CALL_OUTCOME_MODEL_FAILED, reason
            self._surely("gateway told", lambda: self._outlet.finished(failed, detail))
        finally:
            self._end(reason)
        return self._outcome or Outcome.FAILED

    def _end(self, reason: str) -> None:
        """Whatever came before: nothing goes on, and the last facts are written."""
        outcome = self._outcome or Outcome.FAILED
        failed = outcome is not Outcome.COMPLETED
        self._over = True
        self._kept = None
        self._connection = None
        if self._timer is not None:
            self._timer.cancel()
        self._surely("items", lambda: self._report_items(failed=failed))
        self._surely("words", self._words.close)
        self._surely("last fact", lambda: self._write_end(reason, failed=failed))
        if not self._end_is_written:
            # A conversation that broke may break again; the transcript must learn of its end.
            ended = fact_pb2.SessionEnded(reason=reason, failed=True)
            self._surely("last fact again", lambda: self._writer.write(session_ended=ended))
        if self._crashed.done():
            self._crashed.exception()  # reported already, or too late to matter
        lasted_s = time.monotonic() - self._began
        self._settings.metrics.calls.labels(outcome.value).inc()
        self._settings.metrics.call_duration.observe(lasted_s)
        self._log.info("call ended", outcome=outcome.value, seconds=round(lasted_s, 1))

    def _surely(self, step: str, do: Callable[[], None]) -> None:
        """Take a step of the end; what it raises must not keep the next one from being taken."""
        try:
            do()
        except Exception as error:
            self._log.error("the end of a call is incomplete", step=step, exc_info=error)

    def _report_items(self, *, failed: bool) -> None:
        self._conversation.finish(failed=failed)
        self._carry_out()

    def _write_end(self, reason: str, *, failed: bool) -> None:
        try:
            self._conversation.ended(reason, failed=failed)
        finally:
            self._todo.extend(self._conversation.take())
            while self._todo:
                self._surely("output", lambda: self._do(self._todo.popleft()))

    async def _live(self) -> str:
        """The reason why the session ended."""
        async with asyncio.TaskGroup() as group:
            model = group.create_task(self._talk(), name="realtime socket")
            left = group.create_task(self._left.wait(), name="caller leaves")
            try:
                await self._first_of(model, left)
                if self._crashed.done():
                    self._crashed.result()
                if self._left.is_set():
                    reason = await self._after_caller(model)
                else:
                    reason = await self._after_model(model.result(), left)
                if self._crashed.done():
                    self._crashed.result()
                await self._drain_words()
            finally:
                for task in (model, left, *self._tools):
                    task.cancel()
        return reason

    async def _drain_words(self) -> None:
        try:
            await self._words.drain(WORDS_S)
        except Exception as error:
            # The estimates stand; a call is not failed for its word times.
            self._log.error("word times are incomplete", exc_info=error)

    async def _talk(self) -> str:
        """Open the socket, configure the session, pass on what comes; why that ended."""
        settings = self._settings
        try:
            self._connection = connection = await settings.connect(
                settings.realtime_url, model=settings.model, key=settings.key
            )
        except Unavailable as error:
            return str(error)
        try:
            async with asyncio.timeout(CONFIGURE_S) as self._deadline:
                self._conversation.open()
                self._carry_out()
                closed = await connection.run(self._receive)
        except TimeoutError:
            return f"the model did not answer session.update in {CONFIGURE_S:.0f} s"
        except (OutletFull, _SessionFailed) as error:
            return str(error)
        finally:
            # In a cancelled task too: a closing handshake that nobody waits for is bounded.
            try:
                await connection.close()
            except Exception as error:
                self._log.error("the model's socket did not close", exc_info=error)
                self._surely("socket", connection.abort)
        return closed.explain()

    async def _after_caller(self, model: asyncio.Task[str]) -> str:
        """The caller has left: wait for what is still to be learnt about the call."""
        self._conversation.caller_left(now=time.monotonic())
        self._carry_out()
        if self._conversation.waiting_for_caller and not model.done():
            waiting = asyncio.create_task(self._transcribed.wait(), name="last transcripts")
            ends: set[asyncio.Future[Any]] = {waiting, model, self._crashed}
            try:
                await asyncio.wait(
                    ends, timeout=TRANSCRIPTION_S, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                waiting.cancel()
        self._conversation.finish(failed=False)
        self._carry_out()
        if self._outcome is Outcome.LINK_LOST:
            self._words.position_unknown()
            return "the link to the gateway broke"
        return "the media stream ended"

    async def _after_model(self, reason: str, left: asyncio.Task[bool]) -> str:
        """The model has failed: say so, and let the gateway play what it has."""
        self._outcome = Outcome.MODEL_FAILED
        self._connection = None
        self._kept = None
        self._log.error("the model failed", reason=reason)
        self._conversation.finish(failed=True)
        self._carry_out()
        self._outlet.finished(fact_pb2.CALL_OUTCOME_MODEL_FAILED, reason)
        ends: set[asyncio.Future[Any]] = {left, self._crashed}
        await asyncio.wait(ends, timeout=AFTER_FAILURE_S, return_when=asyncio.FIRST_COMPLETED)
        return reason

    async def _first_of(self, model: asyncio.Task[str], left: asyncio.Task[bool]) -> None:
        """Until the model or the caller ends the conversation."""
        ends: set[asyncio.Future[Any]] = {model, left, self._crashed}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)

    # --- the machinery ----------------------------------------------------------------------

    def _receive(self, data: bytes) -> None:
        """One message of the model's."""
        event = events.decode(data)
        if isinstance(event, events.SpeechStarted):
            self._speech_started_at = time.perf_counter()
        self._conversation.receive(event, now=time.monotonic())
        self._carry_out()
        if self._kept is not None and self._conversation.configured:
            self._begin_audio(self._kept)

    def _begin_audio(self, kept: deque[tuple[bytes, int, int]]) -> None:
        """The session is configured: the caller's audio may go, first what was kept."""
        self._kept = None
        if self._deadline is not None:
            self._deadline.reschedule(None)
            self._deadline = None  # it knows its task, and a task that is cancelled knows us
        self._settings.metrics.open_seconds.observe(time.monotonic() - self._began)
        now_unix_us = time.time_ns() // 1000
        for payload, media_ms, received_unix_us in kept:
            self._append(payload, media_ms, received_unix_us, now_unix_us)

    def _append(
        self, payload: bytes, media_ms: int, received_unix_us: int, now_unix_us: int
    ) -> None:
        """Append a frame to the model's input buffer: all that happens per frame."""
        connection = self._connection
        if connection is None:
            return
        n_bytes = audio_bytes(payload)
        if n_bytes is None:
            self._settings.metrics.unappended_frames.labels("malformed").inc()
            return
        fill_ms = self._clock.receive(n_bytes, media_ms, received_unix_us, now=time.monotonic())
        if fill_ms:
            self._append_silence(fill_ms)
        connection.send(events.append_audio(payload))
        passed = now_unix_us - received_unix_us
        if 0 <= passed <= MAX_APART_US:
            self._frame_forward.observe(passed / 1_000_000)
        else:
            self._frame_forward.leave_out()

    def _append_silence(self, length_ms: int) -> None:
        if self._connection is not None:
            self._connection.send(events.append_audio(silence_payload(length_ms)))
            self._settings.metrics.filled_silence.inc(length_ms / 1000)

    def _carry_out(self) -> None:
        """Do what the conversation wants done, in order; what raises is not done again."""
        todo = self._todo
        todo.extend(self._conversation.take())
        fatal: str | None = None
        while todo:
            output = todo.popleft()
            if isinstance(output, Fatal):
                fatal = fatal or output.reason
            else:
                self._do(output)
        self._arm()
        if not self._conversation.waiting_for_caller:
            self._transcribed.set()
        elif self._transcribed.is_set():
            self._transcribed.clear()
        if fatal is not None:
            raise _SessionFailed(fatal)

    def _do(self, output: Output) -> None:
        match output:
            case ToCaller():
                self._to_caller(output)
            case AudioReceived(item_id, content_index, payload):
                self._words.audio(item_id, content_index, payload)
            case TextReceived(item_id, content_index, delta):
                self._words.text(item_id, content_index, delta)
            case WriteFact(name, body):
                self._writer.write(**{name: body})
                self._end_is_written |= name == "session_ended"
            case ToModel(event):
                if self._connection is not None:
                    self._connection.send(events.encode(event))
            case Interrupt():
                self._interrupt(output)
            case CallerStopped(end_buffer_ms):
                self._stopped_unix_us = self._clock.received_at(end_buffer_ms)
            case CallTool():
                task = asyncio.create_task(self._call_tool(output), name="tool call")
                self._tools.add(task)
                task.add_done_callback(self._tools.discard)
            case PartCut(item_id, content_index, text):
                self._words.cut(item_id, content_index, text)
            case PartGenerated(item_id, content_index, text, complete):
                self._words.generated(item_id, content_index, text, complete=complete)
            case PartPlayed(item_id, content_index):
                self._words.played(item_id, content_index)
            case Noted():
                self._count(output)
            case Fatal():
                pass  # the session is ending

    def _to_caller(self, audio: ToCaller) -> None:
        if self._left.is_set() or self._outlet_is_full:
            return
        try:
            self._outlet.audio(audio.item_id, audio.content_index, audio.payload, audio.last)
        except OutletFull:
            self._outlet_is_full = True  # what follows would be at the wrong place
            raise
        if self._stopped_unix_us is not None and audio.payload:
            now_unix_us = time.time_ns() // 1000
            waited_us = passed_us(self._stopped_unix_us, now_unix_us, MAX_WAITED_US)
            if waited_us is not None:
                self._settings.metrics.first_audio.observe(waited_us / 1_000_000)
            self._stopped_unix_us = None

    def _interrupt(self, interrupt: Interrupt) -> None:
        now_unix_us = time.time_ns() // 1000
        onset_ms = detection_us = None
        worker_us = 0
        if interrupt.onset_buffer_ms is not None:
            onset_ms = self._clock.media_at(interrupt.onset_buffer_ms)
            received_us = self._clock.received_at(interrupt.onset_buffer_ms)
            if received_us is not None:
                detection_us = passed_us(received_us, now_unix_us)
            worker_us = int((time.perf_counter() - self._speech_started_at) * 1_000_000)
        self._outlet.interrupt(
            session_service_pb2.Interrupt(
                interrupt_id=interrupt.interrupt_id,
                onset_ms=onset_ms,
                detection_us=detection_us or 0,
                worker_us=worker_us,
                sent_unix_us=now_unix_us,
            )
        )

    def _count(self, noted: Noted) -> None:
        self._settings.metrics.note(noted)
        match noted.note:
            case Note.ERROR if not faults.is_benign_code(noted.label):
                self._warn_once("the model reported an error", code=noted.label)
            case Note.MALFORMED_EVENT:
                self._warn_once("the model sent an event that cannot be read", type=noted.label)
            case Note.DROPPED:
                self._warn_once("the model sent more than is taken", what=noted.label)
            case Note.SETTING_DIFFERS:
                self._warn_once("the model has another setting than told", setting=noted.label)
            case Note.POSITIONS_LATE:
                self._log.warning("positions of a barge-in are late")

    def _warn_once(self, message: str, **label: str) -> None:
        """One line a call for each label: a model may repeat itself a thousand times."""
        (value,) = label.values()
        if (message, value) not in self._warned:
            self._warned.add((message, value))
            self._log.warning(message, **label)

    async def _call_tool(self, call: CallTool) -> None:
        try:
            result = await self._settings.tools.call(call.name, call.arguments)
        except Exception as error:
            self._log.error("function call failed by our own fault", exc_info=error)
            result = FAILED
        with _Guard(self):
            self._settings.metrics.tool_calls.labels(result.outcome).inc()
            self._settings.metrics.tool_duration.observe(result.duration_ms / 1000)
            if not result.succeeded:
                name = call.name if self._settings.tools.knows(call.name) else "unknown"
                self._log.warning("function call failed", tool=name, outcome=result.outcome)
            self._writer.write(
                tool_returned=fact_pb2.ToolReturned(
                    tool_call_id=call.call_id,
                    succeeded=result.succeeded,
                    duration_ms=result.duration_ms,
                )
            )
            self._conversation.tool_returned(call.call_id, result.output, now=time.monotonic())
            self._carry_out()

    def _arm(self) -> None:
        """Keep one timer, for the earliest wish; one that is early finds nothing due, arms anew."""
        if self._over:
            return
        due = self._conversation.next_timer()
        stalled_at = self._clock.next_timer()
        if stalled_at is not None and (due is None or stalled_at < due):
            due = stalled_at
        if due is None or due == float("inf"):
            return
        loop = self._loop
        when = loop.time() + max(0.0, due - time.monotonic())
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer = loop.call_at(when, self._wake)
        self._timer_at = when

    def _wake(self) -> None:
        self._timer = None
        if self._over:
            return
        with _Guard(self):
            now = time.monotonic()
            self._conversation.timer(now=now)
            fill_ms = self._clock.stalled(now=now)
            if fill_ms:
                self._append_silence(fill_ms)
            self._carry_out()


class _Guard:
    """Turns what is raised in it into the end of this call, not of whoever called."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if not isinstance(error, Exception):
            return False
        self._call.crash(error)
        return True


def _innermost(error: Exception) -> Exception:
    """What was raised, out of the groups that task groups wrap it in."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
