"""The life of one call: from its acceptance to its last fact.

It begins and ends everything that the call consists of, and decides nothing about the conversation.
What comes from the link comes as plain calls; what they raise ends this call alone. The caller's
frames, fifty a second, go from the link to :attr:`Call.input` without passing here.

| phase      | what happens                                   | ends with             | then       |
|------------|------------------------------------------------|-----------------------|------------|
| opening    | the socket is opened; caller's audio is kept   | session is configured | talking    |
| talking    | audio and events flow                          | the caller leaves     | last words |
| last words | what is still to be transcribed is waited for  | it came, or 3 s       | over       |
| failed     | the gateway is told; what it plays counts      | the caller leaves     | over       |
| over       | nothing is fed; the last fact is written       |                       |            |

When the model fails before the caller leaves, or never answered, the call is *failed*: the caller is
told so in words of ours, after whatever the gateway still plays, and how much of all that was heard
belongs to the record. Whatever our own code raises leads to *over*. Before the last fact, word times
that are under way are waited for, 3 s at most.
"""

from __future__ import annotations

import asyncio
import enum
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from asheard.v1 import fact_pb2, session_service_pb2
from runtime.errors import Unavailable
from runtime.facts import FactWriter
from runtime.log import get_log
from session.agent import Agent
from session.alarm import Alarm
from session.caller_input import CallerInput
from session.latency import TurnLatency
from session.metrics import SessionMetrics
from session.notices import Notice, NoticeBook
from session.outbox import Outlet, OutletFull
from session.output_handler import OutputHandler
from session.realtime import codec, events
from session.realtime.connection import Connect, RealtimeConnection
from session.realtime.conversation import Conversation
from session.realtime.input_clock import InputClock
from session.realtime.outputs import CallTool, CancelTool, Fatal, Output
from session.tools import ToolCalls, ToolResult, ToolRunner
from session.words import CallWords, Follow, Refine

CONFIGURE_S = 10.0
"""Deadline of the answer to ``session.update``; it takes one round trip."""

TRANSCRIPTION_S = 3.0
"""How long the transcripts of the caller's last words are waited for after the call."""

WORDS_S = 3.0
"""How long refined word times are waited for after the call; they take a second."""

AFTER_FAILURE_S = 600.0
"""How long the gateway may play what it has after the model failed: Twilio's buffer holds ten
minutes."""


TAG_CHARS = 8
"""Of a writer's random name, in the ids of our own items: a call has five sessions at most."""


