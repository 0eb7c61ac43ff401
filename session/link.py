"""One gateway's stream: reads, writes, and knows whose frame is whose.

An idle link sends at once; a busy one waits until 20 ms have passed since its last message, unless
there is something that does not wait (:mod:`session.outbox`).

What one call raises, while it is opened, served, ended or written about, ends that call and never
the link: calls have barriers of their own, and after them comes :meth:`Link.drop`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from asheard.v1 import fact_pb2, session_service_pb2
from runtime.log import get_log
from session.admission import exhausted
from session.call import Call, Outcome
from session.calls import FAULT, Calls
from session.outbox import Outbox, Outlet

log = get_log(__name__)

BUSY_BATCH_S = 0.02
"""A busy link's messages are this far apart, unless there is something that does not wait."""

LOAD_REPORT_S = 1.0
"""How often a gateway hears of the load, beside each change of it."""

_FAULTS = (Exception, asyncio.CancelledError)
"""What a call's code may raise where no task runs it: there a cancellation is a fault like any
other."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A call of this link."""

    call: Call
    call_sid: str
    stream_sid: str
    task: asyncio.Task[None]


class Link:
    """One gateway's stream, with the calls that it has given to this worker.

    Args:
        calls: All calls of this worker.
        stream_stopped: Is told when Twilio told this gateway that a stream is over, which may be a
            stream of another gateway.
    """

    def __init__(
        self, calls: Calls, stream_stopped: Callable[[session_service_pb2.StreamStopped], None]
    ) -> None:
        self._calls = calls
        self._metrics = calls.metrics
        self._stream_stopped = stream_stopped
        self._held: dict[int, _Held] = {}
        """By handle, the gateway's number of a call."""
        self._inputs: dict[int, Callable[[bytes, int, int, float], bool]] = {}
        """Where the frames of each of them go: looked up fifty times a second."""
        self._said_uneven = False
        self._posted = asyncio.Event()
        """Something is in the outbox."""
        self._due = asyncio.Event()
        """It does not wait for a busy link's next message, or has waited."""
        self._outbox = Outbox(self._on_post)

    async def run(
        self,
        requests: AsyncIterator[session_service_pb2.LinkRequest],
        write: Callable[[session_service_pb2.LinkResponse], Awaitable[None]],
    ) -> None:
        """Serve until the gateway ends the stream, and end its calls."""
        try:
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(self._write(write), name="link writer")
                reporting = group.create_task(self._report(), name="load reports")
                try:
                    async for request in requests:
                        self.receive(request)
                finally:
                    writing.cancel()
                    reporting.cancel()
        finally:
            self._lose()

    def report_load(self) -> None:
        """Tell the gateway how much this worker has to do."""
        self._outbox.report(self._calls.load_report())

    def tell_stopped(self, stopped: session_service_pb2.StreamStopped) -> None:
        """Tell the gateway of a stream that is over, if it has it."""
        for handle, held in list(self._held.items()):
            if held.call_sid != stopped.call_sid:
                continue
            if stopped.stream_sid in ("", held.stream_sid):
                try:
                    self._outbox.control(handle, stream_stopped=stopped)
                except _FAULTS as error:
                    self.drop(handle, error)

    def drop(self, handle: int, error: BaseException) -> None:
        """A call has raised what its own barriers should have kept: end it without its help."""
        held = self._forget(handle)
        self._metrics.link_faults.labels("call").inc()
        log.error(
            "fault of one call, which is dropped",
            call=held.call_sid if held is not None else "",
            exc_info=error,
        )
        if held is not None:
            held.task.cancel()  # its last facts are still written
            self._outbox.purge(handle)
            Outlet(self._outbox, handle).finished(fact_pb2.CALL_OUTCOME_MODEL_FAILED, FAULT)

    def _lose(self) -> None:
        """The stream is over: so are its calls."""
        for handle, held in list(self._held.items()):
            try:
                held.call.leave(Outcome.LINK_LOST)
            except _FAULTS as error:
                self.drop(handle, error)
        self._held.clear()
        self._inputs.clear()

    def _forget(self, handle: int) -> _Held | None:
        self._inputs.pop(handle, None)
        return self._held.pop(handle, None)

    # --- to the gateway ---------------------------------------------------------------------

    def _on_post(self, urgent: bool) -> None:
        self._posted.set()
        if urgent:
            self._due.set()

    async def _write(
        self, write: Callable[[session_service_pb2.LinkResponse], Awaitable[None]]
    ) -> None:
        outbox = self._outbox
        loop = asyncio.get_running_loop()
        sent_at = 0.0
        while True:
            await self._posted.wait()
            if not self._due.is_set():
                turn = loop.call_at(sent_at + BUSY_BATCH_S, self._due.set)
                await self._due.wait()
                turn.cancel()
            self._due.clear()
            try:
                taken = outbox.take()
            except _FAULTS:
                self._metrics.link_faults.labels("message").inc()
                log.exception("fault in making a message, which is lost")
                sent_at = loop.time()  # the next one waits, so that this is no endless turn
                continue
            if outbox.urgent:
                self._due.set()
            elif not outbox.waiting:
                self._posted.clear()
            for handle, error in taken.faults:
                self.drop(handle, error)
            if taken.message is not None:
                sent_at = loop.time()
                await write(taken.message)

    async def _report(self) -> None:
        while True:
            self.report_load()
            await asyncio.sleep(LOAD_REPORT_S)

    # --- from the gateway -------------------------------------------------------------------

    def receive(self, request: session_service_pb2.LinkRequest) -> None:
        """Take a message. What a call raises ends that call; the rest of the message is handled."""
        if request.control:  # as a rule there is none, and to iterate that takes longer
            for control in request.control:
                try:
                    self._receive_control(control)
                except _FAULTS as error:
                    self.drop(control.call, error)
        self._receive_audio(request.caller_audio)

    def _receive_audio(self, audio: session_service_pb2.CallerAudio) -> None:
        """Give callers' frames to their calls: fifty a second of each."""
        # A list of a protobuf column is made at once; iterating it asks for one value at a time.
        handles, payloads = audio.call[:], audio.payload[:]
        media_ms, received_unix_us = audio.media_ms[:], audio.received_unix_us[:]
        n_frames = len(handles)
        if not n_frames == len(payloads) == len(media_ms) == len(received_unix_us):
            self._uneven(max(n_frames, len(payloads)))
            return
        now_unix_us, now = time.time_ns() // 1000, time.monotonic()
        oldest_unix_us: int | None = None
        input_of = self._inputs.get
        for handle, payload, at_ms, received_us in zip(
            handles, payloads, media_ms, received_unix_us, strict=True
        ):
            receive = input_of(handle)
            if receive is None:
                continue  # the call was refused, or is over
            try:
                sent = receive(payload, at_ms, received_us, now)
            except _FAULTS as error:
                self._crash(handle, error)
                continue
            if sent and oldest_unix_us is None:  # a message has them in the order of receipt
                oldest_unix_us = received_us
        if oldest_unix_us is not None:
            self._metrics.forwarded(oldest_unix_us, now_unix_us)

    def _crash(self, handle: int, error: BaseException) -> None:
        """A frame could not be taken: its call ends, by its own means if it still can."""
        held = self._held.get(handle)
        if held is None or not isinstance(error, Exception):
            self.drop(handle, error)
            return
        try:
            held.call.crash(error)
        except _FAULTS as second:
            self.drop(handle, second)

    def _uneven(self, n_frames: int) -> None:
        """Columns that are not of one length: nobody knows whose frame is whose, so all are
        dropped, and the link with its calls goes on."""
        self._metrics.link_faults.labels("message").inc()
        self._metrics.unappended_frames.labels("uneven").inc(n_frames)
        if not self._said_uneven:
            self._said_uneven = True
            log.error("caller_audio dropped: its lists must be of one length", frames=n_frames)

    def _receive_control(self, control: session_service_pb2.GatewayControl) -> None:
        kind = control.WhichOneof("body")
        if kind == "open_call":
            self._open(control.call, control.open_call)
            return
        if kind == "stream_stopped":
            self._stream_stopped(control.stream_stopped)
            return
        held = self._held.get(control.call)
        if held is None:
            return  # of a call that was refused, or is over
        if kind == "positions_fixed":
            held.call.receive_positions(control.positions_fixed)
        elif kind == "close_call":
            held.call.leave()
            self._forget(control.call)
        # key_pressed: that it happened is the gateway's fact; the model is not told which it was.

    def _open(self, handle: int, opened: session_service_pb2.OpenCall) -> None:
        if handle in self._held or not handle:
            log.warning("gateway reused a handle", call=opened.call_sid, handle=handle)
            refusal = exhausted(f"handle {handle} is in use")
            self._outbox.control(handle, call_refused=refusal)
            return
        if (refused := self._calls.refusal()) is not None:
            self._metrics.calls.labels("refused").inc()
            log.warning("call refused", call=opened.call_sid, reason=refused.detail)
            self._outbox.control(handle, call_refused=refused)
            return
        try:
            call, task = self._calls.start(self._outbox, handle, opened)
        except _FAULTS:
            self._metrics.link_faults.labels("open").inc()
            self._metrics.calls.labels("refused").inc()
            log.exception("fault in opening a call, which is refused", call=opened.call_sid)
            self._outbox.control(handle, call_refused=exhausted(FAULT))
            return
        self._held[handle] = _Held(call, opened.call_sid, opened.stream_sid, task)
        self._inputs[handle] = call.input.receive
