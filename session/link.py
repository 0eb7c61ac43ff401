"""The link to the gateways: one stream per gateway, many calls, batches.

gRPC's price is per message and not per byte, so a message carries what many calls have. An idle
link sends at once; a busy one waits until 20 ms have passed since its last message. What a caller
would notice does not wait: interrupts and other control, and the first audio of an item. The audio
behind it is generated faster than it is played, so that it waits anyway, here or at Twilio.

The worker's admission is here too: it takes at most ``max_calls``, none while its event loop is
late, none while it drains, and says so in load reports, so that gateways need not ask in vain.

What one call raises, while it is opened, served, ended or written about, ends that call and never
the link: calls have barriers of their own, and behind them stands :meth:`_Link.drop`.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter, deque
from collections.abc import AsyncIterator
from typing import NamedTuple

import grpc
import grpc.aio

from asheard.v1 import fact_pb2, session_service_pb2, session_service_pb2_grpc
from runtime.facts import FactOutbox, FactWriter
from runtime.log import get_log
from runtime.metrics import LoopLag
from session.call import Call, CallSettings, Outcome, OutletFull
from session.kernel import kernel

log = get_log(__name__)

BUSY_BATCH_S = 0.02
"""A busy link's messages are this far apart, unless there is something that does not wait."""

BATCH_BYTES = 256 * 1024
"""The most audio in a message: some 24 s of speech. More waits for the next, so that an interrupt
never queues behind a megabyte."""

PIECE_BYTES = 64 * 1024
"""The most audio in an ``AgentAudio``, 6 s; a longer piece is cut. A multiple of four, since base64
text may be cut between groups of four."""

KEPT_BYTES = 8 * 1024 * 1024
"""The most audio of a call that waits for its gateway. Ten minutes, all that Twilio would keep, are
6.4 MB; a call that has more waiting ends."""

MAX_CONTROLS = 256
"""The most control of a call that waits for its gateway, interrupts as a rule: beyond it a call ends
too."""

CONTROL_BYTES = 1024 * 1024
"""The most control in a message. More waits for the next, and audio behind it."""

MAX_ITEM_ID_BYTES = 1024
"""The longest item id that is passed on; the API's have some thirty letters."""

MAX_DETAIL_CHARS = 500
"""The most of a text for the gateway's log."""

LOAD_REPORT_S = 1.0

FAULT = "internal error"
"""What a gateway is told of a fault of ours; the log says more."""

MAX_CONTENT_INDEX = 2**31 - 1
_MAX_UINT32 = 2**32 - 1

_FAULTS = (Exception, asyncio.CancelledError)
"""What a call's code may raise where no task runs it: there a cancellation is a fault like any other."""

