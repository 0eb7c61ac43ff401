"""One link: the gRPC stream to one session worker, with all the calls that the worker has.

gRPC's price is per message, not per byte, so a message is a batch:

* Audio on an idle link goes at once; on a busy one at most every 1 ms. With many calls it comes in
  turns (:mod:`gateway.turns`), each of which is a message.
* Control (an open, a position) goes at once, before the audio of its batch. Only the end of a call
  goes behind the call's audio, in a later message.
* Each call has a lane of its own, bounded: a worker that does not take audio loses the oldest of
  that call, counted, and no other's. Lanes take turns.
* Messages are bounded in bytes too, whatever calls send; what is beyond goes into the next one.

There is no task per call or frame, and no queue on the usual way: a call's frame goes straight into
the batch that leaves next, and into the call's lane only when that batch is full. One reader per
link hands out what comes. A broken link is the loss of its calls; it reconnects for new ones.

Everything that is called in a call goes through :func:`in_call`: what it raises ends that call, and
when its end raises too the call is dropped all the same. Neither reaches the link.
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
from gateway.barrier import FAULTS, guarded, report
from gateway.instant import Instant, now
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

KEPT_BYTES = 64 * 1024
"""The same in base64 text, 6 s, for frames that are longer than Twilio's 20 ms."""

MAX_FRAME_BYTES = KEPT_BYTES
"""The longest frame that is passed on at all. Twilio's have 216."""

DIRECT_BYTES = 2048
"""The longest frame that goes straight into the batch, 190 ms: what waits there is bounded by their
number. Longer ones take their call's lane, which is bounded in bytes. (The compiled way puts there what
one read of a socket holds, 16 KiB at most.)"""

BATCH_FRAMES = 1000
"""The most frames in a message, some 250 KB, so that control never waits behind a large one. A core
that has fallen behind catches up by larger messages, which cost less per frame."""

MESSAGE_BYTES = 1024 * 1024
"""Beyond this a message gets no more audio and no more control: a quarter of a second of a slow
network, and far below the 16 MiB at which gRPC would break the link."""

MAX_CONTROLS = 256
"""Control of one call that may wait, for a message or for a worker: keys that are pressed by a
machine. More of it is dropped."""

MAX_CONTROL_BYTES = 4 * MESSAGE_BYTES
"""The largest control; positions of some ten thousand items at once have less."""

MAX_ANNOUNCED = 10_000
"""Stopped streams that wait to be told to one worker: minutes of a busy number's webhooks."""

TURN_FRAMES = 10
"""The most frames of one call in a batch while others wait."""

OPEN_ANSWER_S = 2.0
"""How long a worker may take to accept a call. It does so at once; a caller waits in silence."""

FIRST_REPORT_S = 5.0
"""How long a fresh link may take to bring its first load report, which is sent at once."""

REFUSED = grpc.StatusCode.UNAUTHENTICATED.name
"""The worker does not know this gateway for one of ours."""

REFUSAL_REASONS = {
    value: name.removeprefix("REFUSAL_REASON_")
    for name, value in session_service_pb2.RefusalReason.items()
}

FINISHED_OUTCOMES = (fact_pb2.CALL_OUTCOME_ENDED_BY_AGENT, fact_pb2.CALL_OUTCOME_MODEL_FAILED)

MAX_DETAIL_CHARS = 500
"""The most of a worker's text that goes into the log."""

RECONNECT_S = 2.5
"""How long a worker that was lost may be away before it counts as gone: one that was restarted, or
whose network was, is back by then. As long a call waits for a link, too, rather than being told
that all lines are busy; the caller hears nothing meanwhile."""

FAULT = "a fault of the gateway"
"""Why a session was lost whose call met a bug; for the log and the transcript's facts."""

_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 5.0

Stream = grpc.aio.StreamStreamCall[
    session_service_pb2.LinkRequest, session_service_pb2.LinkResponse
]

Arguments = ParamSpec("Arguments")

Frame = tuple[bytes, int, int]
"""Of the caller: payload, media_ms, received_unix_us."""