class Outcome(enum.Enum):
    """Why a session ended; the values are labels of ``asheard_calls_total``."""

    COMPLETED = "completed"
    MODEL_FAILED = "model_failed"
    LINK_LOST = "link_lost"
    FAILED = "failed"


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
    notices: NoticeBook
    """What can be said without the model."""
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

    def __init__(
        self, call_sid: str, settings: CallSettings, outlet: Outlet, writer: FactWriter
    ) -> None:
        self._log = get_log(__name__).bind(call=call_sid)
        self._settings = settings
        self._metrics = metrics = settings.metrics
        self._outlet = outlet
        self._writer = writer
        self._clock = InputClock()
        self.input = CallerInput(
            self._clock,
            on_drop=lambda reason: metrics.unappended_frames.labels(reason).inc(),
            on_fill=lambda length_ms: metrics.filled_silence.inc(length_ms / 1000),
        )
        """Where the link gives the caller's frames; for what that raises there is :meth:`crash`."""
        self._conversation = Conversation(
            settings.agent,
            settings.model,
            self._clock,
            random.random,
            notices=settings.notices,
            tag=writer.writer.rpartition("/")[2][:TAG_CHARS],
        )
        self._words = CallWords(
            language=settings.agent.language,
            align=settings.align,
            refine=settings.refine,
            follow=settings.follow,
            write=_words_timed(writer, self._conversation),
            count=lambda result: metrics.refined_word_times.labels(result).inc(),
        )
        self._latency = TurnLatency(self._clock)
        self._outputs = OutputHandler(
            outlet=outlet,
            writer=writer,
            words=self._words,
            latency=self._latency,
            metrics=metrics,
            log=self._log,
        )
        self._todo: deque[Output] = deque()
        """What the conversation wants done and is not done yet."""
        self._tools = ToolCalls(settings.tools, self._log)
        self._over = False
        """Nothing may be fed or written any more."""
        self._began = time.monotonic()
        self._outcome: Outcome | None = None
        self._left = asyncio.Event()
        self._transcribed = asyncio.Event()
        self._deadline: asyncio.Timeout | None = None
        self._crashed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._given_up: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._alarm = Alarm()
        self._armed_for: float | None = None
        """The wish that the alarm was told last: as a rule a message does not change it."""

    # --- what the link calls ----------------------------------------------------------------

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

    def give_up(self, reason: str) -> None:
        """End the session though its socket stands: the conversation cannot go on."""
        if not self._given_up.done():
            self._given_up.set_result(reason)

    def leave(self, outcome: Outcome = Outcome.COMPLETED) -> None:
        """The media stream is over, or the link to it."""
        if not self._left.is_set():
            self._outcome = self._outcome or outcome
            self._outputs.audible = False
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
        self.input.stop()
        self._outputs.connection = None
        self._alarm.cancel()
        self._surely("items", lambda: self._report_items(failed=failed))
        self._surely("words", self._words.close)
        self._surely("last fact", lambda: self._write_end(reason, failed=failed))
        if not self._outputs.end_is_written:
            # A conversation that broke may break again; the transcript must learn of its end.
            ended = fact_pb2.SessionEnded(reason=reason, failed=True)
            self._surely("last fact again", lambda: self._writer.write(session_ended=ended))
        if self._crashed.done():
            self._crashed.exception()  # reported already, or too late to matter
        lasted_s = time.monotonic() - self._began
        self._metrics.calls.labels(outcome.value).inc()
        self._metrics.call_duration.observe(lasted_s)
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
        async with self._tools, asyncio.TaskGroup() as group:
            model = group.create_task(self._talk(), name="realtime socket")
            left = group.create_task(self._left.wait(), name="caller leaves")
            try:
                ends: set[asyncio.Future[Any]] = {model, left, self._given_up, self._crashed}
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                if self._crashed.done():
                    self._crashed.result()
                if self._left.is_set():
                    reason = await self._after_caller(model)
                else:
                    given_up = self._given_up if self._given_up.done() else model
                    model.cancel()
                    reason = await self._after_model(given_up.result(), left)
                if self._crashed.done():
                    self._crashed.result()
                await self._drain_words()
            finally:
                for task in (model, left):
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
            connection = await settings.connect(
                settings.realtime_url, model=settings.model, key=settings.key
            )
        except Unavailable as error:
            return str(error)
        self._outputs.connection = connection
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
        """The model has failed: say so to all, and let the gateway play what it has."""
        self._outcome = Outcome.MODEL_FAILED
        self._outputs.connection = None
        self.input.stop()
        self._log.error("the model failed", reason=reason)
        self._conversation.model_left(now=time.monotonic())
        told = self._conversation.say(Notice.GOODBYE) > 0 and self._outputs.audible
        self._carry_out()
        self._outlet.finished(fact_pb2.CALL_OUTCOME_MODEL_FAILED, reason, told=told)
        ends: set[asyncio.Future[Any]] = {left, self._crashed}
        await asyncio.wait(ends, timeout=AFTER_FAILURE_S, return_when=asyncio.FIRST_COMPLETED)
        return reason

    # --- what the model says, and what is to be done about it -------------------------------

    def _receive(self, data: bytes) -> None:
        """Take a message from the model."""
        connection = self._outputs.connection
        if connection is None:
            return  # given up, while this was on its way
        event = codec.decode(data)
        # By the exact type: that a struct is no instance of another takes longer to find out.
        if type(event) is events.SpeechStarted:
            self._latency.speech_started(time.perf_counter())
        self._conversation.receive(event, now=time.monotonic())
        self._carry_out()
        if self.input.keeping and self._conversation.configured:
            self._begin_audio(connection)

    def _begin_audio(self, connection: RealtimeConnection) -> None:
        """The session is configured: the caller's audio may go, first what was kept."""
        if self._deadline is not None:
            self._deadline.reschedule(None)
            self._deadline = None  # it knows its task, and a task that is cancelled knows us
        now = time.monotonic()
        self._metrics.open_seconds.observe(now - self._began)
        oldest_unix_us = self.input.begin(connection.send, now)
        if oldest_unix_us is not None:
            self._metrics.forwarded(oldest_unix_us, time.time_ns() // 1000)

    def _carry_out(self) -> None:
        """Do what the conversation wants done, in order; what raises is not done again."""
        todo = self._todo
        todo.extend(self._conversation.take())
        fatal: str | None = None
        while todo:
            output = todo.popleft()
            if type(output) is Fatal:
                fatal = fatal or output.reason
            else:
                self._do(output)
        self._arm()
        if self._left.is_set():  # before, nobody waits for the last transcripts
            if not self._conversation.waiting_for_caller:
                self._transcribed.set()
            elif self._transcribed.is_set():
                self._transcribed.clear()
        if fatal is not None:
            raise _SessionFailed(fatal)

    def _do(self, output: Output) -> None:
        if type(output) is CallTool:
            self._tools.start(output, self._tool_returned)
        elif type(output) is CancelTool:
            result = self._tools.cancel(output.call_id)
            if result is not None:
                self._note_tool(output.call_id, result)
        else:
            self._outputs.do(output)

    def _tool_returned(self, call: CallTool, result: ToolResult) -> None:
        with _Guard(self):
            self._note_tool(call.call_id, result)
            self._conversation.tool_returned(call.call_id, result.output, now=time.monotonic())
            self._carry_out()

    def _note_tool(self, call_id: str, result: ToolResult) -> None:
        self._metrics.tool_calls.labels(result.outcome).inc()
        self._metrics.tool_duration.observe(result.duration_ms / 1000)
        self._writer.write(
            tool_returned=fact_pb2.ToolReturned(
                tool_call_id=call_id,
                succeeded=result.succeeded,
                duration_ms=result.duration_ms,
            )
        )

    def _arm(self) -> None:
        """Be woken at the earliest time that the conversation or the clock asks for."""
        if self._over:
            return
        due = self._conversation.next_timer()
        stalled_at = self._clock.next_timer()
        if stalled_at is not None and (due is None or stalled_at < due):
            due = stalled_at
        if due is not None and due != self._armed_for:
            self._armed_for = due
            self._alarm.set(due, self._wake)

    def _wake(self) -> None:
        self._armed_for = None
        if self._over:
            return
        with _Guard(self):
            now = time.monotonic()
            self._conversation.timer(now=now)
            self.input.fill_stall(now)
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
        if isinstance(error, _SessionFailed):
            self._call.give_up(str(error))
        else:
            self._call.crash(error)
        return True


def _innermost(error: Exception) -> Exception:
    """What was raised, out of the groups that task groups wrap it in."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _words_timed(
    writer: FactWriter, conversation: Conversation
) -> Callable[[fact_pb2.WordsTimed], None]:
    """Takes when words sound: a transcript needs it where they were cut off, and who goes on there."""

    def take(fact: fact_pb2.WordsTimed) -> None:
        writer.write(words_timed=fact)
        conversation.words_timed(fact)

    return take
