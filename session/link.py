"""The link to the gateways: one stream per gateway, many calls, batches.

gRPC's price is per message and not per byte, so a message carries what many calls have. An idle
link sends at once; a busy one waits until 20 ms have passed since its last message. What a caller
would notice does not wait: interrupts and other control, and the first audio of an item. The audio
behind it is generated faster than it is played, so that it waits anyway, here or at Twilio.

The worker's admission is here too: it takes at most ``max_calls``, none while its event loop is
late, none while it drains, and says so in load reports, so that gateways need not ask in vain.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator
from typing import NamedTuple

import grpc
import grpc.aio

from asheard.v1 import fact_pb2, session_service_pb2, session_service_pb2_grpc
from runtime.facts import FactOutbox
from runtime.log import get_log
from runtime.metrics import LoopLag
from session.call import Call, CallSettings, Outcome
from session.kernel import kernel

log = get_log(__name__)

BUSY_BATCH_S = 0.02
"""A busy link's messages are this far apart, unless there is something that does not wait."""

BATCH_BYTES = 256 * 1024
"""The most audio in a message: some 24 s of speech. More waits for the next, so that an interrupt
never queues behind a megabyte."""

LOAD_REPORT_S = 1.0

_AnyControl = (
    session_service_pb2.CallAccepted
    | session_service_pb2.CallRefused
    | session_service_pb2.Interrupt
    | session_service_pb2.CallFinished
    | session_service_pb2.LoadReport
)


class AudioPiece(NamedTuple):
    """What an ``AgentAudio`` says."""

    call: int
    item_id: str
    content_index: int
    payload: bytes
    last: bool


class Outbox:
    """What waits for the next message to one gateway.

    Audio is fair among calls: each message takes from all calls in turn. It is not bounded here:
    what a model generates is bounded by its responses, and none of it may be lost.
    """

    def __init__(self) -> None:
        self._control: list[session_service_pb2.SessionControl] = []
        self._audio: dict[int, deque[AudioPiece]] = {}
        self._behind: list[tuple[int, session_service_pb2.SessionControl]] = []
        self.posted = asyncio.Event()
        """Something is there."""
        self.due = asyncio.Event()
        """Something is there that does not wait, or has waited."""

    def control(self, call: int, **body: _AnyControl) -> None:
        """Post control; it overtakes all audio."""
        self._control.append(_control(call, body))
        self.posted.set()
        self.due.set()

    def audio(self, piece: AudioPiece, *, urgent: bool) -> None:
        """Post audio, in order within a call."""
        self._audio.setdefault(piece.call, deque()).append(piece)
        self.posted.set()
        if urgent:
            self.due.set()

    def purge(self, call: int) -> None:
        """Take back a call's audio."""
        self._audio.pop(call, None)

    def behind_audio(self, call: int, **body: _AnyControl) -> None:
        """Post control that comes in a later message than all audio of the call so far."""
        self._behind.append((call, _control(call, body)))
        self.posted.set()

    def take(self) -> session_service_pb2.LinkResponse | None:
        """The next message; None when there is nothing."""
        control = self._control
        self._control = []
        still_behind: list[tuple[int, session_service_pb2.SessionControl]] = []
        for call, message in self._behind:
            if call in self._audio:
                still_behind.append((call, message))
            else:
                control.append(message)
        self._behind = still_behind
        pieces = self._take_audio()
        self.due.clear()
        if not self._audio and not self._behind:
            self.posted.clear()
        if not control and not pieces:
            return None
        response = session_service_pb2.LinkResponse(control=control)
        # In place: a message given to another's constructor is encoded and decoded for it.
        for piece in pieces:
            response.agent_audio.add(
                call=piece.call,
                item_id=piece.item_id,
                content_index=piece.content_index,
                payload=piece.payload,
                last=piece.last,
            )
        return response

    def _take_audio(self) -> list[AudioPiece]:
        taken: list[AudioPiece] = []
        size = 0
        while self._audio and size < BATCH_BYTES:
            for call in list(self._audio):
                queue = self._audio[call]
                taken.append(queue.popleft())
                size += len(taken[-1].payload)
                if not queue:
                    del self._audio[call]
        return taken


def _control(call: int, body: dict[str, _AnyControl]) -> session_service_pb2.SessionControl:
    if len(body) != 1:
        raise AssertionError("a control has exactly one body")
    return session_service_pb2.SessionControl(call=call, **body)  # type: ignore[arg-type]