class LaneListener(Protocol):
    """What a call wants to hear from its session worker. None of it may block.

    ``at`` is when it came: read once for all that one message of the link brings.
    """

    def session_accepted(self, session_writer: str) -> None:
        """A worker took the call; ``session_writer`` names it in the transcript's facts."""

    def session_refused(self, reason: str, at: Instant) -> None:
        """No worker took the call. Nothing follows."""

    def session_lost(self, reason: str, at: Instant) -> None:
        """The link broke. Nothing follows."""

    def session_finished(self, finished: session_service_pb2.CallFinished, at: Instant) -> None:
        """The session is over; what was sent may be played to its end."""

    def agent_audio(
        self, item_id: str, content_index: int, payload: bytes, last: bool, at: Instant
    ) -> None:
        """Audio to be played: base64 text of µ-law; nothing more of this part when ``last``."""

    def interrupted(self, interrupt: session_service_pb2.Interrupt, at: Instant) -> None:
        """The caller speaks: stop playback."""

    def stream_stopped(self, at: Instant) -> None:
        """Twilio told another gateway that the media stream is over."""

    def call_over(self, at: Instant) -> None:
        """Twilio told another gateway that the call is over."""

    def cut(self) -> None:
        """Lose the media stream: what should have ended the call has raised."""


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

    @property
    def size(self) -> int:
        """Bytes of payload."""
        return sum(map(len, self.payloads))

    def fitting(self) -> int:
        """How many of the first frames a message takes when all together are too many."""
        size = 0
        for number, payload in enumerate(self.payloads):
            size += len(payload)
            if size > MESSAGE_BYTES:
                return max(1, number)
        return len(self.calls)

    def clear(self) -> None:
        """Begin anew."""
        self.calls.clear()
        self.payloads.clear()
        self.media_ms.clear()
        self.received_unix_us.clear()

    def take(self, n: int) -> Batch:
        """Remove the first ``n`` frames."""
        taken = Batch(self.begun)
        for name in ("calls", "payloads", "media_ms", "received_unix_us"):
            column = getattr(self, name)
            getattr(taken, name).extend(column[:n])
            del column[:n]
        return taken

    def write_to(self, audio: session_service_pb2.CallerAudio) -> None:
        """Fill a message in place: one given to another's constructor is encoded and decoded.

        Raises:
            Exception: A frame cannot be in a message, or the columns are not of one length. The
                message has some of them then.
        """
        audio.call.extend(self.calls)
        audio.payload.extend(self.payloads)
        audio.media_ms.extend(self.media_ms)
        audio.received_unix_us.extend(self.received_unix_us)
        n = len(self.calls)
        if not n == len(self.payloads) == len(self.media_ms) == len(self.received_unix_us):
            raise ValueError("the columns of a batch are not of one length")


