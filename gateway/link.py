"""One link: the gRPC stream to one session worker, with all the calls that the worker has.

gRPC's price is per message, not per byte, so a message is a batch:

* Audio on an idle link goes at once; on a busy one at most every 1 ms. With many calls it comes in
  turns (:mod:`gateway.turns`), each of which is a message.
* Control (an open, a position) goes at once, before the audio of its batch. Only the end of a call
  goes behind the call's audio, in a later message.
* Each call has a lane of its own, bounded: a worker that does not take audio loses the oldest of
  that call, counted, and no other's. Lanes take turns.

There is no task per call or frame, and no queue on the usual way: a call's frame goes straight into
the batch that leaves next, and into the call's lane only when that batch is full. One reader per
link hands out what comes. A broken link is the loss of its calls; it reconnects for new ones.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import ParamSpec, Protocol

import grpc
import grpc.aio

from asheard.v1 import fact_pb2, session_service_pb2, session_service_pb2_grpc
from gateway.metrics import GatewayMetrics
from gateway.placement import WorkerLoad
from runtime.credentials import Credentials
from runtime.log import get_log
from runtime.rpc import LINK, channel

log = get_log(__name__)

FLUSH_S = 0.001
"""How far apart the messages of audio are at the least. The price is per message, and so each frame of
ten calls is not one; but 99 % of their frames stay below 3 ms."""

KEPT_FRAMES = 250
"""Caller audio kept per call, 5 s: a worker that stalls for longer would answer what was said
long ago."""

BATCH_FRAMES = 1000
"""The most frames in a message, some 250 KB, so that control never waits behind a large one. A core
that has fallen behind catches up by larger messages, which cost less per frame."""

TURN_FRAMES = 10
"""The most frames of one call in a batch while others wait."""

OPEN_ANSWER_S = 2.0
"""How long a worker may take to accept a call. It does so at once; a caller waits in silence."""

FIRST_REPORT_S = 5.0
"""How long a fresh link may take to bring its first load report, which is sent at once."""

REFUSED = grpc.StatusCode.UNAUTHENTICATED.name
"""The worker does not know this gateway for one of ours."""

_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 5.0

Stream = grpc.aio.StreamStreamCall[
    session_service_pb2.LinkRequest, session_service_pb2.LinkResponse
]

Arguments = ParamSpec("Arguments")

Frame = tuple[bytes, int, int]
"""Of the caller: payload, media_ms, received_unix_us."""


class LaneListener(Protocol):
    """What a call wants to hear from its session worker. None of it may block."""

    def session_accepted(self, session_writer: str) -> None:
        """A worker took the call; ``session_writer`` names it in the transcript's facts."""

    def session_refused(self, reason: str) -> None:
        """No worker took the call. Nothing follows."""

    def session_lost(self, reason: str) -> None:
        """The link broke. Nothing follows."""

    def session_finished(self, finished: session_service_pb2.CallFinished) -> None:
        """The session is over; what was sent may be played to its end."""

    def agent_audio(self, item_id: str, content_index: int, payload: bytes, last: bool) -> None:
        """Audio to be played: base64 text of µ-law; nothing more of this part when ``last``."""

    def interrupted(self, interrupt: session_service_pb2.Interrupt) -> None:
        """The caller speaks: stop playback."""


class Batch:
    """Caller audio of the next message, in the columns of ``CallerAudio``.

    Args:
        begun: To be called ahead of a first frame: there is something to send now.
    """

    # gateway/kernel.c does what `add` does, in these slots.
    __slots__ = ("begun", "calls", "media_ms", "payloads", "received_unix_us")

    def __init__(self, begun: Callable[[], None]) -> None:
        self.begun = begun
        self.calls: list[int] = []
        self.payloads: list[bytes] = []
        self.media_ms: list[int] = []
        self.received_unix_us: list[int] = []

    def has_room_for(self, call: int) -> bool:
        """Whether a frame of the call may be added: not when it comes in heaps that others would
        have to wait behind."""
        calls = self.calls
        if not calls:
            return True
        if calls[-1] == call and calls[-TURN_FRAMES:].count(call) == TURN_FRAMES:
            return False
        return len(calls) < BATCH_FRAMES

    def add(self, call: int, payload: bytes, media_ms: int, received_unix_us: int) -> None:
        """Add a frame at the end."""
        self.calls.append(call)
        self.payloads.append(payload)
        self.media_ms.append(media_ms)
        self.received_unix_us.append(received_unix_us)

    def clear(self) -> None:
        """Begin anew."""
        self.calls.clear()
        self.payloads.clear()
        self.media_ms.clear()
        self.received_unix_us.clear()

    def write_to(self, audio: session_service_pb2.CallerAudio) -> None:
        """Fill a message in place: one given to another's constructor is encoded and decoded."""
        audio.call.extend(self.calls)
        audio.payload.extend(self.payloads)
        audio.media_ms.extend(self.media_ms)
        audio.received_unix_us.extend(self.received_unix_us)