class CallOutlet:
    """One call's way into the outbox of its link."""

    def __init__(self, outbox: Outbox, handle: int) -> None:
        self._outbox = outbox
        self._handle = handle
        self._item_id = ""
        """Whose audio was posted last."""

    def audio(self, item_id: str, content_index: int, payload: bytes, last: bool) -> None:
        self._outbox.audio(
            AudioPiece(self._handle, item_id, content_index, payload, last),
            urgent=item_id != self._item_id,
        )
        self._item_id = item_id

    def interrupt(self, interrupt: session_service_pb2.Interrupt) -> None:
        self._outbox.purge(self._handle)
        self._outbox.control(self._handle, interrupt=interrupt)

    def finished(self, outcome: fact_pb2.CallOutcome.ValueType, detail: str) -> None:
        self._outbox.behind_audio(
            self._handle,
            call_finished=session_service_pb2.CallFinished(outcome=outcome, detail=detail),
        )


class SessionService(session_service_pb2_grpc.SessionServiceServicer):
    """Serves links, admits calls, and holds the calls' tasks.

    Args:
        settings: What calls have in common.
        facts: Where their facts go.
        lag: For the load reports and admission.
        max_calls: How many to take at most.
        max_lag_s: No new ones while the event loop is usually later than this.
        calls: Holds the calls: they may outlive their link by some seconds.
    """

    def __init__(
        self,
        settings: CallSettings,
        facts: FactOutbox,
        lag: LoopLag,
        *,
        max_calls: int,
        max_lag_s: float,
        calls: asyncio.TaskGroup,
    ) -> None:
        self._settings = settings
        self._facts = facts
        self._lag = lag
        self._max_calls = max_calls
        self._max_lag_s = max_lag_s
        self._calls = calls
        self._tasks: set[asyncio.Task[None]] = set()
        self._links: set[_Link] = set()
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def active_calls(self) -> int:
        """Calls under way, those included whose last facts are being written."""
        return len(self._tasks)

    @property
    def full(self) -> bool:
        """There is no room for another call."""
        return self.active_calls >= self._max_calls

    def drain(self) -> None:
        """Take no new calls from now on."""
        self._draining = True
        self._report_load()

    async def idle(self) -> None:
        """Wait until no call is left."""
        await self._idle.wait()

    def cancel_calls(self) -> None:
        """End all calls at once; their last facts are still written."""
        for task in self._tasks:
            task.cancel()

    async def Link(  # type: ignore[override]  # the stubs know generators, not read and write
        self,
        request_iterator: AsyncIterator[session_service_pb2.LinkRequest],
        context: grpc.aio.ServicerContext[
            session_service_pb2.LinkRequest, session_service_pb2.LinkResponse
        ],
    ) -> None:
        """Serve one gateway until its stream ends."""
        link = _Link(self)
        self._links.add(link)
        log.info("gateway connected", peer=context.peer())
        try:
            await link.run(request_iterator, context)
        finally:
            self._links.discard(link)
            link.lose()
            log.info("gateway disconnected", peer=context.peer())

    def load_report(self) -> session_service_pb2.LoadReport:
        """How much this worker has to do."""
        return session_service_pb2.LoadReport(
            active_calls=self.active_calls,
            max_calls=self._max_calls,
            event_loop_lag_us=int(self._lag.recent_s * 1_000_000),
            draining=self._draining,
        )

    def refusal(self) -> session_service_pb2.CallRefused | None:
        """Why no call can be taken now; None when one can."""
        if self._draining:
            return session_service_pb2.CallRefused(
                reason=session_service_pb2.REFUSAL_REASON_DRAINING,
                detail="the worker is shutting down",
            )
        if self.full:
            return session_service_pb2.CallRefused(
                reason=session_service_pb2.REFUSAL_REASON_RESOURCE_EXHAUSTED,
                detail=f"the worker has {self._max_calls} calls, its most",
            )
        lag_s = self._lag.usual_s
        if lag_s > self._max_lag_s:
            return session_service_pb2.CallRefused(
                reason=session_service_pb2.REFUSAL_REASON_RESOURCE_EXHAUSTED,
                detail=f"the worker is short of CPU: its event loop is {lag_s * 1000:.0f} ms late",
            )
        return None

    def count_refused(self) -> None:
        """A call was not taken."""
        self._settings.metrics.calls.labels("refused").inc()

    def start(self, outbox: Outbox, handle: int, opened: session_service_pb2.OpenCall) -> Call:
        """Take a call."""
        writer = self._facts.writer(opened.call_sid, f"session/{uuid.uuid4()}")
        call = Call(opened.call_sid, self._settings, CallOutlet(outbox, handle), writer)
        outbox.control(
            handle, call_accepted=session_service_pb2.CallAccepted(session_writer=writer.writer)
        )
        task = self._calls.create_task(self._run(call), name=f"call {opened.call_sid}")
        self._tasks.add(task)
        self._idle.clear()
        task.add_done_callback(self._ended)
        self._settings.metrics.active_calls.set(self.active_calls)
        self._report_load()
        return call

    async def _run(self, call: Call) -> None:
        await call.run()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._settings.metrics.active_calls.set(self.active_calls)
        if not self._tasks:
            self._idle.set()
        self._report_load()

    def _report_load(self) -> None:
        for link in self._links:
            link.outbox.control(0, load_report=self.load_report())