class Lane:
    """One call's way to its session worker, whichever that comes to be.

    Audio given before a worker took the call waits here, bounded like all audio.

    Args:
        listener: The call.
        call_sid: The call's, for the worker.
        stream_sid: The media stream's, for the worker.
        patience_until_s: Until when, by the event loop's clock, a worker is waited for when none
            takes the call.
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
        "kept_bytes",
        "link",
        "listener",
        "outcome",
        "patience_until_s",
        "queued",
        "said",
        "said_in",
        "stream_sid",
        "tried",
    )

    def __init__(
        self,
        listener: LaneListener,
        call_sid: str,
        stream_sid: str,
        *,
        patience_until_s: float = 0.0,
    ) -> None:
        self.listener = listener
        self.call_sid = call_sid
        self.stream_sid = stream_sid
        self.patience_until_s = patience_until_s
        self.tried: set[Link] = set()
        """Links that refused the call."""
        self.link: Link | None = None
        self.handle = 0
        self.accepted = False
        self.batch: Batch | None = None
        """Where frames go at once. None: they wait in `audio`, or nobody takes them."""
        self.audio: deque[Frame] = deque()
        """Frames that cannot go into the next message, oldest first."""
        self.kept_bytes = 0
        """Payload of theirs."""
        self.early: list[session_service_pb2.GatewayControl] = []
        """Control from before a worker took the call: a pressed key, at most a few."""
        self.said = 0
        """Control that waits for the message of the number `said_in`."""
        self.said_in = 0
        self.queued = False
        """Whether the link has it in its round."""
        self.outcome: fact_pb2.CallOutcome.ValueType | None = None
        """Why the call ended; None while it goes on."""
        self.answer_timer: asyncio.TimerHandle | None = None

    def send_audio(self, payload: bytes, media_ms: int, received_unix_us: int) -> bool:
        """Pass a frame of the caller on; False when audio was dropped: this frame, as too long, or
        the oldest that waits."""
        batch, size = self.batch, len(payload)
        if batch is not None and size <= DIRECT_BYTES and batch.has_room_for(self.handle):
            if not batch.calls:
                batch.begun()
            batch.add(self.handle, payload, media_ms, received_unix_us)
            return True
        if size > MAX_FRAME_BYTES:
            return False
        self.audio.append((payload, media_ms, received_unix_us))
        self.kept_bytes += size
        room = True
        while len(self.audio) > KEPT_FRAMES or self.kept_bytes > KEPT_BYTES:
            self.take_waiting()
            room = False
        if not self.queued and self.accepted and self.link is not None:
            self.link.enqueue(self)
        return room

    def take_waiting(self) -> Frame:
        """The oldest frame that waits."""
        frame = self.audio.popleft()
        self.kept_bytes -= len(frame[0])
        return frame

    def send(self, control: session_service_pb2.GatewayControl) -> None:
        """Send control, ahead of audio; what comes before a worker took the call waits for it.
        More than :data:`MAX_CONTROLS` at once are dropped."""
        if self.accepted and self.link is not None:
            control.call = self.handle
            self.link.post_for(self, control)
        elif self.outcome is None and len(self.early) < MAX_CONTROLS:
            self.early.append(control)

    def close(self, outcome: fact_pb2.CallOutcome.ValueType) -> None:
        """The call is over: say so behind its last audio. The listener hears nothing more."""
        if self.outcome is not None:
            return
        self.outcome = outcome
        self.batch = None
        self.early.clear()
        del self.listener  # so that both are freed at once, and not by the garbage collector
        self.stop_answer_timer()
        if self.link is not None:
            self.link.release(self)

    def stop_answer_timer(self) -> None:
        """The answer came, or nobody waits for it any more."""
        if self.answer_timer is not None:
            self.answer_timer.cancel()
            self.answer_timer = None


def in_call(
    lane: Lane, metrics: GatewayMetrics, action: Callable[Arguments, None],
    *args: Arguments.args, **kwargs: Arguments.kwargs,
) -> None:  # fmt: skip
    """Do something in a call. A bug that it meets ends that call, not whoever does it.

    A second one, in its end, is logged, and the call is dropped: the link and the worker know
    nothing more of it then.
    """
    try:
        action(*args, **kwargs)
    except FAULTS as error:
        metrics.link_faults.labels("call").inc()
        report(log.bind(call=lane.call_sid), "fault of one call, which ends", error)
        end_lost(lane, metrics, FAULT)


def end_lost(lane: Lane, metrics: GatewayMetrics, reason: str) -> None:
    """Tell a call that its session is lost; its lane is closed when this returns."""
    if lane.outcome is not None:
        return
    try:
        lane.listener.session_lost(reason, now())
    except FAULTS as error:
        metrics.link_faults.labels("cleanup").inc()
        report(log.bind(call=lane.call_sid), "fault in the end of a call, which is dropped", error)
        guarded(log, lane.listener.cut)
    lane.close(fact_pb2.CALL_OUTCOME_SESSION_LOST)


class Link:
    """The link to one worker.

    Args:
        target: ``host:port`` of the worker.
        metrics: Where to count.
        on_refused: Called with a lane that this worker did not take and why; finds another.
        credentials: What the gateway proves itself with; None: nothing.
        name: What the worker's certificate must be for, when it is not the host in ``target``.
        on_room: Called when the worker has reported that it has room.
    """

    def __init__(
        self,
        target: str,
        metrics: GatewayMetrics,
        on_refused: Callable[[Lane, str], None],
        credentials: Credentials | None = None,
        name: str | None = None,
        on_room: Callable[[Link], None] | None = None,
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
        self._on_room = on_room
        self._lost_at_s: float | None = None
        """When it was lost, if the worker would have taken calls. None: it is up, or never was."""
        self._lanes: dict[int, Lane] = {}
        self._last_handle = 0
        self._control: list[session_service_pb2.GatewayControl] = []
        self._message = 1
        """The number of the message that control waits for."""
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
        self._said_unknown = False
        self._said: str | None = None
        """Why the worker could not be linked, as last logged: a status of gRPC's."""
        self._hurried = asyncio.Event()
        """Somebody waits for the link: no more pauses."""

    @property
    def calls(self) -> int:
        """How many calls it carries."""
        return len(self._lanes)

    @property
    def may_come_back(self) -> bool:
        """It was lost a moment ago with room for calls, and counts as being there still."""
        lost_at_s = self._lost_at_s
        return lost_at_s is not None and self._loop.time() - lost_at_s < RECONNECT_S

    # -- what calls do ---------------------------------------------------------------------

    def open(self, lane: Lane) -> None:
        """Offer a call to the worker. The lane's listener or ``on_refused`` hears the answer."""
        if self.load is None:
            raise AssertionError("only a link that is up is chosen")
        self._last_handle += 1
        offer = session_service_pb2.GatewayControl(
            call=self._last_handle,
            open_call=session_service_pb2.OpenCall(
                call_sid=lane.call_sid, stream_sid=lane.stream_sid
            ),
        )
        lane.link, lane.handle, lane.accepted = self, self._last_handle, False
        lane.said = lane.said_in = 0
        self._lanes[lane.handle] = lane
        self.load = replace(self.load, given_since=self.load.given_since + 1)
        self.post(offer)
        lane.answer_timer = self._loop.call_later(
            OPEN_ANSWER_S, in_call, lane, self._metrics, self._unanswered, lane
        )

    def post(self, control: session_service_pb2.GatewayControl) -> None:
        """Send control at once."""
        self._control.append(control)
        self._wake.set()

    def post_for(self, lane: Lane, control: session_service_pb2.GatewayControl) -> None:
        """Send a call's control at once, unless too much of it waits already."""
        if lane.said_in != self._message:
            lane.said_in, lane.said = self._message, 0
        lane.said += 1
        if lane.said <= MAX_CONTROLS and control.ByteSize() <= MAX_CONTROL_BYTES:
            self.post(control)
            return
        self._metrics.link_controls_dropped.inc()
        if control.WhichOneof("body") != "key_pressed":
            # The worker would wait in vain. Not here: the call is in the middle of something.
            reason = "its worker does not take what it says"
            self._loop.call_soon(end_lost, lane, self._metrics, reason)

    def announce(self, stopped: session_service_pb2.StreamStopped) -> None:
        """Pass on that a media stream is over, to a worker that may have its call."""
        if self.load is not None and len(self._control) < MAX_ANNOUNCED:
            self.post(session_service_pb2.GatewayControl(stream_stopped=stopped))

    def hurry(self) -> None:
        """Somebody waits for this link: try again soon if it is down."""
        if self.load is None:
            self._hurried.set()

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
        try:
            while True:
                reason = await self._connect()
                if self.load is not None:
                    retry_s = _FIRST_RETRY_S
                if reason.startswith(REFUSED):
                    retry_s = _LAST_RETRY_S  # until somebody mends a secret
                try:
                    self._lose(reason)
                except Exception:
                    self._fault("a lost link was not taken leave of in order")
                if self.retired:
                    return
                retry_s = await self._pause(retry_s)
        finally:
            self._finished.set()

    async def _connect(self) -> str:
        """One connection, until it ends, whatever by; why it did."""
        try:
            reason = await self._serve()
        except (grpc.aio.AioRpcError, TimeoutError, asyncio.InvalidStateError) as error:
            reason = _reason(error)
        except asyncio.CancelledError:
            reason = FAULT  # it is the stream that was cancelled, unless it is the task, below
        except Exception:
            reason = FAULT
            self._fault("fault of a link, which reconnects")
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # gRPC swallows a cancellation that comes while it opens the stream.
            raise asyncio.CancelledError
        return reason

    async def _pause(self, retry_s: float) -> float:
        """Wait before the next attempt; how long to wait before the one after it."""
        # Half of it random, so that many gateways do not come back in step.
        await asyncio.sleep(_FIRST_RETRY_S * random.uniform(0.5, 1.0))
        try:
            async with asyncio.timeout((retry_s - _FIRST_RETRY_S) * random.uniform(0.5, 1.0)):
                await self._hurried.wait()
        except TimeoutError:
            return min(2 * retry_s, _LAST_RETRY_S)
        self._hurried.clear()
        return 2 * _FIRST_RETRY_S

    def _fault(self, event: str) -> None:
        self._metrics.link_faults.labels("link").inc()
        log.exception(event, target=self.target)

    async def _serve(self) -> str:
        """Run one connection; why it ended."""
        # A new channel each time: an old one would keep to its own, much longer backoff.
        connecting = channel(self.target, LINK, credentials=self._credentials, name=self._name)
        async with connecting as connection:
            stream = session_service_pb2_grpc.SessionServiceStub(connection).Link(
                metadata=self._credentials.metadata
            )
            writer = asyncio.create_task(self._write(stream), name=f"link to {self.target}")

            def broken(written: asyncio.Task[None]) -> None:
                # Without a writer there is no link, and the reader would not notice.
                if not written.cancelled() and (error := written.exception()) is not None:
                    self._metrics.link_faults.labels("link").inc()
                    log.error("fault in writing to a link", target=self.target, exc_info=error)
                    stream.cancel()

            writer.add_done_callback(broken)
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
                try:
                    request = self._next_message()
                except FAULTS:
                    self._fault("fault in making a message, which is lost")
                    continue
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
        request = session_service_pb2.LinkRequest(control=self._take_control())
        if self._control:  # it goes ahead of audio
            self._wake.set()
            return request
        size = batch.size
        if size > MESSAGE_BYTES:
            self._wake.set()
            self._write_audio(batch.take(batch.fitting()), request)
            return request
        while waiting and len(batch.calls) < BATCH_FRAMES and size < MESSAGE_BYTES:
            lane = waiting.popleft()
            for _ in range(min(len(lane.audio), BATCH_FRAMES - len(batch.calls), TURN_FRAMES)):
                frame = lane.take_waiting()
                batch.add(lane.handle, *frame)
                size += len(frame[0])
                if size >= MESSAGE_BYTES:
                    break
            if lane.audio:
                waiting.append(lane)
                continue
            lane.queued = False
            if lane.outcome is None:
                lane.batch = batch
            else:
                self._post_close(lane.handle, lane.outcome)
        if waiting or self.retired:
            self._wake.set()
        if batch.calls:
            self._write_audio(batch, request)
        return request

    def _take_control(self) -> list[session_service_pb2.GatewayControl]:
        """As much control as a message takes."""
        control, size = self._control, 0
        for number, one in enumerate(control):
            size += one.ByteSize()
            if size > MESSAGE_BYTES and number:
                self._control = control[number:]
                return control[:number]
        self._control = []
        self._message += 1
        return control

    def _write_audio(self, batch: Batch, request: session_service_pb2.LinkRequest) -> None:
        """Move a batch into a message. What cannot be in one ends the call that it is of."""
        try:
            batch.write_to(request.caller_audio)
        except Exception:
            self._fault("frames that cannot be in a message")
            request.ClearField("caller_audio")
            self._write_singly(batch, request.caller_audio)
        batch.clear()

    def _write_singly(self, batch: Batch, audio: session_service_pb2.CallerAudio) -> None:
        columns = batch.calls, batch.payloads, batch.media_ms, batch.received_unix_us
        lengths = [len(column) for column in columns]
        if min(lengths) < max(lengths):
            self._metrics.caller_frames_dropped.inc(max(lengths))
            return  # nobody knows whose is whose
        bad: set[int] = set()
        for handle, payload, media_ms, received_unix_us in zip(*columns, strict=True):
            if handle in bad:
                continue
            try:
                one = session_service_pb2.CallerAudio(
                    call=[handle], payload=[payload], media_ms=[media_ms],
                    received_unix_us=[received_unix_us],
                )  # fmt: skip
            except Exception:
                bad.add(handle)
                self._metrics.caller_frames_dropped.inc()
            else:
                audio.MergeFrom(one)
        for handle in bad:
            lane = self._lanes.get(handle)
            if lane is not None:
                self._loop.call_soon(end_lost, lane, self._metrics, FAULT)

    def _post_close(self, handle: int, outcome: fact_pb2.CallOutcome.ValueType) -> None:
        self.post(
            session_service_pb2.GatewayControl(
                call=handle, close_call=session_service_pb2.CloseCall(outcome=outcome)
            )
        )

    def _dispatch(self, response: session_service_pb2.LinkResponse) -> None:
        at = now()
        for control in response.control:
            if control.WhichOneof("body") == "load_report":
                try:
                    self._take_report(control.load_report)
                except FAULTS:
                    self._fault("fault in taking a load report")
                continue
            lane = self._lanes.get(control.call)
            if lane is not None:  # else the call ended while the message was under way
                in_call(lane, self._metrics, self._control_for, lane, control, at)
        for audio in response.agent_audio:
            lane = self._lanes.get(audio.call)
            if lane is not None:
                in_call(
                    lane,
                    self._metrics,
                    lane.listener.agent_audio,
                    audio.item_id,
                    audio.content_index,
                    audio.payload,
                    audio.last,
                    at,
                )

    def _control_for(
        self, lane: Lane, control: session_service_pb2.SessionControl, at: Instant
    ) -> None:
        match control.WhichOneof("body"):
            case "call_accepted":
                lane.stop_answer_timer()
                lane.accepted = True
                early, lane.early = lane.early, []
                for control_before in early:
                    lane.send(control_before)
                if not lane.audio:
                    lane.batch = self.batch
                elif not lane.queued:
                    self.enqueue(lane)
                lane.listener.session_accepted(control.call_accepted.session_writer)
            case "call_refused":
                refused = control.call_refused
                reason = REFUSAL_REASONS.get(refused.reason, "UNKNOWN_REASON")
                self._refuse(lane, f"{reason} {refused.detail[:MAX_DETAIL_CHARS]}")
            case "interrupt":
                lane.listener.interrupted(control.interrupt, at)
            case "call_finished":
                finished = control.call_finished
                finished.detail = finished.detail[:MAX_DETAIL_CHARS]
                if finished.outcome not in FINISHED_OUTCOMES:  # a worker of another version
                    finished.outcome = fact_pb2.CALL_OUTCOME_MODEL_FAILED
                lane.listener.session_finished(finished, at)
            case "stream_stopped" if control.stream_stopped.stream_sid:
                lane.listener.stream_stopped(at)
            case "stream_stopped":
                lane.listener.call_over(at)
            case _ if not self._said_unknown:
                self._said_unknown = True
                log.warning("unknown control from a session worker", target=self.target)
            case _:
                pass

    def _take_report(self, report: session_service_pb2.LoadReport) -> None:
        if self.load is None:
            log.info("session worker linked", target=self.target, max_calls=report.max_calls)
            self._said = None
            self._lost_at_s = None
            self._hurried.clear()
            self._metrics.links_up.inc()
        self.load = WorkerLoad(
            active_calls=report.active_calls,
            max_calls=max(1, report.max_calls),
            event_loop_lag_us=report.event_loop_lag_us,
            draining=report.draining,
        )
        if self._on_room is not None and self.load.has_room and not self.retired:
            self._on_room(self)

    def _refuse(self, lane: Lane, reason: str) -> None:
        lane.stop_answer_timer()
        self._lanes.pop(lane.handle, None)
        lane.link = None
        lane.tried.add(self)
        self._on_refused(lane, reason)

    def _unanswered(self, lane: Lane) -> None:
        lane.answer_timer = None
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
        if self.load is not None:
            self._lost_at_s = None if self.load.draining else self._loop.time()
        self.load = None
        self._lanes.clear()
        self._control.clear()
        for waiting in self._round:
            waiting.queued = False
        self._round.clear()
        self.batch.clear()
        for lane in lanes:
            lane.link = lane.batch = None
        for lane in lanes:
            if lane.outcome is not None:
                continue  # by what another one did
            if lane.accepted:
                lane.accepted = False
                end_lost(lane, self._metrics, reason)
            else:
                in_call(lane, self._metrics, self._refuse, lane, reason)


def _reason(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    if isinstance(error, TimeoutError):
        return "no load report"
    return str(error)