class Lane:
    """One call's way to its session worker, whichever that comes to be.

    Audio given before a worker took the call waits here, bounded like all audio.
    """

    # gateway/kernel.c does what `send_audio` does while there is a batch with room.
    __slots__ = (
        "accepted",
        "answer_timer",
        "audio",
        "batch",
        "call_sid",
        "early",
        "handle",
        "link",
        "listener",
        "outcome",
        "queued",
        "stream_sid",
        "tried",
    )

    def __init__(self, listener: LaneListener, call_sid: str, stream_sid: str) -> None:
        self.listener = listener
        self.call_sid = call_sid
        self.stream_sid = stream_sid
        self.tried: set[Link] = set()
        """Links that refused the call."""
        self.link: Link | None = None
        self.handle = 0
        self.accepted = False
        self.batch: Batch | None = None
        """Where frames go at once. None: they wait in `audio`, or nobody takes them."""
        self.audio: deque[Frame] = deque()
        """Frames that cannot go into the next message, oldest first."""
        self.early: list[session_service_pb2.GatewayControl] = []
        """Control from before a worker took the call: a pressed key, at most a few."""
        self.queued = False
        """Whether the link has it in its round."""
        self.outcome: fact_pb2.CallOutcome.ValueType | None = None
        """Why the call ended; None while it goes on."""
        self.answer_timer: asyncio.TimerHandle | None = None

    def send_audio(self, payload: bytes, media_ms: int, received_unix_us: int) -> bool:
        """Pass a frame of the caller on; False when the oldest waiting one was dropped for it."""
        batch = self.batch
        if batch is not None and batch.has_room_for(self.handle):
            if not batch.calls:
                batch.begun()
            batch.add(self.handle, payload, media_ms, received_unix_us)
            return True
        room = len(self.audio) < KEPT_FRAMES
        if not room:
            self.audio.popleft()
        self.audio.append((payload, media_ms, received_unix_us))
        if not self.queued and self.accepted and self.link is not None:
            self.link.enqueue(self)
        return room

    def send(self, control: session_service_pb2.GatewayControl) -> None:
        """Send control, ahead of audio; what comes before a worker took the call waits for it."""
        if self.accepted and self.link is not None:
            control.call = self.handle
            self.link.post(control)
        elif self.outcome is None:
            self.early.append(control)

    def close(self, outcome: fact_pb2.CallOutcome.ValueType) -> None:
        """The call is over: say so behind its last audio. The listener hears nothing more."""
        if self.outcome is not None:
            return
        self.outcome = outcome
        self.batch = None
        del self.listener  # so that both are freed at once, and not by the garbage collector
        self.stop_answer_timer()
        if self.link is not None:
            self.link.release(self)

    def stop_answer_timer(self) -> None:
        """The answer came, or nobody waits for it any more."""
        if self.answer_timer is not None:
            self.answer_timer.cancel()
            self.answer_timer = None