_AnyControl = (
    session_service_pb2.CallAccepted
    | session_service_pb2.CallRefused
    | session_service_pb2.Interrupt
    | session_service_pb2.CallFinished
    | session_service_pb2.LoadReport
    | session_service_pb2.StreamStopped
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

    Audio is fair among calls: each message takes from all calls in turn. What waits is bounded per
    call, in bytes and in number, for a gateway that takes nothing: then the call ends, since none
    of it may be lost. What a message cannot hold is refused when it is posted, to its own call.
    """

    def __init__(self) -> None:
        self._control: list[session_service_pb2.SessionControl] = []
        self._report: session_service_pb2.LoadReport | None = None
        self._audio: dict[int, deque[AudioPiece]] = {}
        self._audio_bytes: dict[int, int] = {}
        self._said: Counter[int] = Counter()
        """How much control of each call waits."""
        self._behind: list[tuple[int, session_service_pb2.SessionControl]] = []
        self.faults: list[tuple[int, Exception]] = []
        """Calls of which something could not be put into a message, to be taken from here."""
        self.posted = asyncio.Event()
        """Something is there."""
        self.due = asyncio.Event()
        """Something is there that does not wait, or has waited."""

    def report(self, load: session_service_pb2.LoadReport) -> None:
        """Post a load report, instead of one that has not left yet."""
        self._report = load
        self.posted.set()
        self.due.set()

    def control(self, call: int, **body: _AnyControl) -> None:
        """Post control; it overtakes all audio.

        Raises:
            OutletFull: Too much of the call's waits already.
        """
        message = _control(call, body)
        if self._said[call] >= MAX_CONTROLS:
            raise OutletFull(f"the gateway did not take {MAX_CONTROLS} messages of the call")
        self._said[call] += 1
        self._control.append(message)
        self.posted.set()
        self.due.set()

    def audio(self, piece: AudioPiece, *, urgent: bool) -> None:
        """Post audio, in order within a call.

        Raises:
            OutletFull: Too much of the call's waits already.
        """
        waiting = self._audio_bytes.get(piece.call, 0) + len(piece.payload)
        if waiting > KEPT_BYTES:
            raise OutletFull(f"the gateway did not take {KEPT_BYTES >> 20} MiB of the call's audio")
        self._audio_bytes[piece.call] = waiting
        self._audio.setdefault(piece.call, deque()).append(piece)
        self.posted.set()
        if urgent:
            self.due.set()

    def purge(self, call: int) -> None:
        """Take back a call's audio."""
        self._audio.pop(call, None)
        self._audio_bytes.pop(call, None)

    def behind_audio(self, call: int, **body: _AnyControl) -> None:
        """Post control that comes in a later message than all audio of the call so far."""
        self._behind.append((call, _control(call, body)))
        self.posted.set()

    def take(self) -> session_service_pb2.LinkResponse | None:
        """The next message; None when there is nothing."""
        still_behind: list[tuple[int, session_service_pb2.SessionControl]] = []
        for call, message in self._behind:
            if call in self._audio:
                still_behind.append((call, message))
            else:
                self._control.append(message)
        self._behind = still_behind
        control = self._take_control()
        self.due.clear()
        if self._control:  # it goes ahead of audio
            self.due.set()
            return session_service_pb2.LinkResponse(control=control)
        pieces = self._take_audio()
        if not self._audio and not self._behind:
            self.posted.clear()
        if not control and not pieces:
            return None
        response = session_service_pb2.LinkResponse(control=control)
        # In place: a message given to another's constructor is encoded and decoded for it.
        for piece in pieces:
            try:
                response.agent_audio.add(
                    call=piece.call,
                    item_id=piece.item_id,
                    content_index=piece.content_index,
                    payload=piece.payload,
                    last=piece.last,
                )
            except Exception as error:  # it should not have got this far
                self.faults.append((piece.call, error))
        return response

    def _take_control(self) -> list[session_service_pb2.SessionControl]:
        """The load report, and as much control as a message takes."""
        control, size = self._control, 0
        taken = len(control)
        for number, message in enumerate(control):
            size += message.ByteSize()
            if size > CONTROL_BYTES and number:
                taken = number
                break
        self._control = control[taken:]
        if not self._control:
            self._said.clear()
        del control[taken:]
        if self._report is not None:
            control.append(_control(0, {"load_report": self._report}))
            self._report = None
        return control

    def _take_audio(self) -> list[AudioPiece]:
        taken: list[AudioPiece] = []
        size = 0
        while self._audio and size < BATCH_BYTES:
            for call in list(self._audio):
                queue = self._audio[call]
                piece = queue.popleft()
                taken.append(piece)
                size += len(piece.payload)
                if queue:
                    self._audio_bytes[call] -= len(piece.payload)
                else:
                    self.purge(call)
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
        urgent = item_id != self._item_id
        if urgent and len(item_id.encode()) > MAX_ITEM_ID_BYTES:
            raise ValueError(f"an item id of {len(item_id)} letters cannot be passed on")
        if not 0 <= content_index <= MAX_CONTENT_INDEX:
            raise ValueError(f"content_index {content_index} cannot be passed on")
        cut = 0
        while len(payload) - cut > PIECE_BYTES:
            self._post(item_id, content_index, payload[cut : cut + PIECE_BYTES], False, urgent)
            cut += PIECE_BYTES
        self._post(item_id, content_index, payload[cut:] if cut else payload, last, urgent)
        self._item_id = item_id

    def _post(
        self, item_id: str, content_index: int, payload: bytes, last: bool, urgent: bool
    ) -> None:
        piece = AudioPiece(self._handle, item_id, content_index, payload, last)
        self._outbox.audio(piece, urgent=urgent)

    def interrupt(self, interrupt: session_service_pb2.Interrupt) -> None:
        self._outbox.purge(self._handle)
        self._outbox.control(self._handle, interrupt=interrupt)

    def finished(self, outcome: fact_pb2.CallOutcome.ValueType, detail: str) -> None:
        self._outbox.behind_audio(
            self._handle,
            call_finished=session_service_pb2.CallFinished(
                outcome=outcome, detail=_readable(detail)
            ),
        )


def _readable(detail: str) -> str:
    """A text as a message can hold it: not too long, and nothing that is no character."""
    return detail[:MAX_DETAIL_CHARS].encode(errors="replace").decode()


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
            # A worker that was halted for an hour and more is as late as the field can say.
            event_loop_lag_us=min(int(self._lag.recent_s * 1_000_000), _MAX_UINT32),
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

    def count_fault(self, where: str) -> None:
        """An exception was kept from the link; ``where`` it would have come from."""
        self._settings.metrics.link_faults.labels(where).inc()

    def count_uneven(self, frames: int) -> None:
        """A message's frames could not be told apart."""
        self._settings.metrics.unappended_frames.labels("uneven").inc(frames)

    def start(
        self, outbox: Outbox, handle: int, opened: session_service_pb2.OpenCall
    ) -> tuple[Call, asyncio.Task[None]]:
        """Take a call, whole or not at all.

        Raises:
            Exception: It cannot be begun. Nothing of it is left.
        """
        writer = self._facts.writer(opened.call_sid, f"session/{uuid.uuid4()}")
        outlet = CallOutlet(outbox, handle)
        call = Call(opened.call_sid, self._settings, outlet, writer)
        accepted = session_service_pb2.CallAccepted(session_writer=writer.writer)
        running = self._run(call, outlet, writer)
        try:
            task = self._calls.create_task(running, name=f"call {opened.call_sid}")
        except BaseException:
            running.close()
            raise
        outbox.control(handle, call_accepted=accepted)  # before the task says its first word
        self._tasks.add(task)
        self._idle.clear()
        task.add_done_callback(self._ended)
        self._settings.metrics.active_calls.set(self.active_calls)
        self._report_load()
        return call, task

    def stream_stopped(self, stopped: session_service_pb2.StreamStopped) -> None:
        """Twilio told some gateway that a stream is over: pass it on to the one that has it."""
        for link in self._links:
            link.tell_stopped(stopped)

    async def _run(self, call: Call, outlet: CallOutlet, writer: FactWriter) -> None:
        """A call's life. What it raises is its own end, not the other calls'."""
        try:
            await call.run()
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            cancelled = isinstance(error, asyncio.CancelledError)
            if cancelled and task is not None and task.cancelling():
                raise  # somebody meant it
            self.count_fault("call")
            self._settings.metrics.calls.labels(Outcome.FAILED.value).inc()
            log.exception("fault in the end of a call, which is dropped")
            try:
                outlet.finished(fact_pb2.CALL_OUTCOME_MODEL_FAILED, FAULT)
            except Exception:
                log.exception("the gateway is not told that a call was dropped")
        finally:
            if not writer.closed:
                # A call that failed in its own end: its transcript must not wait for it for ever.
                ended = fact_pb2.SessionEnded(reason=FAULT, failed=True)
                try:
                    writer.write(session_ended=ended)
                except Exception:
                    log.exception("the last fact of a call is not written")

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._settings.metrics.active_calls.set(self.active_calls)
        if not self._tasks:
            self._idle.set()
        self._report_load()

    def _report_load(self) -> None:
        for link in self._links:
            link.outbox.report(self.load_report())


class _Held(NamedTuple):
    """What the link knows of a call beside the call itself."""

    call_sid: str
    stream_sid: str
    task: asyncio.Task[None]


class _Link:
    """One gateway's stream."""

    def __init__(self, service: SessionService) -> None:
        self._service = service
        self._calls: dict[int, Call] = {}
        self._held: dict[int, _Held] = {}
        self._append = kernel()
        self._said_uneven = False
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
            try:
                async for request in requests:
                    self._receive(request)
            finally:
                writing.cancel()
                reporting.cancel()

    def lose(self) -> None:
        """The stream is over: so are its calls."""
        for handle, call in list(self._calls.items()):
            try:
                call.leave(Outcome.LINK_LOST)
            except _FAULTS as error:
                self.drop(handle, error)
        self._calls.clear()
        self._held.clear()

    def drop(self, handle: int, error: BaseException) -> None:
        """A call has raised what its own barriers should have kept: end it without its help."""
        held = self._held.pop(handle, None)
        self._calls.pop(handle, None)
        self._service.count_fault("call")
        log.error(
            "fault of one call, which is dropped",
            call=held.call_sid if held is not None else "",
            exc_info=error,
        )
        if held is not None:
            held.task.cancel()  # its last facts are still written
            self.outbox.purge(handle)
            CallOutlet(self.outbox, handle).finished(fact_pb2.CALL_OUTCOME_MODEL_FAILED, FAULT)

    def tell_stopped(self, stopped: session_service_pb2.StreamStopped) -> None:
        """Tell the gateway of a stream that is over, if it has it."""
        for handle, held in list(self._held.items()):
            if held.call_sid != stopped.call_sid:
                continue
            if stopped.stream_sid in ("", held.stream_sid):
                try:
                    self.outbox.control(handle, stream_stopped=stopped)
                except _FAULTS as error:
                    self.drop(handle, error)

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
            try:
                response = outbox.take()
            except _FAULTS:
                self._service.count_fault("message")
                log.exception("fault in making a message, which is lost")
                continue
            while outbox.faults:
                self.drop(*outbox.faults.pop())
            if response is not None:
                sent_at = loop.time()
                await context.write(response)

    async def _report(self) -> None:
        while True:
            self.outbox.report(self._service.load_report())
            await asyncio.sleep(LOAD_REPORT_S)

    def _receive(self, request: session_service_pb2.LinkRequest) -> None:
        for control in request.control:
            try:
                self._control(control)
            except _FAULTS as error:
                self.drop(control.call, error)
        audio = request.caller_audio
        calls, payloads = audio.call, audio.payload
        media_ms, received_unix_us = audio.media_ms, audio.received_unix_us
        if not len(calls) == len(payloads) == len(media_ms) == len(received_unix_us):
            self._uneven(max(len(calls), len(payloads)))
            return
        now_unix_us = time.time_ns() // 1000
        if self._append is not None:
            now = time.monotonic()
            faults = self._append(
                self._calls, calls, payloads, media_ms, received_unix_us, now_unix_us, now
            )
            for handle, fault in faults or ():
                self.drop(handle, fault)
            return
        for handle, payload, at_ms, received_us in zip(
            calls, payloads, media_ms, received_unix_us, strict=True
        ):
            call = self._calls.get(handle)
            if call is not None:
                try:
                    call.receive_audio(payload, at_ms, received_us, now_unix_us)
                except _FAULTS as error:
                    self.drop(handle, error)

    def _uneven(self, frames: int) -> None:
        """Columns that are not of one length: nobody knows whose frame is whose, so all are dropped,
        and the link with its calls goes on."""
        self._service.count_fault("message")
        self._service.count_uneven(frames)
        if not self._said_uneven:
            self._said_uneven = True
            log.error("caller_audio dropped: its lists must be of one length", frames=frames)

    def _control(self, control: session_service_pb2.GatewayControl) -> None:
        kind = control.WhichOneof("body")
        if kind == "open_call":
            self._open(control.call, control.open_call)
            return
        if kind == "stream_stopped":
            self._service.stream_stopped(control.stream_stopped)
            return
        call = self._calls.get(control.call)
        if call is None:
            return  # of a call that was refused, or is over
        if kind == "positions_fixed":
            call.receive_positions(control.positions_fixed)
        elif kind == "close_call":
            call.leave()
            self._calls.pop(control.call, None)
            self._held.pop(control.call, None)
        # key_pressed: that it happened is the gateway's fact; the model is not told which it was.

    def _open(self, handle: int, opened: session_service_pb2.OpenCall) -> None:
        if handle in self._calls or not handle:
            log.warning("gateway reused a handle", call=opened.call_sid, handle=handle)
            self._refuse(handle, f"handle {handle} is in use")
            return
        refusal = self._service.refusal()
        if refusal is not None:
            self._service.count_refused()
            log.warning("call refused", call=opened.call_sid, reason=refusal.detail)
            self.outbox.control(handle, call_refused=refusal)
            return
        try:
            call, task = self._service.start(self.outbox, handle, opened)
        except _FAULTS:
            self._service.count_fault("open")
            self._service.count_refused()
            log.exception("fault in opening a call, which is refused", call=opened.call_sid)
            self._refuse(handle, FAULT)
            return
        self._calls[handle] = call
        self._held[handle] = _Held(opened.call_sid, opened.stream_sid, task)

    def _refuse(self, handle: int, detail: str) -> None:
        self.outbox.control(
            handle,
            call_refused=session_service_pb2.CallRefused(
                reason=session_service_pb2.REFUSAL_REASON_RESOURCE_EXHAUSTED, detail=detail
            ),
        )