class _Link:
    """One gateway's stream."""

    def __init__(self, service: SessionService) -> None:
        self._service = service
        self._calls: dict[int, Call] = {}
        self._append = kernel()
        self.outbox = Outbox()

    async def run(
        self,
        requests: AsyncIterator[session_service_pb2.LinkRequest],
        context: grpc.aio.ServicerContext[
            session_service_pb2.LinkRequest, session_service_pb2.LinkResponse
        ],
    ) -> None:
        """Until the gateway ends the stream."""
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(self._write(context), name="link writer")
            reporting = group.create_task(self._report(), name="load reports")
            even = True
            try:
                async for request in requests:
                    even = self._receive(request)
                    if not even:
                        break
            finally:
                writing.cancel()
                reporting.cancel()
        if not even:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                "caller_audio: its lists must be of one length",
            )

    def lose(self) -> None:
        """The stream is over: so are its calls."""
        for call in self._calls.values():
            call.leave(Outcome.LINK_LOST)
        self._calls.clear()

    async def _write(
        self,
        context: grpc.aio.ServicerContext[
            session_service_pb2.LinkRequest, session_service_pb2.LinkResponse
        ],
    ) -> None:
        outbox = self.outbox
        loop = asyncio.get_running_loop()
        sent_at = 0.0
        while True:
            await outbox.posted.wait()
            if not outbox.due.is_set():
                turn = loop.call_at(sent_at + BUSY_BATCH_S, outbox.due.set)
                await outbox.due.wait()
                turn.cancel()
            response = outbox.take()
            if response is not None:
                sent_at = loop.time()
                await context.write(response)

    async def _report(self) -> None:
        while True:
            self.outbox.control(0, load_report=self._service.load_report())
            await asyncio.sleep(LOAD_REPORT_S)

    def _receive(self, request: session_service_pb2.LinkRequest) -> bool:
        """False when the columns of its audio are not of one length."""
        for control in request.control:
            self._control(control)
        audio = request.caller_audio
        calls, payloads = audio.call, audio.payload
        media_ms, received_unix_us = audio.media_ms, audio.received_unix_us
        if not len(calls) == len(payloads) == len(media_ms) == len(received_unix_us):
            return False
        now_unix_us = time.time_ns() // 1000
        if self._append is not None:
            now = time.monotonic()
            self._append(self._calls, calls, payloads, media_ms, received_unix_us, now_unix_us, now)
            return True
        for handle, payload, at_ms, received_us in zip(
            calls, payloads, media_ms, received_unix_us, strict=True
        ):
            call = self._calls.get(handle)
            if call is not None:
                call.receive_audio(payload, at_ms, received_us, now_unix_us)
        return True

    def _control(self, control: session_service_pb2.GatewayControl) -> None:
        kind = control.WhichOneof("body")
        if kind == "open_call":
            self._open(control.call, control.open_call)
            return
        call = self._calls.get(control.call)
        if call is None:
            return  # of a call that was refused, or is over
        if kind == "positions_fixed":
            call.receive_positions(control.positions_fixed)
        elif kind == "close_call":
            del self._calls[control.call]
            call.leave()
        # key_pressed: that it happened is the gateway's fact; the model is not told which it was.

    def _open(self, handle: int, opened: session_service_pb2.OpenCall) -> None:
        if handle in self._calls or not handle:
            log.warning("gateway reused a handle", call=opened.call_sid, handle=handle)
            self.outbox.control(
                handle,
                call_refused=session_service_pb2.CallRefused(
                    reason=session_service_pb2.REFUSAL_REASON_RESOURCE_EXHAUSTED,
                    detail=f"handle {handle} is in use",
                ),
            )
            return
        refusal = self._service.refusal()
        if refusal is not None:
            self._service.count_refused()
            log.warning("call refused", call=opened.call_sid, reason=refusal.detail)
            self.outbox.control(handle, call_refused=refusal)
            return
        self._calls[handle] = self._service.start(self.outbox, handle, opened)