class Link:
    """The link to one worker.

    Args:
        target: ``host:port`` of the worker.
        metrics: Where to count.
        on_refused: Called with a lane that this worker did not take and why; finds another.
        credentials: What the gateway proves itself with; None: nothing.
        name: What the worker's certificate must be for, when it is not the host in ``target``.
    """

    def __init__(
        self,
        target: str,
        metrics: GatewayMetrics,
        on_refused: Callable[[Lane, str], None],
        credentials: Credentials | None = None,
        name: str | None = None,
    ) -> None:
        self.target = target
        self._credentials = credentials or Credentials()
        self._name = name
        self.load: WorkerLoad | None = None
        """The newest report. None while the link is down."""
        self.retired = False
        """No new calls, and no reconnecting: the worker is not wanted any more."""
        self._metrics = metrics
        self._on_refused = on_refused
        self._lanes: dict[int, Lane] = {}
        self._last_handle = 0
        self._control: list[session_service_pb2.GatewayControl] = []
        self._round: deque[Lane] = deque()
        self.batch = Batch(self.flush_soon)
        """Where frames go at once. When the worker does not take audio it is full soon, and then it
        is the lanes that are bounded, each for itself; what is in the batch by then is kept."""
        self._wake = asyncio.Event()
        self._flush_timer: asyncio.TimerHandle | None = None
        """Set while audio waits for its turn. At most one: each would make a message of its own."""
        self._flushed_at_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._finished = asyncio.Event()
        self._said: str | None = None
        """Why the worker could not be linked, as last logged: a status of gRPC's."""

    @property
    def calls(self) -> int:
        """How many calls it carries."""
        return len(self._lanes)

    # -- what calls do ---------------------------------------------------------------------

    def open(self, lane: Lane) -> None:
        """Offer a call to the worker. The lane's listener or ``on_refused`` hears the answer."""
        if self.load is None:
            raise AssertionError("only a link that is up is chosen")
        self._last_handle += 1
        lane.link, lane.handle, lane.accepted = self, self._last_handle, False
        self._lanes[lane.handle] = lane
        self.load = replace(self.load, given_since=self.load.given_since + 1)
        self.post(
            session_service_pb2.GatewayControl(
                call=lane.handle,
                open_call=session_service_pb2.OpenCall(
                    call_sid=lane.call_sid, stream_sid=lane.stream_sid
                ),
            )
        )
        lane.answer_timer = self._loop.call_later(OPEN_ANSWER_S, self._unanswered, lane)

    def post(self, control: session_service_pb2.GatewayControl) -> None:
        """Send control at once."""
        self._control.append(control)
        self._wake.set()

    def enqueue(self, lane: Lane) -> None:
        """Put a lane into the round: it has audio, or an end to tell, behind what left before."""
        lane.queued = True
        lane.batch = None
        self._round.append(lane)
        self.flush_soon()

    def flush_soon(self) -> None:
        """Send audio when its time has come, at once on an idle link."""
        if self._flush_timer is not None or self._wake.is_set():
            return
        due_s = self._flushed_at_s + FLUSH_S
        if due_s <= self._loop.time():
            self._wake.set()
        else:
            self._flush_timer = self._loop.call_at(due_s, self._wake.set)

    def release(self, lane: Lane) -> None:
        """Say that a call is over, once its audio is out."""
        if lane.outcome is None:
            raise AssertionError("a lane is released by closing it")
        if self._lanes.pop(lane.handle, None) is None or lane.queued:
            return
        if self.batch.calls:
            self.enqueue(lane)  # some of that audio may be the call's
        else:
            self._post_close(lane.handle, lane.outcome)

    def retire(self) -> None:
        """Take no new calls, and part from the worker when the last call is over."""
        self.retired = True
        self._wake.set()

    async def wait_finished(self) -> None:
        """Wait until a retired link has said its last word and the worker has heard it."""
        await self._finished.wait()

    # -- the stream ------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the link up until it is retired and empty, or the task is cancelled."""
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                reason = await self._serve()
            except (grpc.aio.AioRpcError, TimeoutError, asyncio.InvalidStateError) as error:
                reason = _reason(error)
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # gRPC swallows a cancellation that comes while it opens the stream.
                raise asyncio.CancelledError
            if self.load is not None:
                retry_s = _FIRST_RETRY_S
            if reason.startswith(REFUSED):
                retry_s = _LAST_RETRY_S  # until somebody mends a secret
            self._lose(reason)
            if self.retired:
                break
            # Half of it random, so that many gateways do not come back in step.
            await asyncio.sleep(retry_s * random.uniform(0.5, 1.0))
            retry_s = min(2 * retry_s, _LAST_RETRY_S)
        self._finished.set()

    async def _serve(self) -> str:
        """Run one connection; why it ended."""
        # A new channel each time: an old one would keep to its own, much longer backoff.
        connecting = channel(self.target, LINK, credentials=self._credentials, name=self._name)
        async with connecting as connection:
            stream = session_service_pb2_grpc.SessionServiceStub(connection).Link(
                metadata=self._credentials.metadata
            )
            writer = asyncio.create_task(self._write(stream), name=f"link to {self.target}")
            try:
                async with asyncio.timeout(FIRST_REPORT_S):
                    response = await stream.read()
                while isinstance(response, session_service_pb2.LinkResponse):  # else EOF
                    self._dispatch(response)
                    response = await stream.read()
            finally:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)
                stream.cancel()
        return "the worker closed the link"

    async def _write(self, stream: Stream) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                if self._flush_timer is not None:
                    self._flush_timer.cancel()
                    self._flush_timer = None
                request = self._next_message()
                if request is not None:
                    self._flushed_at_s = self._loop.time()
                    self._metrics.link_messages.inc()
                    await stream.write(request)
                elif self.retired and not self._lanes:
                    await stream.done_writing()  # the worker ends the stream when it has read all
                    return
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the stream is over: the reader learns it too, and says why

    def _next_message(self) -> session_service_pb2.LinkRequest | None:
        """Take the next message out of control, batch and lanes; None: there is nothing to say."""
        batch, waiting = self.batch, self._round
        if not (self._control or batch.calls or waiting):
            return None
        control = self._control
        self._control = []
        while waiting and len(batch.calls) < BATCH_FRAMES:
            lane = waiting.popleft()
            audio = lane.audio
            for _ in range(min(len(audio), BATCH_FRAMES - len(batch.calls), TURN_FRAMES)):
                batch.add(lane.handle, *audio.popleft())
            if audio:
                waiting.append(lane)
                continue
            lane.queued = False
            if lane.outcome is None:
                lane.batch = batch
            else:
                self._post_close(lane.handle, lane.outcome)
        if waiting or self.retired:
            self._wake.set()
        request = session_service_pb2.LinkRequest(control=control)
        if batch.calls:
            batch.write_to(request.caller_audio)
            batch.clear()
        return request

    def _post_close(self, handle: int, outcome: fact_pb2.CallOutcome.ValueType) -> None:
        self.post(
            session_service_pb2.GatewayControl(
                call=handle, close_call=session_service_pb2.CloseCall(outcome=outcome)
            )
        )

    def _dispatch(self, response: session_service_pb2.LinkResponse) -> None:
        for control in response.control:
            if control.WhichOneof("body") == "load_report":
                self._take_report(control.load_report)
                continue
            lane = self._lanes.get(control.call)
            if lane is not None:  # else the call ended while the message was under way
                self._guarded(lane, self._control_for, lane, control)
        for audio in response.agent_audio:
            lane = self._lanes.get(audio.call)
            if lane is not None:
                self._guarded(
                    lane,
                    lane.listener.agent_audio,
                    audio.item_id,
                    audio.content_index,
                    audio.payload,
                    audio.last,
                )

    def _control_for(self, lane: Lane, control: session_service_pb2.SessionControl) -> None:
        match control.WhichOneof("body"):
            case "call_accepted":
                lane.stop_answer_timer()
                lane.accepted = True
                for early in lane.early:
                    lane.send(early)
                lane.early.clear()
                if not lane.audio:
                    lane.batch = self.batch
                elif not lane.queued:
                    self.enqueue(lane)
                lane.listener.session_accepted(control.call_accepted.session_writer)
            case "call_refused":
                refused = control.call_refused
                reason = session_service_pb2.RefusalReason.Name(refused.reason)
                self._refuse(lane, f"{reason.removeprefix('REFUSAL_REASON_')} {refused.detail}")
            case "interrupt":
                lane.listener.interrupted(control.interrupt)
            case "call_finished":
                lane.listener.session_finished(control.call_finished)
            case _:
                log.warning("unknown control from a session worker", target=self.target)

    def _guarded(
        self, lane: Lane, action: Callable[Arguments, None], *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> None:  # fmt: skip
        """A bug that one call meets ends that call, not the link with all the others."""
        try:
            action(*args, **kwargs)
        except Exception:
            log.exception("fault while handling a session worker's message", call=lane.call_sid)
            if lane.outcome is None:
                lane.listener.session_lost("a fault of the gateway")

    def _take_report(self, report: session_service_pb2.LoadReport) -> None:
        if self.load is None:
            log.info("session worker linked", target=self.target, max_calls=report.max_calls)
            self._said = None
            self._metrics.links_up.inc()
        self.load = WorkerLoad(
            active_calls=report.active_calls,
            max_calls=max(1, report.max_calls),
            event_loop_lag_us=report.event_loop_lag_us,
            draining=report.draining,
        )

    def _refuse(self, lane: Lane, reason: str) -> None:
        lane.stop_answer_timer()
        self._lanes.pop(lane.handle, None)
        lane.link = None
        lane.tried.add(self)
        self._on_refused(lane, reason)

    def _unanswered(self, lane: Lane) -> None:
        # It may still take the call in its own time: tell it that there is none any more.
        self._post_close(lane.handle, fact_pb2.CALL_OUTCOME_REFUSED)
        self._refuse(lane, "no answer")

    def _lose(self, reason: str) -> None:
        if self.load is not None:
            self._metrics.links_up.dec()
        if self.retired:
            log.info("session worker parted from", target=self.target)
        elif self.load is not None:
            self._metrics.links_lost.inc()
            log.warning("session worker lost", target=self.target, reason=reason, calls=self.calls)
        elif (status := reason.partition(":")[0]) != self._said:
            self._said = status
            if status == REFUSED:
                log.error("session worker refuses this gateway", target=self.target, reason=reason)
            else:
                log.warning("session worker unreachable", target=self.target, reason=reason)
        lanes = list(self._lanes.values())
        self.load = None
        self._lanes.clear()
        self._control.clear()
        for waiting in self._round:
            waiting.queued = False
        self._round.clear()
        self.batch.clear()
        for lane in lanes:
            lane.link = lane.batch = None
            if lane.accepted:
                lane.accepted = False
                self._guarded(lane, lane.listener.session_lost, reason)
            else:
                self._guarded(lane, self._refuse, lane, reason)


def _reason(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    if isinstance(error, TimeoutError):
        return "no load report"
    return str(error)
